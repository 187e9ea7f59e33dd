"""Choices that make no sense together are refused when a recipe is loaded, with the reason."""

import pytest

PPO = {"advantage": {"kind": "gae"}, "critic": {}}
TREE = {"kind": "treepo", "width": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"algorithm": "gspo", "aggregate": "token_mean"},
            "aggregate is 'token_mean', expected sequence_mean with loss 'gspo'",
            id="a ratio of sequences, a sum over tokens",
        ),
        pytest.param(
            {"loss": {"kind": "asft"}, "reward": None, "data": {"eval": None, "holdout": 2}},
            "data.holdout is 2, but grpo learns from rows that are no problems",
            id="a supervised loss, problems held out",
        ),
        pytest.param(
            {"algorithm": "pacs", "rollout": {"samples_per_problem": 1}},
            "samples_per_problem is 1, expected >= 2 with loss 'pacs', which compares the samples",
            id="a loss over groups, groups of one",
        ),
        pytest.param(
            {"rollout": {"samples_per_problem": 1}},
            "samples_per_problem is 1, expected >= 2 with advantage 'group'",
            id="a group baseline, groups of one",
        ),
        pytest.param(
            {"sampling": {"tree": {**TREE, "width": 1}}},
            "sampling.tree.width is 1, expected >= 2 with advantage 'group'",
            id="a group baseline, a tree with one leaf",
        ),
        pytest.param(
            {"algorithm": "pass_at_k", "sampling": {"train_samples": 3}},
            "sampling.train_samples is 3, expected >= 4 with advantage 'pass_at_k' with k 4",
            id="the best of k, groups smaller than k",
        ),
        pytest.param(
            {"critic": {}},
            "critic is set and advantage.kind is 'group', which reads no values",
            id="a critic that nobody asks",
        ),
        pytest.param(
            {"advantage": {"kind": "gae"}},
            "advantage.kind is 'gae', which needs a critic: set critic",
            id="values without a critic",
        ),
        pytest.param(
            {"advantage": {"kind": "treerl"}},
            "advantage.kind is 'treerl', which needs samples that branch: set sampling.tree",
            id="credit in a tree, no tree",
        ),
        pytest.param(
            {"advantage": {"kind": "grpo_s", "inputs": {"gap_B": "math"}}},
            "'grpo_s', which needs a value per sample: .* advantage.inputs.delta_B",
            id="an input that no reward node gives",
        ),
        pytest.param(
            {"advantage": {"kind": "group", "inputs": {"delta_B": "math"}}},
            "advantage.inputs names 'delta_B', expected one of reward_B, group_B",
            id="an input that the advantage does not take",
        ),
        pytest.param(
            {"advantage": {"kind": "pairwise_wins"}, "sampling": {"train_samples": 2}},
            "'pairwise_wins' and sampling.train_samples is 2, expected null",
            id="comparisons within a group that is cut",
        ),
        pytest.param(
            {"algorithm": "gspo", "token_weights": {"kind": "high_entropy"}},
            "token_weights is 'high_entropy' and loss.kind 'gspo', whose ratio is of whole",
            id="token weights, a loss over sequences",
        ),
        pytest.param(
            {"sampling": {"select": "spread"}},
            "sampling.select is 'spread' and sampling.train_samples is null",
            id="a choice of samples that chooses all",
        ),
        pytest.param(
            {"sampling": {"train_samples": 9}},
            "sampling.train_samples is 9, expected at most rollout.samples_per_problem, 4",
            id="more samples trained on than drawn",
        ),
        pytest.param(
            {"sampling": {"replay": {}, "problems_per_step": 1}},
            "sampling.replay is set and sampling.problems_per_step is 1, expected >= 2",
            id="old groups and no room for a fresh one",
        ),
        pytest.param(
            {"sampling": {"replay": {}}, "mismatch": {"kind": "truncated"}},
            "sampling.replay and mismatch.kind are both set, expected one",
            id="two corrections of one gap",
        ),
        pytest.param(
            {"sampling": {"curriculum": {"low": 0.9, "high": 0.1}}},
            "low is 0.9 and high is 0.1, expected low <= high",
            id="bounds out of order",
        ),
        pytest.param(
            {"sampling": {"curriculum": {"order": "hard_first"}}},
            "order is 'hard_first' and column is None, expected both or neither",
            id="an order by nothing",
        ),
        pytest.param(
            {"sampling": {"tree": {"kind": "treepo", "widht": 4}}},
            "sampling.tree.treepo: unknown key 'widht'; did you mean 'width'",
            id="a misspelled key within one of several forms",
        ),
        pytest.param(
            {"kl": {"target": 0.1}},
            "kl: target is 0.1 and coef is 0, expected a coefficient to start from",
            id="control of a coefficient that is 0",
        ),
        pytest.param(
            {"kl": {"coef": 0.1, "target": 0.1, "horizon": 2}},
            "kl.horizon is 2 and a step has 12 samples, expected more than a fifth of them",
            id="control within less than a step",
        ),
        pytest.param(
            {"critic": {"coef": 0.5}, "advantage": {"kind": "gae"}},
            "coef is 0.5 and kind is 'model', whose loss is not added to the policy's",
            id="a weight between losses that never meet",
        ),
        pytest.param(
            {
                "sampling": {"baseline": "all", "train_samples": 2},
                "advantage": {"kind": "best_of_group"},
            },
            "sampling.baseline is 'all' and advantage.kind is 'best_of_group'",
            id="the best of all, which may not be trained on",
        ),
        pytest.param(
            {"entropy": {"adaptive": {}}},
            "entropy.adaptive is set and entropy.bonus is 0",
            id="control of a bonus that is 0",
        ),
        pytest.param(
            {"entropy": {"band": {"low": 0.6, "high": 0.5}}},
            "low is 0.6 and high is 0.5, expected low <= high",
            id="a band upside down",
        ),
        pytest.param(
            {"algorithm": "reinforce++", "kl": {"estimator": "k3+"}},
            "kl.estimator is 'k3\\+', expected k1, k2 or k3 with kl.place=reward",
            id="a gradient through a reward",
        ),
    ],
)
def test_choices_that_contradict_each_other_are_refused_with_the_reason(small, changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({**PPO, "rollout": {"samples_per_problem": 1}}, id="a critic needs no group"),
        pytest.param(
            {"algorithm": "reinforce++", "rollout": {"samples_per_problem": 1}},
            id="whitening over the batch needs no group",
        ),
        pytest.param(
            {"sampling": {"tree": TREE, "train_samples": 3, "select": "best"}},
            id="leaves of a tree may be chosen from",
        ),
    ],
)
def test_what_only_looks_odd_is_accepted(small, changes):
    assert small(**changes).name == "small"
