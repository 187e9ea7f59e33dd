import copy

import pytest
import torch
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from llmalign.batch import TokenBatch
from llmalign.maps import attention_maps, middle_layers
from llmalign.policy import Policy, load_policy
from llmalign.schema import Lora, Model
from llmalign.tiny import build_tokenizer
from llmalign.token_weights import attention

ROWS = [
    ([1, 5, 6], [7, 8, 30, 31, 32]),
    ([1, 9], [10, 11, 12, 13, 14, 15, 16, 90, 91, 92, 93, 94]),
    ([1, 4], []),
    ([1, 4, 4, 4, 8, 8, 8], [2]),
]
SIZE = {"hidden_size": 16, "num_layers": 7, "num_heads": 4, "intermediate_size": 24}
LAYERS = [2, 3, 4]  # of seven, the middle third
HF = {"vocab_size": 259, "hidden_size": 16, "num_hidden_layers": 7, "num_attention_heads": 4}
SLIM = HF | {"intermediate_size": 24}
GPT2 = {"vocab_size": 259, "n_embd": 16, "n_layer": 7, "n_head": 4, "attn_pdrop": 0.5}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SLIM)),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SLIM, num_key_value_heads=2, head_dim=4, sliding_window=4)
    ),
    "gpt2, dropout": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SLIM)),
}


def wrapped(model):
    torch.manual_seed(0)
    return Policy(model().eval(), build_tokenizer(), torch.device("cpu"))


def tiny(**model):
    return load_policy(Model(build="tiny", build_options=SIZE, **model), seed=0)


@pytest.fixture(scope="module")
def policy():
    return tiny()


@torch.no_grad()
def plain_maps(policy, prompt, response, share=0.3):
    """Oracle: all weights of all layers, one row, heads ranked by loops."""
    model = copy.deepcopy(policy.model).eval()
    model = model.get_base_model() if policy.has_adapter else model
    model.set_attn_implementation("eager")
    out = model(torch.tensor([[*prompt, *response]]), output_attentions=True)
    start, length = len(prompt), len(response)
    heads = []
    for layer in LAYERS:
        for head_LL in out.attentions[layer][0]:
            kept = head_LL[start:, start:].tolist()
            far = sum(kept[t][s] * (t - s) for t in range(length) for s in range(t + 1)) / length
            heads.append((far, kept))
    heads.sort(key=lambda pair: pair[0])
    count = max(1, round(share * len(heads)))
    return [
        torch.tensor([kept for _, kept in side]).mean(0) for side in (heads[:count], heads[-count:])
    ]


def assert_right(policy, rows=ROWS, **options):
    local_BTT, global_BTT = attention_maps(policy, rows, **options)
    for b, (prompt, response) in enumerate(rows):
        n = len(response)
        for found_BTT, side in ((local_BTT, 0), (global_BTT, 1)):
            if n:
                expected = plain_maps(policy, prompt, response, **options)[side]
                assert torch.allclose(found_BTT[b, :n, :n], expected, atol=1e-6)
            assert (found_BTT[b, n:] == 0).all() and (found_BTT[b, :, n:] == 0).all()
            assert (found_BTT[b].triu(1) == 0).all()
    return local_BTT, global_BTT


@pytest.mark.parametrize("share", [0.3, 0.5, 0.01])
def test_the_maps_are_those_of_the_nearest_and_farthest_heads_of_the_middle_layers(policy, share):
    local_BTT, global_BTT = assert_right(policy, share=share)
    assert local_BTT.shape == (4, 12, 12)
    assert not torch.allclose(local_BTT[1], global_BTT[1], atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_other_architectures_are_read_as_well_in_training_mode_too(name):
    policy = wrapped(MODELS[name])
    policy.model.train()
    assert_right(policy)
    assert policy.model.training


def test_an_adapter_counts():
    policy = tiny(lora=Lora(rank=2))
    base = attention_maps(policy, ROWS)
    with torch.no_grad():
        for p in policy.trainable.values():
            p.add_(0.5)
    moved = assert_right(policy)
    assert not torch.allclose(base[1], moved[1], atol=1e-4)


def test_what_the_prompt_gets_never_enters_and_rows_know_nothing_of_each_other(policy):
    local_BTT, _ = attention_maps(policy, ROWS)
    total_T = local_BTT[1].sum(-1)
    assert (total_T < 1).all() and (total_T > 0).all()
    for b, row in enumerate(ROWS):
        alone_BTT, _ = attention_maps(policy, [row])
        n = len(row[1])
        assert torch.equal(alone_BTT[0], local_BTT[b, :n, :n])


def test_a_float64_model_gives_float64_maps():
    policy = tiny()
    policy.model.double()
    assert attention_maps(policy, ROWS[:1])[0].dtype == torch.float64


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "lora"])
def test_the_model_is_as_it_was_afterwards_and_after_an_error(lora, training):
    policy = tiny(lora=lora)
    policy.model.train(training)
    batch = TokenBatch.from_rows(ROWS[:2], pad_id=policy.pad_id, device=policy.device)
    before = policy.logprobs(batch, temperature=1.0)[0]
    config = policy._decoder.config
    assert config._attn_implementation == "sdpa"
    seen = []
    hook = policy._decoder.register_forward_hook(
        lambda *_: seen.append(config._attn_implementation)
    )
    attention_maps(policy, ROWS)
    hook.remove()
    assert set(seen) == {"eager"}
    with pytest.raises(IndexError):
        attention_maps(policy, [([1], [2, 10_000])])
    assert config._attn_implementation == "sdpa" and policy.model.training == training
    assert not any(layer.self_attn._forward_hooks for layer in policy._decoder.layers)
    assert torch.equal(policy.logprobs(batch, temperature=1.0)[0], before)


@pytest.mark.parametrize(
    ("name", "build"),
    [
        (
            "mamba",
            lambda: MambaForCausalLM(MambaConfig(vocab_size=259, hidden_size=16, state_size=4)),
        ),
        ("falcon", lambda: FalconForCausalLM(FalconConfig(**HF))),
    ],
    ids=["no attention", "weights withheld"],
)
def test_a_model_without_attention_weights_is_named(name, build):
    policy = wrapped(build)
    with pytest.raises(ValueError, match=f"model type '{name}' gives no attention weights"):
        attention_maps(policy, ROWS)


def test_token_weights_take_the_maps_as_they_are(policy):
    batch = TokenBatch.from_rows(ROWS, pad_id=policy.pad_id, device=policy.device)
    options = {"anchors": "global", "share": 0.4, "boost": 1.5, "window": 10, "near": 2, "far": 50}
    weight_BT = attention(*attention_maps(policy, ROWS), batch.mask_BT, **options)
    assert (weight_BT[1] == 1.5).sum() == 5  # the top two fifths of twelve tokens
    assert (weight_BT[~batch.mask_BT] == 0).all()


def test_no_rows_give_no_maps(policy):
    assert attention_maps(policy, [])[0].shape == (0, 0, 0)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [0]),
        (2, [0, 1]),
        (4, [1, 2]),
        (7, LAYERS),
        (28, [9, 11, 14, 16, 18]),
        (36, [12, 15, 18, 20, 23]),
    ],
)
def test_five_layers_are_spread_over_the_middle_third(count, expected):
    assert middle_layers(count, 5) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "num_layers is 0, expected >= 1"),
        ({"share": 0.0}, r"share is 0.0, expected a number in \(0, 1\]"),
    ],
)
def test_options_out_of_range_are_named(policy, options, message):
    with pytest.raises(ValueError, match=message):
        attention_maps(policy, ROWS, **options)
