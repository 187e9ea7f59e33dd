"""Reference cases of the mismatch between engine and trainer: weights, bands, masks."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from llmalign.losses.mismatch import (
    divergence_mask,
    mean_one,
    mismatch_weights,
    off_policy_mask,
)

Case = Mapping[str, Any]
LEVELS = {"sum": "sequence", "mean": "geometric"}


def _tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _arguments(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    inputs = case["inputs"]
    mask_BT = _tensor(inputs["mask"]) > 0
    return _tensor(inputs["train_logp"]), _tensor(inputs["rollout_logp"]), mask_BT


def _truncated(case: Case) -> Any:
    """verl: an upper bound alone, per token or sequence, divided by the mean where asked."""
    tensors, text = _arguments(case), case["case"].lower()
    level: Any = "sequence" if "sequence" in text else "token"
    high = case["inputs"].get("C") or float(re.search(r"at ([\d.]+)", text)[1])  # type: ignore[index]
    weight_BT, _ = mismatch_weights(*tensors, kind="truncated", low=0, high=high, level=level)
    return mean_one(weight_BT, tensors[2], level=level) if "normalised" in text else weight_BT


def _rejected(case: Case) -> Any:
    """verl: ``LEVEL_kN BOUNDS``; its k1 band is held against the inverse ratio."""
    level, kind, bounds = re.search(r"(\w+)_(k[123]) ([\d._]+)", case["case"]).groups()  # type: ignore[union-attr]
    tensors, numbers = _arguments(case), [float(n) for n in bounds.split("_")]
    over = level.removeprefix("seq_")
    if kind == "k1":
        high = numbers[-1]
        low = numbers[0] if len(numbers) > 1 else 1 / high
        found: Any = LEVELS.get(over, "token")
        return mismatch_weights(*tensors, kind="rejected", low=1 / high, high=1 / low, level=found)[
            0
        ]
    where: Any = "token" if over == "token" else f"sequence_{over}"
    return divergence_mask(*tensors, kind=kind, level=where, high=numbers[0]).double()


def _trl(case: Case) -> Any:
    """trl: ``LEVEL_truncate`` or ``LEVEL_mask``; weight 1 outside the mask, one per sequence."""
    text, tensors = case["case"], _arguments(case)
    level, how = re.search(r"(token|sequence)_(mask|truncate)", text).groups()  # type: ignore[union-attr]
    band = re.search(r"\[([\d.]+), ?([\d.]+)\]", text)
    low = float(band[1]) if band else _bound(case, "clip_min", 0.0)
    high = float(band[2]) if band else _bound(case, "clip_max", float("inf"))
    kind: Any = "masked" if how == "mask" else "truncated"
    weight_BT, _ = mismatch_weights(*tensors, kind=kind, low=low, high=high, level=level)
    if level == "sequence":
        return weight_BT.amax(1, keepdim=True)
    return torch.where(tensors[2], weight_BT, 1.0)


def _bound(case: Case, name: str, otherwise: float) -> float:
    found = re.search(rf"{name}\W*([\d.]+)", case["case"])
    return float(case["inputs"].get(name) or (found[1] if found else otherwise))


def _off_policy(case: Case) -> Any:
    inputs = case["inputs"]
    mask_BT = _tensor(inputs["mask"]) > 0
    logp_BT, sampled_BT = _tensor(inputs["log_prob"]), _tensor(inputs["sampling_log_prob"])
    adv_BT = _tensor(inputs["advantages"])[:, None].expand_as(logp_BT)
    keep_BT = off_policy_mask(logp_BT, sampled_BT, adv_BT, mask_BT, delta=inputs["delta"])
    return keep_BT.any(1, keepdim=True).double()


METHODS: dict[str, Callable[[Case], Any]] = {
    "TIS": _truncated,
    "MIS/ICEPOP rejection mask": _rejected,
    "TIS/ICEPOP (trl)": _trl,
    "MIS (trl)": _trl,
    "off-policy sequence mask (DeepSeek-V3.2)": _off_policy,
}
