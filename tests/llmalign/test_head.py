import pytest
import torch

from llmalign.head import chunks, head_logprobs, head_loss

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


# -- the loss is known: one pass over the logits --------------------------------------------------

WEIGHT_N = torch.linspace(-1, 2, N, dtype=torch.float64)


def clipped(logp_C, entropy_C, chunk):
    """Not linear in either, and constant where the ratio is outside the bounds."""
    weight_C = WEIGHT_N[chunk].to(logp_C)
    rho_C = (logp_C + 2.4).exp()
    return (weight_C * torch.min(rho_C, rho_C.clamp(0.5, 1.5)) - 0.3 * entropy_C**2).sum()


def two_pass(hidden_ND, weight_VD, target_N, **options):
    logp_N, entropy_N = head_logprobs(hidden_ND, weight_VD, target_N, **options)
    return clipped(logp_N, entropy_N, slice(0, len(target_N))), logp_N, entropy_N


@pytest.mark.parametrize("chunk_logits", [1, 2 * V, 3 * V + 1, 1 << 20])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("entropy_gradient", [False, True], ids=["", "entropy gradient"])
def test_a_known_loss_has_the_value_and_gradient_of_the_two_passes(
    chunk_logits, temperature, entropy_gradient
):
    found, expected = inputs(), inputs()
    options = {"temperature": temperature, "entropy_gradient": entropy_gradient}
    loss, *values = head_loss(*found, clipped, chunk_logits=chunk_logits, **options)
    other_loss, *other_values = two_pass(*expected, **options)
    assert loss.item() == pytest.approx(other_loss.item(), rel=1e-13)
    for one, other in zip(values, other_values, strict=True):
        assert not one.requires_grad and torch.allclose(one, other, rtol=0, atol=1e-13)
    (0.25 * loss).backward()
    (0.25 * other_loss).backward()
    for one, other in zip(found[:2], expected[:2], strict=True):
        assert one.grad.abs().max() > 0.01
        assert torch.allclose(one.grad, other.grad, rtol=0, atol=1e-13)


def test_every_token_is_in_one_chunk_in_order():
    hidden_ND, weight_VD, target_N = inputs()
    seen = []

    def count(logp_C, entropy_C, chunk):
        assert logp_C.shape == entropy_C.shape == target_N[chunk].shape
        seen.extend(range(N)[chunk])
        return logp_C.sum()

    options = {"temperature": 1.0, "entropy_gradient": False, "chunk_logits": 3 * V}
    head_loss(hidden_ND, weight_VD, target_N, count, **options)
    assert seen == list(range(N))
    assert [c.stop - c.start for c in chunks(N, weight_VD, 3 * V)] == [3, 3, 1]


def test_hidden_states_made_by_the_weight_itself_get_both_gradients():
    def run(head):
        _, weight_VD, target_N = inputs()
        loss, *_ = head(torch.tanh(weight_VD[target_N]), weight_VD, target_N)
        loss.backward()
        return weight_VD.grad

    options = {"temperature": 1.0, "entropy_gradient": True}
    one = run(lambda *given: head_loss(*given, clipped, chunk_logits=2 * V, **options))
    other = run(lambda *given: two_pass(*given, **options))
    assert torch.allclose(one, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("frozen", ["weight", "hidden"])
def test_what_is_frozen_costs_no_gradient_when_the_loss_is_known(frozen):
    hidden_ND, weight_VD, target_N = inputs()
    given = (
        (hidden_ND.detach(), weight_VD) if frozen == "hidden" else (hidden_ND, weight_VD.detach())
    )
    options = {"temperature": 0.7, "entropy_gradient": False}
    head_loss(*given, target_N, clipped, **options)[0].backward()
    expected = inputs()
    two_pass(*expected, **options)[0].backward()
    learns = hidden_ND if frozen == "weight" else weight_VD
    rests = weight_VD if frozen == "weight" else hidden_ND
    assert rests.grad is None
    assert torch.allclose(learns.grad, expected[frozen == "hidden"].grad, rtol=0, atol=1e-13)


def test_without_gradients_a_known_loss_is_only_computed():
    asked = []

    def ask(logp_C, entropy_C, chunk):
        asked.append(logp_C.requires_grad or entropy_C.requires_grad or torch.is_grad_enabled())
        return clipped(logp_C, entropy_C, chunk)

    options = {"temperature": 1.0, "entropy_gradient": True}
    hidden_ND, weight_VD, target_N = inputs()
    with torch.no_grad():
        loss, *_ = head_loss(hidden_ND, weight_VD, target_N, ask, **options)
    frozen, *_ = head_loss(hidden_ND.detach(), weight_VD.detach(), target_N, clipped, **options)
    expected, *_ = two_pass(*inputs(), **options)
    assert asked == [False] and not loss.requires_grad and not frozen.requires_grad
    assert loss.item() == frozen.item() == pytest.approx(expected.item(), rel=1e-13)


def test_a_loss_without_gradient_leaves_zeros():
    found = inputs()
    options = {"temperature": 1.0, "entropy_gradient": False, "chunk_logits": 2 * V}
    loss, *_ = head_loss(*found, lambda logp_C, *_: logp_C.detach().sum(), **options)
    loss.backward()
    assert loss < 0 and not found[0].grad.any() and not found[1].grad.any()


def test_a_known_loss_over_no_token_is_zero_and_can_be_followed():
    hidden_ND, weight_VD, target_N = inputs()
    options = {"temperature": 1.0, "entropy_gradient": False}
    loss, logp_N, entropy_N = head_loss(hidden_ND[:0], weight_VD, target_N[:0], clipped, **options)
    loss.backward()
    assert loss == 0 and logp_N.shape == entropy_N.shape == (0,) and not weight_VD.grad.any()


def test_the_gradient_of_a_known_loss_is_handed_over_once():
    loss, *_ = head_loss(*inputs(), clipped, temperature=1.0, entropy_gradient=False)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="was handed over; compute the loss again"):
        loss.backward()


def test_a_second_backward_pass_over_logprobs_adds_the_same_again():
    hidden_ND, weight_VD, target_N = inputs()
    logp_N, entropy_N = head_logprobs(
        hidden_ND, weight_VD, target_N, temperature=1.0, entropy_gradient=True
    )
    loss = (WEIGHT_N * logp_N + entropy_N).sum()
    loss.backward(retain_graph=True)
    once = weight_VD.grad.clone()
    loss.backward()
    assert torch.allclose(weight_VD.grad, 2 * once, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["float32", "autocast", "bfloat16 weights"])
def test_lower_precision_stays_near_float64_on_both_ways(kind):
    expected = inputs()
    options = {"temperature": 0.7, "entropy_gradient": True}
    truth, *_ = two_pass(*expected, **options)
    truth.backward()
    dtype = torch.bfloat16 if kind == "bfloat16 weights" else torch.float32
    tolerance = 1e-5 if kind == "float32" else 0.1
    for head in (lambda *g, **o: head_loss(*g, clipped, chunk_logits=2 * V, **o), two_pass):
        hidden_ND, weight_VD = (t.detach().to(dtype).requires_grad_() for t in expected[:2])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "autocast"):
            loss, logp_N, _ = head(hidden_ND, weight_VD, expected[2], **options)
        loss.backward()
        assert logp_N.dtype == torch.float32
        assert hidden_ND.grad.dtype == weight_VD.grad.dtype == dtype
        assert loss.item() == pytest.approx(truth.item(), rel=tolerance)
        for one, other in zip((hidden_ND, weight_VD), expected[:2], strict=True):
            near = tolerance * float(other.grad.abs().max())
            assert torch.allclose(one.grad.double(), other.grad, rtol=0, atol=near)
