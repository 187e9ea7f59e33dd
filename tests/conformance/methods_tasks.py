"""Reference vectors of rewards whose tasks bring their own checker, and of judges' rubrics."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from llmalign.rewards import Group, Problem, Sample
from llmalign.rewards.lsp import step_reward
from llmalign.rewards.rubric import rubric_score
from llmalign.rewards.sql_partial import bigram_jaccard, jaccard, sql_reward
from llmalign.rewards.toolrl import ToolRL

Case = Mapping[str, Any]


def _toolrl(case: Case) -> Any:
    inputs = case["inputs"]
    reward = ToolRL(name="toolrl")
    sample = Sample(inputs["response"], (), (), "eos")
    problem = Problem("p", "q", {"ground_truth": inputs["ground_truth"]})
    score = reward.score([Group(problem, (sample,))])[0][0]
    return {
        "score": score.value,
        "format": score.aspects["toolrl.form"],
        "correctness": score.aspects["toolrl.correctness"],
        "length": 0,
    }


def _reasoning_sql(case: Case) -> Any:
    inputs, words = case["inputs"], case["case"]
    judged = re.search(r"judge (\d(?:\.\d+)?)", words)
    parts = {
        "execution": float("wrong execution" not in words),
        "judge": float(judged[1]) if judged else None,
        "syntax": float("invalid syntax" not in words),
        "schema": jaccard(inputs["schema_gold"], inputs["schema_pred"]),
        "bigrams": bigram_jaccard(inputs["gold"], inputs["pred"]),
        "form": 1.0,
    }
    names = {"exec": "execution", "ngram": "bigrams", "format": "form"}
    weights = {names.get(name, name): weight for name, weight in inputs["weights"].items()}
    total = sql_reward(parts, weights)
    return {"ngram": parts["bigrams"], "schema": parts["schema"], "total": total}


def _rubric(case: Case) -> Any:
    scores, weights = case["inputs"]["scores"], case["inputs"]["weights"]
    words = case["case"]
    steepness = float(_word(r"saturation a=([\d.]+)", words))
    bonus, first, second = re.findall(r"pair \+([\d.]+)\((\d+),(\d+)\)", words)[0]
    gamma = float(_word(r"gamma=([\d.]+)", words))
    found: dict[str, float | None] = {
        "mean": rubric_score(scores, weights),
        "saturated": rubric_score(scores, weights, saturation=steepness),
        "pair": rubric_score(
            scores, weights, pairs=((int(first), int(second)),), pair_bonus=float(bonus)
        ),
        "shaped": rubric_score(scores, weights, exponent=gamma),
    }
    for name in case["expected"]:
        if veto := re.fullmatch(r"veto_idx(\d+)_lt_(\d+)_(\d+)", name):
            minima = [None] * len(scores)
            minima[int(veto[1])] = float(f"{veto[2]}.{veto[3]}")
            found[name] = rubric_score(scores, weights, minima=minima)
    return found


def _word(pattern: str, words: str) -> str:
    found = re.search(pattern, words)
    assert found, f"{words!r} does not say {pattern!r}"
    return found[1]


def _nuggets(case: Case) -> Any:
    return rubric_score(case["inputs"]["supported"], case["inputs"]["weights"])


def _lsp(case: Case) -> Any:
    inputs = case["inputs"]
    counts, alpha = inputs["diagnostics"], inputs["alpha"]
    rewards = [
        step_reward(
            before,
            after,
            safe=bool(safe),
            confidence=confidence,
            alpha=alpha,
            beta=inputs["beta"],
            gamma=inputs["gamma"],
        )
        for before, after, safe, confidence in zip(
            counts, counts[1:], inputs["safe"], inputs["conf"], strict=False
        )
    ]
    part = [
        step_reward(a, b, safe=False, confidence=1.0, alpha=alpha, beta=0.0, gamma=0.0)
        for a, b in zip(counts, counts[1:], strict=False)
    ]
    return {"reward": rewards, "diagnostic_part_sum": sum(part), "total": sum(rewards)}


METHODS: dict[str, Callable[[Case], Any]] = {
    "ToolRL": _toolrl,
    "Reasoning-SQL": _reasoning_sql,
    "rubric anchors": _rubric,
    "nugget rubric": _nuggets,
    "LSP process reward": _lsp,
}
