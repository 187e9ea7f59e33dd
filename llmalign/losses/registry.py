"""Where losses are registered; apart from the package, so that they can import it.

The trait ``stage`` says how a loss is called: ``policy``, ``preference`` or ``supervised``.
"""

from llmalign.verifiers.registry import Registry

LOSSES = Registry("loss")
