import json
from collections import Counter

import pytest


def dropped(loop, step):
    path = loop.folder.path / "samples" / f"dropped-step-{step:06d}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def test_what_dynamic_sampling_drops_is_listed_with_its_reason(small, loop_of):
    dynamic = {"problems_per_step": 3, "dynamic": {"max_batches": 2}}
    loop = loop_of(small(sampling=dynamic, reward="llmalign_loop_rewards:constant"))
    loop.step(0)
    assert Counter(record["reason"] for record in dropped(loop, 0)) == {
        "all equal": 6,
        "budget spent": 1,
    }
    loop = loop_of(small(sampling=dynamic, reward="llmalign_loop_rewards:never"))
    loop.step(0)
    listed = [r for r in dropped(loop, 0) if r["reason"] == "not scorable"]
    assert len({record["problem_id"] for record in listed}) == len(listed) == 6


def test_the_samples_that_spread_most_are_trained_on_and_the_rest_is_listed(small, loop_of):
    recipe = small(
        rollout={"samples_per_problem": 6}, sampling={"train_samples": 2, "select": "spread"}
    )
    loop = loop_of(recipe)
    found = loop.collector.collect(0)
    everything = loop_of(small(rollout={"samples_per_problem": 6})).collector.collect(0)
    drawn = [s for g in everything.groups for s in g.group.samples]
    assert found.tokens_generated == sum(len(s.token_ids) for s in drawn)
    for cut, whole in zip(found.groups, everything.groups, strict=True):
        values = [score.value for score in whole.scores]
        assert sorted(s.value for s in cut.scores) == [min(values), max(values)]
    metrics = loop.step(1)
    assert metrics["tokens_generated"] > 150 and metrics["tokens_trained"] <= 60
    assert [r["reason"] for r in dropped(loop, 1)] == ["not selected"] * 3


def test_the_chosen_may_be_compared_with_all_samples_of_their_group(small, loop_of):
    rollout = {"samples_per_problem": 6}
    cut = {"train_samples": 2, "select": "best"}
    whole = loop_of(small(rollout=rollout))
    full = whole.preparer.experience(whole.collector.collect(0).groups)
    whole.preparer.advantages(full, step=0, kl_coef=0.0)
    loop = loop_of(small(rollout=rollout, sampling={**cut, "baseline": "all"}))
    experience = loop.preparer.experience(loop.collector.collect(0).groups)
    loop.preparer.advantages(experience, step=0, kl_coef=0.0)
    assert (experience.adv_BT == full.adv_BT).all()
    in_loss = experience.loss_mask_BT.any(1)
    assert in_loss.sum() == 6
    assert full.adv_B[in_loss].min() >= 0 and full.adv_B.min() < 0
    assert loop.learner.active(experience, range(18)) == [
        b for b in in_loss.nonzero()[:, 0].tolist() if (full.adv_BT[b] != 0).any()
    ]


def test_a_curriculum_skips_what_it_knows_to_be_too_easy_and_tries_it_again(small, loop_of):
    # Every reward is 1: after one visit each problem is too easy for 2 steps.
    recipe = small(
        data={"train": {"count": 6}, "eval": None},
        reward={"sum": {"of": ["llmalign_loop_rewards:one"], "name": "all"}},
        sampling={"curriculum": {"recheck_after": 2, "metric": "all"}},
    )
    loop = loop_of(recipe)
    ids = [[g.group.problem.id for g in loop.collector.collect(0).groups] for _ in range(2)]
    assert len(set(ids[0] + ids[1])) == 6
    third = loop.collector.collect(1)
    assert {d.reason for d in third.dropped} == {"curriculum: too easy"}
    assert len(third.groups) == 3 and "worth" in third.note  # it never starves
    again = loop.collector.collect(3)
    assert not again.dropped and not again.note


def test_a_curriculum_deals_problems_out_by_their_difficulty(small, loop_of, tmp_path):
    rows = [{"problem": f"{n} + 1 = ?", "answer": str(n + 1), "hard": n % 5} for n in range(8)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    curriculum = {"order": "hard_first", "column": "hard", "metric": "spread"}
    recipe = small(
        data={"train": {"path": str(path), "generate": None, "options": {}}, "eval": None},
        sampling={"problems_per_step": 8, "curriculum": curriculum},
    )
    groups = loop_of(recipe).collector.collect(0).groups
    assert [g.group.problem.columns["hard"] for g in groups] == [4, 3, 2, 2, 1, 1, 0, 0]


def test_replayed_groups_keep_the_log_probs_of_the_policy_that_sampled_them(small, loop_of):
    recipe = small(
        sampling={"problems_per_step": 4, "replay": {"share": 0.5, "max_age": 2}},
        optimizer={"lr": 0.02},
    )
    loop = loop_of(recipe)
    assert "replayed_groups" not in loop.step(0)
    found = loop.collector.collect(1)
    again = [g for g in found.groups if g.age]
    assert [g.age for g in again] == [1, 1] and len(found.fresh) == 2
    experience = loop.preparer.experience(found.groups)
    for b, sample in enumerate(s for g in found.groups for s in g.group.samples):
        old = experience.logp_old_BT[b, : len(sample.token_ids)].tolist()
        assert old == pytest.approx(sample.logprobs, abs=1e-4)
    loop.preparer.advantages(experience, step=1, kl_coef=0.0)
    _, stats = loop.learner.update(experience, 1)
    assert stats["rho_max"] > 1.001  # the policy has moved since
    metrics = loop.step(2)
    assert metrics["replayed_groups"] == 2 and metrics["replay_age"] >= 1
    assert metrics["tokens_generated"] == 80 >= metrics["tokens_trained"]


def test_groups_too_old_for_replay_are_listed(small, loop_of):
    replay = {"share": 0.25, "max_age": 1}
    schedule = {"updates_per_batch": 2}  # two versions a step: what is kept is stale at once
    loop = loop_of(small(sampling={"problems_per_step": 4, "replay": replay}, schedule=schedule))
    loop.step(0)
    assert "replayed_groups" not in loop.step(1)
    assert {record["reason"] for record in dropped(loop, 1)} == {"stale"}


@pytest.mark.parametrize(
    ("tree", "leaves"),
    [
        ({"kind": "treerl", "trees": 2, "branches": 1, "per_point": 2}, 6),
        ({"kind": "treepo", "width": 5, "segment_tokens": 3, "first": [1, 2]}, 5),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else str(value),
)
def test_samples_of_a_tree_share_beginnings_that_are_generated_once(small, loop_of, tree, leaves):
    loop = loop_of(small(sampling={"tree": tree}))
    found = loop.collector.collect(0)
    for g in found.groups:
        assert len(g.group.samples) == len(g.scores) == len(g.tree.leaves) == leaves
        firsts = Counter(sample.token_ids[:1] for sample in g.group.samples)
        assert max(firsts.values()) > 1
    tokens = sum(len(s.token_ids) for g in found.groups for s in g.group.samples)
    assert found.tokens_generated < tokens
    again = loop_of(small(sampling={"tree": tree})).collector.collect(0)
    assert [g.group.samples for g in again.groups] == [g.group.samples for g in found.groups]
