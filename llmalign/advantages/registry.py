"""Where advantages are registered; apart from the package, so that they can import it."""

from llmalign.verifiers.registry import Registry

ADVANTAGES = Registry("advantage")
