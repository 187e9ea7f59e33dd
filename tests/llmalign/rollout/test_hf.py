import math
from collections import Counter

import pytest
import torch

from llmalign.batch import TokenBatch
from llmalign.policy import load_policy
from llmalign.rollout import Request, SamplingParams
from llmalign.rollout.hf import HfEngine, sample_tokens
from llmalign.schema import Lora, Model
from llmalign.truncation import keep_top

PROMPTS = ["1+1=", "a long prompt here: 12*34=", "x"]


@pytest.fixture(scope="module")
def policy():
    return load_policy(Model(build="tiny"), seed=0)


def requests(policy, samples=4):
    ids = [tuple(policy.tokenizer(p)["input_ids"]) for p in PROMPTS]
    return [Request(ids[i], seed=100 * i + s) for i in range(len(ids)) for s in range(samples)]


def generate(policy, asked, params, batch_size=64):
    found = dict(HfEngine(policy, batch_size=batch_size).generate(asked, params))
    return [found[i] for i in range(len(asked))]


def test_order_and_batching_do_not_change_what_is_drawn(policy):
    asked, params = requests(policy), SamplingParams(12)
    together = generate(policy, asked, params)
    backwards = generate(policy, asked[::-1], params, batch_size=5)[::-1]
    assert [s.token_ids for s in together] == [s.token_ids for s in backwards]
    assert len({s.token_ids for s in together}) == len(asked)


@pytest.mark.parametrize(
    "params",
    [SamplingParams(12), SamplingParams(12, temperature=0.6)],
    ids=["plain", "temperature"],
)
def test_logprobs_are_the_trainers_under_the_same_temperature(policy, params):
    asked = requests(policy)
    samples = generate(policy, asked, params)
    rows = [(r.prompt_ids, s.token_ids) for r, s in zip(asked, samples, strict=True)]
    batch = TokenBatch.from_rows(rows, pad_id=policy.pad_id, device=policy.device)
    logp_BT, _ = policy.logprobs(batch, temperature=params.temperature)
    for b, sample in enumerate(samples):
        assert logp_BT[b, : len(sample.logprobs)].tolist() == pytest.approx(
            sample.logprobs, abs=1e-4
        )


def test_an_adapter_is_sampled_from_with_the_adapter_on():
    policy = load_policy(Model(build="tiny", lora=Lora(rank=4)), seed=0)
    asked = requests(policy)
    before = [s.token_ids for s in generate(policy, asked, SamplingParams(8))]
    with torch.no_grad():
        for name, p in policy.trainable.items():
            if "lora_B" in name:
                p.add_(0.5)
    assert [s.token_ids for s in generate(policy, asked, SamplingParams(8))] != before


def test_the_limit_is_a_finish_reason_and_eos_ends(policy):
    sample = generate(policy, requests(policy)[:1], SamplingParams(5))[0]
    assert len(sample.token_ids) == 5 and sample.finish_reason == "length" and sample.truncated
    eos = policy.eos_ids
    try:
        policy.eos_ids = frozenset({sample.token_ids[2]})
        ended = generate(policy, requests(policy)[:1], SamplingParams(5))[0]
    finally:
        policy.eos_ids = eos
    assert ended.finish_reason == "eos"
    assert ended.token_ids == sample.token_ids[: sample.token_ids.index(sample.token_ids[2]) + 1]


def test_a_stop_string_ends_and_leaves_the_text_but_not_the_tokens(policy):
    whole = generate(policy, requests(policy)[:1], SamplingParams(20))[0]
    stop = whole.text[4:6]
    cut = generate(policy, requests(policy)[:1], SamplingParams(20, stop=(stop,)))[0]
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.token_ids == whole.token_ids[: len(cut.token_ids)]
    assert stop in policy.tokenizer.decode(cut.token_ids)


def test_the_models_context_bounds_a_completion():
    policy = load_policy(Model(build="tiny", build_options={"max_positions": 16}), seed=0)
    asked = [Request(tuple([1] + [5] * 9), 5), Request((1, 5), 1)]
    samples = generate(policy, asked, SamplingParams(100))
    assert [len(s.token_ids) for s in samples] == [6, 14]
    assert all(s.finish_reason == "length" for s in samples)
    with pytest.raises(ValueError, match="a prompt has 16 tokens, expected fewer"):
        generate(policy, [Request(tuple([1] * 16), 0)], SamplingParams(4))


def test_temperature_zero_takes_the_most_likely_token(policy):
    samples = generate(policy, requests(policy), SamplingParams(6, temperature=0.0))
    assert len({s.token_ids for s in samples}) == len(PROMPTS)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (SamplingParams(1), [0.5, 0.25, 0.125, 0.125]),
        (SamplingParams(1, top_k=2), [2 / 3, 1 / 3, 0, 0]),
        (SamplingParams(1, top_p=0.6), [2 / 3, 1 / 3, 0, 0]),
        (SamplingParams(1, top_p=0.5), [1, 0, 0, 0]),
        (SamplingParams(1, min_p=0.4), [2 / 3, 1 / 3, 0, 0]),
        (SamplingParams(1, top_k=3, min_p=0.4), [2 / 3, 1 / 3, 0, 0]),
        (SamplingParams(1, temperature=0.5), [0.25, 0.0625, 0.015625, 0.015625]),
    ],
    ids=["all", "top-k", "top-p", "top-p at the edge", "min-p", "top-k, min-p", "temperature"],
)
def test_what_is_drawn_has_the_asked_distribution_and_its_logprob(params, expected):
    # probabilities 1/2, 1/4, 1/8, 1/8 before temperature and truncation
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64).log()
    total = sum(expected)
    n = 4000
    uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n  # the inverse is exact on a grid
    token, logp = sample_tokens(logits.expand(n, 4), uniform, params)
    counts = Counter(token.tolist())
    for v, p in enumerate(expected):
        assert counts[v] / n == pytest.approx(p / total, abs=1 / n)
        if p:
            assert logp[token == v][0].item() == pytest.approx(math.log(p / total), abs=1e-9)


def test_the_largest_uniform_never_draws_an_impossible_token():
    logits = torch.tensor([[0.0, 1.0, -math.inf]])
    token, _ = sample_tokens(
        logits, torch.tensor([1 - 2**-53], dtype=torch.float64), SamplingParams(1)
    )
    assert token.item() == 1


def test_top_k_larger_than_the_vocabulary_keeps_all():
    logits = torch.randn(2, 5)
    assert torch.equal(keep_top(logits, top_k=50, top_p=1.0, min_p=0.0), logits)
