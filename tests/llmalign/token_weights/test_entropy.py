import math

import pytest
import torch

from llmalign.token_weights import entropy_band, entropy_threshold, fork, high_entropy

NAN = math.nan
MASK = torch.tensor([[True, True, True, False], [True, True, False, True]])
ENTROPY = torch.tensor([[0.1, 0.2, 0.3, NAN], [2.0, 1.0, NAN, 0.4]], dtype=torch.float64)


def test_the_top_share_is_of_the_whole_batch() -> None:
    # six values; the quantile of order 0.6 lies at place 3: 0.4; a share of each row would keep
    # a token of the first row too
    assert float(entropy_threshold(ENTROPY[MASK], share=0.4)) == 0.4
    weight_BT = high_entropy(ENTROPY, MASK, share=0.4)
    assert weight_BT.tolist() == [[0, 0, 0, 0], [1, 1, 0, 1]]
    assert fork(ENTROPY, MASK, share=0.4).tolist() == [[0, 1, 1, 0], [1, 1, 0, 0]]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9, 1.0])
def test_the_threshold_agrees_with_torch(share: float) -> None:
    values = torch.randn(101, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = float(torch.quantile(values, 1 - share))
    assert float(entropy_threshold(values, share=share)) == pytest.approx(expected, rel=1e-12)


def test_ties_stay() -> None:
    mask_BT = torch.ones(1, 5, dtype=torch.bool)
    tied_BT = torch.tensor([[0.3, 0.7, 0.7, 0.7, 0.1]])
    assert high_entropy(tied_BT, mask_BT, share=0.2).tolist() == [[0, 1, 1, 1, 0]]
    assert fork(tied_BT, mask_BT, share=0.2).tolist() == [[0, 1, 1, 1, 0]]
    same_BT = torch.full((2, 4), 0.1)
    assert torch.equal(high_entropy(same_BT, MASK, share=0.2), MASK.double())
    assert torch.equal(fork(same_BT, MASK, share=0.2), MASK.double())


@pytest.mark.parametrize(("tokens", "share", "count"), [(30, 0.1, 3), (31, 0.1, 4), (3, 0.2, 1)])
def test_the_number_of_forks_is_rounded_up(tokens: int, share: float, count: int) -> None:
    entropy_BT = torch.arange(tokens).double()[None]
    weight_BT = fork(entropy_BT, torch.ones(1, tokens, dtype=torch.bool), share=share)
    assert weight_BT.sum() == count and (weight_BT[0, -count:] == 1).all()


def test_nothing_to_choose_from_is_nothing_chosen() -> None:
    none_BT = torch.zeros(2, 4, dtype=torch.bool)
    for weigh in (high_entropy, fork):
        assert weigh(ENTROPY, none_BT, share=0.2).abs().sum() == 0
    assert fork(torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool), share=0.2).shape == (2, 0)


def test_a_band_by_hand() -> None:
    # forks 1, 2, 4: q0.5 = 2, q0.25 = 1.5; outside 0.5, 0, 2; their mean 2.5 / 3
    entropy_BT = torch.tensor([[1.0, NAN, 2.0, 4.0], [3.0, NAN, NAN, NAN]], dtype=torch.float64)
    entropy_BT.requires_grad_()
    fork_BT = ~entropy_BT.isnan()
    penalty_B, outside_BT = entropy_band(entropy_BT, fork_BT, low=0.25, high=0.5)
    assert outside_BT.tolist() == [[0.5, 0.0, 0.0, 2.0], [0.0] * 4]
    assert penalty_B.tolist() == [pytest.approx(2.5 / 3), 0.0]
    penalty_B.sum().backward()
    # The quantiles have no gradient: -1/3 pulls the low fork up, 1/3 the high one down.
    assert entropy_BT.grad.tolist() == [[pytest.approx(-1 / 3), 0.0, 0.0, pytest.approx(1 / 3)],
                                        [0.0] * 4]  # fmt: skip


def test_the_gradient_of_the_band() -> None:
    # The oracle has the quantiles 0.5 and 1.7 as constants.
    entropy_BT = torch.tensor([[0.1, 0.5, 1.0, 1.7, 3.0]], dtype=torch.float64, requires_grad=True)
    fork_BT = torch.ones(1, 5, dtype=torch.bool)
    penalty_B, _ = entropy_band(entropy_BT, fork_BT, low=0.25, high=0.75)
    penalty_B.sum().backward()
    bounds = (0.5, 1.7)

    def fixed(value_BT: torch.Tensor) -> torch.Tensor:
        above, below = (value_BT - bounds[1]).relu(), (bounds[0] - value_BT).relu()
        return (above + below).mean()

    copy_BT = entropy_BT.detach().clone().requires_grad_()
    fixed(copy_BT).backward()
    assert torch.allclose(entropy_BT.grad, copy_BT.grad)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: high_entropy(ENTROPY, MASK, share=0.0), ValueError, "share is 0.0"),
        (lambda: fork(ENTROPY, MASK, share=1.5), ValueError, "share is 1.5"),
        (lambda: high_entropy(ENTROPY, MASK.double(), share=0.2), TypeError, "torch.float64"),
        (
            lambda: fork(ENTROPY[:, :2], MASK, share=0.2),
            ValueError,
            r"entropy_BT has shape \(2, 2\), expected \(2, 4\) like mask_BT",
        ),
        (
            lambda: entropy_band(ENTROPY, MASK, low=0.6, high=0.5),
            ValueError,
            "low is 0.6 and high 0.5, expected 0 <= low <= high <= 1",
        ),
    ],
)
def test_a_wrong_input_is_named(call, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
