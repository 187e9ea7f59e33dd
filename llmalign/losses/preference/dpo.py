"""Direct preference optimisation."""

import torch.nn.functional as F
from torch import Tensor

from llmalign.losses.preference.pair import PreferenceStats, log_ratios, preference_stats
from llmalign.losses.registry import LOSSES


@LOSSES.register(
    "dpo",
    paper="Rafailov et al. 2023 (DPO), arXiv:2305.18290",
    traits={"stage": "preference", "reference": True},
    beta=0.1,
    label_smoothing=0.0,
)
def sigmoid(
    chosen_logp_N: Tensor,
    rejected_logp_N: Tensor,
    ref_chosen_logp_N: Tensor,
    ref_rejected_logp_N: Tensor,
    chosen_len_N: Tensor,
    rejected_len_N: Tensor,
    *,
    beta: float,
    label_smoothing: float,
) -> tuple[Tensor, PreferenceStats]:
    """Negative log-likelihood of each preference under Bradley-Terry (DPO; cDPO when smoothed).

        z    = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
        loss = -(1 - e) * log sigmoid(z) - e * log sigmoid(-z)      e = label_smoothing

    The smoothing is honoured, unlike by TRL 1.16 with its loss of the same name.

    Args:
        chosen_logp_N: log-probability of the whole chosen answer under the policy (sum over its
            tokens), in nats; carries the gradient. rejected_logp_N likewise.
        ref_chosen_logp_N: the same under the frozen reference; no gradient. ref_rejected_logp_N
            likewise.
        chosen_len_N, rejected_len_N: tokens of the answers; play no part here.
        beta: strength of the tie to the reference, per nat, > 0.
        label_smoothing: assumed share of swapped labels, in [0, 0.5).
    Returns: loss_N in nats, neither summed nor weighted; and its statistics.
    Raises: ValueError: a shape is off, or an option lies outside its range.
    Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 7; smoothing: Mitchell 2023, A note on DPO
        with noisy preferences.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(
            f"label_smoothing is {label_smoothing!r}, expected a number in [0, 0.5); "
            "from 0.5 on the labels say nothing or the opposite"
        )
    chosen_N, rejected_N = log_ratios(
        chosen_logp_N,
        rejected_logp_N,
        ref_chosen_logp_N,
        ref_rejected_logp_N,
        chosen_len_N,
        rejected_len_N,
        beta=beta,
    )
    z_N = beta * (chosen_N - rejected_N)
    loss_N = -(1 - label_smoothing) * F.logsigmoid(z_N) - label_smoothing * F.logsigmoid(-z_N)
    return loss_N, preference_stats(beta * chosen_N, beta * rejected_N)
