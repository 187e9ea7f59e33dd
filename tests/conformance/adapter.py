"""From a reference vector (method, case, inputs) to a call of ours, and from both to a comparison.

A vector is ``{id, method, case, inputs, expected, tol}``. Methods and options are read from its
inputs and the words of its case, never from its id, so that further cases of a known method run
without a change here. ``NotBuilt`` says that we lack the method or this option of it.
"""

import importlib.util
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmalign.advantages import batch_whitened, gpg, group, kept_groups, leave_one_out, opo
from llmalign.advantages.batch_whitened import discounted_returns
from llmalign.losses import clipped, ipo, kl_penalty, sequence_weights, sigmoid

Case = Mapping[str, Any]
Inputs = Mapping[str, Any]


class NotBuilt(Exception):
    """The vector is of a method, or of an option of one, that llmalign does not have."""


# -- inputs ---------------------------------------------------------------------------------------


def _tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _lengths_mask(inputs: Inputs, count: int) -> Tensor:
    length_B = torch.tensor(inputs.get("lengths", [1] * count))
    return torch.arange(int(length_B.max()))[None, :] < length_B[:, None]


def _groups(inputs: Inputs, count: int) -> Tensor:
    names = inputs.get("group", [0] * count)
    if "num_generations" in inputs:
        names = [i // inputs["num_generations"] for i in range(count)]
    first_seen = list(dict.fromkeys(names))
    return torch.tensor([first_seen.index(name) for name in names])


def _arguments(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    values = [math.nan if r is None else r for r in inputs["rewards"]]
    mask_BT = _lengths_mask(inputs, len(values))
    penalty_BT = torch.zeros(mask_BT.shape, dtype=torch.float64)
    return _tensor(values), _groups(inputs, len(values)), mask_BT, penalty_BT


# -- advantages -----------------------------------------------------------------------------------


def _group_advantage(case: Case) -> Any:
    if "log_prob" in case["inputs"]:
        return _clipped_loss(case)
    text, trl = case["case"].lower(), "num_generations" in case["inputs"]
    centred = case["method"] == "Dr.GRPO" or re.search(r"mean-centred|scale_rewards\W*none", text)
    scale = "none" if centred else "batch_std" if "batch" in text else "std"
    eps = re.search(r"eps\W*([\d.]+(?:e-?\d+)?)", text)
    adv_BT = group(
        *_arguments(case["inputs"]),
        scale=scale,
        eps=float(eps[1]) if eps else 1e-4 if trl else 1e-6,
        ddof=0 if re.search(r"ddof\W*0", text) else 1,
        lone="zero" if trl else "keep",
    )
    return adv_BT[:, 0]


def _leave_one_out(case: Case) -> Any:
    return leave_one_out(*_arguments(case["inputs"]), lone="keep")[:, 0]


def _whitened(case: Case) -> Any:
    inputs, gamma = case["inputs"], case["inputs"].get("gamma", 1.0)
    reward_B, group_B, mask_BT, penalty_BT = _arguments(inputs)
    baseline = "group" if case["method"].endswith("-baseline") else "none"
    adv_BT = batch_whitened(
        reward_B, group_B, mask_BT, penalty_BT, gamma=gamma, eps=1e-8, baseline=baseline
    )
    if baseline == "group":
        return adv_BT
    last_B = mask_BT.sum(1) - 1
    token_BT = penalty_BT.scatter(1, last_B[:, None], reward_B[:, None])
    return {"advantages": adv_BT, "returns": discounted_returns(token_BT, mask_BT, gamma=gamma)}


def _opo(case: Case) -> Any:
    return opo(*_arguments(case["inputs"]), lone="keep")[:, 0]


def _gpg(case: Case) -> Any:
    return gpg(*_arguments(case["inputs"]), lone="keep")[:, 0]


def _kept(case: Case) -> Any:
    named = case["inputs"]["groups"]
    rewards = [float(value) for group in named.values() for value in group]
    index = [number for number, group in enumerate(named.values()) for _ in group]
    kept_P = kept_groups(_tensor(rewards), torch.tensor(index)).tolist()
    return [name for name, kept in zip(named, kept_P, strict=True) if kept]


# -- losses ---------------------------------------------------------------------------------------

AGGREGATES = {
    "token-mean": "token_mean",
    "seq-mean-token-mean": "sequence_mean",
    "seq-mean-token-sum": "sequence_sum",
    "seq-mean-token-sum-norm": "sum_norm",
}


def _clipped_loss(case: Case) -> Any:
    inputs = case["inputs"]
    logp_BT = _tensor(inputs["log_prob"]).requires_grad_()
    mask_BT = _tensor(inputs["mask"]) > 0
    loss_BT, stats = clipped(
        logp_BT,
        _tensor(inputs["old_log_prob"]),
        _tensor(inputs["advantages"]),
        mask_BT,
        clip_low=inputs["clip_low"],
        clip_high=inputs["clip_high"],
        dual_clip=inputs.get("c"),
    )
    kind = inputs.get("agg", "token-mean")
    if kind not in AGGREGATES:
        raise NotBuilt(f"aggregation {kind!r}")
    weight_B = sequence_weights(
        mask_BT.sum(1),
        kind=AGGREGATES[kind],
        max_tokens=inputs.get("loss_scale_factor") or mask_BT.shape[1],
        num_sequences=None,
    )
    loss = (weight_B[:, None] * loss_BT).sum()
    loss.backward()
    metrics = {
        "actor/pg_clipfrac": (stats.clipped_low + stats.clipped_high) / stats.tokens,
        "actor/ppo_kl": -stats.log_rho_nats / stats.tokens,
        "actor/pg_clipfrac_lower": stats.clipped_dual / stats.tokens,
    }
    return {"loss": loss, "grad": logp_BT.grad, "metrics": metrics}


def _weights(case: Case) -> Any:
    inputs = case["inputs"]
    length_B = torch.tensor(inputs["lengths"])
    longest = int(length_B.max())

    def weight_B(kind: Any, max_tokens: int) -> Tensor:
        return sequence_weights(length_B, kind=kind, max_tokens=max_tokens, num_sequences=None)

    return {
        "grpo_seq_mean": weight_B("sequence_mean", inputs["max_len"]),
        "dapo_token_mean": weight_B("token_mean", inputs["max_len"]),
        "dr_grpo_trl": weight_B("constant", inputs["max_len"]),
        f"verl_sum_norm_T{longest}": weight_B("sum_norm", longest),
    }


KL_NAMES = {"kl": "k1", "mse": "k2", "low_var_kl": "k3"}


def _kl(case: Case) -> Any:
    known = r"(?<![\w])(low_var_kl|abs|mse|kl|k[123]\+?)(?![\w+])"
    found = re.search(known, case["case"].lower())
    if found is None:
        raise NotBuilt(f"KL estimator of case {case['case']!r}")
    logp_T = _tensor(case["inputs"]["logprob"]).requires_grad_()
    mask_T = torch.ones(logp_T.shape, dtype=torch.bool)
    kind: Any = KL_NAMES.get(found[1], found[1])
    value_T = kl_penalty(logp_T, _tensor(case["inputs"]["ref_logprob"]), mask_T, kind=kind)
    value_T.sum().backward()
    if isinstance(case["expected"], Mapping):
        return {"value_sum": value_T.sum(), "grad": logp_T.grad}
    return value_T


PAIR = ("chosen_logps", "rejected_logps", "ref_chosen_logps", "ref_rejected_logps")


def _dpo(case: Case) -> Any:
    inputs = case["inputs"]
    kind, beta = inputs.get("loss_type", "sigmoid"), inputs["beta"]
    if kind not in ("sigmoid", "ipo") or "fdiv" in inputs:
        raise NotBuilt(f"dpo loss_type {kind!r}")
    logps = [_tensor(inputs[name]) for name in PAIR]
    lengths = [_tensor(inputs[name]) for name in ("len_chosen", "len_rejected")]
    if kind == "ipo":
        loss_N, _ = ipo(*logps, *lengths, beta=beta)
    else:
        # TRL's smoothing is the key "ls", which its sigmoid ignores.
        smoothing = inputs.get("label_smoothing", 0.0)
        loss_N, _ = sigmoid(*logps, *lengths, beta=beta, label_smoothing=smoothing)
    return {"per_sequence": loss_N, "mean": loss_N.mean()}


# -- rewards --------------------------------------------------------------------------------------


def _soft_overlong(case: Case) -> Any:
    if importlib.util.find_spec("llmalign.rewards.length") is None:
        raise NotBuilt("llmalign.rewards.length")
    from llmalign.rewards.length import soft_overlong_penalty

    inputs = case["inputs"]
    return [
        soft_overlong_penalty(length, inputs["L_max"], inputs["L_cache"])
        for length in inputs["lengths"]
    ]


METHODS: dict[str, Callable[[Case], Any]] = {
    "GRPO": _group_advantage,
    "Dr.GRPO": _group_advantage,
    "RLOO": _leave_one_out,
    "REINFORCE++": _whitened,
    "REINFORCE++-baseline": _whitened,
    "OPO": _opo,
    "GPG": _gpg,
    "DAPO dynamic sampling": _kept,
    "DAPO soft overlong punishment": _soft_overlong,
    "PPO-clip / GRPO loss": _clipped_loss,
    "DAPO loss": _clipped_loss,
    "dual-clip": _clipped_loss,
    "loss normalisation": _weights,
    "KL estimators": _kl,
    "dpo": _dpo,
}


def _load_neighbours() -> None:
    """Adds the ``METHODS`` of each ``methods_*.py`` beside this file."""
    for path in sorted(Path(__file__).parent.glob("methods_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        METHODS.update(module.METHODS)


_load_neighbours()


def ours(case: Case) -> Any:
    """What our code says for ``case``: nested lists, dicts, numbers. Raises ``NotBuilt``."""
    if case["method"] not in METHODS:
        raise NotBuilt(case["method"])
    found = METHODS[case["method"]](case)
    if found is NotImplemented:  # a neighbour's way to say that it lacks this option
        raise NotBuilt(case["method"])
    return _plain(found)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().tolist()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value


def differences(found: Any, expected: Any, tol: float, where: str = "value") -> list[str]:
    """Every place where ``found`` is off ``expected``; both NaN agree, None stands for NaN.

    All of ``expected`` must be there; of ``metrics``, and of what is merely ``logged_…`` by the
    code a vector was made with, only what we have.
    """
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping):
            return [f"{where}: {found!r} is no mapping"]
        optional = where.endswith("metrics")
        names = [
            n for n in expected if n in found or not (optional or str(n).startswith("logged_"))
        ]
        missing = [f"{where}.{n}: missing" for n in names if n not in found]
        parts = [(found[n], expected[n], f"{where}.{n}") for n in names if n in found]
        return missing + [d for f, e, w in parts for d in differences(f, e, tol, w)]
    if isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            return [f"{where}: {found!r:.200}, expected {expected!r:.200}"]
        parts = [
            (f, e, f"{where}[{i}]") for i, (f, e) in enumerate(zip(found, expected, strict=True))
        ]
        return [d for f, e, w in parts for d in differences(f, e, tol, w)]
    return [] if _equal(found, expected, tol) else [f"{where}: {found!r}, expected {expected!r}"]


def _equal(found: Any, expected: Any, tol: float) -> bool:
    if expected is None:
        return found is None or (isinstance(found, float) and math.isnan(found))
    if isinstance(expected, bool | str) or isinstance(found, str) or found is None:
        return bool(found == expected)
    if math.isnan(expected):
        return math.isnan(found)
    return math.isclose(found, expected, rel_tol=tol, abs_tol=tol)
