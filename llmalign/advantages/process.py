"""Step rewards of a process reward model in, advantages out: the sum form and the min form.

Shape letters: B samples, T response tokens, K steps (padded, see ``steps``).
"""

from typing import Literal

import torch
from torch import Tensor

from llmalign.advantages.batch_whitened import discounted_returns, is_last, whitened
from llmalign.advantages.groups import group_statistics
from llmalign.advantages.registry import ADVANTAGES
from llmalign.advantages.steps import (
    bounds_by,
    check_steps,
    steps_to_tokens,
    suffix_sum,
    sum_by,
    tokens_per_step,
)

StepBaseline = Literal["token", "step"]


@ADVANTAGES.register(
    "process_sum",
    paper="Shao et al. 2024 (GRPO with process supervision), arXiv:2402.03300",
    eps=1e-6,
    ddof=1,
)
def process_sum(
    step_reward_BK: Tensor,
    step_end_BK: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    *,
    eps: float,
    ddof: int,
) -> Tensor:
    """Normalised rewards of a token's step and of all later ones, summed (GRPO, process form).

        n_k = (r_k - mean) / (std + eps)         over all steps of all samples of the group
        A_t = sum of n_k over the steps k that end at or after t

    The sum grows with the number of steps, so a response can raise it by adding easy ones.

    Args:
        step_reward_BK: reward of each step, any unit; NaN where nobody could score it: it then
            adds nothing and leaves mean and std.
        step_end_BK: int64, index of each step's last token, growing; -1: no such step.
        group_B: int64 group index from 0.
        mask_BT: bool, True for tokens the policy itself wrote.
        eps: added to the std, > 0.
        ddof: 1 divides squared deviations by n - 1, 0 by n; the paper does not say.
    Returns: adv_BT float64, in standard deviations; 0 behind the last step. A group whose step
        rewards are all equal has advantage exactly 0, found by comparing them.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Shao et al. 2024, arXiv:2402.03300, section 4.1.3.
    """
    step_BK = normalised_steps(step_reward_BK, step_end_BK, group_B, eps=eps, ddof=ddof)
    return steps_to_tokens(suffix_sum(step_BK), step_end_BK, mask_BT)


def normalised_steps(
    step_reward_BK: Tensor, step_end_BK: Tensor, group_B: Tensor, *, eps: float, ddof: int
) -> Tensor:
    """Step rewards minus the mean over all steps of the group, over std + eps; as ``process_sum``.

    Returns: float64 [B, K], 0 where there is no scored step.
    """
    check_steps(step_reward_BK, step_end_BK, group_B)
    if not eps > 0:
        raise ValueError(f"eps is {eps!r}, expected > 0; rounding noise would become an advantage")
    if ddof not in (0, 1):
        raise ValueError(f"ddof is {ddof!r:.80}, expected 0 or 1")
    counts_BK, reward_BK = _scored(step_reward_BK, step_end_BK)
    index_N = group_B[:, None].expand_as(reward_BK).reshape(-1)
    reward_N, counts_N = reward_BK.reshape(-1), counts_BK.reshape(-1)
    num_N = sum_by(counts_N.double(), index_N)
    centred_N = reward_N - sum_by(reward_N, index_N) / num_N.clamp(min=1)
    low_N, high_N = bounds_by(reward_N, counts_N, index_N)
    centred_N = torch.where(counts_N & (high_N > low_N), centred_N, 0.0)
    std_N = (sum_by(centred_N**2, index_N) / (num_N - ddof).clamp(min=1)).sqrt()
    return (centred_N / (std_N + eps)).reshape(reward_BK.shape)


def soft_min_credit(
    step_reward_BK: Tensor, step_end_BK: Tensor, *, temperature: float | None
) -> Tensor:
    """Step rewards weighted so that their sum is nearly their minimum (PURE).

        w_k = softmax(-r / temperature) over the steps of a response      credit_k = w_k * r_k
        w_k = 1 / (number of steps)                                       temperature None

    A response is worth its worst step, so that padding with easy steps gains nothing. Without a
    temperature the sum is the mean of the step rewards, as in the released code.

    Args: step_reward_BK, step_end_BK: as ``process_sum``; PURE uses p_good - p_bad, in [-1, 1].
        temperature: > 0, in units of reward; None: all steps weigh alike.
    Returns: float64 [B, K]; a response without a scored step has credit 0, not NaN.
    Raises: ValueError: the temperature is not positive.
    Source: Cheng et al. 2025 (PURE), arXiv:2504.15275.
    """
    if temperature is not None and not temperature > 0:
        raise ValueError(f"temperature is {temperature!r}, expected > 0 or None")
    counts_BK, reward_BK = _scored(step_reward_BK, step_end_BK)
    score_BK = torch.zeros_like(reward_BK) if temperature is None else -reward_BK / temperature
    score_BK = torch.where(counts_BK, score_BK, -torch.inf)
    some_B1 = counts_BK.any(1, keepdim=True)
    weight_BK = torch.where(some_B1, score_BK, 0.0).softmax(1)
    return torch.where(counts_BK, weight_BK * reward_BK, 0.0)


@ADVANTAGES.register(
    "pure",
    paper="Cheng et al. 2025 (PURE), arXiv:2504.15275",
    temperature=0.1,
    baseline="token",
    outcome_coef=1.0,
    gamma=1.0,
    whiten=True,
    eps=1e-8,
)
def pure(
    reward_B: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    penalty_BT: Tensor,
    step_reward_BK: Tensor,
    step_end_BK: Tensor,
    *,
    temperature: float | None,
    baseline: StepBaseline,
    outcome_coef: float,
    gamma: float,
    whiten: bool,
    eps: float,
) -> Tensor:
    """Return-to-go of min-form step credit and the outcome, each minus the other samples' (PURE).

        r_t = penalty_t + ``pure_token_rewards``_t
        A_t = sum_{s >= t} gamma^(s - t) r_s, whitened over all tokens of the batch if ``whiten``

    A sample with neither a reward nor a scored step counts for nothing and has advantage 0; a step
    without a score among scored ones has credit 0.

    Args: reward_B, group_B, mask_BT, penalty_BT: as ``group``; the reward is the verifier's.
        step_reward_BK, step_end_BK: as ``process_sum``.
        temperature: as ``soft_min_credit``. baseline, outcome_coef: as ``pure_token_rewards``.
        gamma: discount per token, in [0, 1].
        whiten: whether mean and std of the tokens are taken out. eps: added to the variance, > 0.
    Returns: adv_BT float64, in standard deviations, or in units of reward where not ``whiten``.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Cheng et al. 2025 (PURE), arXiv:2504.15275; whitening as in its verl branch.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma is {gamma!r}, expected a number in [0, 1]")
    if not eps > 0:
        raise ValueError(f"eps is {eps!r}, expected > 0; rounding noise would become an advantage")
    scored_B1 = _scored(step_reward_BK, step_end_BK)[0].any(1, keepdim=True)
    step_end_BK = torch.where(scored_B1, step_end_BK, -1)
    credit_BK = soft_min_credit(step_reward_BK, step_end_BK, temperature=temperature)
    token_BT = pure_token_rewards(
        reward_B, group_B, mask_BT, credit_BK, step_end_BK,
        baseline=baseline, outcome_coef=outcome_coef,
    )  # fmt: skip
    counts_BT = mask_BT & (scored_B1 | ~reward_B.isnan()[:, None])
    token_BT = token_BT + torch.where(counts_BT, penalty_BT.detach().double(), 0.0)
    return_BT = discounted_returns(token_BT, counts_BT, gamma=gamma)
    return whitened(return_BT, counts_BT, eps) if whiten else return_BT


def pure_token_rewards(
    reward_B: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    credit_BK: Tensor,
    step_end_BK: Tensor,
    *,
    baseline: StepBaseline,
    outcome_coef: float,
) -> Tensor:
    """Step credit and outcome, each minus what the group's other samples got, on single tokens.

        token: credit_k - tokens(step k) * sum_{j != i} credit_j / sum_{j != i} tokens_j
        step:  credit_k - mean_{j != i} (sum of credit_j / steps_j)
        last token under the mask: + outcome_coef * (R_i - mean_{j != i} R_j)

    The first stands on each step's last token. A sample without a step leaves that baseline, one
    without a companion has 0. ``step`` favours fewer and longer steps, says the paper.

    Args: reward_B, group_B, mask_BT, step_end_BK: as ``pure``; a NaN reward gives no outcome term.
        credit_BK: what ``soft_min_credit`` returned.
        baseline: see above. outcome_coef: weight of the outcome, >= 0.
    Returns: float64 [B, T], 0 outside the mask.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Cheng et al. 2025 (PURE), arXiv:2504.15275; OpenRLHF branch of its code. Tokens are
        counted under the mask, where the verl branch divides by the padded length.
    """
    if baseline not in ("token", "step"):
        raise ValueError(f"baseline is {baseline!r:.80}, expected 'token' or 'step'")
    if not outcome_coef >= 0:
        raise ValueError(f"outcome_coef is {outcome_coef!r}, expected >= 0")
    check_steps(credit_BK, step_end_BK, group_B)
    stats = group_statistics(reward_B, group_B, mask_BT, torch.zeros_like(mask_BT).double())
    outcome_B = stats.centred_B("zero") * stats.count_B / (stats.count_B - 1).clamp(min=1)
    tokens_BK = tokens_per_step(step_end_BK, mask_BT)
    some_B = (tokens_BK > 0).any(1)
    credit_BK = torch.where(step_end_BK >= 0, credit_BK.detach().double(), 0.0)
    if baseline == "token":
        base_B = _of_others(credit_BK.sum(1), tokens_BK.sum(1), group_B)
        base_BK = base_B[:, None] * tokens_BK
    else:
        steps_B = (step_end_BK >= 0).sum(1).double()
        mean_B = credit_BK.sum(1) / steps_B.clamp(min=1)
        base_BK = _of_others(mean_B, some_B.double(), group_B)[:, None].expand_as(credit_BK)
    paid_BK = (step_end_BK >= 0) & some_B[:, None] & (sum_by(some_B.double(), group_B) > 1)[:, None]
    value_BK = torch.where(paid_BK, credit_BK - base_BK, 0.0)
    # Absent steps stand at token 0 with value 0.
    token_BT = torch.zeros(mask_BT.shape, dtype=torch.float64, device=mask_BT.device)
    token_BT = token_BT.scatter_add(1, step_end_BK.clamp(min=0), value_BK)
    return token_BT + is_last(mask_BT) * (outcome_coef * outcome_B)[:, None]


@ADVANTAGES.register(
    "process_min",
    paper="Cheng et al. 2025 (PURE, strict min form), arXiv:2504.15275",
)
def process_min(
    step_reward_BK: Tensor, step_end_BK: Tensor, group_B: Tensor, mask_BT: Tensor
) -> Tensor:
    """Worst of a token's step and all later ones, minus the other samples' mean (strict min form).

        V_t = min of r_k over the steps k that end at or after t
        A_t = V_t - mean_{j != i} (mean of V_j over the tokens of j's steps)

    Args: step_reward_BK, step_end_BK, group_B, mask_BT: as ``process_sum``.
    Returns: adv_BT float64, in units of reward; 0 behind the last scored step, and for a sample
        without a companion that has a scored step.
    Raises: TypeError, ValueError: a shape or dtype is off.
    Source: Cheng et al. 2025 (PURE), arXiv:2504.15275. The verl branch of its code also takes the
        zeros between step ends into the minimum, and divides by the padded length.
    """
    check_steps(step_reward_BK, step_end_BK, group_B)
    counts_BK, reward_BK = _scored(step_reward_BK, step_end_BK)
    ahead_BK = torch.where(counts_BK, reward_BK, torch.inf).flip(1).cummin(1).values.flip(1)
    some_BK = ahead_BK < torch.inf
    value_BT = steps_to_tokens(torch.where(some_BK, ahead_BK, 0.0), step_end_BK, mask_BT)
    there_BT = steps_to_tokens(some_BK.double(), step_end_BK, mask_BT) > 0
    mean_B = value_BT.sum(1) / there_BT.sum(1).clamp(min=1)
    some_B = there_BT.any(1)
    base_B = _of_others(mean_B, some_B.double(), group_B)
    compared_B = sum_by(some_B.double(), group_B) > 1
    return torch.where(there_BT & compared_B[:, None], value_BT - base_B[:, None], 0.0)


def _of_others(sum_B: Tensor, count_B: Tensor, group_B: Tensor) -> Tensor:
    """Sum over the group's other samples, over their count; 0 where they count nothing."""
    others_B = sum_by(count_B, group_B) - count_B
    return (sum_by(sum_B, group_B) - sum_B) / torch.where(others_B > 0, others_B, torch.inf)


def _scored(step_reward_BK: Tensor, step_end_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Which steps are there and scored, and their rewards in float64, 0 elsewhere."""
    counts_BK = (step_end_BK >= 0) & ~step_reward_BK.isnan()
    return counts_BK, torch.where(counts_BK, step_reward_BK.detach().double(), 0.0)
