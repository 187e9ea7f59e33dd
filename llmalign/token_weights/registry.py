"""Where token weights are registered; apart from the package, so that they can import it.

The trait ``needs`` names what a call takes beside the mask.
"""

from llmalign.verifiers.registry import Registry

TOKEN_WEIGHTS = Registry("token weight")
