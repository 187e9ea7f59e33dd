"""The critic of PPO: what a value may know, what its loss adds up to, and what it learns."""

import math

import pytest
import torch
from torch import nn
from transformers import Qwen3ForSequenceClassification, Qwen3ForTokenClassification
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from llmalign.critic import Critic, ValueSums, explained_variance, value_metrics
from llmalign.optim import Updater
from llmalign.policy import Policy, load_policy
from llmalign.schema import CriticOptions, Lora, Model, Optimizer, Schedule

SIZE = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 48}
TINY = Model(build="tiny", build_options=SIZE)
PROMPTS = [(1, 40, 41, 42, 43, 44), (1, 50, 51)]
LAYOUTS = {
    "all at once": {"tokens_per_microbatch": 1 << 20, "share_prompts": "never"},
    "row by row": {"tokens_per_microbatch": 1, "share_prompts": "never"},
    "small portions": {"tokens_per_microbatch": 30, "share_prompts": "never"},
    "each prompt once": {"share_prompts": "always"},
    "each prompt once, small portions": {"share_prompts": "always", "tokens_per_microbatch": 25},
}
KINDS = ["model", "head"]


@pytest.fixture
def norms_in_float64(monkeypatch):
    """The library computes this norm in float32 whatever the model is, round-off included."""

    def forward(self, hidden):
        scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * hidden * scale

    monkeypatch.setattr(Qwen3RMSNorm, "forward", forward)


def rows_of(count=8, seed=0):
    """Rows of two prompts with responses of 1 to 6 tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [1 + b % 6 for b in range(count)]
    draw = [torch.randint(3, 250, (n,), generator=generator).tolist() for n in lengths]
    return [(PROMPTS[b % 2], tuple(draw[b])) for b in range(count)]


def mask_of(rows):
    length_B = torch.tensor([len(response) for _, response in rows])
    return torch.arange(int(length_B.max()))[None, :] < length_B[:, None]


def critic_of(kind="model", *, policy=None, model=TINY, schedule=None, head=True, **block):
    """A critic, and its policy; ``head``: not the zeros it starts from, which hide the trunk."""
    policy = policy or load_policy(model, seed=0)
    schedule = Schedule(steps=20, **(schedule or {}))
    critic = Critic(policy, CriticOptions(kind=kind, **block), model=model, schedule=schedule)
    if head:
        with torch.no_grad():
            critic._head.weight.normal_(generator=torch.Generator().manual_seed(1))
            critic._head.bias.fill_(0.3)
    return critic, policy


def targets_of(mask_BT, seed=2):
    """Old values and returns, NaN outside the mask."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(2, *mask_BT.shape, generator=generator, dtype=torch.float64)
    return tuple(torch.where(mask_BT, draw, math.nan))


def losses_of(critic, rows, mask_BT, targets=None, *, sums=None, indices=None, step=0):
    old_BT, return_BT = targets or targets_of(mask_BT)
    return critic.losses(
        rows,
        old_BT,
        return_BT,
        mask_BT,
        indices=range(len(rows)) if indices is None else indices,
        num_tokens=int(mask_BT.sum()),
        step=step,
        sums=sums or ValueSums(),
    )


def weights(thing):
    return {name: p.detach().clone() for name, p in thing.trainable.items()}


def changed(before, thing):
    return {name for name, p in thing.trainable.items() if not torch.equal(p, before[name])}


# -- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_is_read_from_the_hidden_state_that_predicts_its_token(kind):
    critic, policy = critic_of(kind)
    rows = rows_of()
    value_BT = critic.values(rows, mask_of(rows))
    for b, (prompt, response) in enumerate(rows):
        ids = torch.tensor([[*prompt, *response]])
        with torch.no_grad():
            hidden_LD = policy.model.model(ids).last_hidden_state[0]
        expected_T = (hidden_LD @ critic._head.weight[0] + 0.3)[len(prompt) - 1 : -1]
        torch.testing.assert_close(value_BT[b, : len(response)], expected_T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_knows_the_tokens_before_its_own_and_no_other(kind):
    critic, _ = critic_of(kind)
    mask_BT = torch.ones(1, 5, dtype=torch.bool)
    one_T = critic.values([(PROMPTS[0], (9, 8, 7, 6, 5))], mask_BT)[0]
    two_T = critic.values([(PROMPTS[0], (9, 8, 99, 6, 5))], mask_BT)[0]
    assert torch.equal(one_T[:3], two_T[:3])
    assert (one_T[3:] != two_T[3:]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_values_do_not_depend_on_the_layout_of_the_forward_pass(kind, layout, norms_in_float64):
    rows, found = rows_of(), []
    for schedule in (LAYOUTS["all at once"], LAYOUTS[layout]):
        critic, policy = critic_of(kind, schedule=schedule)
        policy.model.double(), critic.model.double()
        found.append(critic.values(rows, mask_of(rows)))
    assert found[0].dtype == torch.float64
    torch.testing.assert_close(found[0], found[1], atol=1e-13, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_what_is_outside_the_mask_is_never_read(kind):
    critic, policy = critic_of(kind)
    rows = rows_of()
    mask_BT = mask_of(rows)
    mask_BT[0], mask_BT[5, 1] = False, False
    value_BT = critic.values(rows, mask_BT)
    assert (value_BT[~mask_BT] == 0).all() and (value_BT[mask_BT] != 0).all()
    sums = ValueSums()
    total = sum(losses_of(critic, rows, mask_BT, sums=sums))
    total.backward()
    assert math.isfinite(total.item()) and sums.tokens == int(mask_BT.sum())
    found = [p.grad for p in (*policy.trainable.values(), *critic.trainable.values())]
    assert all(grad.isfinite().all() for grad in found if grad is not None)
    critic._trunk.pad_id = 77
    assert torch.equal(critic.values(rows, mask_BT), value_BT)


def test_no_logits_are_computed():
    critic, policy = critic_of("head")
    policy.model.lm_head.register_forward_hook(lambda *_: pytest.fail("the output layer ran"))
    rows = rows_of()
    critic.values(rows, mask_of(rows))
    critic.update(losses_of(critic, rows, mask_of(rows)), step=0)
    own, _ = critic_of("model", policy=policy)
    assert not any("lm_head" in name for name in own.trainable)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_critic_values_nothing_so_that_the_first_advantages_are_bare_returns(kind):
    critic, _ = critic_of(kind, head=False)
    rows = rows_of()
    assert (critic.values(rows, mask_of(rows)) == 0).all()


def test_values_are_finer_than_the_half_precision_of_the_trunk(monkeypatch):
    half = torch.autocast("cpu", dtype=torch.bfloat16)
    monkeypatch.setattr(Policy, "autocast", lambda self: half)
    critic, _ = critic_of()
    rows = rows_of()
    mask_BT = mask_of(rows)
    value_N = critic.values(rows, mask_BT)[mask_BT]
    assert value_N.dtype == torch.float32 and (value_N != value_N.bfloat16().float()).all()
    assert critic.update(losses_of(critic, rows, mask_BT), step=0).applied


def test_dropout_is_off_for_values_and_on_again_after():
    lora = TINY.model_copy(update={"lora": Lora(rank=2, dropout=0.5)})
    critic, _ = critic_of(model=lora)
    with torch.no_grad():
        for name, p in critic.trainable.items():
            p.fill_(0.1) if "lora_B" in name else None
    critic._trunk.model.train()
    rows = rows_of()
    assert torch.equal(*(critic.values(rows, mask_of(rows)) for _ in range(2)))
    assert critic._trunk.model.training


def test_a_model_that_cannot_share_prompts_is_found_though_its_head_is_still_zero(monkeypatch):
    from llmalign.batch import SharedBatch

    right = SharedBatch.position_BT.fget
    monkeypatch.setattr(SharedBatch, "position_BT", property(lambda self: right(self) + 1))
    critic, _ = critic_of(schedule=LAYOUTS["each prompt once"], head=False)
    rows = rows_of()
    with pytest.warns(UserWarning, match="when a prompt is computed once"):
        critic.values(rows, mask_of(rows))


# -- returns ---------------------------------------------------------------------------------------


def test_the_critic_may_learn_with_another_lam_than_the_policy():
    # two tokens, values 0.2 and 0.4, reward 1 at the end, a penalty of -0.1 on the first;
    # lam 1: 0.9, 1;  lam 0: -0.1 + 0.4 = 0.3, 1
    mask_BT = torch.tensor([[True, True, False], [True, False, False]])
    value_BT = torch.tensor([[0.2, 0.4, math.nan], [0.7, math.nan, math.nan]])
    penalty_BT = torch.tensor([[-0.1, 0.0, math.nan], [0.0, math.nan, math.nan]])
    inputs = torch.tensor([1.0, math.nan]), mask_BT, penalty_BT, value_BT
    same, _ = critic_of()
    other, _ = critic_of(returns_lam=1.0)
    for critic, lam, expected in ((same, 0.0, 0.3), (same, 1.0, 0.9), (other, 0.0, 0.9)):
        return_BT = critic.returns(*inputs, gamma=1.0, lam=lam)
        assert return_BT[0].tolist() == pytest.approx([expected, 1.0, 0.0])
        assert return_BT[1].tolist() == [0.0, 0.0, 0.0]  # nobody could score it


# -- the loss --------------------------------------------------------------------------------------


def gradient(critic, policy, losses):
    learners = {**policy.trainable, **critic.trainable}
    for p in learners.values():
        p.grad = None
    total = 0.0
    for loss in losses:
        loss.backward()
        total += loss.item()
    grads = [p.grad.flatten() for p in learners.values() if p.grad is not None]
    return total, torch.cat(grads).clone()


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_the_loss_does_not_depend_on_micro_batches_or_processes(
    kind, layout, clip, norms_in_float64
):
    rows = rows_of()
    mask_BT = mask_of(rows)
    mask_BT[0], mask_BT[5, 1] = False, False
    found, sums = [], [ValueSums(), ValueSums(), ValueSums()]
    for number, schedule in enumerate((LAYOUTS["all at once"], LAYOUTS[layout])):
        critic, policy = critic_of(kind, clip=clip, schedule=schedule)
        policy.model.double(), critic.model.double()
        losses = losses_of(critic, rows, mask_BT, sums=sums[number])
        found.append(gradient(critic, policy, losses))
    parts = [
        gradient(
            critic,
            policy,
            losses_of(critic, rows, mask_BT, indices=range(rank, 8, 3), sums=sums[2]),
        )
        for rank in range(3)
    ]
    (whole, grad), (cut, cut_grad) = found
    assert cut == pytest.approx(whole, abs=1e-13)
    assert sum(loss for loss, _ in parts) == pytest.approx(whole, abs=1e-13)
    scale = float(grad.abs().max())
    for other in (cut_grad, sum(g for _, g in parts)):
        torch.testing.assert_close(other, grad, atol=1e-13 * scale, rtol=0)
    for other in sums[1:]:
        assert vars(other) == pytest.approx(vars(sums[0]), rel=1e-12)


def test_the_loss_is_half_the_mean_squared_error_by_a_plain_loop():
    critic, _ = critic_of(clip=0.5)
    rows = rows_of()
    mask_BT = mask_of(rows)
    old_BT, return_BT = targets_of(mask_BT)
    value_BT = critic.values(rows, mask_BT)
    expected, clipped = [], 0
    for b, (_, response) in enumerate(rows):
        for t in range(len(response)):
            value, old, target = (float(x[b, t]) for x in (value_BT, old_BT, return_BT))
            near = old + min(max(value - old, -0.5), 0.5)
            expected.append(max((value - target) ** 2, (near - target) ** 2) / 2)
            clipped += (near - target) ** 2 > (value - target) ** 2
    sums = ValueSums()
    total = sum(loss.item() for loss in losses_of(critic, rows, mask_BT, sums=sums))
    assert total == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert 0 < clipped < len(expected)
    metrics = value_metrics(value_BT, return_BT, mask_BT, sums)
    assert metrics["critic/loss"] == pytest.approx(total, rel=1e-5)
    assert metrics["critic/clip_share"] == clipped / len(expected)
    assert metrics["critic/value"] == pytest.approx(float(value_BT[mask_BT].mean()))


@pytest.mark.parametrize(("kind", "reaches"), [("model", False), ("head", True)])
def test_the_gradient_reaches_the_policy_for_kind_head_only(kind, reaches):
    critic, policy = critic_of(kind)
    rows = rows_of()
    sum(losses_of(critic, rows, mask_of(rows))).backward()
    moved = [p.grad is not None and bool(p.grad.any()) for p in policy.trainable.values()]
    assert any(moved) == reaches
    assert all(p.grad is not None and bool(p.grad.any()) for p in critic.trainable.values())


def test_a_model_of_its_own_leaves_the_policy_untouched():
    critic, policy = critic_of("model")
    before, own, rows = weights(policy), weights(critic), rows_of()
    assert critic.update(losses_of(critic, rows, mask_of(rows)), step=0).applied
    assert not changed(before, policy) and policy.version == 0
    assert changed(own, critic) == set(own)


def test_with_an_adapter_only_adapter_and_head_learn():
    lora = TINY.model_copy(update={"lora": Lora(rank=2)})
    critic, policy = critic_of("model", model=lora)
    assert all("lora" in n or n.startswith("head.") for n in critic.trainable)
    before, rows = weights(policy), rows_of()
    critic.update(losses_of(critic, rows, mask_of(rows)), step=0)
    assert not changed(before, policy)


# -- optimizer steps ------------------------------------------------------------------------------


def policy_loss(policy, factor=1.0):
    yield factor * sum((p**2).sum() for p in policy.trainable.values()) * 1e-3


def test_the_joint_step_of_kind_head_is_that_of_the_sum_of_both_losses():
    rows, found = rows_of(), []
    for joined in (True, False):
        critic, policy = critic_of("head", coef=0.25, optimizer=Optimizer(lr=1e-2))
        updater = Updater(policy, Optimizer(lr=1e-3), total_steps=20)
        values = losses_of(critic, rows, mask_of(rows))
        if joined:
            results = critic.update_with(updater, policy_loss(policy), values, step=0)
        else:  # by hand: one backward pass of the sum, clipped and stepped for each
            total = next(policy_loss(policy)) + 0.25 * sum(values)
            total.backward()
            for learner, lr in ((policy, 1e-3), (critic, 1e-2)):
                parameters = list(learner.trainable.values())
                nn.utils.clip_grad_norm_(parameters, 1.0)
                torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0).step()
        found.append((weights(policy), weights(critic)))
    assert all(r.applied for r in results)
    assert results[0].loss == results[1].loss == pytest.approx(total.item(), rel=1e-5)
    for one, other in zip(*found, strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_warm_up_only_the_critic_learns(kind):
    critic, policy = critic_of(kind, warmup_steps=2, optimizer=Optimizer(lr=1e-2))
    assert [critic.warms_up(step) for step in range(4)] == [True, True, False, False]
    before, own, rows = weights(policy), weights(critic), rows_of()
    for step in range(2):
        critic.update(losses_of(critic, rows, mask_of(rows), step=step), step=step)
    assert not changed(before, policy) and changed(own, critic) == set(own)
    assert all(p.grad is None for p in policy.trainable.values())  # not even computed
    updater = Updater(policy, Optimizer(lr=1e-3), total_steps=20)
    critic.update_with(
        updater,
        policy_loss(policy),
        losses_of(critic, rows, mask_of(rows), step=2),
        step=2,
    )
    assert changed(before, policy) and policy.version == 1


@pytest.mark.parametrize("kind", KINDS)
def test_updates_that_are_not_finite_are_refused_each_for_itself(kind):
    critic, policy = critic_of(kind)
    updater = Updater(policy, Optimizer(lr=1e-3), total_steps=20)
    before, own, rows = weights(policy), weights(critic), rows_of()
    mask_BT = mask_of(rows)
    bad_BT = torch.where(mask_BT, math.inf, 0.0)

    def step(factor, targets):
        losses = losses_of(critic, rows, mask_BT, targets)
        results = critic.update_with(updater, policy_loss(policy, factor), losses, step=0)
        return [r.applied for r in results]

    assert not step(1.0, (bad_BT, bad_BT))[1]
    assert not changed(own, critic) and critic.updater.bad_in_a_row == 1
    before = weights(policy)
    assert step(math.nan, targets_of(mask_BT)) == [False, True]
    assert not changed(before, policy) and updater.bad_in_a_row >= 1
    assert changed(own, critic) and critic.updater.bad_in_a_row == 0
    assert not step(1.0, (bad_BT, bad_BT))[1]
    again, _ = critic_of(kind)
    again.load_state_dict(critic.state_dict())
    assert again.updater.bad_in_a_row == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_critic_goes_on_bit_for_bit(kind, tmp_path):
    def steps(critic, policy, updater, numbers):
        for step in numbers:
            rows = rows_of(seed=step)
            losses = losses_of(critic, rows, mask_of(rows), step=step)
            critic.update_with(updater, policy_loss(policy), losses, step=step)

    def fresh():
        options = Optimizer(lr=1e-2, decay="linear", weight_decay=0.1)
        critic, policy = critic_of(kind, clip=0.5, optimizer=options)
        return critic, policy, Updater(policy, Optimizer(lr=1e-3), total_steps=20)

    unbroken = fresh()
    steps(*unbroken, range(6))
    first = fresh()
    steps(*first, range(3))
    states = {"critic": first[0].state_dict(), "trainable": first[2].state_dict()}
    torch.save(states, tmp_path / "state.pt")
    states = torch.load(tmp_path / "state.pt", weights_only=True)
    second = fresh()
    second[0].load_state_dict(states["critic"])
    second[2].load_state_dict(states["trainable"])
    steps(*second, range(3, 6))
    assert not changed(weights(unbroken[0]), second[0])
    assert not changed(weights(unbroken[1]), second[1])
    assert changed(weights(first[0]), second[0])


# -- what it learns -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_critic_learns_that_the_reward_depends_on_the_first_token(kind):
    # Of 6 tokens all but the first can know the reward: at most 5/6 is explained.
    joint = {"coef": 1.0} if kind == "head" else {}
    critic, policy = critic_of(kind, head=False, optimizer=Optimizer(lr=3e-3), **joint)
    updater = Updater(policy, Optimizer(lr=3e-3), total_steps=20)
    mask_BT = torch.ones(32, 6, dtype=torch.bool)

    def sample(seed):
        ids = torch.randint(60, 68, (32, 6), generator=torch.Generator().manual_seed(seed))
        rows = [(PROMPTS[b % 2], tuple(ids[b].tolist())) for b in range(32)]
        value_BT = critic.values(rows, mask_BT)
        reward_B = (ids[:, 0] % 2).double()
        zeros_BT = torch.zeros(32, 6)
        return_BT = critic.returns(reward_B, mask_BT, zeros_BT, value_BT, gamma=1.0, lam=1.0)
        return rows, (value_BT, return_BT)

    start = explained_variance(*sample(999)[1], mask_BT)
    for step in range(60):
        rows, targets = sample(step)
        losses = losses_of(critic, rows, mask_BT, targets, step=0)
        critic.update_with(updater, iter(()), losses, step=0)
    end = explained_variance(*sample(999)[1], mask_BT)
    assert start == 0.0 and 0.5 < end <= 5 / 6 + 0.05


def test_explained_variance_by_hand():
    # R = 0, 1, 2, 3 has variance 1.25; R - V = 0, 0, 0, 1 has 0.1875: 1 - 0.15
    return_BT = torch.tensor([[0.0, 1.0, 2.0, 3.0, math.nan]])
    mask_BT = torch.tensor([[True, True, True, True, False]])
    value_BT = torch.tensor([[0.0, 1.0, 2.0, 2.0, math.nan]])
    assert explained_variance(value_BT, return_BT, mask_BT) == pytest.approx(0.85)
    assert explained_variance(return_BT + 5, return_BT, mask_BT) == 1.0
    assert explained_variance(-return_BT, return_BT, mask_BT) == pytest.approx(-3.0)
    constant_BT = torch.full((1, 5), 0.1)
    assert explained_variance(value_BT, constant_BT, mask_BT) is None
    assert explained_variance(value_BT, return_BT, ~mask_BT & False) is None
    nothing = value_metrics(value_BT, return_BT, ~mask_BT & False, ValueSums())
    assert set(nothing.values()) == {None}


# -- saved critics, and errors --------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [None, 2], ids=["whole model", "adapter"])
def test_a_saved_critic_is_read_back_as_it_was(kind, rank, tmp_path):
    model = TINY.model_copy(update={"lora": rank and Lora(rank=rank)})
    critic, policy = critic_of(kind, model=model, optimizer=Optimizer(lr=1e-2))
    rows = rows_of()
    for step in range(2):
        critic.update(losses_of(critic, rows, mask_of(rows)), step=step)
    critic.save(tmp_path / "critic")
    again, _ = critic_of(kind, policy=policy, path=str(tmp_path / "critic"), head=False)
    tolerance = 0.0 if rank is None else 1e-5  # merging rounds
    torch.testing.assert_close(
        again.values(rows, mask_of(rows)),
        critic.values(rows, mask_of(rows)),
        atol=tolerance,
        rtol=tolerance,
    )


@pytest.mark.parametrize("cls", [Qwen3ForSequenceClassification, Qwen3ForTokenClassification])
def test_a_classifier_with_one_label_gives_the_first_values(cls, tmp_path):
    policy = load_policy(TINY, seed=0)
    config = policy.model.config.__class__(**{**policy.model.config.to_dict(), "num_labels": 1})
    torch.manual_seed(3)
    classifier = cls(config)
    classifier.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    critic, _ = critic_of(policy=policy, path=str(tmp_path), head=False)
    prompt, response = PROMPTS[0], (9, 8, 7)
    value_BT = critic.values([(prompt, response)], torch.ones(1, 3, dtype=torch.bool))
    with torch.no_grad():
        hidden_LD = classifier.eval().base_model(torch.tensor([[*prompt, *response]]))[0][0]
        expected_L = classifier.score(hidden_LD)[:, 0]
    torch.testing.assert_close(value_BT[0], expected_L[len(prompt) - 1 : -1])


def test_a_language_model_gives_the_decoder_and_a_head_of_zeros(tmp_path):
    other = load_policy(TINY, seed=5)
    other.save(tmp_path)
    critic, policy = critic_of(path=str(tmp_path), head=False)
    found = critic._trunk.model.state_dict()
    assert all(torch.equal(v, found[n]) for n, v in other.model.model.state_dict().items())
    assert not critic._head.weight.any()
    assert not any(p is q for p in critic.trainable.values() for q in policy.trainable.values())


def test_what_cannot_value_this_policys_tokens_is_refused(tmp_path):
    policy = load_policy(TINY, seed=0)
    plain = policy.model.config.to_dict()
    build = policy.model.config.__class__
    Qwen3ForSequenceClassification(build(**{**plain, "num_labels": 2})).save_pretrained(
        tmp_path / "two"
    )
    policy.tokenizer.save_pretrained(tmp_path / "two")
    policy.save(tmp_path / "words")
    more = load_policy(TINY, seed=0).tokenizer
    more.add_tokens(["<tool>"])
    more.save_pretrained(tmp_path / "words")
    critic_of("head", policy=policy)[0].save(tmp_path / "head")
    wide = load_policy(
        Model(build="tiny", build_options={**SIZE, "hidden_size": 64, "num_layers": 1}), seed=0
    )
    cases = [
        (ValueError, "gives 2 labels, expected one: the value", policy, "model", "two"),
        (
            ValueError,
            "vocabulary of 260 tokens is not the policy's of 259",
            policy,
            "model",
            "words",
        ),
        (ValueError, "head reads 32 numbers, expected 64, the hidden size", wide, "head", "head"),
        (FileNotFoundError, "a folder with value_head.safetensors", policy, "head", "words"),
        (RuntimeError, "cannot be loaded: .*; give a local folder", policy, "model", "nowhere"),
    ]
    for error, message, given, kind, name in cases:
        with pytest.raises(error, match=message):
            critic_of(kind, policy=given, path=str(tmp_path / name))


def test_a_classifier_without_trained_weights_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    policy = load_policy(TINY, seed=0)
    config = policy.model.config.__class__(**{**policy.model.config.to_dict(), "num_labels": 1})
    Qwen3ForSequenceClassification(config).save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["score.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks trained weights of score.weight"):
        critic_of(policy=policy, path=str(tmp_path))
