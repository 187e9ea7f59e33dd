"""Evaluation on held-out problems: every sample is kept, every figure has an interval."""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llmalign.evaluation.passk import ProblemRecord, bootstrap_interval, summarize
from llmalign.observe.log import write_json
from llmalign.rewards import Group, Problem, RewardHost, Sample, Score
from llmalign.rollout import Engine, Request, SamplingParams, sample_seed
from llmalign.schema import Evaluate, Recipe
from llmalign.verifiers import Verdict

Prompted = tuple[Problem, tuple[int, ...]]


def sample_groups(
    engine: Engine,
    prompted: Sequence[Prompted],
    params: SamplingParams,
    *,
    seeds: Callable[[int, int], int],
    samples: int,
    on_group: Callable[[int, Group], None],
) -> None:
    """Samples every problem ``samples`` times; a group is handed on as soon as it is whole.

    Args:
        prompted: (problem, prompt token ids).
        seeds: (index of the problem, index of the sample) -> seed of that sample.
        on_group: called with the index of the problem and its group, while others still generate.
    """
    requests = [
        Request(ids, seeds(p, s)) for p, (_, ids) in enumerate(prompted) for s in range(samples)
    ]
    done: dict[int, dict[int, Sample]] = {}
    for index, sample in engine.generate(requests, params):
        p, s = divmod(index, samples)
        found = done.setdefault(p, {})
        found[s] = sample
        if len(found) == samples:
            ordered = tuple(found[i] for i in range(samples))
            on_group(p, Group(prompted[p][0], ordered, params.max_new_tokens))


def evaluate_policy(
    engine: Engine,
    host: RewardHost,
    prompted: Sequence[Prompted],
    config: Evaluate,
    params: SamplingParams,
    *,
    seed: int,
    output: Path | None,
) -> dict[str, Any]:
    """pass@1, unbiased pass@k and maj@k with bootstrap intervals over problems.

    A sample is right when the verifier of the reward says so; a reward without verifier counts a
    sample as right at its full value, 1 or more. The same problems and seeds are used every time,
    so that before and after are paired.

    Args:
        engine: samples the completions.
        host: scores them.
        prompted: (problem, prompt token ids) of the held-out problems.
        config: samples per problem, k, temperature, top-p, top-k.
        params: length limit and stop strings; the rest is taken from ``config``.
        seed: of the run; each sample has its own stream below it.
        output: a JSON file for the summary and every sample; None writes nothing.
    Returns:
        The summary (see ``summarize`` and ``reward_summary``).
    """
    params = replace(
        params,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        min_p=config.min_p,
        max_kept=0,
    )
    futures: dict[int, Any] = {}
    groups: dict[int, Group] = {}
    remembered = host.state_dict()

    def on_group(index: int, group: Group) -> None:
        groups[index] = group
        futures[index] = host.submit(group)

    sample_groups(
        engine,
        prompted,
        params,
        seeds=lambda p, s: sample_seed(seed, "eval", prompted[p][0].id, s),
        samples=config.samples,
        on_group=on_group,
    )
    host.flush()
    scored = [(groups[p], futures[p].result()) for p in range(len(prompted))]
    host.load_state_dict(remembered)  # an evaluation leaves no trace in running statistics
    records = [_problem_record(group, scores) for group, scores in scored]
    ks = [k for k in config.k if k <= config.samples]
    summary = summarize(records, ks, seed=seed) | reward_summary(scored, seed=seed)
    if output is not None:
        write_json(output, {"summary": summary, "problems": [_rows(*one) for one in scored]})
    return summary


def reward_summary(scored: Sequence[tuple[Group, Sequence[Score]]], *, seed: int) -> dict[str, Any]:
    """What the reward tree says: means over problems of the mean over their samples.

    Args:
        scored: groups and their scores.
        seed: of the bootstrap interval.
    Returns: ``verified`` (whether a verifier had a say; else pass@k counts full values),
        ``reward``, ``reward_ci`` (95 %, over problems), ``nodes`` {name: mean}; None for what no
        sample has a value of.
    """
    per_problem = _means([[s.value for s in scores] for _, scores in scored])
    names = dict.fromkeys(name for _, scores in scored for s in scores for name in s.aspects)
    nodes = {
        name: _means([[s.aspects.get(name) for s in scores] for _, scores in scored])
        for name in names
    }
    ci = list(bootstrap_interval(np.array(per_problem), seed=seed)) if per_problem else None
    return {
        "verified": any(s.judgement is not None for _, scores in scored for s in scores),
        "reward": float(np.mean(per_problem)) if per_problem else None,
        "reward_ci": ci,
        "nodes": {n: float(np.mean(values)) if values else None for n, values in nodes.items()},
    }


def _means(values: Sequence[Sequence[float | None]]) -> list[float]:
    """The mean of each row, of rows with a value."""
    known = [[v for v in row if v is not None] for row in values]
    return [math.fsum(row) / len(row) for row in known if row]


def _problem_record(group: Group, scores: Sequence[Score]) -> ProblemRecord:
    return ProblemRecord(
        problem_id=group.problem.id,
        answers=[s.judgement.answer if s.judgement else None for s in scores],
        right=[is_right(s) for s in scores],
        undecided=[is_undecided(s) for s in scores],
        tokens=[len(s.token_ids) for s in group.samples],
        truncated=[s.truncated for s in group.samples],
    )


def is_right(score: Score) -> bool:
    """Whether the verifier says RIGHT; without a verifier, whether the value is 1 or more."""
    if score.judgement is not None:
        return score.judgement.verdict is Verdict.RIGHT
    return score.value is not None and score.value >= 1.0


def is_undecided(score: Score) -> bool:
    """Whether nothing can be said about the sample: never counted as wrong."""
    if score.judgement is not None:
        return score.judgement.verdict is Verdict.UNDECIDED
    return score.value is None


def _rows(group: Group, scores: Sequence[Score]) -> dict[str, Any]:
    return {
        "problem_id": group.problem.id,
        "answer": group.problem.columns.get("answer"),
        "samples": [
            {
                "completion": sample.text,
                "finish_reason": sample.finish_reason,
                "tokens": len(sample.token_ids),
                "extracted": score.judgement.answer if score.judgement else None,
                "verdict": score.judgement.verdict.value if score.judgement else None,
                "reward": score.value,
                "aspects": dict(score.aspects),
            }
            for sample, score in zip(group.samples, scores, strict=True)
        ],
    }


def evaluate(recipe: Recipe, *, output: Path | None = None) -> dict[str, Any]:
    """Evaluates the recipe's model on its held-out problems without training it.

    Args:
        recipe: only ``model``, ``data``, ``reward``, ``rollout`` and ``evaluate`` are read.
        output: a JSON file for the summary and every sample; None writes nothing.
    Returns:
        The summary (see ``summarize``).
    Raises:
        ValueError: the recipe holds out no problems.
    """
    from llmalign.policy import load_policy
    from llmalign.problems import load_problems
    from llmalign.rollout.hf import HfEngine
    from llmalign.scoring import open_host

    policy = load_policy(recipe.model, seed=recipe.seed)
    with contextlib.closing(open_host(recipe, recipe.reward, policy)) as host:
        held_out = load_problems(recipe, policy, host, held_out_only=True).held_out
        if not held_out:
            raise ValueError(
                "data.eval is missing and data.holdout is 0, expected held-out problems"
            )
        params = SamplingParams(recipe.rollout.max_new_tokens, stop=tuple(recipe.rollout.stop))
        engine = HfEngine(policy, batch_size=recipe.rollout.batch_size)
        return evaluate_policy(
            engine, host, held_out, recipe.evaluate, params, seed=recipe.seed, output=output
        )
