import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from llmalign.online import step_reward
from llmalign.policy import load_policy


def test_one_update_on_a_fresh_batch_needs_no_old_pass_and_several_do(small, loop_of):
    one = loop_of(small())
    assert one.preparer.experience(one.collector.collect(0).groups).logp_old_BT is None
    two = loop_of(small(schedule={"updates_per_batch": 2}))
    experience = two.preparer.experience(two.collector.collect(0).groups)
    for b, (_, response) in enumerate(experience.rows):
        sample = [s for g in experience.groups for s in g.group.samples][b]
        old = experience.logp_old_BT[b, : len(response)].tolist()
        assert old == pytest.approx(sample.logprobs, abs=1e-4)


def test_an_old_pass_that_could_be_skipped_changes_nothing(small, loop_of):
    loops = [loop_of(small(schedule={"skip_old_pass": skip})) for skip in (True, False)]
    experiences = [loop.preparer.experience(loop.collector.collect(0).groups) for loop in loops]
    assert [e.logp_old_BT is None for e in experiences] == [True, False]
    found = [loop.step(1) for loop in loops]
    for key in ("loss", "grad_norm", "entropy"):
        assert found[0][key] == pytest.approx(found[1][key], rel=1e-4, abs=1e-6)


def test_minibatches_hold_whole_groups_once(small, loop_of):
    loop = loop_of(small(sampling={"problems_per_step": 5}, schedule={"updates_per_batch": 2}))
    experience = loop.preparer.experience(loop.collector.collect(0).groups)

    def parts_of(step):
        return list(loop.learner.minibatches(experience, step, 0))

    parts = parts_of(3)
    assert sorted(b for part in parts for b in part) == list(range(20))
    for part in parts:
        assert all(part[i] // 4 == part[i + 3] // 4 for i in range(0, len(part), 4))
    assert parts == parts_of(3)
    assert len({str(parts_of(step)) for step in range(10)}) > 3


def test_a_step_reports_its_ledger(small, loop_of):
    metrics = loop_of(small()).step(0)
    assert metrics["tokens_generated"] == metrics["tokens_trained"] + metrics["tokens_wasted"]
    assert metrics["updates"] == 1 and metrics["grad_norm"] > 0
    assert 0 <= metrics["entropy"] <= math.log(259) + 1e-3
    assert metrics["reward/spread"] + metrics["reward/math"] == pytest.approx(metrics["reward"])


def test_when_all_rewards_are_equal_nothing_is_learnt_and_it_is_said(small, loop_of):
    loop = loop_of(small(reward="llmalign_loop_rewards:constant"))
    before = {n: p.detach().clone() for n, p in loop.policy.trainable.items()}
    metrics = loop.step(0)
    assert metrics["degenerate_share"] == 1.0 and metrics["updates"] == 0
    assert metrics["wasted_share"] == 1.0
    assert all(torch.equal(before[n], p) for n, p in loop.policy.trainable.items())


def test_samples_nobody_can_score_leave_the_loss(small, loop_of):
    loop = loop_of(small(reward="llmalign_loop_rewards:never", kl={"coef": 0.1}))
    metrics = loop.step(0)
    assert metrics["not_scorable"] == 12 and metrics["updates"] == 0


def test_dynamic_sampling_keeps_to_its_budget_and_reports_what_it_dropped(small, loop_of):
    dynamic = {"problems_per_step": 3, "dynamic": {"max_batches": 2}}
    loop = loop_of(small(sampling=dynamic, reward="llmalign_loop_rewards:constant"))
    metrics = loop.step(0)
    assert (metrics["dropped"], metrics["unfilled"], metrics["updates"]) == (6, 3, 0)
    filled = loop_of(small(sampling=dynamic))
    found = filled.collector.collect(0)
    kept, dropped = found.groups, found.discarded
    assert len(kept) == 3 and all(g.differs(None) for g in kept)
    assert not any(g.differs(None) for g in dropped)


def test_the_overlong_penalty_is_added_but_never_decides_what_is_kept(small, loop_of):
    # every sample is cut here, so the penalty is not 0, and the metric must not see it
    recipe = small(
        algorithm="dapo",
        reward="llmalign_loop_rewards:constant",
        overlong={"buffer_share": 0.5},
        sampling={"dynamic": {"max_batches": 1}},
    )
    assert "soft_overlong" in str(step_reward(recipe))
    loop = loop_of(recipe)
    found = loop.collector.collect(0)
    kept, dropped = found.groups, found.discarded
    assert not kept and len(dropped) == 3
    scores = [s for g in dropped for s in g.scores]
    assert min(s.value for s in scores) < 0
    assert {s.aspects["reward"] for s in scores} == {0.0}


def test_the_overlong_filter_takes_cut_samples_out_of_the_loss_but_not_the_baseline(small, loop_of):
    loop = loop_of(small(overlong={"filter": True}))
    experience = loop.preparer.experience(loop.collector.collect(0).groups)
    loop.preparer.advantages(experience, step=0, kl_coef=loop.recipe.kl.coef)
    samples = [s for g in experience.groups for s in g.group.samples]
    assert any(s.truncated for s in samples)
    for b, sample in enumerate(samples):
        assert experience.mask_BT[b].any().item() == (not sample.truncated)
    assert not experience.reward_B.isnan().any()


def test_kl_in_the_reward_lowers_the_reward_of_tokens_that_left_the_reference(small, loop_of):
    loop = loop_of(small(algorithm="reinforce++", kl={"coef": 0.5}))
    with torch.no_grad():
        for p in loop.policy.trainable.values():
            p.mul_(1.3)
    experience = loop.preparer.experience(loop.collector.collect(0).groups)
    loop.preparer.advantages(experience, step=0, kl_coef=loop.recipe.kl.coef)
    with_kl = experience.adv_BT.clone()
    experience.logp_ref_BT = experience.logp_old_BT.clone()  # no divergence
    loop.preparer.advantages(experience, step=0, kl_coef=loop.recipe.kl.coef)
    assert not torch.allclose(with_kl, experience.adv_BT)


def test_a_nan_loss_is_skipped_counted_and_stops_after_the_limit(small, loop_of, tmp_path):
    loop = loop_of(small(schedule={"max_bad_updates": 2}))
    with torch.no_grad():
        loop.policy.model.lm_head.weight.fill_(float("nan"))
    loop.engine.generate = _healthy(loop, small)
    assert loop.step(0)["bad_updates"] == 1
    with pytest.raises(RuntimeError, match="2 updates in a row .* the samples are in .*bad"):
        loop.step(1)
    assert list(loop.folder.path.rglob("*bad*"))


def _healthy(loop, small):
    """Sampling from sound weights while the trained ones are broken."""
    from llmalign.rollout.hf import HfEngine

    sound = load_policy(small().model, seed=0)
    return HfEngine(sound, batch_size=64).generate


def test_many_samples_vote_and_the_first_few_are_trained(small, loop_of):
    votes = {"majority": {"markers": ["last_number"]}}
    recipe = small(
        reward={"sum": [votes, {"math": {"markers": ["last_number"], "weight": 0}}]},
        rollout={"samples_per_problem": 6},
        sampling={"train_samples": 4, "problems_per_step": 2},
    )
    loop = loop_of(recipe)
    groups = loop.collector.collect(0).groups
    assert [len(g.group.samples) for g in groups] == [4, 4]
    # Shares of six votes, not of the four that are left.
    shares = [score.aspects["majority_agreement"] * 6 for g in groups for score in g.scores]
    assert shares == pytest.approx([round(share) for share in shares])
    experience = loop.preparer.experience(groups)
    assert experience.group_B.tolist() == [0] * 4 + [1] * 4
    assert "math" in groups[0].scores[0].aspects  # watched, never paid
    with pytest.raises(ValueError, match="train_samples is 9, expected at most"):
        small(sampling={"train_samples": 9})


TRUNCATED = {"temperature": 0.8, "top_k": 6, "top_p": 0.9, "min_p": 0.01}


@pytest.mark.parametrize("share", ["always", "never"])
def test_truncated_sampling_trains_on_what_it_drew_from(small, loop_of, share) -> None:
    schedule = {"updates_per_batch": 2, "share_prompts": share, "tokens_per_microbatch": 60}
    loop = loop_of(small(rollout=TRUNCATED, schedule=schedule, kl={"coef": 0.1}))
    groups = loop.collector.collect(0).groups
    samples = [s for g in groups for s in g.group.samples]
    counts = [np.frombuffer(s.kept_counts, np.int32) for s in samples]
    assert all(len(c) == len(s.token_ids) for c, s in zip(counts, samples, strict=True))
    assert all(1 <= c.min() and c.max() <= 6 for c in counts)
    assert all(sum(c) * 4 == len(s.kept_ids) for c, s in zip(counts, samples, strict=True))
    experience = loop.preparer.experience(groups)
    mask_BT = experience.mask_BT
    torch.testing.assert_close(
        experience.logp_old_BT[mask_BT], experience.logp_sampled_BT[mask_BT], atol=1e-4, rtol=0
    )
    # the reference is the same policy still: over the same sets it says the same
    torch.testing.assert_close(experience.logp_ref_BT[mask_BT], experience.logp_old_BT[mask_BT])
    assert loop.step(0)["entropy"] <= math.log(6)


def test_the_first_update_under_truncated_sampling_is_on_policy(small, loop_of) -> None:
    loop = loop_of(small(rollout=TRUNCATED, mismatch={"kind": "truncated", "high": 2.0}))
    metrics = loop.step(0)
    assert metrics["ratio_max"] == pytest.approx(1, abs=1e-4)
    assert metrics["mismatch/ratio_max"] == pytest.approx(1, abs=1e-4)
    assert metrics["kl_engine"] < 1e-6 and metrics["mismatch/weight"] == pytest.approx(1, abs=1e-4)


def test_an_engine_that_is_off_is_weighed(small, loop_of) -> None:
    loop = loop_of(small(mismatch={"kind": "masked", "low": 0.5, "high": 2.0}))
    groups = loop.collector.collect(0).groups
    group = groups[0].group
    off = replace(group.samples[0], logprobs=tuple(x - 1 for x in group.samples[0].logprobs))
    groups[0].group = replace(group, samples=(off, *group.samples[1:]))
    experience = loop.preparer.experience(groups)
    assert (experience.weight_BT[0] == 0).all()  # e > 2
    assert experience.mismatch["masked"] == len(off.token_ids)
    assert experience.weight_BT[1:][experience.mask_BT[1:]].tolist() == pytest.approx(
        [1.0] * int(experience.mask_BT[1:].sum()), abs=1e-3
    )
    loop.preparer.advantages(experience, step=0, kl_coef=loop.recipe.kl.coef)
    assert loop.learner.update(experience, 0)[0][0].applied


def test_rewards_and_evaluation_get_no_kept_sets(small, loop_of) -> None:
    loop = loop_of(small(rollout=TRUNCATED))
    seen, submit = [], loop.host.submit
    loop.host.submit = lambda group: seen.append(group) or submit(group)
    assert all(s.kept_ids for g in loop.collector.collect(0).groups for s in g.group.samples)
    loop.evaluate("x")
    assert seen and not any(s.kept_ids or s.kept_counts for g in seen for s in g.samples)
