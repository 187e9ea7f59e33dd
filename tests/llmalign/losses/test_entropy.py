import pytest
import torch
from torch import Tensor

from llmalign.losses.entropy import (
    adaptive_entropy_coef,
    clip_cov_tokens,
    kl_cov_tokens,
    token_covariance,
)

NAN = float("nan")
COEF = {"target": 0.2, "step": 0.005, "coef_min": 0.001, "coef_max": 0.02}


@pytest.mark.parametrize(
    ("coef", "entropy", "now", "following"),
    [
        pytest.param(0.01, 0.1, 0.01, 0.015, id="below the target: on, and up"),
        pytest.param(0.01, 0.2, 0.01, 0.015, id="on the target counts as below"),
        pytest.param(0.01, 0.3, 0.0, 0.005, id="above the target: off, and down"),
        pytest.param(0.018, 0.1, 0.018, 0.02, id="held above"),
        pytest.param(0.002, 0.3, 0.0, 0.001, id="held below"),
    ],
)
def test_the_coefficient_by_hand(coef: float, entropy: float, now: float, following: float) -> None:
    found = adaptive_entropy_coef(coef, entropy, **COEF)
    assert found == (pytest.approx(now), pytest.approx(following))


def test_the_covariance_by_hand_and_without_what_is_masked() -> None:
    # logp -1, -3: mean -2; A 2, 0: mean 1
    logp = torch.tensor([[-1.0, NAN, -3.0]], requires_grad=True)
    adv, mask = torch.tensor([[2.0, NAN, 0.0]]), torch.tensor([[True, False, True]])
    found = token_covariance(logp, adv, mask)
    assert found.tolist() == [[1.0, 0.0, 1.0]] and not found.requires_grad


def test_the_mean_covariance_is_the_covariance() -> None:
    logp, adv = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    found = token_covariance(logp, adv, torch.ones(3, 4).bool()).mean()
    pair = torch.stack([logp.flatten(), adv.flatten()])
    torch.testing.assert_close(found, torch.cov(pair, correction=0)[0, 1])


def draw(seed: int, share: float = 0.5, **options) -> Tensor:
    cov = torch.tensor([[0.1, 2.0, 3.0, 4.0], [2.5, 9.0, 1.0, 3.5]])
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    band = {"cov_low": 1.0, "cov_high": 5.0} | options
    return clip_cov_tokens(cov, mask, num_tokens=7, share=share, seed=seed, **band)


def test_tokens_to_spare_are_drawn_from_the_open_band() -> None:
    assert draw(0).sum() == 3  # int(0.5 * 7) of the four within (1, 5)
    together = torch.stack([draw(seed) for seed in range(30)]).any(0)
    assert together.tolist() == [[False, True, True, True], [True, False, False, False]]
    assert torch.equal(draw(4), draw(4))
    assert draw(0, share=1e-4).sum() == 1
    assert draw(0, share=1.0).sum() == 4
    assert draw(0, cov_low=20.0, cov_high=30.0).sum() == 0


def test_tokens_to_hold_back_are_those_of_the_largest_covariance() -> None:
    cov = torch.tensor([[0.1, 2.0, 99.0, -4.0]])
    mask = torch.tensor([[True, True, False, True]])
    assert kl_cov_tokens(cov, mask, share=0.7).tolist() == [[True, True, False, False]]
    assert kl_cov_tokens(cov, mask, share=1e-6).tolist() == [[False, True, False, False]]
    assert not kl_cov_tokens(cov, torch.zeros(1, 4).bool(), share=0.5).any()


def test_wrong_arguments_are_named() -> None:
    one = torch.ones(1, 1)
    with pytest.raises(ValueError, match="step is 0.0, expected > 0"):
        adaptive_entropy_coef(0.1, 0.1, **(COEF | {"step": 0.0}))
    with pytest.raises(ValueError, match="coef_min is 0.5 and coef_max is 0.02"):
        adaptive_entropy_coef(0.1, 0.1, **(COEF | {"coef_min": 0.5}))
    with pytest.raises(ValueError, match=r"share is 0, expected a number in \(0, 1\]"):
        kl_cov_tokens(one, one > 0, share=0)
    with pytest.raises(ValueError, match="cov_low is 5.0 and cov_high is 5.0"):
        draw(0, cov_low=5.0)
    with pytest.raises(ValueError, match=r"adv_BT has shape \(1, 2\), expected \(1, 1\)"):
        token_covariance(one, torch.ones(1, 2), one > 0)
