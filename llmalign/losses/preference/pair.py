"""What all pair losses share: the log-ratios of both answers, checks and statistics."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PreferenceStats:
    """Detached sums over pairs, so that parts add up; divide by the number of pairs. Scalars.

    Attributes:
        margin: chosen minus rejected implicit reward.
        accuracy: 1 for each pair whose margin is > 0.
        chosen_reward: implicit reward of the chosen answers, in units of beta * nats.
        rejected_reward: the same of the rejected ones. Both falling while the margin grows is
            likelihood displacement.
    """

    margin: Tensor
    accuracy: Tensor
    chosen_reward: Tensor
    rejected_reward: Tensor


def preference_stats(chosen_reward_N: Tensor, rejected_reward_N: Tensor) -> PreferenceStats:
    """Statistics of implicit rewards [N]."""
    chosen_N, rejected_N = chosen_reward_N.detach(), rejected_reward_N.detach()
    margin_N = chosen_N - rejected_N
    return PreferenceStats(
        margin=margin_N.sum(),
        accuracy=(margin_N > 0).sum(),
        chosen_reward=chosen_N.sum(),
        rejected_reward=rejected_N.sum(),
    )


def log_ratios(
    chosen_logp_N: Tensor,
    rejected_logp_N: Tensor,
    ref_chosen_logp_N: Tensor,
    ref_rejected_logp_N: Tensor,
    chosen_len_N: Tensor,
    rejected_len_N: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Checked inputs -> policy over reference, in nats, of the (chosen, rejected) answers [N].

    Raises: ValueError: a shape is off, or beta is not > 0.
    """
    logps = {
        "chosen_logp_N": chosen_logp_N,
        "rejected_logp_N": rejected_logp_N,
        "ref_chosen_logp_N": ref_chosen_logp_N,
        "ref_rejected_logp_N": ref_rejected_logp_N,
    }
    lengths = {"chosen_len_N": chosen_len_N, "rejected_len_N": rejected_len_N}
    shape = tuple(chosen_logp_N.shape)
    for name, tensor in {**logps, **lengths}.items():
        if tensor.dim() != 1 or tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, expected (N,) like chosen_logp_N, "
                f"which has {shape}"
            )
    if not beta > 0:
        raise ValueError(f"beta is {beta!r}, expected > 0")
    return (
        chosen_logp_N - ref_chosen_logp_N.detach(),
        rejected_logp_N - ref_rejected_logp_N.detach(),
    )
