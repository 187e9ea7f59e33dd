"""Where advantages are registered that need more than one reward per sample.

The trait ``needs`` lists what a call takes beyond rewards, groups, mask and penalties.
"""

from llmalign.verifiers.registry import Registry

STRUCTURED_ADVANTAGES = Registry("structured advantage")
