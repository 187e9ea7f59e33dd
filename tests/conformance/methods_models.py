"""Reference cases of rewards that models pay: steps into one value, shaped steps, ensembles."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from llmalign.rewards.centred import centred
from llmalign.rewards.combine import ensemble
from llmalign.rewards.prm import aggregated, shaped

Case = Mapping[str, Any]


def _aggregates(case: Case) -> Any:
    # The reference counts a missing step, and an answer without steps, as 0.5: with us neither
    # counts, so that its convention is put in from here.
    neutral = 0.5
    found: dict[str, dict[str, float]] = {}
    for name, given in case["inputs"].items():
        filled = [neutral if value is None else value for value in given]
        by_how = {
            "min": aggregated(filled, "min"),
            "max": aggregated(filled, "max"),
            "mean": aggregated(filled, "mean"),
            "prod": aggregated(filled, "product"),
            "last": aggregated(filled, "last"),
        }
        found[name] = {how: neutral if v is None else v for how, v in by_how.items()}
    return found


def _clip_and_delta(case: Case) -> Any:
    inputs = case["inputs"]
    steps, eta, alpha = inputs["prm"], inputs["eta"], inputs["alpha"]

    def returns(how: Any) -> list[float]:
        rewards = shaped(steps, how, eta, alpha)
        rewards[-1] += inputs["success"]
        return list(accumulate(reversed(rewards)))[::-1]

    return {
        "clip": shaped(steps, "clip", eta, 1.0),
        "delta": shaped(steps, "delta", eta, 1.0),
        "clip_then_delta": shaped(steps, "clip_delta", eta, 1.0),
        "delta_returns": returns("delta"),
        "clip_delta_returns": returns("clip_delta"),
    }


def _ensembles(case: Case) -> Any:
    inputs = case["inputs"]
    if "r_helpful" in inputs:
        kinds = ("helpful", "harmless")
        sides = [
            [centred(r, [inputs[f"ref_{kind}"]], "log_sigmoid") for r in inputs[f"r_{kind}"]]
            for kind in kinds
        ]
        return {"sum": [sum(sample) for sample in zip(*sides, strict=True)]}
    samples: list[Sequence[float]] = list(zip(*inputs["rewards[model,response]"], strict=True))
    means = [ensemble(sample, "mean") for sample in samples]
    least = [ensemble(sample, "min") for sample in samples]
    return {
        "mean": means,
        "median": [ensemble(sample, "median") for sample in samples],
        "min": least,
        "mean_minus_std": [_sample_std(sample) for sample in samples],
        "argmax_mean": means.index(max(means)),
        "argmax_min": least.index(max(least)),
    }


def _sample_std(sample: Sequence[float]) -> float:
    """Our mean minus the population's std, with the sample's std that the reference takes."""
    mean, size = statistics.fmean(sample), len(sample)
    return mean - (mean - ensemble(sample, "mean_minus_std")) * math.sqrt(size / (size - 1))


METHODS: dict[str, Callable[[Case], Any]] = {
    "PRM score aggregation": _aggregates,
    "Clip and Delta reward refinement": _clip_and_delta,
    "ensemble": _ensembles,
}
