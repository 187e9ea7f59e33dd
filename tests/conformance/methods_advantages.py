"""Reference cases of advantages beyond the group's, of step credit, trees and token weights."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llmalign.advantages import (
    anchored,
    both_orders,
    brpo,
    gae_and_returns,
    max_minus_second,
    pairwise_wins,
    pass_at_k,
    soft_min_credit,
    treepo,
    treerl,
    turning_point_rewards,
    turning_points,
    value_loss,
)
from llmalign.advantages.batch_whitened import whitened
from llmalign.advantages.difficulty import difficulty
from llmalign.advantages.pairwise import bootstrapped, skew
from llmalign.advantages.process import normalised_steps, pure_token_rewards
from llmalign.advantages.stable import standardised, without_outliers
from llmalign.advantages.steps import suffix_sum
from llmalign.advantages.tree import segment_values
from llmalign.token_weights import (
    attention,
    backward_distance,
    distance_change,
    entropy_band,
    entropy_threshold,
    fork,
    future_influence,
    high_entropy,
)

Case = Mapping[str, Any]


def _floats(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _one_group(rewards: Sequence[float], tokens: int = 1) -> tuple[Tensor, ...]:
    """One group with ``tokens`` tokens each and no penalties."""
    shape = (len(rewards), tokens)
    group_B = torch.zeros(len(rewards), dtype=torch.int64)
    mask_BT = torch.ones(shape, dtype=torch.bool)
    return _floats(rewards), group_B, mask_BT, torch.zeros(shape, dtype=torch.float64)


def _padded(rows: Sequence[Sequence[float]]) -> tuple[Tensor, Tensor, Tensor]:
    """Step values, NaN behind a row's last; the ends of steps of one token each; the mask."""
    width = max(len(row) for row in rows)
    value_BK = _floats([[*row, *[math.nan] * (width - len(row))] for row in rows])
    there_BK = ~value_BK.isnan()
    return value_BK, torch.where(there_BK, torch.arange(width), -1), there_BK


# -- samples --------------------------------------------------------------------------------------


def _vgpo(case: Case) -> Any:
    form: Any = "sum" if "z + k*R" in case["case"] else "quotient"
    options: Any = {"weight": case["inputs"]["k"], "eps": 1e-6, "ddof": 0, "lone": "zero"}
    return anchored(*_one_group(case["inputs"]["R"]), form=form, **options)[:, 0]


def _pass_at_k(case: Case) -> Any:
    return pass_at_k(*_one_group(case["inputs"]["rewards"]), k=case["inputs"]["k"], eps=1e-6)[:, 0]


def _max_minus_second(case: Case) -> Any:
    scaled = "normalised" in case["case"]
    return max_minus_second(*_one_group(case["inputs"]["rewards"]), scaled=scaled, eps=1e-6)[:, 0]


def _grpo_s(case: Case) -> Any:
    boosts: Any = "large" if "sig(gap)/sig(mean gap)" in case["case"] else "small"
    inputs = case["inputs"]
    return difficulty(_floats(inputs["delta"]), _floats(inputs["reward_gap"]), boosts=boosts)


def _outliers(case: Case) -> Any:
    raw_N = _floats(case["inputs"]["advantages"])
    z_N = standardised(raw_N, eps=1e-8)
    kept_N = without_outliers(z_N, bound=3.0)
    # The released code centres its bounds on the raw mean; that is put in from here.
    released_N = z_N * (without_outliers(z_N - raw_N.mean(), bound=3.0) != 0)
    shown = len(case["expected"]["z"])
    found = {"z": z_N, "paper_filter": kept_N, "released_code_filter": released_N}
    return {name: value_N[:shown] for name, value_N in found.items()}


# -- pairs ----------------------------------------------------------------------------------------


def _brpo(case: Case) -> Any:
    score_B = _floats(case["inputs"]["genrm_scores"])
    ref = case["inputs"]["ref"]
    _, group_B, mask_BT, _ = _one_group(score_B.tolist())
    reference_B = torch.arange(len(score_B)) == ref
    margin_BJ = (score_B - score_B[ref])[:, None]
    adv_B = bootstrapped(margin_BJ, reference_B, group_B)
    filtered_B = brpo(margin_BJ, reference_B, group_B, mask_BT, max_skew=0.6)[:, 0]
    kept = torch.equal(adv_B, filtered_B)
    return {"advantages": adv_B, "skew": float(skew(adv_B, group_B)[0]), "kept": kept}


def _pairwise_rl(case: Case) -> Any:
    named = (case["inputs"][f"p_response_{order}"] for order in ("first", "second"))
    return both_orders(*(_floats([p]) for p in named))[0]


# -- critic ---------------------------------------------------------------------------------------


def _gae(case: Case) -> Any:
    inputs = case["inputs"]
    mask_BT = _floats(inputs["mask"]) > 0
    token_BT, value_BT = _floats(inputs["rewards"]), _floats(inputs["values"])
    options = {name: inputs[name] for name in ("gamma", "lam")}
    adv_BT, return_BT = gae_and_returns(token_BT, value_BT, mask_BT, **options)
    white_BT = whitened(adv_BT, mask_BT, 1e-8)
    return {"returns": return_BT, "advantages_raw": adv_BT, "advantages_whitened": white_BT}


def _value_loss(case: Case) -> Any:
    inputs = case["inputs"]
    mask_BT = _floats(inputs["mask"]) > 0
    named = (_floats(inputs[name]) for name in ("vpreds", "old_values", "returns"))
    loss_BT, stats = value_loss(*named, mask_BT, clip=inputs["cliprange_value"])
    return {"loss": loss_BT.sum() / stats.tokens, "clipfrac": stats.clipped / stats.tokens}


# -- steps ----------------------------------------------------------------------------------------


def _process_sum(case: Case) -> Any:
    rows = case["inputs"]["step_rewards"]
    value_BK, end_BK, _ = _padded(rows)
    group_B = torch.zeros(len(rows), dtype=torch.int64)
    step_BK = normalised_steps(value_BK, end_BK, group_B, eps=1e-6, ddof=1)

    def ragged(found_BK: Tensor) -> list[list[float]]:
        return [f[: len(row)] for f, row in zip(found_BK.tolist(), rows, strict=True)]

    raw_BK = torch.where(value_BK.isnan(), 0.0, value_BK)
    least_B = torch.where(value_BK.isnan(), math.inf, value_BK).amin(1)
    return {
        "normalised": ragged(step_BK),
        "step_advantage": ragged(suffix_sum(step_BK)),
        "sum_form": raw_BK.sum(1),
        "min_form": least_B,
    }


def _at_ends(token_BT: Tensor, end_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Values that stand on tokens -> values of steps, and the steps' ends."""
    rows = [values[ends] for values, ends in zip(token_BT, end_BT, strict=True)]
    places = [ends.nonzero()[:, 0] for ends in end_BT]
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(rows, batch_first=True), pad(places, batch_first=True, padding_value=-1)


def _back_to_tokens(step_BK: Tensor, end_BK: Tensor, width: int) -> Tensor:
    found_BT = torch.zeros(len(step_BK), width + 1, dtype=torch.float64)
    return found_BT.scatter(1, torch.where(end_BK < 0, width, end_BK), step_BK)[:, :width]


def _pure_credit(case: Case) -> Any:
    inputs = case["inputs"]
    end_BT = _floats(inputs["step_mask"]) > 0
    reward_BK, end_BK = _at_ends(2 * _floats(inputs["p_good_at_step_ends"]) - 1, end_BT)
    soft_BK = soft_min_credit(reward_BK, end_BK, temperature=inputs["T"])
    mean_BK = soft_min_credit(reward_BK, end_BK, temperature=None)
    width = end_BT.shape[1]
    none_BT = torch.full((1, width), -1)
    nothing_T = soft_min_credit(torch.ones(1, width), none_BT, temperature=inputs["T"])[0]
    return {
        "credited": _back_to_tokens(soft_BK, end_BK, width),
        "sum": soft_BK.sum(1),
        "raw_min": torch.where(end_BK < 0, math.inf, reward_BK).amin(1),
        "disabled_credited": _back_to_tokens(mean_BK, end_BK, width),
        "disabled_sum": mean_BK.sum(1),
        # The reference has NaN where a row has no step, which is put in from here: ours has 0.
        "row_without_steps": ["nan" if value == 0 else value for value in nothing_T.tolist()],
    }


def _pure_rloo(case: Case) -> Any:
    inputs = case["inputs"]
    end_BT = _floats(inputs["step_end_mask"]) > 0
    credit_BK, end_BK = _at_ends(_floats(inputs["credited"]), end_BT)
    mask_BT = torch.arange(end_BT.shape[1]) < torch.tensor(inputs["response_len"])[:, None]
    group_B = torch.arange(len(credit_BK)) // inputs["n"]
    found = {}
    for name in case["expected"]:
        baseline, reward = name.split(",")
        found[name] = pure_token_rewards(
            _floats(inputs["solved"]), group_B, mask_BT, credit_BK, end_BK,
            baseline=baseline, outcome_coef=1.0 if reward == "PRM_VR" else 0.0,
        )  # fmt: skip
    return found


# -- trees ----------------------------------------------------------------------------------------


def _paths(uids: Sequence[str]) -> Tensor:
    """'p#1-0#2-1' -> branch numbers 0, 1."""
    rows = [[int(part.split("-")[1]) for part in uid.split("#")[1:]] for uid in uids]
    width = max(map(len, rows))
    rows = [row + [-1] * (width - len(row)) for row in rows]
    return torch.tensor(rows, dtype=torch.int64)


def _treepo(case: Case) -> Any:
    inputs = case["inputs"]
    mixes: tuple[Any, ...] = ("group_size", "average")
    if "flat_uids" in inputs:
        arguments, found = _one_group(inputs["reward"]), {}
        for name in ("ragged", "flat"):
            path_BD = _paths(inputs[f"{name}_uids"])
            adv_BT = treepo(*arguments, path_BD, mix=mixes[0], skip_equal=False, eps=1e-8)
            # With us depth 0 counts for leaves without branches; the reference gives them 0, which
            # is put in from here.
            found[name] = torch.where((path_BD >= 0).any(1), adv_BT[:, 0], 0.0)
        return found
    path_BD = _paths(inputs["uid_paths"])
    arguments = _one_group(inputs["reward"], inputs["tokens_each"])
    adv = {}
    for name in case["expected"]["adv"]:
        mix, skip = name.split(",")
        chosen: Any = mix
        adv_BT = treepo(*arguments, path_BD, mix=chosen, skip_equal=skip.endswith("True"), eps=1e-8)
        adv[name] = adv_BT[:, 0]

    def segments(siblings: bool) -> dict[str, list[float]]:
        value_BD = segment_values(
            *arguments[:2], path_BD, siblings=siblings, eps=1e-12, lone="keep"
        )
        return dict(zip(inputs["uid_paths"], value_BD.tolist(), strict=True))

    found = {"segment_adv": segments(False), "segment_adv_sibling_norm": segments(True)}
    return {"adv": adv, **found}


def _treerl(case: Case) -> Any:
    path_BD = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [2, -1]])
    end_BD = torch.tensor([[3, 5], [3, 6], [2, 7], [2, 4], [5, -1]])
    reward_B, group_B, _, _ = _one_group([1.0, 0.0, 0.0, 0.0, 1.0])
    mask_BT = torch.arange(8) <= end_BD.amax(1, keepdim=True)
    found: dict[str, list[list[float]]] = {}
    for name in case["expected"]:
        form, weighting, norm = name.split(",")
        adv_BT = treerl(
            reward_B, group_B, mask_BT, path_BD, end_BD,
            weighting="sqrt" if weighting == "sqrt" else "mean", centre=norm == "token",
            state_value=form == "plus_state_value", fill=True,
        )  # fmt: skip
        found[name] = [
            [float(adv_T[t]) for t in ends if t >= 0]
            for adv_T, ends in zip(adv_BT, end_BD.tolist(), strict=True)
        ]
    return found


def _turning_point(case: Case) -> Any:
    inputs = case["inputs"]

    def turns(values: Any, final: float, first: bool, consistent: bool = False) -> Tensor:
        found = turning_points(
            _floats([values]), _floats([final]), consistent=consistent, first=first
        )
        return found[0].double()

    def paid(values: Any, final: float, main: Any, bonus: Any, **options: bool) -> Tensor:
        options = {"replace": False, "consistent": False, "first": True, **options}
        given = _floats([values]), _floats([final])
        eta = inputs["eta"]
        return turning_point_rewards(*given, eta=eta, main=main, bonus=bonus, **options)[0]

    values = inputs["prefix_values"], inputs["final"]
    script = inputs["launch_script_values"], inputs["launch_script_final"]
    second = [0.3, 0.5, 0.4, 0.6], 0.6
    return {
        "indicator_first_on": turns(*values, True),
        "indicator_first_off": turns(*values, False),
        "default_main_delta": paid(*values, "total", "step"),
        "incremental_main": paid(*values, "step", "remaining"),
        "incremental_main_plain_delta": paid(*values, "step", "total"),
        "launch_script": {
            "indicator": turns(*script, True, consistent=True),
            "reward": paid(*script, "step", "remaining", replace=True, consistent=True),
        },
        "second_case(values=[.3,.5,.4,.6], final=.6)": {
            "first_on": turns(*second, True),
            "first_off": turns(*second, False),
            "default_main_delta_first_on": paid(*second, "total", "step"),
        },
    }


# -- token weights --------------------------------------------------------------------------------


def _high_entropy(case: Case) -> Any:
    inputs = case["inputs"]
    entropy_BT, mask_BT = _floats(inputs["entropy"]), _floats(inputs["mask"]) > 0
    return {
        "threshold": entropy_threshold(entropy_BT[mask_BT], share=inputs["rho"]),
        "keep": high_entropy(entropy_BT, mask_BT, share=inputs["rho"]),
    }


def _spine(case: Case) -> Any:
    inputs = case["inputs"]
    entropy_BT = _floats([inputs["entropy"]])
    fork_BT = fork(entropy_BT, torch.ones(entropy_BT.shape, dtype=torch.bool), share=inputs["rho"])
    fork_BT = fork_BT > 0
    bounds = inputs["q_low"], inputs["q_high"]
    penalty_B, outside_BT = entropy_band(entropy_BT, fork_BT, low=bounds[0], high=bounds[1])
    low, high = torch.quantile(entropy_BT[fork_BT], _floats(bounds)).tolist()
    above_BT = torch.where(entropy_BT > high, outside_BT, 0.0)
    below_BT = torch.where(entropy_BT < low, outside_BT, 0.0)
    return {
        "fork": fork_BT[0].nonzero()[:, 0],
        "q_low": low,
        "q_high": high,
        "hinge_high": above_BT[fork_BT],
        "hinge_low": below_BT[fork_BT],
        "R_band": penalty_B[0],
    }


def _attention(case: Case) -> Any:
    inputs = case["inputs"]
    local_BTT, global_BTT = _floats([inputs["A_loc"]]), _floats([inputs["A_glob"]])
    mask_BT = torch.ones(local_BTT.shape[:2], dtype=torch.bool)
    near, far = inputs["H"]
    weight_BT = attention(
        local_BTT, global_BTT, mask_BT, anchors="global", share=inputs["q"],
        boost=inputs["gamma_amp"], window=inputs["W"], near=near, far=far,
    )  # fmt: skip
    waad_BT = backward_distance(local_BTT, mask_BT, window=inputs["W"])
    return {
        "waad": waad_BT[0],
        "fai": future_influence(global_BTT, mask_BT, near=near, far=far)[0],
        "delta": distance_change(waad_BT, mask_BT)[0],
        "gamma_global": weight_BT[0],
    }


def _think_rm(case: Case) -> Any:
    scalar = case["inputs"].get("diff_from_scalar_rewards[1,2,4]")
    if scalar is None:
        return NotImplemented
    reward_B, group_B, mask_BT, _ = _one_group([1.0, 2.0, 4.0])
    eps = case["inputs"]["eps"]
    named = {"adv_scalar": scalar, "adv_intransitive": case["inputs"]["diff_intransitive"]}
    found = {
        n: pairwise_wins(_floats(d), group_B, mask_BT, eps=eps)[:, 0] for n, d in named.items()
    }
    return found | {"grpo_reference": (reward_B - reward_B.mean()) / reward_B.std()}


METHODS: dict[str, Callable[[Case], Any]] = {
    "think_rm": _think_rm,
    "VGPO absolute-value advantage": _vgpo,
    "Pass@k training (analytic)": _pass_at_k,
    "pass@k (max minus second, arXiv 2503.19595)": _max_minus_second,
    "GRPO-S (DR-IRL)": _grpo_s,
    "StableReinforce advantage filter": _outliers,
    "BRPO": _brpo,
    "Pairwise-RL reward": _pairwise_rl,
    "PPO/GAE": _gae,
    "PPO value loss": _value_loss,
    "GRPO with process supervision (sum-form)": _process_sum,
    "PURE approximate min-form credit": _pure_credit,
    "PURE RLOO (OpenRLHF branch)": _pure_rloo,
    "TreePO multi-depth group advantage": _treepo,
    "TreePO edge cases": _treepo,
    "TreeRL leaf and step values": _treerl,
    "Turning-point step rewards": _turning_point,
    "80/20 high-entropy mask": _high_entropy,
    "SPINE": _spine,
    "attention credit": _attention,
}
