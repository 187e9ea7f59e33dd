"""Token weights: what a token's loss counts for. Pure functions on tensors.

    f(*signals, mask_BT, **options) -> weight_BT

Signals (entropies, attention maps, spans) are asked for by the names of the positional parameters,
see ``llmalign.inputs``. The result is float64, detached, and 0 wherever the mask is False. Weights
multiply a token's advantage, only where it is not negative with the trait ``only_positive``, and a
token of weight 0 leaves the loss; they never enter the statistics of the advantages.
"""

from llmalign.token_weights.attention import (
    attention,
    attention_coupled,
    backward_distance,
    credited,
    distance_change,
    far_and_near_heads,
    future_influence,
)
from llmalign.token_weights.entropy import entropy_band, entropy_threshold, fork, high_entropy
from llmalign.token_weights.registry import TOKEN_WEIGHTS
from llmalign.token_weights.shared_prefix import shared_prefix
from llmalign.token_weights.spans import spans

__all__ = [
    "TOKEN_WEIGHTS",
    "attention",
    "attention_coupled",
    "backward_distance",
    "credited",
    "distance_change",
    "entropy_band",
    "entropy_threshold",
    "far_and_near_heads",
    "fork",
    "future_influence",
    "high_entropy",
    "shared_prefix",
    "spans",
]
