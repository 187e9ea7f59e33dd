import contextlib
import copy
import io

import pytest
import torch

from llmalign.batch import TokenBatch
from llmalign.optim import Updater
from llmalign.policy import load_policy
from llmalign.reference import MovingReference, Reference, open_reference
from llmalign.schema import Lora, Model, Optimizer

ROWS = [([1, 5, 6], [7, 8]), ([1, 9], [10, 11, 12, 13]), ([1, 4, 4, 4], [2])]
SIZE = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 24}
LORA = {"lora": Lora(rank=2)}
HEAD = {"lora": Lora(rank=2, targets=["q_proj", "lm_head"])}
BOTH = pytest.mark.parametrize("model", [{}, LORA, HEAD], ids=["whole", "lora", "lora on the head"])


def policy_of(model, seed=0):
    options = SIZE | {"tied": "lora" not in model}
    return load_policy(Model(build="tiny", build_options=options, **model), seed=seed)


def batch(policy):
    return TokenBatch.from_rows(ROWS, pad_id=policy.pad_id, device=policy.device)


def logp(model):
    found = model.logprobs(
        batch(model if hasattr(model, "pad_id") else model.policy), temperature=1.0
    )
    return found if isinstance(found, torch.Tensor) else found[0].detach()


@torch.no_grad()
def shift(policy, seed):
    """As an optimizer step would: every weight that learns changes."""
    generator = torch.Generator().manual_seed(seed)
    for p in policy.trainable.values():
        p.add_(0.1 * torch.randn(p.shape, generator=generator))
    policy.version += 1


def weights(policy):
    return {name: p.detach().clone() for name, p in policy.trainable.items()}


@contextlib.contextmanager
def holding(policy, values):
    """A policy of its own with these weights: what a reference must equal."""
    own = weights(policy)
    try:
        for name, p in policy.trainable.items():
            p.data.copy_(values[name])
        yield policy
    finally:
        for name, p in policy.trainable.items():
            p.data.copy_(own[name])


@BOTH
def test_a_moving_reference_is_the_stated_mean_and_moves_at_multiples_alone(model):
    policy = policy_of(model)
    reference = open_reference(policy, kind="ema", rate=0.6, every=3)
    expected, moves = weights(policy), []
    for step in range(1, 8):
        shift(policy, seed=step)
        moves.append(reference.after_update(policy.version))
        if step in (3, 6):
            now = weights(policy)
            expected = {n: 0.6 * now[n] + (1 - 0.6) * expected[n] for n in expected}
    assert moves == [False, False, True, False, False, True, False]
    with holding(policy, expected):
        there = logp(policy)
    assert torch.equal(logp(reference), there)
    assert not torch.allclose(there, logp(policy), atol=1e-2)


@BOTH
def test_a_copy_is_the_policy_as_of_the_last_multiple(model):
    policy = policy_of(model)
    reference = open_reference(policy, kind="copy", rate=0.6, every=2)
    shift(policy, seed=1)
    assert not reference.after_update(policy.version)
    shift(policy, seed=2)
    assert reference.after_update(policy.version)
    then = logp(policy)
    assert torch.equal(logp(reference), then)
    shift(policy, seed=3)
    assert torch.equal(logp(reference), then) and not torch.equal(logp(policy), then)


def test_a_refused_update_moves_nothing_and_a_multiple_passed_over_counts():
    policy = policy_of(LORA)
    policy.version = 5
    reference = MovingReference(policy, rate=1.0, every=4)
    assert [reference.after_update(v) for v in (5, 7, 9, 9, 12, 12)] == [
        False, False, True, False, True, False,
    ]  # fmt: skip


@BOTH
def test_the_start_policy_stays_and_leaves_nothing_to_store(model):
    policy = policy_of(model)
    reference = open_reference(policy, kind="start", rate=0.6, every=1)
    start = logp(reference)
    shift(policy, seed=1)
    assert not reference.after_update(policy.version)
    assert torch.equal(logp(reference), start) and reference.state_dict() == {}
    reference.load_state_dict({})


@pytest.mark.parametrize("kind", ["start", "ema"])
@pytest.mark.parametrize("model", [LORA, HEAD], ids=["lora", "lora on the head"])
def test_a_shared_model_is_the_policy_again_after_the_block_and_after_an_error(model, kind):
    policy = policy_of(model)
    reference = open_reference(policy, kind=kind, rate=0.6, every=1)
    shift(policy, seed=1)
    policy.model.train()
    before = {n: (p.data_ptr(), p.clone(), p.requires_grad) for n, p in policy.trainable.items()}
    inside = None
    with pytest.raises(RuntimeError, match="broken"), reference.loaded() as loaded:
        assert loaded is policy and not policy.model.training
        inside = logp(policy)
        raise RuntimeError("broken")
    assert torch.equal(logp(reference), inside)
    assert policy.model.training and policy.trainable.keys() == before.keys()
    for name, p in policy.trainable.items():
        pointer, value, learns = before[name]
        assert p.data_ptr() == pointer and torch.equal(p, value) and p.requires_grad == learns


def test_a_gradient_taken_before_the_reference_was_loaded_is_still_right():
    policy = policy_of(LORA)
    reference = open_reference(policy, kind="ema", rate=0.6, every=1)
    shift(policy, seed=1)

    def gradient(between):
        policy.model.zero_grad()
        loss = policy.logprobs(batch(policy), temperature=1.0)[0].sum()
        between()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in policy.trainable.values()])

    assert torch.equal(gradient(lambda: None), gradient(lambda: logp(reference)))


@pytest.mark.parametrize("kind", ["start", "ema"])
def test_dropout_of_an_adapter_in_training_does_not_reach_the_reference(kind):
    policy = policy_of({"lora": Lora(rank=2, dropout=0.5)})
    reference = open_reference(policy, kind=kind, rate=1.0, every=1)
    shift(policy, seed=1)
    reference.after_update(policy.version)
    policy.model.train()
    assert not torch.equal(logp(policy), logp(policy))
    assert torch.equal(logp(reference), logp(reference))


@pytest.mark.parametrize(("model", "switches"), [(LORA, 1), (HEAD, 4)], ids=["plain", "adapted"])
def test_the_adapter_is_switched_for_each_chunk_only_where_it_sits_on_the_head(
    model, switches, monkeypatch
):
    policy = policy_of(model)
    reference = Reference(policy)
    off = policy.model.disable_adapter
    calls = []
    monkeypatch.setattr(policy.model, "disable_adapter", lambda: calls.append(1) or off())
    hidden_ND = reference.predicting(batch(policy))
    for hidden_CD in hidden_ND.split(3):
        reference.next_logits(hidden_CD)
    assert len(calls) == switches


def test_an_adapter_policy_keeps_its_adapter_twice_and_its_base_once():
    policy = policy_of(LORA)
    reference = MovingReference(policy, rate=0.6, every=1)
    assert reference.policy is policy
    stored = reference.state_dict()["weights"]
    assert {n: w.shape for n, w in stored.items()} == {
        n: p.shape for n, p in policy.trainable.items()
    }
    own = {p.data_ptr() for p in policy.model.parameters()}
    assert not own & {w.data_ptr() for w in stored.values()}


def test_tied_weights_move_once_and_stay_tied():
    policy = policy_of({})
    reference = MovingReference(policy, rate=0.5, every=1)
    start = policy.model.lm_head.weight.detach().clone()
    shift(policy, seed=1)
    reference.after_update(policy.version)
    model = reference.policy.model
    assert model.lm_head.weight is model.get_input_embeddings().weight
    expected = 0.5 * policy.model.lm_head.weight + (1 - 0.5) * start
    assert torch.equal(model.lm_head.weight, expected)


def test_buffers_are_copied_and_weights_that_never_learn_stay():
    policy = policy_of({})
    policy.model.register_buffer("seen_tokens", torch.tensor(3))
    frozen = policy.model.get_input_embeddings().weight.requires_grad_(False)
    reference = MovingReference(policy, rate=0.5, every=1)
    policy.model.seen_tokens += 7
    shift(policy, seed=1)
    reference.after_update(policy.version)
    assert reference.policy.model.seen_tokens == 10
    assert torch.equal(reference.policy.model.get_input_embeddings().weight, frozen)


def train(policy, reference, updater, steps):
    """Real updates towards the tokens of the rows, held to the reference."""
    for step in steps:
        ref_BT = reference.logprobs(batch(policy), temperature=1.0)
        logp_BT, _ = policy.logprobs(batch(policy), temperature=1.0)
        loss = ((logp_BT - ref_BT) ** 2 - logp_BT).sum()
        updater.update([loss], step=step)
        reference.after_update(policy.version)


@BOTH
@pytest.mark.parametrize("kind", ["start", "ema", "copy"])
def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(kind, model):
    def begin():
        policy = policy_of(model)
        reference = open_reference(policy, kind=kind, rate=0.6, every=2)
        return policy, reference, Updater(policy, Optimizer(lr=1e-2), total_steps=9)

    unbroken = begin()
    train(*unbroken, range(9))
    broken = begin()
    train(*broken, range(4))
    file = io.BytesIO()
    policy, reference, updater = broken
    torch.save([reference.state_dict(), updater.state_dict(), policy.version], file)
    file.seek(0)
    resumed = begin()
    state, trained, version = torch.load(file, weights_only=True)
    resumed[2].load_state_dict(trained)
    resumed[1].load_state_dict(state)
    resumed[0].version = version
    train(*resumed, range(4, 9))
    for name, p in unbroken[0].trainable.items():
        assert torch.equal(p, resumed[0].trainable[name])
    assert torch.equal(logp(unbroken[1]), logp(resumed[1]))


def test_a_state_of_another_kind_or_model_is_refused():
    policy = policy_of(LORA)
    moving = MovingReference(policy, rate=0.6, every=1)
    with pytest.raises(ValueError, match="weights of a reference that moves, expected none"):
        Reference(policy).load_state_dict(moving.state_dict())
    with pytest.raises(ValueError, match="different weights, for example"):
        moving.load_state_dict({})
    state = copy.deepcopy(moving.state_dict())
    del state["weights"][next(iter(state["weights"]))]
    with pytest.raises(ValueError, match="different weights, for example"):
        moving.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0, "every": 1}, r"rate is 0.0, expected a number in \(0, 1\]"),
        ({"rate": 1.5, "every": 1}, r"rate is 1.5, expected a number in \(0, 1\]"),
        ({"rate": float("nan"), "every": 1}, "rate is nan"),
        ({"rate": 0.5, "every": 0}, "every is 0, expected >= 1 optimizer steps"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        MovingReference(policy_of(LORA), **options)
