"""Losses: tensors in, loss per token or per pair out. Pure functions; the caller sums and weights.

    policy      f(logp_BT, logp_old_BT, adv_BT, mask_BT, **options) -> (loss_BT, statistics)
    preference  f(chosen_logp_N, rejected_logp_N, ref_chosen_logp_N, ref_rejected_logp_N,
                  chosen_len_N, rejected_len_N, **options) -> (loss_N, statistics)
    supervised  f(logp_BT, mask_BT, **options) -> loss_BT

Further tensors a loss asks for by the names of its positional parameters (see ``llmalign.inputs``).
Its traits say what else it needs: ``whole_groups`` and ``whole_batch`` that the rows of a group, or
of an optimizer step, go through the model together; ``every_row`` that rows of advantage 0 count
too; ``aggregates`` which weights make sense.

A loss per token is 0 outside the mask and reads nothing there. Because no loss normalises itself,
policy, KL and entropy terms share one set of weights, ``aggregate.sequence_weights``.
"""

from llmalign.losses.aggregate import sequence_weights
from llmalign.losses.kl import kl_penalty
from llmalign.losses.policy.asft import asft, dft, sft_kl
from llmalign.losses.policy.cispo import cispo
from llmalign.losses.policy.clipped import clipped
from llmalign.losses.policy.cov import clip_cov, kl_cov
from llmalign.losses.policy.gmpo import gmpo
from llmalign.losses.policy.gspo import gspo, gspo_token
from llmalign.losses.policy.imitation import raft, superhf
from llmalign.losses.policy.luspo import luspo
from llmalign.losses.policy.pacs import pacs
from llmalign.losses.policy.ratio_norm import ratio_norm
from llmalign.losses.policy.reinforce import reinforce
from llmalign.losses.policy.sapo import sapo
from llmalign.losses.policy.stable_reinforce import stable_reinforce
from llmalign.losses.policy.trajectory_balance import subtrajectory_balance, trajectory_balance
from llmalign.losses.policy.vespo import vespo
from llmalign.losses.preference.dpo import sigmoid
from llmalign.losses.preference.ipo import ipo
from llmalign.losses.registry import LOSSES
from llmalign.losses.supervised import sft

__all__ = [
    "LOSSES",
    "asft",
    "cispo",
    "clip_cov",
    "clipped",
    "dft",
    "gmpo",
    "gspo",
    "gspo_token",
    "ipo",
    "kl_cov",
    "kl_penalty",
    "luspo",
    "pacs",
    "raft",
    "ratio_norm",
    "reinforce",
    "sapo",
    "sequence_weights",
    "sft",
    "sft_kl",
    "sigmoid",
    "stable_reinforce",
    "subtrajectory_balance",
    "superhf",
    "trajectory_balance",
    "vespo",
]
