"""How rows are laid out: which layout is chosen, and that each gives the same numbers."""

import random
import warnings

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

import llmalign.packing
from llmalign.batch import (
    PackedBatch,
    SharedBatch,
    TokenBatch,
    packed_microbatches,
)
from llmalign.forward import Forward
from llmalign.packing import why_not_packed
from llmalign.policy import Policy, load_policy
from llmalign.schema import Lora, Model, Schedule
from llmalign.tiny import build_tiny, build_tokenizer

CPU = torch.device("cpu")
OPTIONS = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 48}


def rows_of(lengths, prompt=6):
    """Rows of their own prompts with responses of these lengths."""
    rng = random.Random(0)
    draw = lambda count: tuple(rng.choices(range(3, 250), k=count))  # noqa: E731
    return [(draw(prompt), draw(length)) for length in lengths]


UNEVEN = rows_of([2, 40, 3, 5, 1, 33])


def policy_of(model=None):
    tiny, tokenizer = build_tiny(OPTIONS, seed=0)
    return Policy(model or tiny, tokenizer, CPU)


def gradient(policy, layout, rows):
    """Of some loss of all log-probs and entropies, as one flat tensor; with log-probs by row."""
    policy.model.zero_grad()
    batch = layout.from_rows(rows, pad_id=policy.pad_id, device=CPU)
    logp_BT, entropy_BT = policy.logprobs(batch, temperature=0.8, entropy_gradient=True)
    (logp_BT.pow(2).sum() - 0.3 * entropy_BT.sum()).backward()
    grads = [p.grad.flatten() for p in policy.trainable.values() if p.grad is not None]
    return logp_BT.detach(), torch.cat(grads)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "gradient checkpointing"])
@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_packed_rows_have_the_log_probs_and_gradient_of_padded_rows(kind, checkpointing):
    config = LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    policy = policy_of(LlamaForCausalLM(config) if kind == "llama" else None)
    policy.model.double()
    if checkpointing:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        policy.model.train()
    logp_BT, grad = gradient(policy, TokenBatch, UNEVEN)
    packed_logp_BT, packed_grad = gradient(policy, PackedBatch, UNEVEN)
    # The norm is in float32 whatever the model is: this is its round-off, not the layout's.
    assert torch.allclose(packed_logp_BT, logp_BT, rtol=0, atol=1e-5)
    assert torch.allclose(packed_grad, grad, rtol=0, atol=1e-5 * float(grad.abs().max()))


def test_no_packed_row_is_read_by_another():
    policy = policy_of()
    other = [*UNEVEN[:2], ((7, 8, 9), (4,) * 20), *UNEVEN[3:]]
    logp_BT, _ = gradient(policy, PackedBatch, UNEVEN)
    changed_BT, _ = gradient(policy, PackedBatch, other)
    same = [0, 1, 3, 4, 5]
    assert torch.equal(logp_BT[same], changed_BT[same])
    assert not torch.allclose(logp_BT[2, :3], changed_BT[2, :3])


def test_attention_of_packed_rows_is_asked_for_row_by_row_only(monkeypatch):
    policy = policy_of()
    seen, original = [], llmalign.packing._SDPA

    def record(module, query, *rest, **kwargs):
        seen.append(query.shape[2])
        return original(module, query, *rest, **kwargs)

    monkeypatch.setattr(llmalign.packing, "_SDPA", record)
    gradient(policy, PackedBatch, UNEVEN)
    assert sorted(seen) == sorted(2 * [len(p) + len(r) for p, r in UNEVEN])


def test_an_empty_prompt_is_refused_when_packing():
    with pytest.raises(ValueError, match="empty prompt"):
        PackedBatch.from_rows([((), (1, 2))], pad_id=0, device=CPU)


@pytest.mark.parametrize("tokens", [1, 40, 90, 1000])
@pytest.mark.parametrize("units", [None, [1, 1, 2, 2, 1, 3]], ids=["rows", "units"])
def test_packed_portions_hold_every_row_once_within_the_budget(tokens, units):
    length_B = [3, 39, 4, 4, 1, 37]
    portions = list(packed_microbatches(length_B, tokens=tokens, units=units))
    assert sorted(b for p in portions for b in p) == list(range(6))
    for portion in portions:
        numbers = {b if units is None else units[b] for b in portion}
        assert sum(length_B[b] for b in portion) <= tokens or len(numbers) == 1
    if units is not None:
        homes = [[units[b] for b in p] for p in portions]
        assert all(
            not set(one) & set(other) for one in homes for other in homes if one is not other
        )


def layouts(policy, rows, **changes):
    forward = Forward(policy, Schedule(**changes))
    return {type(batch) for _, batch in forward.batches(rows, range(len(rows)))}


GROUP = [((5,) * 60, (n, 2)) for n in range(3, 11)]  # one prompt, eight short responses


@pytest.mark.parametrize(
    ("rows", "changes", "expected"),
    [
        (UNEVEN, {}, PackedBatch),
        (UNEVEN, {"packing": "never"}, TokenBatch),
        (rows_of([9] * 6), {}, TokenBatch),
        (rows_of([9] * 6), {"packing": "always"}, PackedBatch),
        (GROUP, {}, SharedBatch),
        (GROUP, {"share_prompts": "never"}, TokenBatch),
        (GROUP, {"share_prompts": "always", "packing": "always"}, SharedBatch),
        (UNEVEN, {"tokens_per_microbatch": 30}, TokenBatch),
    ],
    ids=[
        "uneven rows", "not wanted", "even rows", "even rows, wanted", "long prompt of a group",
        "sharing not wanted", "both wanted", "rows alone have no padding",
    ],
)  # fmt: skip
def test_the_layout_is_that_of_least_work(rows, changes, expected):
    assert layouts(policy_of(), rows, **changes) == {expected}


def test_rows_that_belong_together_stay_together_when_packed():
    forward = Forward(policy_of(), Schedule(tokens_per_microbatch=20, packing="always"))
    units = [1, 2, 1, 2, 1, 2]
    found = list(forward.batches(UNEVEN, range(6), units))
    assert sorted(sorted(portion) for portion, _ in found) == [[0, 2, 4], [1, 3, 5]]
    assert all(type(batch) is PackedBatch for _, batch in found)


def test_no_row_at_all_is_no_batch():
    assert list(Forward(policy_of(), Schedule()).batches(UNEVEN, [])) == []


def test_packing_goes_on_under_dropout_and_an_adapter():
    policy = load_policy(
        Model(build="tiny", build_options=OPTIONS, lora=Lora(rank=2, dropout=0.1)), seed=0
    )
    assert layouts(policy, UNEVEN) == {PackedBatch}
    assert layouts(policy, GROUP) == {TokenBatch}


@pytest.mark.parametrize("rows", [UNEVEN, UNEVEN[1:2]], ids=["several rows", "one row"])
def test_a_row_that_sees_its_neighbour_is_found_by_the_check(monkeypatch, rows):
    policy = policy_of()
    assert policy.packs_rows(rows) is None
    honest = llmalign.packing.packed_arguments
    monkeypatch.setattr("llmalign.policy.packed_arguments", lambda *given: honest(*given) and {})
    monkeypatch.setattr(  # the library, too, would tell rows apart by their positions
        "transformers.masking_utils.find_packed_sequence_indices", lambda position_ids: None
    )
    assert policy.packs_rows(rows) == "it gives other log-probs"
    forward = Forward(policy, Schedule())
    with pytest.warns(UserWarning, match="not packed: it gives other log-probs; they are padded"):
        found = {type(batch) for _, batch in forward.batches(UNEVEN, range(6))}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        found |= {type(batch) for _, batch in forward.batches(UNEVEN, range(6))}
    assert found == {TokenBatch}


def mistral(window):
    return MistralConfig(
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, sliding_window=window,
    )  # fmt: skip


def test_a_sliding_window_is_not_packed_and_says_so():
    policy = Policy(MistralForCausalLM(mistral(8)), build_tokenizer(), CPU)
    with pytest.warns(UserWarning, match="'mistral' are not packed: its attention slides"):
        assert layouts(policy, UNEVEN, packing="always") == {TokenBatch}
    assert why_not_packed(Policy(MistralForCausalLM(mistral(None)), build_tokenizer(), CPU)
                          .model.config) is None  # fmt: skip


def test_other_attention_than_sdpa_and_flash_is_not_packed():
    policy = policy_of()
    policy.model.set_attn_implementation("eager")
    assert "attention is 'eager'" in policy.packs_rows(UNEVEN)


def test_a_model_that_takes_no_such_argument_is_padded(monkeypatch):
    policy = policy_of()
    original = policy._decoder.forward

    def narrow(input_ids, *, use_cache, position_ids=None):
        return original(input_ids, use_cache=use_cache, position_ids=position_ids)

    monkeypatch.setattr(policy._decoder, "forward", narrow)
    assert "TypeError" in policy.packs_rows(UNEVEN)


def test_once_rows_were_packed_others_still_attend_as_before():
    policy = policy_of()
    before, _ = gradient(policy, TokenBatch, UNEVEN)
    shared, _ = gradient(policy, SharedBatch, GROUP)
    gradient(policy, PackedBatch, UNEVEN)
    assert torch.equal(gradient(policy, TokenBatch, UNEVEN)[0], before)
    assert torch.equal(gradient(policy, SharedBatch, GROUP)[0], shared)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_rows_are_packed_by_one_kernel_and_say_the_same():
    model, tokenizer = build_tiny(OPTIONS | {"hidden_size": 128}, seed=0)
    policy = Policy(model, tokenizer, torch.device("cuda"))
    assert policy.packs_rows(UNEVEN) is None
