import copy

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

import llmalign.head
from llmalign.batch import PackedBatch, SharedBatch, TokenBatch
from llmalign.distributions import (
    end_after_logprobs,
    end_logprobs,
    logprobs_and_reference_kl,
    reference_kl,
)
from llmalign.losses.policy.asft import sft_kl
from llmalign.losses.policy.trajectory_balance import subtrajectory_balance
from llmalign.policy import Policy, load_policy
from llmalign.reference import open_reference
from llmalign.schema import Lora, Model
from llmalign.tiny import build_tokenizer

ROWS = [([1, 5, 6], [7, 8]), ([1, 9], [10, 11, 12, 13]), ([1, 9], [2]), ([1, 4, 4], [])]
TOKENS = sum(len(response) for _, response in ROWS)
SIZE = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 24}
MODELS = {
    "whole": {},
    "lora": {"lora": Lora(rank=2)},
    "lora on the head": {"lora": Lora(rank=2, targets=["q_proj", "lm_head"])},
    "softcap": None,
}
EACH = pytest.mark.parametrize("model", MODELS)
LAYOUTS = pytest.mark.parametrize("layout", [TokenBatch, SharedBatch, PackedBatch])


@pytest.fixture(autouse=True)
def norms_in_float64(monkeypatch):
    """The library computes these norms in float32 whatever the model is, round-off included."""

    def root(hidden, eps):
        return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps)

    monkeypatch.setattr(
        Qwen3RMSNorm, "forward", lambda self, h: self.weight * root(h, self.variance_epsilon)
    )
    monkeypatch.setattr(
        Gemma2RMSNorm, "forward", lambda self, h: (1 + self.weight) * root(h, self.eps)
    )


def policy_of(name):
    if name == "softcap":
        config = Gemma2Config(
            vocab_size=259, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, head_dim=8, final_logit_softcapping=3.0,
        )  # fmt: skip
        torch.manual_seed(0)
        model = Gemma2ForCausalLM(config).eval()
        return Policy(model.double(), build_tokenizer(), torch.device("cpu"))
    options = SIZE | {"tied": name == "whole"}
    policy = load_policy(Model(build="tiny", build_options=options, **MODELS[name]), seed=0)
    policy.model.double()
    return policy


@torch.no_grad()
def shift(policy, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for p in policy.trainable.values():
        p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    policy.version += 1


def batch_of(policy, layout=TokenBatch):
    return layout.from_rows(ROWS, pad_id=policy.pad_id, device=policy.device)


def naive_logits(model):
    """[N, V]: every logit at once, one row at a time, no padding."""
    parts = []
    for prompt, response in ROWS:
        ids = torch.tensor([[*prompt, *response]])
        parts.append(model(input_ids=ids).logits[0, len(prompt) - 1 : ids.shape[1] - 1])
    return torch.cat(parts)


def naive_kl(policy, ref_logits_NV, temperature):
    p_NV = torch.softmax(naive_logits(policy.model) / temperature, -1)
    q_NV = torch.softmax(ref_logits_NV / temperature, -1)
    return (q_NV * (q_NV / p_NV).log()).sum(-1)


def gradient(policy, kl_N):
    """Of a sum in which each token has another weight."""
    policy.model.zero_grad()
    (torch.linspace(-1, 2, len(kl_N), dtype=kl_N.dtype) * kl_N).sum().backward()
    grads = [p.grad for p in policy.trainable.values() if p.grad is not None]
    return torch.cat([g.flatten().clone() for g in grads])


@LAYOUTS
@pytest.mark.parametrize("chunk_tokens", [1, 3, TOKENS, 100])
@EACH
def test_the_kl_and_its_gradient_are_those_of_all_logits_at_once(
    model, chunk_tokens, layout, monkeypatch
):
    policy = policy_of(model)
    reference = open_reference(policy, kind="start", rate=1.0, every=1)
    ref_logits_NV = naive_logits(policy.model).detach()
    shift(policy)
    batch = batch_of(policy, layout)
    rows = policy.model.config.vocab_size
    monkeypatch.setattr(llmalign.head, "CHUNK_LOGITS", chunk_tokens * rows + 5)
    kl_BT = reference_kl(policy, reference, batch, temperature=0.7)
    expected_N = naive_kl(policy, ref_logits_NV, 0.7)
    assert expected_N.min() > 1e-4
    assert torch.allclose(kl_BT[batch.mask_BT], expected_N, rtol=0, atol=1e-12)
    assert (kl_BT[~batch.mask_BT] == 0).all()
    found, expected = gradient(policy, kl_BT[batch.mask_BT]), gradient(policy, expected_N)
    assert expected.abs().max() > 1e-3
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", ["whole", "lora", "lora on the head"])
def test_the_kl_to_a_reference_that_moved_is_to_its_weights_of_the_moment(model, monkeypatch):
    policy = policy_of(model)
    reference = open_reference(policy, kind="ema", rate=0.6, every=1)
    there = copy.deepcopy(policy.model)
    shift(policy)
    reference.after_update(policy.version)
    with torch.no_grad():
        for name, p in there.named_parameters():
            if p.requires_grad:
                p.copy_(0.6 * policy.trainable[name] + 0.4 * p)
    shift(policy, seed=2)
    monkeypatch.setattr(llmalign.head, "CHUNK_LOGITS", 2 * policy.model.config.vocab_size)
    batch = batch_of(policy)
    kl_N = reference_kl(policy, reference, batch, temperature=1.0)[batch.mask_BT]
    expected_N = naive_kl(policy, naive_logits(there).detach(), 1.0)
    assert torch.allclose(kl_N, expected_N, rtol=0, atol=1e-12)
    found, expected = gradient(policy, kl_N), gradient(policy, expected_N)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


@EACH
def test_the_kl_to_itself_and_its_gradient_are_nothing(model):
    policy = policy_of(model)
    reference = open_reference(policy, kind="start", rate=1.0, every=1)
    batch = batch_of(policy)
    kl_N = reference_kl(policy, reference, batch, temperature=1.0)[batch.mask_BT]
    assert kl_N.abs().max() < 1e-15
    assert gradient(policy, kl_N).abs().max() < 1e-14


def test_never_more_than_a_chunk_of_logits_is_alive_also_in_the_backward_pass(monkeypatch):
    policy = policy_of("whole")
    reference = open_reference(policy, kind="start", rate=1.0, every=1)
    shift(policy)
    seen = []
    original = Policy.next_logits
    monkeypatch.setattr(
        Policy,
        "next_logits",
        lambda self, h: seen.append((self is policy, len(h))) or original(self, h),
    )
    monkeypatch.setattr(llmalign.head, "CHUNK_LOGITS", 3 * policy.model.config.vocab_size)
    batch = batch_of(policy)
    kl_BT = reference_kl(policy, reference, batch, temperature=1.0)
    assert sorted(seen) == sorted(
        [(True, 3), (True, 3), (True, 1), (False, 3), (False, 3), (False, 1)]
    )
    seen.clear()
    kl_BT.sum().backward()
    assert sum(mine for mine, _ in seen) == 3 and max(n for _, n in seen) == 3


@pytest.mark.parametrize("model", ["whole", "lora"])
def test_one_pass_gives_the_log_probs_and_the_kl_of_two(model):
    policy = policy_of(model)
    reference = open_reference(policy, kind="start", rate=1.0, every=1)
    shift(policy)
    batch = batch_of(policy)
    passes = []
    hook = policy._decoder.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    together = logprobs_and_reference_kl(
        policy, reference, batch, temperature=0.7, entropy_gradient=True
    )
    hook.remove()
    assert passes.count(True) == 1
    logp_BT, entropy_BT = policy.logprobs(batch, temperature=0.7, entropy_gradient=True)
    apart = logp_BT, entropy_BT, reference_kl(policy, reference, batch, temperature=0.7)
    for one, other in zip(together, apart, strict=True):
        assert torch.equal(one, other)
    total = [gradient(policy, sum(parts)[batch.mask_BT]) for parts in (together, apart)]
    assert torch.allclose(*total, rtol=0, atol=1e-12)


def test_dropout_in_training_reaches_the_policy_and_not_the_reference():
    policy = load_policy(
        Model(build="tiny", build_options=SIZE, lora=Lora(rank=2, dropout=0.5)), seed=0
    )
    reference = open_reference(policy, kind="ema", rate=1.0, every=1)
    batch = batch_of(policy)
    shift(policy)
    policy.model.eval()
    still = reference.predicting(batch)
    policy.model.train()
    assert torch.equal(reference.predicting(batch), still)
    kls = [reference_kl(policy, reference, batch, temperature=1.0) for _ in range(2)]
    assert policy.model.training and not torch.equal(*kls)


def test_gradient_checkpointing_changes_nothing():
    policy = policy_of("lora")
    reference = open_reference(policy, kind="ema", rate=0.5, every=1)
    shift(policy)
    reference.after_update(policy.version)
    batch = batch_of(policy)

    def found():
        policy.model.train()
        kl_BT = reference_kl(policy, reference, batch, temperature=1.0)
        return kl_BT.detach(), gradient(policy, kl_BT[batch.mask_BT])

    plain = found()
    policy.model.gradient_checkpointing_enable(
        gradient_checkpointing_kwargs={"use_reentrant": False}
    )
    policy.model.enable_input_require_grads()
    for one, other in zip(plain, found(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-13)


def test_a_strong_anchor_keeps_the_policy_near_its_reference():
    def distance(kl_coef):
        policy = policy_of("whole")
        reference = open_reference(policy, kind="start", rate=1.0, every=1)
        batch = batch_of(policy)
        optimizer = torch.optim.SGD(policy.trainable.values(), lr=0.02)
        for _ in range(10):
            optimizer.zero_grad()
            logp_BT, _, kl_BT = logprobs_and_reference_kl(policy, reference, batch, temperature=1.0)
            sft_kl(logp_BT, batch.mask_BT, kl_BT, kl_coef=kl_coef).sum().backward()
            optimizer.step()
        return float(reference_kl(policy, reference, batch, temperature=1.0).detach().sum())

    assert distance(5.0) < 0.5 * distance(0.0)


@LAYOUTS
@pytest.mark.parametrize("chunk_tokens", [1, 3, TOKENS, 100])
@pytest.mark.parametrize("ends", [{2}, {2, 7, 40}], ids=["one end", "several ends"])
def test_the_log_probability_of_an_end_is_that_of_the_text_before_each_token(
    ends, chunk_tokens, layout, monkeypatch
):
    policy = policy_of("whole")
    policy.eos_ids = frozenset(ends)
    monkeypatch.setattr(
        llmalign.head, "CHUNK_LOGITS", chunk_tokens * policy.model.config.vocab_size
    )
    batch = batch_of(policy, layout)
    found_BT = end_logprobs(policy, batch, temperature=0.6)
    assert not found_BT.requires_grad and (found_BT[~batch.mask_BT] == 0).all()
    for b, (prompt, response) in enumerate(ROWS):
        for t in range(len(response)):
            before = torch.tensor([[*prompt, *response[:t]]])
            p_V = torch.softmax(policy.model(input_ids=before).logits[0, -1] / 0.6, -1)
            expected = sum(p_V[e] for e in ends).log()
            assert abs(float(found_BT[b, t] - expected.detach())) < 1e-12


def test_subtrajectory_balance_takes_the_log_probability_of_an_end():
    policy = policy_of("whole")
    batch = batch_of(policy)
    logp_BT, _ = policy.logprobs(batch, temperature=1.0)
    end_BT = end_logprobs(policy, batch, temperature=1.0)
    options = (logp_BT, logp_BT.detach(), torch.zeros_like(logp_BT), batch.mask_BT)
    loss_BT, _ = subtrajectory_balance(*options, end_BT, decay=1.0)
    # Row 1 by hand: F + e at its four tokens, all pairs alike.
    balance_T = logp_BT[1].cumsum(0) + end_BT[1]
    pairs = [(balance_T[a] - balance_T[b]) ** 2 for a in range(4) for b in range(a + 1, 4)]
    assert torch.allclose(loss_BT[1, 0], sum(pairs) / 6)


def test_a_policy_that_cannot_end_an_answer_is_refused():
    policy = policy_of("whole")
    policy.eos_ids = frozenset()
    with pytest.raises(ValueError, match="no token that ends an answer, expected at least one"):
        end_logprobs(policy, batch_of(policy), temperature=1.0)


def test_ending_behind_a_token_is_ending_before_the_next_and_nothing_behind_the_end():
    policy = load_policy(Model(build="tiny"), seed=0)
    end = sorted(policy.eos_ids)[0]
    rows = [((1, 5), (7, 8, 9)), ((1,), (6, end))]
    found_BT = end_after_logprobs(policy, rows, temperature=0.7)
    longer = [((1, 5), (7, 8, 9, 3)), ((1,), (6, end, 3))]
    batch = TokenBatch.from_rows(longer, pad_id=policy.pad_id, device=policy.device)
    before_BT = end_logprobs(policy, batch, temperature=0.7)
    assert torch.equal(found_BT[0], before_BT[0, 1:])
    assert found_BT[1].tolist() == [before_BT[1, 1].item(), 0.0, 0.0]
