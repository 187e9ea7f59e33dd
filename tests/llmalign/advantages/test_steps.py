import pytest
import torch

from llmalign.advantages.steps import step_of_token, steps_to_tokens, tokens_per_step

MASK = torch.tensor([[True, True, False, True, True], [True, True, True, False, False]])
END = torch.tensor([[1, 3, -1], [2, -1, -1]])


def test_each_token_knows_its_step() -> None:
    # Token 2 of row 0 is not the policy's; token 4 lies behind the last step.
    assert step_of_token(END, MASK).tolist() == [[0, 0, -1, 1, -1], [0, 0, 0, -1, -1]]
    assert tokens_per_step(END, MASK).tolist() == [[2, 1, 0], [3, 0, 0]]
    value_BK = torch.tensor([[0.5, -1.0, float("nan")], [2.0, float("nan"), 7.0]])
    assert steps_to_tokens(value_BK, END, MASK).tolist() == [
        [0.5, 0.5, 0.0, -1.0, 0.0], [2.0, 2.0, 2.0, 0.0, 0.0]
    ]  # fmt: skip


def test_no_step_at_all_is_no_value() -> None:
    none_BK = torch.zeros(2, 0, dtype=torch.int64)
    assert steps_to_tokens(torch.zeros(2, 0), none_BK, MASK).abs().sum() == 0
    assert tokens_per_step(none_BK, MASK).shape == (2, 0)


@pytest.mark.parametrize(
    ("end_BK", "error", "message"),
    [
        ([[3, 1, -1], [2, -1, -1]], ValueError, "step_end_BK does not grow along a row"),
        ([[1, 1, -1], [2, -1, -1]], ValueError, "step_end_BK does not grow along a row"),
        ([[-1, 1, -1], [2, -1, -1]], ValueError, "step_end_BK does not grow along a row"),
        ([[1, 5, -1], [2, -1, -1]], ValueError, "step_end_BK holds 5, expected < 5"),
        ([[1, 3, -1]], ValueError, r"step_end_BK has shape \(1, 3\), expected \(2, K\)"),
        ([[1.0], [2.0]], TypeError, "step_end_BK torch.float32"),
    ],
)
def test_steps_that_are_none_are_refused(end_BK: list, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        step_of_token(torch.tensor(end_BK), MASK)
