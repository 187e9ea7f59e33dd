import pytest
import torch

from llmalign.losses.policy.imitation import raft, superhf

LOGP = torch.tensor([[-1.0, -2.0, -3.0], [-0.5, -0.25, -4.0]], dtype=torch.float64)
ADV = torch.tensor([[1.0, 1.0, 1.0], [0.0, -1.0, 0.0]], dtype=torch.float64)
MASK = torch.tensor([[True, False, True], [True, True, False]])
KL = torch.tensor([[0.5, 9.0, -1e-9], [0.5, 0.5, 0.5]], dtype=torch.float64)


def test_only_selected_samples_are_imitated_by_hand() -> None:
    logp = LOGP.clone().requires_grad_()
    loss, stats = raft(logp, LOGP, 3 * ADV, MASK)
    loss.sum().backward()
    assert loss.tolist() == [[1.0, 0.0, 3.0], [0.0, 0.0, 0.0]]
    assert logp.grad.tolist() == [[-1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]
    assert stats.tokens == 4


def test_the_divergence_is_added_where_it_is_above_zero_by_hand() -> None:
    logp, kl = LOGP.clone().requires_grad_(), KL.clone().requires_grad_()
    loss, _ = superhf(logp, LOGP, ADV, MASK, kl, kl_coef=0.4)
    loss.sum().backward()
    assert loss.tolist() == [[1.2, 0.0, 3.0], [0.0, 0.0, 0.0]]
    assert logp.grad.tolist() == [[-1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]
    assert kl.grad.tolist() == [[0.4, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_without_a_coefficient_it_is_raft() -> None:
    found, _ = superhf(LOGP, LOGP, ADV, MASK, KL, kl_coef=0.0)
    assert torch.equal(found, raft(LOGP, LOGP, ADV, MASK)[0])


@pytest.mark.parametrize("coef", [-0.1, float("nan")])
def test_a_wrong_coefficient_is_named(coef: float) -> None:
    with pytest.raises(ValueError, match=f"kl_coef is {coef}, expected >= 0"):
        superhf(LOGP, LOGP, ADV, MASK, KL, kl_coef=coef)


def test_a_wrong_divergence_is_named() -> None:
    with pytest.raises(ValueError, match=r"ref_kl_BT has shape \(2,\), expected \(2, 3\)"):
        superhf(LOGP, LOGP, ADV, MASK, KL[:, 0], kl_coef=0.1)
