import math
import statistics

import pytest
import torch
from torch import Tensor

from llmalign.losses.policy.trajectory_balance import subtrajectory_balance, trajectory_balance

GROUP = [4, 4, 4, 0, 0, 8]


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    logp, old, adv = torch.randn(3, 6, 4, generator=generator, dtype=torch.float64)
    mask = torch.arange(4)[None, :] < torch.tensor([4, 3, 2, 1, 0, 4])[:, None]
    mask[0, 1] = False
    return logp, old, adv[:, :1].expand(6, 4), mask, torch.tensor(GROUP)


def test_two_tokens_by_hand() -> None:
    # sum logp = -1.5, R / temperature = 2 / 4, log Z = 0.3: residual -1.7, loss 2.89, slope -3.4
    logp = torch.tensor([[-1.0, -0.5]], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, 2)
    loss, _ = trajectory_balance(
        logp, zero, zero + 2, zero == 0, torch.tensor([0]), temperature=4.0, log_z=0.3
    )
    loss.mean().backward()
    assert loss[0].tolist() == pytest.approx([2.89, 2.89])
    assert logp.grad[0].tolist() == pytest.approx([-3.4, -3.4])


@pytest.mark.parametrize("log_z", [None, 0.4])
def test_agrees_with_plain_python(log_z: float | None) -> None:
    logp, old, adv, mask, group_B = batch()
    loss, _ = trajectory_balance(logp, old, adv, mask, group_B, temperature=0.5, log_z=log_z)
    flow = {
        b: sum(logp[b, t].item() for t in range(4) if mask[b, t]) - adv[b, 0].item() / 0.5
        for b in range(6)
        if mask[b].any()
    }
    for b in flow:
        mean = statistics.fmean(flow[i] for i in flow if GROUP[i] == GROUP[b])
        wanted = (flow[b] - mean if log_z is None else flow[b] + log_z) ** 2
        assert loss[b, 0].item() == pytest.approx(wanted, rel=1e-12)
    assert (loss[4] == 0).all()


def test_the_estimated_partition_needs_no_gradient() -> None:
    # Residuals add up to 0, so the gradient of the variance is the same with and without it.
    logp, old, adv, mask, group_B = batch()
    leaf = logp.clone().requires_grad_()
    loss, _ = trajectory_balance(leaf, old, adv, mask, group_B, temperature=1.0, log_z=None)
    (loss[:3] / mask[:3].sum(1, keepdim=True)).sum().backward()
    twin = logp.clone().requires_grad_()
    flow = torch.where(mask, twin, 0.0).sum(1)[:3] - adv[:3, 0]
    ((flow - flow.mean()) ** 2).sum().backward()
    torch.testing.assert_close(leaf.grad, twin.grad)


def test_gradcheck() -> None:
    logp, old, adv, mask, group_B = batch()
    torch.autograd.gradcheck(
        lambda x: trajectory_balance(x, old, adv, mask, group_B, temperature=1.0, log_z=0.2)[0],
        logp.requires_grad_(),
    )


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(ValueError, match=r"temperature is 0.0, expected > 0"):
        trajectory_balance(*batch(), temperature=0.0, log_z=None)


@pytest.mark.parametrize(("decay", "loss"), [(1.0, 7.63955594438), (0.9, 7.43305398841)])
def test_stretches_of_a_worked_example(decay: float, loss: float) -> None:
    # log-probs, log-scores of two steps repeated on their two tokens each, and of ending there
    logp = torch.tensor([[-0.3, -1.2, -0.7, -0.1]], dtype=torch.float64)
    score = torch.tensor([[0.9, 0.9, 0.4, 0.4]], dtype=torch.float64).log()
    end = torch.tensor([[-4.0, -3.0, -3.5, -0.2]], dtype=torch.float64)
    found, _ = subtrajectory_balance(logp, logp, score, score < 0, end, decay=decay)
    assert found[0].tolist() == pytest.approx([loss] * 4, rel=1e-9)


def test_stretches_agree_with_plain_python() -> None:
    logp, old, adv, mask, _ = batch()
    end = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, _ = subtrajectory_balance(logp, old, adv, mask, end, decay=0.8)
    for b in range(6):
        balance, flow = [], 0.0
        for t in range(4):
            if mask[b, t]:
                flow += logp[b, t].item() - adv[b, t].item()
                balance.append(flow + end[b, t].item())
        pairs = [(i, j) for j in range(len(balance)) for i in range(j)]
        weights = [0.8 ** (j - i) for i, j in pairs]
        gaps = [(balance[i] - balance[j]) ** 2 for i, j in pairs]
        total = sum(w * g for w, g in zip(weights, gaps, strict=True)) / (sum(weights) or 1)
        for t in range(4):
            wanted = total if mask[b, t] else 0.0
            assert found[b, t].item() == pytest.approx(wanted, rel=1e-12)


def test_gradcheck_of_stretches() -> None:
    logp, old, adv, mask, _ = batch()
    torch.autograd.gradcheck(
        lambda x: subtrajectory_balance(x, old, adv, mask, old, decay=0.9)[0],
        logp.requires_grad_(),
    )


@pytest.mark.parametrize("decay", [0.0, 1.1, float("nan")])
def test_a_wrong_decay_is_named(decay: float) -> None:
    logp, old, adv, mask, _ = batch()
    with pytest.raises(ValueError, match=f"decay is {decay}"):
        subtrajectory_balance(logp, old, adv, mask, old, decay=decay)


def test_a_policy_that_samples_in_proportion_to_its_reward_is_in_balance() -> None:
    # "", "a", "aa" with rewards r0, r1, r2: flows say P(end) = r0/Z, r1/(r1 + r2), 1
    r0, r1, r2 = 1.0, 3.0, 0.5
    logp = [math.log((r1 + r2) / (r0 + r1 + r2)), math.log(r2 / (r1 + r2)), 0.0]
    adv = [math.log(r1), math.log(r2 / r1), 0.0]  # rewards of the steps; they multiply
    behind = [math.log(r1 / (r1 + r2)), 0.0, 0.0]
    before = [math.log(r0 / (r0 + r1 + r2)), behind[0], 0.0]
    row = [torch.tensor([values], dtype=torch.float64) for values in (logp, logp, adv)]
    mask = torch.ones(1, 3, dtype=torch.bool)
    ends = (torch.tensor([e], dtype=torch.float64) for e in (behind, before))
    sound, released = (
        subtrajectory_balance(*row, mask, end, decay=1.0)[0].max().item() for end in ends
    )
    assert sound < 1e-30 and released > 0.1
