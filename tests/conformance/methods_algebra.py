"""Reference cases of the reward algebra: gates, ensembles, shaping, normalisation, schedules."""

import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from llmalign.rewards import build_reward
from llmalign.rewards.centred import centred, log_sigmoid, sigmoid
from llmalign.rewards.combine import brme, ensemble
from llmalign.rewards.gate import bottom_line, gated, weighted_mean
from llmalign.rewards.normalize import standardised
from llmalign.rewards.schedule import added_volume, trust_factor
from llmalign.rewards.shape import calibrated, flip

Case = Mapping[str, Any]


def _gate(case: Case) -> Any:
    inputs = case["inputs"]
    if "levels" in inputs:
        return gated(inputs["levels"], inputs["gates"][:-1])
    steps, found = inputs["steps"], {}
    for outcome in inputs["outcomes"]:
        below = [gated([outcome, step], [inputs["delta"]])[1] for step in steps]
        found[str(float(outcome))] = [*below[:-1], below[-1] + outcome]
    return found


def _bottom_line(case: Case) -> Any:
    inputs = case["inputs"]
    damped = bottom_line(inputs["bottom"], inputs["delta"])
    behaviour = weighted_mean(inputs["behaviour"], inputs["weights"])
    return {"B": damped, "U": behaviour, "R": damped * behaviour}


def _ensembles(case: Case) -> Any:
    samples = list(zip(*case["inputs"]["rewards_members_by_sample"], strict=True))
    return {
        "mean": [ensemble(s, "mean") for s in samples],
        "median": [ensemble(s, "median") for s in samples],
        "mean_minus_std_ddof0": [ensemble(s, "mean_minus_std") for s in samples],
        "min": [ensemble(s, "min") for s in samples],
        "uwo_var": [ensemble(s, "uwo", 0.5) for s in samples],
    }


def _brme(case: Case) -> Any:
    inputs = case["inputs"]
    means, stds = inputs["head_mean"], inputs["head_std"]
    return {
        "nominal": brme(means, stds, 1.0),
        "min": brme(means, stds, 0.0),
        "reward": brme(means, stds, inputs["alpha"]),
    }


def _par(case: Case) -> Any:
    inputs = case["inputs"]
    pairs = zip(inputs["reward"], inputs["ref_rewards"], strict=True)
    return [centred(r, refs, "sigmoid", inputs["k"]) for r, refs in pairs]


def _par_baselines(case: Case) -> Any:
    inputs, what = case["inputs"], case["case"]
    rewards, references = inputs["reward"], inputs["ref_rewards"]
    pairs = list(zip(rewards, references, strict=True))
    if what.startswith("plain sigmoid"):
        return [sigmoid(r) for r in rewards]
    if what.startswith("tanh"):
        return [centred(r, refs, "tanh") for r, refs in pairs]
    if what.startswith("centered"):
        return [centred(r, refs, "identity") for r, refs in pairs]
    how = {"meanstd": "standard", "minmax": "range", "clip": "clip"}[what.split()[0].rstrip(":")]
    spec = {"normalize": {"of": "math", "scope": "running", "how": how, "eps": 0}}
    node: Any = build_reward(spec)
    return node.combine_batch([], [[rewards]])[0]


def _lsc(case: Case) -> Any:
    inputs = case["inputs"]
    if "quantile" in inputs:
        pairs = zip(inputs["reward"], inputs["ref_rewards"], strict=True)
        return [centred(r, refs, "log_sigmoid", quantile=inputs["quantile"]) for r, refs in pairs]
    return [
        sum(log_sigmoid(r - ref) for r, ref in zip(rewards, inputs["ref"], strict=True))
        for rewards in inputs["rewards"]
    ]


def _calibration(case: Case) -> Any:
    inputs = case["inputs"]
    pairs = zip(inputs["rm"], inputs["rpr"], strict=True)
    return [calibrated(r, s, inputs["alpha"], inputs["tau"]) for r, s in pairs]


def _node_values(spec: Any, *values: list[float]) -> list[float]:
    node: Any = build_reward(spec)
    return node.combine_group(None, values)


def _immediate(case: Case) -> Any:
    inputs = case["inputs"]
    spec = {"gate": {"of": ["math", "refusal"], "thresholds": [inputs["threshold"]]}}
    return {"reward": _node_values(spec, inputs["high_level"], inputs["immediate"])}


def _flawed(case: Case) -> Any:
    inputs = case["inputs"]
    spec = {"flawed_positive": {"of": ["math", "refusal"], "penalty": inputs["lambda"]}}
    rewards = _node_values(spec, inputs["rlvr"], inputs["flawed"])
    # The two closed forms are other ways to say what the variance does.
    shift = statistics.pvariance(rewards) - statistics.pvariance(inputs["rlvr"])
    return {
        "reward": rewards,
        "mean": statistics.fmean(rewards),
        "advantage_population_std": standardised(rewards, 1e-8, 0),
        "advantage_plain_grpo": standardised(inputs["rlvr"], 1e-8, 0),
        "variance_shift": shift,
        "closed_form_shift": shift,
        "paper_form_shift": shift,
    }


def _flip(case: Case) -> Any:
    rewards, flips = case["inputs"]["rewards"], case["inputs"]["group_flip"]
    size = len(rewards) // len(flips)
    return [flip(r) if flips[i // size] else r for i, r in enumerate(rewards)]


def _hypervolume(case: Case) -> Any:
    inputs = case["inputs"]
    signs = [1 if maximise else -1 for maximise in inputs["maximize"]]
    *front, point = (
        [sign * x for sign, x in zip(signs, p, strict=True)]
        for p in [*inputs["buffer"], inputs["point"]]
    )
    gained = added_volume(front, point)
    return {"meta_reward": 0.5 + 1.5 * math.tanh(gained), "hv_contribution": gained}


def _multi_reward(case: Case) -> Any:
    inputs = case["inputs"]
    size, weights = inputs["num_generations"], inputs["weights"]
    totals = [sum(w * r for w, r in zip(weights, row, strict=True)) for row in inputs["rewards"]]
    groups = range(0, len(totals), size)
    summed = [v for i in groups for v in standardised(totals[i : i + size], 1e-4, 1)]
    columns = list(zip(*inputs["rewards"], strict=True))
    by_child = [
        [v for i in groups for v in standardised(column[i : i + size], 1e-4, 1)]
        for column in columns
    ]
    rows = zip(*by_child, strict=True)
    added = [sum(w * (r or 0) for w, r in zip(weights, row, strict=True)) for row in rows]
    return {
        "sum_then_normalize": summed,
        "normalize_then_sum": standardised(added, 1e-4, 1),
    }


def _trust(case: Case) -> Any:
    found = {}
    for name, (outcomes, scores, step) in case["inputs"]["cases"].items():
        given = [s if a >= 0.2 else 0.0 for a, s in zip(outcomes, scores, strict=True)]
        factor = trust_factor(outcomes, given, step, 0.3, case["inputs"]["T"])
        reward = [a + factor * s for a, s in zip(outcomes, given, strict=True)]
        found[name] = {"reward": reward, "factor": factor}
    return found


METHODS: dict[str, Callable[[Case], Any]] = {
    "G-RA": _gate,
    "SearchLLM gated aggregation": _bottom_line,
    "reward ensembles": _ensembles,
    "BRME": _brme,
    "Gated reward accumulation": _immediate,
    "FAPO flawed-positive penalty": _flawed,
    "PAR": _par,
    "PAR baselines": _par_baselines,
    "LSC": _lsc,
    "RPR calibration of a noisy RM": _calibration,
    "noisy reward flip": _flip,
    "dynamic reward weighting (hypervolume)": _hypervolume,
    "multi-reward aggregation (trl)": _multi_reward,
    "Trust-GRPO thinking reward": _trust,
}
