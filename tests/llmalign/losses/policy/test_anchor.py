import pytest
import torch

from llmalign.losses.policy.anchor import moved_anchor

ANCHOR = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor(4.0)}
POLICY = {"b": torch.tensor(0.0), "a": torch.tensor([2.0, 0.0], requires_grad=True)}


@pytest.mark.parametrize(
    ("rate", "a", "b"),
    [(0.0, [1.0, -2.0], 4.0), (0.25, [1.25, -1.5], 3.0), (1.0, [2.0, 0.0], 0.0)],
)
def test_each_weight_moves_by_hand(rate: float, a: list[float], b: float) -> None:
    found = moved_anchor(ANCHOR, POLICY, rate=rate)
    assert found["a"].tolist() == a and found["b"].item() == b
    assert not found["a"].requires_grad
    assert ANCHOR["a"].tolist() == [1.0, -2.0]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"rate is 1.5, expected a number in \[0, 1\]"):
        moved_anchor(ANCHOR, POLICY, rate=1.5)
    with pytest.raises(ValueError, match=r"different weights, for example \['b'\]"):
        moved_anchor(ANCHOR, {"a": POLICY["a"]}, rate=0.5)
