import pytest
import torch

from llmalign.head import head_logprobs

N, D, V = 7, 5, 11


def inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(N, D, generator=generator, dtype=dtype).requires_grad_()
    weight_VD = torch.randn(V, D, generator=generator, dtype=dtype).requires_grad_()
    return hidden_ND, weight_VD, torch.arange(N) % V


def plain(hidden_ND, weight_VD, target_N, temperature):
    logp_NV = torch.log_softmax(hidden_ND @ weight_VD.T / temperature, -1)
    entropy_N = -(logp_NV.exp() * logp_NV).sum(-1)
    return logp_NV.gather(1, target_N[:, None])[:, 0], entropy_N


@pytest.mark.parametrize("chunk_logits", [1, 2 * V, 3 * V + 1, 1 << 20])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_are_those_of_all_logits_at_once(chunk_logits, temperature):
    found, expected = inputs(), inputs()
    options = {"temperature": temperature, "chunk_logits": chunk_logits}
    logp_N, entropy_N = head_logprobs(*found, entropy_gradient=True, **options)
    other_logp_N, other_entropy_N = plain(*expected, temperature)
    assert torch.allclose(logp_N, other_logp_N, atol=1e-12)
    assert torch.allclose(entropy_N, other_entropy_N, atol=1e-12)
    weight_N = torch.linspace(-1, 2, N, dtype=torch.float64)
    (weight_N * logp_N - 0.3 * weight_N * entropy_N).sum().backward()
    (weight_N * other_logp_N - 0.3 * weight_N * other_entropy_N).sum().backward()
    for one, other in zip(found[:2], expected[:2], strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-12)


def test_numerical_gradients_agree():
    hidden_ND, weight_VD, target_N = inputs()

    def both(h, w):
        return head_logprobs(h, w, target_N, temperature=0.9, entropy_gradient=True, chunk_logits=V)

    assert torch.autograd.gradcheck(both, (hidden_ND, weight_VD))


def test_the_entropy_carries_a_gradient_only_where_asked():
    found = inputs()
    _, entropy_N = head_logprobs(*found, temperature=1.0, entropy_gradient=False)
    assert not entropy_N.requires_grad


def test_a_frozen_head_or_frozen_states_get_no_gradient():
    hidden_ND, weight_VD, target_N = inputs()
    logp_N, _ = head_logprobs(
        hidden_ND, weight_VD.detach(), target_N, temperature=1.0, entropy_gradient=False
    )
    logp_N.sum().backward()
    assert hidden_ND.grad is not None and weight_VD.grad is None


def test_a_token_that_cannot_come_leaves_numbers_finite():
    hidden_ND, weight_VD, target_N = inputs()
    with torch.no_grad():
        weight_VD[V - 1] = -1e6 * torch.sign(hidden_ND[0])
    logp_N, entropy_N = head_logprobs(
        hidden_ND[:1], weight_VD, target_N[:1], temperature=1.0, entropy_gradient=True
    )
    (logp_N + entropy_N).sum().backward()
    assert entropy_N.isfinite().all() and weight_VD.grad.isfinite().all()


def test_half_precision_comes_back_in_float32():
    hidden_ND, weight_VD, target_N = inputs(torch.bfloat16)
    logp_N, entropy_N = head_logprobs(
        hidden_ND, weight_VD, target_N, temperature=1.0, entropy_gradient=False, chunk_logits=2 * V
    )
    assert logp_N.dtype == entropy_N.dtype == torch.float32
    logp_N.sum().backward()
    assert hidden_ND.grad.dtype == weight_VD.grad.dtype == torch.bfloat16
    expected, _ = plain(hidden_ND.float(), weight_VD.float(), target_N, 1.0)
    assert torch.allclose(logp_N, expected, atol=0.05)


def test_no_token_at_all_is_no_error():
    hidden_ND, weight_VD, target_N = inputs()
    logp_N, entropy_N = head_logprobs(
        hidden_ND[:0], weight_VD, target_N[:0], temperature=1.0, entropy_gradient=False
    )
    assert logp_N.shape == entropy_N.shape == (0,)
