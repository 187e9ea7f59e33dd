import math

import pytest
import torch
from torch import Tensor

from llmalign.losses.policy.pacs import pacs

GROUP = [5, 5, 5, 9, 9, 1, 5]
LABEL = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0]


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A mixed group, one of two right answers, a lone row, and a row of group 5 without tokens."""
    generator = torch.Generator().manual_seed(2)
    logp, noise = torch.randn(2, 7, 4, generator=generator, dtype=torch.float64)
    mask = torch.arange(4)[None, :] < torch.tensor([4, 3, 2, 1, 4, 2, 0])[:, None]
    mask[0, 1] = False
    label_B = torch.tensor(LABEL, dtype=torch.float64)
    return logp, logp - noise, label_B[:, None].expand(7, 4), mask, torch.tensor(GROUP)


def test_one_right_and_one_wrong_by_hand() -> None:
    # implicit 0.3 and 0.1: psi = 0.2 and -0.2, weights 2 / (2 * 1) = 1; both losses are
    # ln(1 + e^-0.2). d loss_0 / d psi_0 = -sigmoid(-0.2), d loss_1 / d psi_1 = sigmoid(-0.2), and
    # psi_1 = -psi_0, so implicit_0 has -2 sigmoid(-0.2) in all.
    logp = torch.tensor([[0.3], [0.1]], dtype=torch.float64, requires_grad=True)
    label = torch.tensor([[1.0], [0.0]])
    zero = torch.zeros(2, 1)
    loss, _ = pacs(logp, zero, label, zero == 0, torch.tensor([0, 0]), beta=1.0)
    loss.sum().backward()
    slope = 2 / (1 + math.exp(0.2))
    assert loss[:, 0].tolist() == pytest.approx([math.log1p(math.exp(-0.2))] * 2)
    assert logp.grad[:, 0].tolist() == pytest.approx([-slope, slope])


def test_agrees_with_plain_python() -> None:
    logp, old, label_BT, mask, group_B = batch()
    loss, _ = pacs(logp, old, label_BT, mask, group_B, beta=0.7)
    implicit = [
        0.7 * sum((logp - old)[b, t].item() for t in range(4) if mask[b, t]) for b in range(7)
    ]
    for b in range(6):
        members = [i for i in range(6) if GROUP[i] == GROUP[b]]
        others = [implicit[i] for i in members if i != b]
        psi = implicit[b] - sum(others) / len(others) if others else 0.0
        alike = sum(LABEL[i] == LABEL[b] for i in members)
        weight = len(members) / (2 * alike) if alike < len(members) else 1.0
        wanted = weight * (math.log1p(math.exp(psi)) - LABEL[b] * psi)
        assert loss[b, 0].item() == pytest.approx(wanted, rel=1e-12)
    assert (loss[6] == 0).all()


def test_an_all_right_group_has_no_gradient_on_policy_and_a_lone_row_never() -> None:
    logp, _, label_BT, mask, group_B = batch()
    leaf = logp.clone().requires_grad_()
    pacs(leaf, logp, label_BT, mask, group_B, beta=1.0)[0][3:6].sum().backward()
    # Rows 3 and 4 have 1 and 4 tokens: weighing each by its length keeps the sum from vanishing.
    assert (leaf.grad[5] == 0).all()
    leaf.grad = None
    (pacs(leaf, logp, label_BT, mask, group_B, beta=1.0)[0] / mask.sum(1).clamp(min=1)[:, None])[
        3:5
    ].sum().backward()
    assert leaf.grad.abs().max() < 1e-15


def test_gradcheck() -> None:
    logp, old, label_BT, mask, group_B = batch()
    torch.autograd.gradcheck(
        lambda x: pacs(x, old, label_BT, mask, group_B, beta=1.0)[0], logp.requires_grad_()
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"beta": 0.0}, ValueError, "beta is 0.0, expected > 0"),
        ({"label": 0.7}, ValueError, "adv_BT holds 0.7, expected labels 0 and 1"),
        (
            {"group": torch.zeros(6).long()},
            ValueError,
            r"group_B has shape \(6,\), expected \(7,\)",
        ),
        ({"group": torch.zeros(7)}, TypeError, "group_B has dtype torch.float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_argument_is_named(change: dict, error: type, message: str) -> None:
    logp, old, label_BT, mask, group_B = batch()
    label_BT = torch.full_like(label_BT, change["label"]) if "label" in change else label_BT
    with pytest.raises(error, match=message):
        pacs(
            logp,
            old,
            label_BT,
            mask,
            change.get("group", group_B),
            beta=change.get("beta", 1.0),
        )
