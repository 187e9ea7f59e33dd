import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

import llmalign.head
from llmalign.batch import PackedBatch, SharedBatch, TokenBatch, microbatches
from llmalign.policy import Policy, load_policy
from llmalign.reference import Reference
from llmalign.schema import Lora, Model
from llmalign.tiny import build_tokenizer

CPU = torch.device("cpu")
ROWS = [([1, 5, 6], [7, 8]), ([1, 9], [10, 11, 12, 13]), ([1, 4, 4, 4], [2])]


@pytest.fixture(scope="module")
def policy():
    return load_policy(Model(build="tiny"), seed=0)


def batch(policy, rows=ROWS):
    return TokenBatch.from_rows(rows, pad_id=policy.pad_id, device=policy.device)


def plain_logprobs(policy, prompt, response, temperature):
    """Oracle: the model's own logits, one row at a time, no padding."""
    ids = torch.tensor([[*prompt, *response]])
    logits = policy.model(input_ids=ids).logits[0].double() / temperature
    logp = torch.log_softmax(logits, -1)
    entropy = -(logp.exp() * logp).sum(-1)
    at = range(len(prompt) - 1, len(prompt) + len(response) - 1)
    return [logp[t, ids[0, t + 1]].item() for t in at], [entropy[t].item() for t in at]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_models_own_logits(policy, temperature):
    logp_BT, entropy_BT = policy.logprobs(batch(policy), temperature=temperature)
    assert logp_BT.shape == (3, 4)
    for b, (prompt, response) in enumerate(ROWS):
        expected_logp, expected_entropy = plain_logprobs(policy, prompt, response, temperature)
        n = len(response)
        assert logp_BT[b, :n].tolist() == pytest.approx(expected_logp, abs=1e-5)
        assert entropy_BT[b, :n].tolist() == pytest.approx(expected_entropy, abs=1e-5)
        assert (logp_BT[b, n:] == 0).all() and (entropy_BT[b, n:] == 0).all()


@pytest.mark.parametrize("plain", [True, False], ids=["plain head", "head with more to it"])
def test_chunks_change_neither_value_nor_gradient_and_bound_the_logits(policy, monkeypatch, plain):
    assert policy._plain_head
    monkeypatch.setattr(policy, "_plain_head", plain)

    def run():
        policy.model.zero_grad()
        logp_BT, entropy_BT = policy.logprobs(batch(policy), temperature=1.0, entropy_gradient=True)
        (logp_BT.sum() + 0.3 * entropy_BT.sum()).backward()
        return logp_BT.detach(), [p.grad.clone() for p in policy.trainable.values()]

    whole_logp, whole_grad = run()
    seen = []
    owner, name = (llmalign.head, "_logits") if plain else (policy, "next_logits")
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda h, *more: seen.append(len(h)) or original(h, *more))
    monkeypatch.setattr(llmalign.head, "CHUNK_LOGITS", 2 * policy.model.config.vocab_size)
    chunked_logp, chunked_grad = run()
    assert max(seen) == 2 and len(seen) > 4  # never more than a chunk of logits, also in backward
    assert torch.allclose(whole_logp, chunked_logp, atol=1e-5)
    for a, b in zip(whole_grad, chunked_grad, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def softcapped():
    config = Gemma2Config(
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, final_logit_softcapping=3.0,
    )  # fmt: skip
    torch.manual_seed(0)
    return Policy(Gemma2ForCausalLM(config).eval(), build_tokenizer(), CPU)


def curved(logp_C, entropy_C, chunk):
    """A loss whose slope differs from token to token."""
    weight_C = torch.linspace(-1, 2, 7, dtype=logp_C.dtype)[chunk]
    return (weight_C * logp_C.exp() - 0.3 * weight_C * entropy_C**2).sum()


@pytest.mark.parametrize("layout", [TokenBatch, SharedBatch, PackedBatch], ids=lambda x: x.__name__)
@pytest.mark.parametrize("kind", ["tied", "untied", "lora", "softcap", "kept"])
@pytest.mark.parametrize("chunk", [2, 100], ids=["chunks", "one chunk"])
def test_a_loss_over_tokens_is_that_of_the_log_probs(monkeypatch, kind, layout, chunk):
    lora = Lora(rank=4) if kind == "lora" else None
    options = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "tied": kind != "untied"}
    if kind == "softcap":
        policy = softcapped()
    else:
        policy = load_policy(Model(build="tiny", build_options=options, lora=lora), seed=0)
    policy.model.double()
    kept = (torch.arange(20).int().expand(7, 20), torch.full((7,), 20))
    settings = {
        "temperature": 0.7,
        "entropy_gradient": True,
        "kept": kept if kind == "kept" else None,
    }
    monkeypatch.setattr(llmalign.head, "CHUNK_LOGITS", chunk * 259)
    tokens = layout.from_rows(ROWS, pad_id=0, device=CPU)

    def gradient():
        grads = [p.grad for p in policy.trainable.values() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        policy.model.zero_grad()
        return flat

    logp_BT, entropy_BT = policy.logprobs(tokens, **settings)
    mask_BT = tokens.mask_BT
    loss = curved(logp_BT[mask_BT], entropy_BT[mask_BT], slice(0, 7))
    loss.backward()
    expected = gradient()
    found, *values = policy.loss_over_tokens(tokens, curved, **settings)
    found.backward()
    # The library's norm works in float32: its round-off is all that may differ.
    assert found.item() == pytest.approx(loss.item(), rel=1e-6)
    assert torch.allclose(gradient(), expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
    for one, other in zip(values, (logp_BT, entropy_BT), strict=True):
        assert not one.requires_grad and torch.allclose(one, other, rtol=0, atol=1e-6)


def test_a_loss_over_tokens_without_gradients_is_only_computed(policy):
    with torch.no_grad():
        loss, logp_BT, _ = policy.loss_over_tokens(batch(policy), curved, temperature=1.0)
    assert not loss.requires_grad
    assert torch.equal(logp_BT, policy.logprobs(batch(policy), temperature=1.0)[0])


def test_entropy_carries_a_gradient_only_when_asked(policy):
    _, entropy_BT = policy.logprobs(batch(policy), temperature=1.0)
    assert not entropy_BT.requires_grad
    _, entropy_BT = policy.logprobs(batch(policy), temperature=1.0, entropy_gradient=True)
    assert entropy_BT.requires_grad


def test_an_empty_prompt_is_refused(policy):
    with pytest.raises(ValueError, match="empty prompt"):
        batch(policy, [([], [1, 2])])


def test_the_reference_does_not_move_with_the_policy():
    policy = load_policy(Model(build="tiny"), seed=0)
    reference = Reference(policy)
    before = reference.logprobs(batch(policy), temperature=1.0)
    with torch.no_grad():
        next(iter(policy.trainable.values())).add_(1.0)
    assert torch.equal(reference.logprobs(batch(policy), temperature=1.0), before)
    assert not torch.allclose(policy.logprobs(batch(policy), temperature=1.0)[0], before)


def test_lora_trains_only_adapters_and_its_reference_is_the_base():
    policy = load_policy(Model(build="tiny", lora=Lora(rank=4)), seed=0)
    assert policy.has_adapter and all("lora_" in name for name in policy.trainable)
    reference = Reference(policy)
    base = reference.logprobs(batch(policy), temperature=1.0)
    with torch.no_grad():
        for name, p in policy.trainable.items():
            if "lora_B" in name:
                p.add_(0.1)
    assert torch.equal(reference.logprobs(batch(policy), temperature=1.0), base)
    assert not torch.allclose(policy.logprobs(batch(policy), temperature=1.0)[0], base)


def test_a_final_softcap_is_honoured():
    policy = softcapped()
    logp_BT, _ = policy.logprobs(batch(policy), temperature=1.0)
    expected, _ = plain_logprobs(policy, *ROWS[1], 1.0)
    assert logp_BT[1].tolist() == pytest.approx(expected, abs=1e-5)


def test_an_architecture_that_changes_its_logits_is_refused():
    config = LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    original = model.forward

    def doubled(*args, **kwargs):
        out = original(*args, **kwargs)
        out.logits = out.logits * 2 + 1
        return out

    model.forward = doubled
    with pytest.raises(ValueError, match="'llama' changes its logits after the head"):
        Policy(model, build_tokenizer(), CPU)


@pytest.mark.parametrize(
    ("path", "message"),
    [("./no/such/folder", "model.path is './no/such/folder', expected a folder with config.json")],
)
def test_a_path_that_does_not_exist_is_named(path, message):
    with pytest.raises(FileNotFoundError, match=message):
        load_policy(Model(path=path), seed=0)


def test_a_saved_policy_loads_again_and_says_the_same(tmp_path, policy):
    policy.save(tmp_path)
    again = load_policy(Model(path=str(tmp_path)), seed=1)
    expected = policy.logprobs(batch(policy), temperature=1.0)[0]
    assert torch.equal(again.logprobs(batch(again), temperature=1.0)[0], expected)


@pytest.mark.parametrize("tokens", [1, 8, 20, 1000])
def test_microbatches_hold_every_row_once_within_the_budget(tokens):
    length_B = [3, 9, 4, 4, 1, 7]
    portions = list(microbatches(length_B, tokens=tokens))
    assert sorted(b for p in portions for b in p) == list(range(6))
    for portion in portions:
        padded = max(length_B[b] for b in portion) * len(portion)
        assert padded <= tokens or len(portion) == 1


def test_a_short_row_is_not_padded_for_more_than_a_pass_of_its_own_costs():
    length_B = [100, 98, 97, 10, 9, 8]
    cut = list(microbatches(length_B, tokens=1000, padding=20))
    assert cut == [[0, 1, 2], [3, 4, 5]]
    assert len(list(microbatches(length_B, tokens=1000))) == 1
    assert len(list(microbatches(length_B, tokens=1000, padding=0))) == 6
