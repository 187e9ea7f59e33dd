"""Choices of a recipe that make no sense together, refused before anything runs.

Every refusal says which field, which value, why, and the way out.
"""

from typing import TYPE_CHECKING

from llmalign.advantages import ADVANTAGES
from llmalign.inputs import ADVANTAGE_INPUTS, LOSS_INPUTS, WEIGHT_INPUTS, check_inputs
from llmalign.losses import LOSSES
from llmalign.schema import Recipe, Rollout
from llmalign.token_weights import TOKEN_WEIGHTS
from llmalign.truncation import truncates

if TYPE_CHECKING:
    from llmalign.rewards import Reward

COMPARE = {"group", "leave_one_out", "anchored", "opo", "gpg", "grpo_s", "best_of_group"}


def check(recipe: Recipe) -> None:
    """Raises ValueError where choices contradict each other."""
    _check_loss(recipe)
    if recipe.stage == "policy":
        _check_advantage(recipe)
        _check_sampling(recipe)
        _check_online(recipe)
    else:
        _check_offline(recipe)


def _check_loss(recipe: Recipe) -> None:
    entry = LOSSES.get(recipe.loss.kind, "loss.kind")
    allowed = entry.traits.get("aggregates")
    if allowed and recipe.aggregate not in allowed:
        raise ValueError(
            f"aggregate is {recipe.aggregate!r}, expected {' or '.join(allowed)} with loss "
            f"{entry.name!r}, whose terms are of whole sequences"
        )
    if recipe.stage == "policy":
        check_inputs(recipe, entry, "loss.kind", LOSS_INPUTS)


def _check_advantage(recipe: Recipe) -> None:
    entry = ADVANTAGES.get(recipe.advantage.kind, "advantage.kind")
    for name in recipe.advantage.inputs:
        if name not in entry.inputs:
            raise ValueError(
                f"advantage.inputs names {name!r}, expected one of {', '.join(entry.inputs)}, "
                f"which {entry.name!r} takes"
            )
    check_inputs(recipe, entry, "advantage.kind", ADVANTAGE_INPUTS)
    if recipe.critic is not None and "value_BT" not in entry.inputs:
        raise ValueError(
            f"critic is set and advantage.kind is {entry.name!r}, which reads no values, expected "
            "advantage.kind=gae; or leave the critic out"
        )
    compares = {"margin_BB", "margin_BJ"} & set(entry.inputs)
    if compares and recipe.sampling.train_samples is not None:
        raise ValueError(
            f"advantage.kind is {entry.name!r} and sampling.train_samples is "
            f"{recipe.sampling.train_samples}, expected null: who beat whom is known of the whole "
            "group only"
        )
    traits = LOSSES.get(recipe.loss.kind, "loss.kind").traits
    size, smallest = _group_size(recipe), 1
    if entry.name in COMPARE:
        smallest, who = 2, f"advantage {entry.name!r}: a group of one has no baseline"
    elif traits.get("whole_groups"):
        smallest, who = 2, f"loss {recipe.loss.kind!r}, which compares the samples of a group"
    elif "k" in recipe.advantage.options:
        smallest = recipe.advantage.options["k"]
        who = f"advantage {entry.name!r} with k {smallest}: smaller groups teach nothing"
    if size < smallest:
        raise ValueError(
            f"{_group_field(recipe)} is {size}, expected >= {smallest} with {who}; "
            "raise it or use advantage.kind=batch_whitened"
        )
    if recipe.token_weights is None:
        return
    weights = TOKEN_WEIGHTS.get(recipe.token_weights.kind, "token_weights.kind")
    check_inputs(recipe, weights, "token_weights.kind", WEIGHT_INPUTS)
    if traits.get("level") != "token":
        raise ValueError(
            f"token_weights is {weights.name!r} and loss.kind {recipe.loss.kind!r}, whose ratio is "
            "of whole sequences, expected a loss per token, such as clipped"
        )


def _check_sampling(recipe: Recipe) -> None:
    sampling, replay = recipe.sampling, recipe.sampling.replay
    if sampling.select != "first" and sampling.train_samples is None:
        raise ValueError(
            f"sampling.select is {sampling.select!r} and sampling.train_samples is null, expected "
            "how many of the samples are trained on; set sampling.train_samples"
        )
    if sampling.baseline == "all" and recipe.advantage.kind.startswith("best_of"):
        raise ValueError(
            f"sampling.baseline is 'all' and advantage.kind is {recipe.advantage.kind!r}, expected "
            "'chosen': the best of all may not be among those trained on"
        )
    if replay is not None and sampling.problems_per_step < 2:
        raise ValueError(
            "sampling.replay is set and sampling.problems_per_step is 1, expected >= 2: a step "
            "needs a fresh group beside those used again"
        )
    if replay is not None and recipe.mismatch.kind is not None:
        raise ValueError(
            "sampling.replay and mismatch.kind are both set, expected one: a replayed group's "
            "ratio is already that to the policy that sampled it"
        )
    if sampling.tree is not None and recipe.rollout.temperature == 0:
        raise ValueError("sampling.tree is set, expected rollout.temperature > 0: all branches "
                         "would be alike")  # fmt: skip


def _group_size(recipe: Recipe) -> int:
    """Most samples of a problem that are trained on."""
    sampling, tree = recipe.sampling, recipe.sampling.tree
    if tree is None:
        drawn = recipe.rollout.samples_per_problem
    elif tree.kind == "treepo":
        drawn = tree.width
    else:
        drawn = tree.trees * (1 + tree.rounds * tree.branches * tree.per_point)
    return min(sampling.train_samples or drawn, drawn)


def _check_offline(recipe: Recipe) -> None:
    if recipe.reward is not None:
        from llmalign.rewards import build_reward

        build_reward(recipe.reward)
    held_out = recipe.data.eval is not None
    if recipe.data.holdout:
        raise ValueError(
            f"data.holdout is {recipe.data.holdout}, but {recipe.algorithm} learns from rows that "
            "are no problems; give held-out problems as data.eval"
        )
    if held_out != (recipe.reward is not None):
        raise ValueError(
            f"reward is {recipe.reward!r:.80} and data.eval is {'set' if held_out else 'missing'}: "
            f"{recipe.algorithm} learns from its rows, and judges data.eval with the reward; "
            "give both or neither"
        )
    if recipe.warm_start is not None:
        raise ValueError(f"warm_start is set, expected none with {recipe.algorithm}; run it first")
    if recipe.imitation is not None:
        raise ValueError(
            f"imitation is set, expected none with {recipe.algorithm}, which learns from "
            "its own rows alone; leave it out"
        )


def _group_field(recipe: Recipe) -> str:
    """Which field says how many samples of a problem are trained on."""
    tree = recipe.sampling.tree
    if recipe.sampling.train_samples:
        return "sampling.train_samples"
    if tree is not None:
        return "sampling.tree." + ("width" if tree.kind == "treepo" else "trees")
    return "rollout.samples_per_problem"


def _check_kept(rollout: Rollout) -> None:
    if not truncates(top_k=rollout.top_k, top_p=rollout.top_p, min_p=rollout.min_p):
        return
    if not 0 < rollout.top_k <= rollout.max_kept:
        raise ValueError(
            f"rollout.top_p is {rollout.top_p}, rollout.min_p {rollout.min_p} and rollout.top_k "
            f"{rollout.top_k}, expected a top_k from 1 to rollout.max_kept, {rollout.max_kept}, in "
            "training: what sampling leaves out is recorded for every token, or the importance "
            "ratio would be biased; set rollout.top_k, or use rollout.temperature alone "
            "(evaluate.top_p, evaluate.top_k and evaluate.min_p are free)"
        )


def _check_judge(recipe: Recipe, reward: "Reward") -> None:
    from llmalign.rewards.node import walk

    asking = [node.name for node in walk(reward) if node.need == "judge"]
    if asking and recipe.judge is None:
        raise ValueError(
            f"judge is missing and reward {asking[-1]!r} asks one; say `judge: {{model: "
            "frozen_policy}` for the policy as the run starts, or name a model behind an API "
            "(model, base_url)"
        )


def _check_online(recipe: Recipe) -> None:
    from llmalign.rewards import build_reward

    if recipe.reward is None:
        raise ValueError("reward is missing; say for example `reward: math`")
    _check_judge(recipe, build_reward(recipe.reward))
    trained, tree = recipe.sampling.train_samples or 1, recipe.sampling.tree
    if tree is None and trained > recipe.rollout.samples_per_problem:
        raise ValueError(
            f"sampling.train_samples is {trained}, expected at most "
            f"rollout.samples_per_problem, {recipe.rollout.samples_per_problem}"
        )
    _check_kept(recipe.rollout)
    if recipe.warm_start is not None and recipe.model.lora is not None:
        raise ValueError(
            "warm_start and model.lora are both set, expected one: a warm start trains "
            "whole weights; run a recipe with algorithm: sft first and give its final/ as "
            "model.path"
        )
    if recipe.kl.place == "reward" and recipe.kl.estimator.endswith("+"):
        raise ValueError(
            f"kl.estimator is {recipe.kl.estimator!r}, expected k1, k2 or k3 with kl.place=reward: "
            "a reward carries no gradient"
        )
    samples = recipe.sampling.problems_per_step * _group_size(recipe)
    if recipe.kl.target is not None and 5 * recipe.kl.horizon <= samples:
        raise ValueError(
            f"kl.horizon is {recipe.kl.horizon} and a step has {samples} samples, expected more "
            "than a fifth of them; the coefficient could change its sign: raise kl.horizon"
        )
    if recipe.entropy.adaptive is not None and not recipe.entropy.bonus:
        raise ValueError(
            "entropy.adaptive is set and entropy.bonus is 0, expected a bonus to start from; set "
            "entropy.bonus, for example to 0.005"
        )
