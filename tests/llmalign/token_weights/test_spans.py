import math

import pytest
import torch

from llmalign.inputs import WEIGHT_INPUTS
from llmalign.token_weights import TOKEN_WEIGHTS, spans

NAN = math.nan
MASK = torch.tensor([[True, True, True, False, True], [True, True, True, True, True]])
SPAN = torch.tensor([[[0, 4], [1, 2]], [[2, 5], [0, 0]]])
VALUE = torch.tensor([[2.0, 0.0], [0.5, NAN]])


def test_a_token_has_the_weight_of_the_last_span_around_it() -> None:
    assert spans(SPAN, VALUE, MASK, outside=1.0).tolist() == [
        [2.0, 0.0, 2.0, 0.0, 1.0], [1.0, 1.0, 0.5, 0.5, 0.5]
    ]  # fmt: skip


def test_no_span_leaves_every_token_outside() -> None:
    none = torch.zeros(2, 0, 2, dtype=torch.int64), torch.zeros(2, 0)
    assert torch.equal(spans(*none, MASK, outside=0.25), 0.25 * MASK.double())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"span_BS2": SPAN + 1}, ValueError, "span_BS2 leaves the 5 tokens of the response"),
        ({"span_BS2": SPAN.double()}, TypeError, "span_BS2 has dtype torch.float64"),
        ({"span_BS2": SPAN[:, :1]}, ValueError, r"span_BS2 has shape \(2, 1, 2\)"),
        ({"value_BS": -VALUE}, ValueError, "value_BS and outside hold a weight below 0 or NaN"),
        ({"outside": -1.0}, ValueError, "value_BS and outside hold a weight below 0 or NaN"),
        ({"mask_BT": MASK.double()}, TypeError, "mask_BT has dtype torch.float64"),
    ],
)
def test_a_wrong_input_is_named(change: dict, error: type, message: str) -> None:
    good = {"span_BS2": SPAN, "value_BS": VALUE, "mask_BT": MASK, "outside": 1.0}
    with pytest.raises(error, match=message):
        spans(**{**good, **change})


@pytest.mark.parametrize("entry", TOKEN_WEIGHTS.entries(), ids=lambda entry: entry.name)
def test_every_token_weight_asks_for_what_a_recipe_can_give(entry) -> None:
    assert set(entry.inputs) <= WEIGHT_INPUTS.keys()
    assert entry.resolve({}, "token_weights").keys() == entry.options().keys()
