"""Identity preference optimisation."""

from torch import Tensor

from llmalign.losses.preference.pair import PreferenceStats, log_ratios, preference_stats
from llmalign.losses.registry import LOSSES


@LOSSES.register(
    "ipo",
    paper="Azar et al. 2023 (IPO), arXiv:2310.12036",
    traits={"stage": "preference", "reference": True},
    beta=0.1,
)
def ipo(
    chosen_logp_N: Tensor,
    rejected_logp_N: Tensor,
    ref_chosen_logp_N: Tensor,
    ref_rejected_logp_N: Tensor,
    chosen_len_N: Tensor,
    rejected_len_N: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, PreferenceStats]:
    """Squared distance of the log-ratio gap from 1 / (2 beta) (IPO).

        h    = (logp - logp_ref) / length       of the chosen and of the rejected answer
        loss = (h_chosen - h_rejected - 1 / (2 * beta))^2

    The paper writes no division by length; TRL divides and says the authors confirmed it. It makes
    beta one per nat and token.

    Args: as ``sigmoid`` of ``dpo``; chosen_len_N, rejected_len_N: tokens of the answers, 0 counts
        as 1.
        beta: strength of the tie to the reference, > 0: the gap aimed at is 1 / (2 beta).
    Returns: loss_N in square nats per token, neither summed nor weighted; and its statistics, of
        beta * h.
    Raises: ValueError: a shape is off, or beta is not > 0.
    Source: Azar et al. 2023, arXiv:2310.12036, eq. 17, on length-averaged log-ratios.
    """
    chosen_N, rejected_N = log_ratios(
        chosen_logp_N,
        rejected_logp_N,
        ref_chosen_logp_N,
        ref_rejected_logp_N,
        chosen_len_N,
        rejected_len_N,
        beta=beta,
    )
    chosen_N = chosen_N / chosen_len_N.clamp(min=1)
    rejected_N = rejected_N / rejected_len_N.clamp(min=1)
    loss_N = (chosen_N - rejected_N - 1 / (2 * beta)) ** 2
    return loss_N, preference_stats(beta * chosen_N, beta * rejected_N)
