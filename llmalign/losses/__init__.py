"""Losses: tensors in, loss per token or per pair out. Pure functions; the caller sums and weights.

    policy      f(logp_BT, logp_old_BT, adv_BT, mask_BT, **options) -> (loss_BT, statistics)
    preference  f(chosen_logp_N, rejected_logp_N, ref_chosen_logp_N, ref_rejected_logp_N,
                  chosen_len_N, rejected_len_N, **options) -> (loss_N, statistics)
    supervised  f(logp_BT, mask_BT, **options) -> loss_BT

A loss per token is 0 outside the mask and reads nothing there. Because no loss normalises itself,
policy, KL and entropy terms share one set of weights, ``aggregate.sequence_weights``.
"""

from llmalign.losses.aggregate import sequence_weights
from llmalign.losses.kl import kl_penalty
from llmalign.losses.policy.clipped import clipped
from llmalign.losses.policy.reinforce import reinforce
from llmalign.losses.preference.dpo import sigmoid
from llmalign.losses.preference.ipo import ipo
from llmalign.losses.registry import LOSSES
from llmalign.losses.supervised import sft

__all__ = [
    "LOSSES",
    "clipped",
    "ipo",
    "kl_penalty",
    "reinforce",
    "sequence_weights",
    "sft",
    "sigmoid",
]
