import pytest
import torch

from llmalign.losses import sequence_weights

LENGTHS = torch.tensor([2, 8, 0])


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ("token_mean", [1 / 10, 1 / 10, 0.0]),
        ("sequence_mean", [1 / (3 * 2), 1 / (3 * 8), 0.0]),
        ("sequence_sum", [1 / 3, 1 / 3, 0.0]),
        ("constant", [1 / (3 * 16), 1 / (3 * 16), 0.0]),
        ("sum_norm", [1 / 16, 1 / 16, 0.0]),
    ],
)
def test_weights_by_hand(kind: str, weights: list[float]) -> None:
    found = sequence_weights(LENGTHS, kind=kind, max_tokens=16, num_sequences=None)
    assert found.tolist() == pytest.approx(weights, rel=1e-15)
    assert found.dtype == torch.float64


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("token_mean", False),
        ("sequence_mean", True),
        ("sequence_sum", True),
        ("constant", True),
        ("sum_norm", False),
    ],
)
def test_the_number_of_sequences_divides_where_it_should(kind: str, changes: bool) -> None:
    three = sequence_weights(LENGTHS, kind=kind, max_tokens=16, num_sequences=None)
    twelve = sequence_weights(LENGTHS, kind=kind, max_tokens=16, num_sequences=12)
    torch.testing.assert_close(twelve, three / 4 if changes else three)


@pytest.mark.parametrize(
    "kind", ["token_mean", "sequence_mean", "sequence_sum", "constant", "sum_norm"]
)
@pytest.mark.parametrize("lengths", [[0, 0], []])
def test_without_tokens_all_weights_are_zero(kind: str, lengths: list[int]) -> None:
    num_tokens_B = torch.tensor(lengths, dtype=torch.int64)
    found = sequence_weights(num_tokens_B, kind=kind, max_tokens=4, num_sequences=None)
    assert found.tolist() == [0.0] * len(lengths)


GOOD = {"kind": "constant", "max_tokens": 4, "num_sequences": None}


@pytest.mark.parametrize(
    ("lengths", "option", "message"),
    [
        ([1], {"kind": "token_men"}, "unknown aggregate 'token_men'; did you mean 'token_mean'?"),
        ([1], {"max_tokens": 0}, "max_tokens is 0, expected > 0"),
        ([1], {"num_sequences": 0}, "num_sequences is 0, expected > 0 or None"),
        ([1, -2], {}, "num_tokens_B holds -2, expected >= 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_option_is_named(lengths: list[int], option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        sequence_weights(torch.tensor(lengths), **{**GOOD, **option})
