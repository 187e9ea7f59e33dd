"""Turning points: the step at which a response turns towards its final value is paid for it.

Shape letters: B samples, N steps; a prefix value stands before the first step and behind each.
"""

from typing import Literal

import torch
from torch import Tensor

Main = Literal["step", "total"]
Bonus = Literal["step", "total", "remaining"]


def turning_points(value_BS: Tensor, final_B: Tensor, *, consistent: bool, first: bool) -> Tensor:
    """Which steps turn the prefix value into the direction of the whole response, bool [B, N].

        d_t  = V_t - V_{t-1}      s_t = sign(d_t) * sign(V_final - V_0)
        turn = s_{t-1} < 0 and s_t > 0                               t > 1
        turn = sign(d_1) * sign(V_final - V_1) > 0, if ``first``     t = 1
        and sign(d_t) * sign(V_final - V_t) > 0, if ``consistent``   every t

    A response that ends where it began has none. Noise in the values makes spurious turns.

    Args:
        value_BS: value of each prefix, V_0..V_N (a Monte-Carlo share or a PRM's score), [B, N + 1];
            NaN behind a response's last step.
        final_B: value of the finished response, same unit.
        consistent, first: see above.
    Raises: ValueError: a shape is off.
    Source: TurningPoint-GRPO, launch script of its released code; made for flow models, whose
        steps are denoising steps.
    """
    _check(value_BS, final_B)
    value_BS, final_B1 = value_BS.detach().double(), final_B.detach().double()[:, None]
    step_BN = value_BS.diff(dim=1)
    sign_BN = step_BN.sign() * (final_B1 - value_BS[:, :1]).sign()
    ahead_BN = step_BN.sign() * (final_B1 - value_BS[:, 1:]).sign() > 0
    turn_BN = torch.zeros_like(ahead_BN)
    turn_BN[:, 1:] = (sign_BN[:, :-1] < 0) & (sign_BN[:, 1:] > 0)
    if consistent:
        turn_BN &= ahead_BN
    if first and turn_BN.shape[1]:
        turn_BN[:, 0] = ahead_BN[:, 0] & (sign_BN[:, 0] != 0)
    return turn_BN


def turning_point_rewards(
    value_BS: Tensor,
    final_B: Tensor,
    *,
    eta: float,
    main: Main,
    bonus: Bonus,
    replace: bool,
    consistent: bool,
    first: bool,
) -> Tensor:
    """Step rewards that credit a turning point with its long-term effect.

        r_t = m_t + eta * b_t at a turning point (eta * b_t alone if ``replace``), m_t elsewhere
        m_t = V_t - V_{t-1} ('step') or V_final - V_0 ('total')
        b_t = V_t - V_{t-1} ('step'), V_final - V_0 ('total') or V_final - V_{t-1} ('remaining')

    The released launch script is main 'step', bonus 'remaining', eta 1, replace, consistent, first;
    its further balancing of positive and negative turns over the batch is not part of this. Rewards
    at turns are several times the others: normalise them per step index within the group, or hand
    them to ``process_sum``.

    Args: value_BS, final_B, consistent, first: as ``turning_points``. eta: >= 0.
    Returns: float64 [B, N], in units of the values; NaN where there is no step.
    Raises: ValueError: a shape or option is off.
    Source: as ``turning_points``.
    """
    if not eta >= 0:
        raise ValueError(f"eta is {eta!r}, expected >= 0")
    turn_BN = turning_points(value_BS, final_B, consistent=consistent, first=first)
    value_BS, final_B1 = value_BS.detach().double(), final_B.detach().double()[:, None]
    change_BN = value_BS.diff(dim=1)
    parts = {
        "step": change_BN,
        "total": (final_B1 - value_BS[:, :1]).expand_as(change_BN),
        "remaining": final_B1 - value_BS[:, :-1],
    }
    if main not in ("step", "total"):
        raise ValueError(f"main is {main!r:.80}, expected 'step' or 'total'")
    if bonus not in parts:
        raise ValueError(f"bonus is {bonus!r:.80}, expected 'step', 'total' or 'remaining'")
    extra_BN = eta * parts[bonus]
    turned_BN = extra_BN if replace else parts[main] + extra_BN
    reward_BN = torch.where(turn_BN, turned_BN, parts[main])
    return torch.where(change_BN.isnan(), torch.nan, reward_BN)


def _check(value_BS: Tensor, final_B: Tensor) -> None:
    if value_BS.dim() != 2 or value_BS.shape[1] < 1 or final_B.shape != value_BS.shape[:1]:
        raise ValueError(
            f"value_BS has shape {tuple(value_BS.shape)} and final_B {tuple(final_B.shape)}, "
            "expected (B, N + 1) and (B,); the first value is that of the bare prompt"
        )
