import copy
import json
import math
from pathlib import Path

import pytest
import torch
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from llmalign.forward import Forward
from llmalign.imitation import Imitation, mix
from llmalign.losses.policy.amft import mixed
from llmalign.observe import read_metrics
from llmalign.online import open_online
from llmalign.optim import Updater
from llmalign.policy import load_policy
from llmalign.run import RunFolder
from llmalign.schema import ImitationOptions
from llmalign.training import train

# Responses of different lengths: a mean over tokens is not a mean over rows or portions.
ROWS = [{"prompt": f"{i}+{i}=", "completion": f" {2 * i}" + "!" * (i % 5)} for i in range(12)]
EVERYTHING = {"batch_size": len(ROWS), "share": 0.75}


@pytest.fixture(autouse=True)
def norms_in_float64(monkeypatch):
    """The library computes this norm in float32 whatever the model is, round-off included."""

    def forward(self, hidden):
        scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * hidden * scale

    monkeypatch.setattr(Qwen3RMSNorm, "forward", forward)


@pytest.fixture
def options_of(tmp_path):
    """A function: the block of a recipe on some rows, with changes."""

    def make(rows=ROWS, data=None, **changes):
        path = tmp_path / "demos.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        given = {"train": {"path": str(path)}, **(data or {})}
        return ImitationOptions.model_validate({"data": given, "batch_size": 4, **changes})

    return make


@pytest.fixture
def imitation_of(small, options_of):
    """A function: imitation on a float64 policy of its own, with changes of recipe and block."""

    def make(recipe=None, **changes):
        recipe = recipe or small()
        policy = load_policy(recipe.model, seed=recipe.seed)
        policy.model.double()
        return Imitation(recipe, options_of(**changes), policy, Forward(policy, recipe.schedule))

    return make


@pytest.fixture
def online(small, options_of, tmp_path):
    """A float64 online loop with imitation beside it, and scored samples of one step of it."""
    recipe = small()
    folder = RunFolder(tmp_path / "loop")
    folder.path.mkdir()
    with open_online(recipe, folder, load_policy(recipe.model, seed=recipe.seed)) as loop:
        loop.policy.model.double()
        experience = loop.preparer.experience(loop.collector.collect(0).groups)
        loop.preparer.advantages(experience, step=0, kl_coef=0.0)

        def rl_losses():
            everything = list(range(len(experience.reward_B)))
            return loop.learner.losses(experience, everything, everything, {})

        forward = Forward(loop.policy, recipe.schedule)
        yield loop, rl_losses, lambda **c: Imitation(recipe, options_of(**c), loop.policy, forward)


def gradient(policy, losses):
    """Of the sum of ``losses``, in one vector; 0 where a parameter has none."""
    policy.model.zero_grad()
    for loss in losses:
        loss.backward()
    return torch.cat(
        [
            torch.zeros(p.numel()).double() if p.grad is None else p.grad.flatten().clone()
            for p in policy.trainable.values()
        ]
    )


def assert_equal(one, other):
    assert other.abs().max() > 0
    assert torch.allclose(one, other, rtol=0, atol=1e-13 * float(other.abs().max()))


def demonstrated(policy, rows):
    """The loss of demonstrations from the model's own logits: mean over tokens of -logp."""
    logps = []
    for prompt, response in rows:
        logits = policy.model(torch.tensor([[*prompt, *response]])).logits[0]
        logp = torch.log_softmax(logits, -1)
        start = len(prompt) - 1
        logps += [logp[start + t, token] for t, token in enumerate(response)]
    return -torch.stack(logps).mean()


# -- the gradient of a step -------------------------------------------------------------------


def test_the_mixture_has_the_gradient_that_mixing_by_hand_has(online):
    loop, rl_losses, imitation_with = online
    imitation = imitation_with(**EVERYTHING)
    found = gradient(loop.policy, imitation.mixed(rl_losses(), 0))
    by_hand = mixed(sum(rl_losses()), demonstrated(loop.policy, imitation.rows), mu=0.75)
    assert_equal(found, gradient(loop.policy, [by_hand]))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_at_either_end_only_one_of_the_two_is_learnt(online, share):
    loop, rl_losses, imitation_with = online
    imitation = imitation_with(batch_size=len(ROWS), share=share)
    found = gradient(loop.policy, imitation.mixed(rl_losses(), 0))
    alone = [demonstrated(loop.policy, imitation.rows)] if share else rl_losses()
    assert_equal(found, gradient(loop.policy, alone))


def test_a_step_without_any_signal_still_imitates_with_its_share(imitation_of):
    imitation = imitation_of(**EVERYTHING)
    policy = imitation._policy
    found = gradient(policy, imitation.mixed((), 0))
    assert_equal(found, gradient(policy, [0.75 * demonstrated(policy, imitation.rows)]))


@pytest.mark.parametrize("tokens", [1, 25, 60])
def test_the_gradient_does_not_depend_on_how_demonstrations_are_cut(small, imitation_of, tokens):
    whole = imitation_of(small(schedule={"tokens_per_microbatch": 1 << 20}), **EVERYTHING)
    cut = imitation_of(small(schedule={"tokens_per_microbatch": tokens}), **EVERYTHING)
    parts = list(cut.losses())
    assert len(parts) > 1
    assert_equal(gradient(cut._policy, parts), gradient(whole._policy, whole.losses()))


def test_one_graph_is_alive_at_a_time():
    alive = []

    def losses(name, count):
        for _ in range(count):
            alive.append(name)
            yield torch.tensor(1.0, requires_grad=True)
            alive.remove(name)

    for _ in mix(losses("rl", 2), losses("sft", 3), mu=0.5):
        assert len(alive) == 1
    assert alive == []


def test_demonstrations_are_learnt_and_the_figures_say_so(imitation_of, small):
    imitation = imitation_of(share=1.0)
    updater = Updater(imitation._policy, small().optimizer, total_steps=30)
    found = []
    for step in range(30):
        updater.update(imitation.mixed((), step), step=step)
        updater.update(imitation.mixed((), step), step=step)
        found.append(imitation.after_step(None))
    assert found[-1]["imitation/loss"] < 0.7 * found[0]["imitation/loss"]
    assert found[0]["imitation/loss"] == pytest.approx(math.log(259), abs=0.5)
    # 12 rows in 3 optimizer steps: every 3 steps of the loop see each row twice, its end included.
    tokens = sum(len(row["completion"]) + 1 for row in ROWS)
    assert sum(m["imitation/tokens"] for m in found[:3]) == 2 * tokens
    assert imitation.after_step(None)["imitation/loss"] is None


# -- the share --------------------------------------------------------------------------------


def test_the_share_moves_every_so_many_steps_as_the_controller_says(imitation_of):
    adapt = {"every": 2, "meta_lr": 0, "target_entropy": 0.6, "entropy_lr": 0.1}
    imitation = imitation_of(adapt=adapt)
    shares = []
    for entropy in (0.3, 0.5, 1.6, None, None, None, math.nan, 0.6):
        shares.append(imitation.after_step(entropy)["imitation/share"])
    # 0.8 + 0.1 * (0.6 - 0.4) = 0.82, 0.82 + 0.1 * (0.6 - 1.6) = 0.72, then nothing was measured
    assert shares == pytest.approx([0.8, 0.8, 0.82, 0.82, 0.72, 0.72, 0.72, 0.72])
    assert imitation.mu == pytest.approx(0.72)  # what is no number does not count, 0.6 is on target


def test_the_published_controller_numbers_come_out(imitation_of):
    adapt = {"every": 1, "target_entropy": 0.6, "validation": 2}
    imitation = imitation_of(adapt=adapt)
    for entropy, pull, wanted in ((0.4, 2.5, 0.80035), (1.6, -3.0, 0.79955)):
        imitation._meta_gradient = pull
        imitation.after_step(entropy)
        assert imitation.mu == pytest.approx(wanted, abs=1e-9)


def test_the_target_is_the_first_mean_where_none_is_given(imitation_of):
    imitation = imitation_of(adapt={"every": 2, "meta_lr": 0, "entropy_lr": 0.1})
    for entropy in (None, None):
        imitation.after_step(entropy)
    assert (imitation.target_entropy, imitation.mu) == (None, 0.8)
    for entropy in (1.0, 2.0):
        imitation.after_step(entropy)
    assert (imitation.target_entropy, imitation.mu) == (1.5, 0.8)
    for entropy in (1.0, 1.0):
        imitation.after_step(entropy)
    assert imitation.mu == pytest.approx(0.85)


def test_a_share_without_control_is_constant(imitation_of):
    imitation = imitation_of(share=0.3)
    assert {imitation.after_step(e)["imitation/share"] for e in range(50)} == {0.3}


def test_the_look_ahead_is_what_one_step_makes_of_the_held_out_loss(online):
    loop, plain_losses, imitation_with = online

    def rl_losses():  # so large that their part counts beside that of the demonstrations
        return (300 * loss for loss in plain_losses())

    lr = loop.recipe.optimizer.lr
    adapt = {"every": 2, "entropy_lr": 0, "meta_lr": 1.0, "validation": 3}
    imitation = imitation_with(adapt=adapt, share=0.75, batch_size=9)
    policy, parameters = loop.policy, list(loop.policy.trainable.values())
    held_out, rows = imitation.held_out, imitation.rows
    assert (len(held_out), len(rows)) == (3, 9)
    rl, sft = (gradient(policy, g) for g in (rl_losses(), [demonstrated(policy, rows)]))
    start = torch.nn.utils.parameters_to_vector(parameters).detach().clone()

    @torch.no_grad()
    def after(mu, size):
        there = start - size * ((1 - mu) * rl + mu * sft)
        torch.nn.utils.vector_to_parameters(there, parameters)
        found = float(demonstrated(policy, held_out))
        torch.nn.utils.vector_to_parameters(start, parameters)
        return found

    not_looking = gradient(policy, imitation.mixed(rl_losses(), 0))
    imitation.after_step(None)
    assert imitation.mu == 0.75  # not due yet
    looked = gradient(policy, imitation.mixed(rl_losses(), 1))
    assert_equal(looked, not_looking)  # the step itself is the same
    imitation.after_step(None)
    size = lr * 1e-3  # so small that the loss is a line
    gain = (after(0.0, size) - after(1.0, size)) * lr / size  # what mu = 1 has before mu = 0
    assert imitation.mu - 0.75 == pytest.approx(gain, rel=1e-3)
    assert gain > 0  # demonstrations teach demonstrations, samples do not


@pytest.mark.parametrize("pull", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_does_not_move_the_share(imitation_of, pull):
    imitation = imitation_of(adapt={"every": 1, "validation": 2, "meta_lr": 1.0})
    imitation._meta_gradient = pull
    imitation.after_step(None)
    assert imitation.mu == 0.8


# -- data and state ---------------------------------------------------------------------------


def test_a_prompt_is_held_out_with_all_its_rows(imitation_of):
    rows = [{**row, "completion": row["completion"] + end} for row in ROWS for end in ("", "?")]
    imitation = imitation_of(rows=rows, adapt={"validation": 5})
    learnt, held_out = ({p for p, _ in rows} for rows in (imitation.rows, imitation.held_out))
    assert (len(learnt), len(held_out), len(imitation.rows)) == (7, 5, 14)
    assert not learnt & held_out
    assert len(imitation_of(rows=rows, adapt={"meta_lr": 0, "validation": 99}).rows) == 24


def test_a_resumed_run_equals_the_unbroken_one_bit_for_bit(small, imitation_of):
    adapt = {"every": 3, "entropy_lr": 0.01, "meta_lr": 1.0, "validation": 3}
    config = small().optimizer

    def run(imitation, updater, steps):
        shares = []
        for step in steps:
            updater.update(imitation.mixed((), step), step=step)
            found = imitation.after_step(1.0 + 0.3 * math.sin(step))
            shares.append((found["imitation/share"], found["imitation/loss"]))
        return shares

    unbroken = imitation_of(adapt=adapt)
    updater = Updater(unbroken._policy, config, total_steps=11)
    head = run(unbroken, updater, range(5))
    saved = json.loads(json.dumps(unbroken.state_dict()))
    tensors = copy.deepcopy(updater.state_dict())
    tail = run(unbroken, updater, range(5, 11))

    resumed = imitation_of(adapt=adapt)
    again = Updater(resumed._policy, config, total_steps=11)
    again.load_state_dict(tensors)
    resumed.load_state_dict(saved)
    assert run(resumed, again, range(5, 11)) == tail
    assert resumed.state_dict() == unbroken.state_dict()
    assert len({share for share, _ in head + tail}) == 4  # it did move at steps 3, 6 and 9
    for one, other in zip(
        unbroken._policy.trainable.values(), resumed._policy.trainable.values(), strict=True
    ):
        assert torch.equal(one, other)


def test_state_of_other_demonstrations_is_refused(imitation_of):
    state = imitation_of().state_dict()
    with pytest.raises(ValueError, match="the saved cursor has num_problems 12, expected 11"):
        imitation_of(rows=ROWS[1:]).load_state_dict(state)


def test_long_demonstrations_are_an_error_or_listed_and_never_cut(imitation_of):
    rows = [*ROWS, {"id": "long", "prompt": "1+1=", "completion": "x" * 40}]
    limit = {"max_prompt_tokens": 20}  # and 10 tokens of response
    wanted = (
        r"1 of 13 rows have more than 30 tokens \(longest 46, first 'long'\); raise "
        "imitation.data.max_prompt_tokens .* imitation.data.on_long_prompt=drop"
    )
    with pytest.raises(ValueError, match=wanted):
        imitation_of(rows=rows, data=limit)
    imitation = imitation_of(rows=rows, data=limit | {"on_long_prompt": "drop"})
    assert imitation.left_out == [{"id": "long", "why": "more than 30 tokens"}]
    assert len(imitation.rows) == 12
    with pytest.raises(ValueError, match="all 1 rows have more than 30 tokens"):
        imitation_of(rows=rows[-1:], data=limit | {"on_long_prompt": "drop"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"data": {"holdout": 3}},
            "data has eval or holdout, expected neither.*adapt.validation",
            id="demonstrations are not judged",
        ),
        pytest.param(
            {"share": 0.99, "adapt": {}},
            "share is 0.99, expected a number from adapt.low, 0.05, to adapt.high, 0.95",
            id="outside the bounds",
        ),
        pytest.param(
            {"adapt": {"validation": 12}},
            "adapt.validation is 12, expected fewer than the 12 distinct prompts.*meta_lr to 0",
            id="nothing left to learn from",
        ),
        pytest.param(
            {"rows": [{"prompt": "1+1=", "completion": " "}]},
            "row 1 has an empty completion",
            id="nothing to learn",
        ),
        pytest.param(
            {"rows": [{"prompt": "1+1="}]},
            "row 1 has no column 'completion'",
            id="no demonstration",
        ),
    ],
)
def test_what_cannot_be_imitated_is_named(imitation_of, changes, message):
    with pytest.raises(ValueError, match=message):
        imitation_of(**changes)


# -- in the online loop -----------------------------------------------------------------------


NOTHING_KEPT = {"dynamic": {"max_batches": 1}, "problems_per_step": 3}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="equal rewards"),
        pytest.param({"sampling": NOTHING_KEPT}, id="no group kept"),
        pytest.param(
            {"sampling": NOTHING_KEPT, "algorithm": "ppo", "critic": {"kind": "head"}},
            id="no group kept, with a critic",
        ),
    ],
)
def test_a_step_whose_samples_teach_nothing_imitates(small, loop_of, options_of, changes):
    constant = {"reward": "llmalign_loop_rewards:constant", **changes}
    loop = loop_of(small(imitation=options_of().model_dump(), **constant))
    metrics = loop.step(0)
    assert (metrics["updates"], metrics["tokens_trained"]) == (1, 0)
    assert metrics["loss"] == pytest.approx(0.8 * metrics["imitation/loss"])
    assert metrics["imitation/share"] == 0.8 and metrics["imitation/tokens"] > 0


def test_every_update_of_a_step_has_demonstrations_of_its_own(small, loop_of, options_of):
    recipe = small(
        imitation=options_of().model_dump(), schedule={"updates_per_batch": 3}, kl={"coef": 0.1}
    )
    loop = loop_of(recipe)
    metrics = loop.step(0)  # three updates of four rows each: every row once
    assert metrics["updates"] == 3
    assert metrics["imitation/tokens"] == sum(len(row["completion"]) + 1 for row in ROWS)


@pytest.mark.parametrize("kind", ["model", "head"])
def test_while_the_critic_warms_up_nothing_is_imitated(small, loop_of, options_of, kind):
    recipe = small(
        algorithm="ppo",
        critic={"kind": kind, "warmup_steps": 1},
        imitation=options_of(adapt={"every": 2, "validation": 2}).model_dump(),
    )
    loop = loop_of(recipe)
    warm, first = loop.step(0), loop.step(1)
    assert (warm["updates"], warm["imitation/tokens"], warm["imitation/loss"]) == (0, 0, None)
    assert first["updates"] > 0 and first["imitation/tokens"] > 0
    assert loop.imitation.mu != 0.8  # and the step before it moved did look ahead


def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(small, options_of):
    adapt = {"every": 2, "entropy_lr": 0.1, "meta_lr": 1.0, "validation": 3}
    block = options_of(adapt=adapt).model_dump()
    long, short = ({"steps": steps, "checkpoint_every": 2} for steps in (4, 2))
    common = {"imitation": block, "data": {"eval": None}}
    unbroken = small(name="unbroken", schedule=long, **common)
    train(unbroken)
    train(small(name="broken", schedule=short, **common))
    broken = small(name="broken", schedule=long, **common)
    train(broken, resume="auto")
    rows = [
        [
            {k: v for k, v in row.items() if k == "loss" or k.startswith("imitation/")}
            for row in read_metrics(Path(r.output) / r.name / "metrics.jsonl")
        ]
        for r in (unbroken, broken)
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 4
    assert len({row["imitation/share"] for row in rows[0]}) == 2


def test_demonstrations_that_are_left_out_are_listed_with_the_problems(small, loop_of, options_of):
    rows = [*ROWS, {"id": "long", "prompt": "1+1=", "completion": "x" * 40}]
    data = {"max_prompt_tokens": 20, "on_long_prompt": "drop"}
    loop = loop_of(small(imitation=options_of(rows=rows, data=data).model_dump()))
    wanted = [{"id": "long", "why": "more than 30 tokens"}]
    assert loop.left_out == wanted
    assert json.loads((loop.folder.path / "left_out.json").read_text()) == wanted


def test_a_run_without_samples_has_nothing_to_imitate_beside(small, options_of):
    with pytest.raises(ValueError, match="imitation is set, expected none with sft"):
        small(
            algorithm="sft",
            reward=None,
            data={"eval": None},
            imitation=options_of().model_dump(),
        )
