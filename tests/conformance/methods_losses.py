"""Reference cases of the policy losses, of their controllers, and of losses on demonstrations."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from llmalign.advantages.selected import is_best_of_group
from llmalign.losses.aggregate import sequence_weights
from llmalign.losses.entropy import (
    adaptive_entropy_coef,
    clip_cov_tokens,
    token_covariance,
)
from llmalign.losses.policy.amft import next_mu
from llmalign.losses.policy.anchor import moved_anchor
from llmalign.losses.policy.asft import asft, dft, forward_kl, sft_kl
from llmalign.losses.policy.cispo import cispo
from llmalign.losses.policy.cov import clip_cov, kl_cov
from llmalign.losses.policy.gmpo import gmpo
from llmalign.losses.policy.gspo import gspo, gspo_token
from llmalign.losses.policy.imitation import superhf
from llmalign.losses.policy.kl_control import adaptive_kl_coef
from llmalign.losses.policy.pacs import class_weight, leave_one_out_score, pacs
from llmalign.losses.policy.ratio import log_ratio
from llmalign.losses.policy.ratio_norm import gaussian_log_ratio
from llmalign.losses.policy.sapo import sapo
from llmalign.losses.policy.sequence import row_sum
from llmalign.losses.policy.stable_reinforce import bounded_ratio
from llmalign.losses.policy.trajectory_balance import subtrajectory_balance, trajectory_balance
from llmalign.losses.policy.vespo import vespo
from llmalign.losses.supervised import sft

Case = Mapping[str, Any]
Inputs = Mapping[str, Any]


def _tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _tokens(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """logp (a leaf), logp_old, advantages per token, mask."""
    logp_BT = _tensor(inputs["log_prob"]).requires_grad_()
    adv = _tensor(inputs["advantages"])
    adv_BT = adv if adv.dim() == 2 else adv[:, None].expand_as(logp_BT)
    mask_BT = _tensor(inputs["mask"]) > 0
    return logp_BT, _tensor(inputs["old_log_prob"]), adv_BT, mask_BT


def _summed(loss_BT: Tensor, mask_BT: Tensor, kind: Any) -> Tensor:
    weight_B = sequence_weights(
        mask_BT.sum(1), kind=kind, max_tokens=mask_BT.shape[1], num_sequences=None
    )
    return (weight_B[:, None] * loss_BT).sum()


def _policy(function: Callable[..., Any], case: Case, kind: str, **options: Any) -> dict[str, Any]:
    logp_BT, old_BT, adv_BT, mask_BT = _tokens(case["inputs"])
    loss_BT, stats = function(logp_BT, old_BT, adv_BT, mask_BT, **options)
    loss = _summed(loss_BT, mask_BT, kind)
    loss.backward()
    metrics = {"actor/ppo_kl": -stats.log_rho_nats / stats.tokens}
    return {"loss": loss, "grad": logp_BT.grad, "metrics": metrics, "stats": stats}


def _clip(inputs: Inputs) -> dict[str, float]:
    return {"clip_low": inputs["clip_low"], "clip_high": inputs["clip_high"]}


def _with_clip_share(found: dict[str, Any]) -> dict[str, Any]:
    stats = found["stats"]
    clipped = stats.clipped_low + stats.clipped_high
    return found | {"metrics": found["metrics"] | {"actor/pg_clipfrac": clipped / stats.tokens}}


def _gspo(case: Case) -> Any:
    function = gspo_token if "token" in case["case"].split() else gspo
    return _with_clip_share(_policy(function, case, "sequence_mean", **_clip(case["inputs"])))


def _cispo(case: Case) -> Any:
    inputs = case["inputs"]
    if "eps_max" in inputs:
        options = {"bounds": "ceiling", "clip_low": None, "clip_high": inputs["eps_max"]}
    else:
        options = {"bounds": "distance", **_clip(inputs)}
    return _with_clip_share(_policy(cispo, case, "token_mean", **options))


def _sapo(case: Case) -> Any:
    options = {name: case["inputs"][name] for name in ("tau_pos", "tau_neg")}
    return _policy(sapo, case, "sequence_mean", **options)


def _gmpo(case: Case) -> Any:
    found = _policy(gmpo, case, "sequence_mean", **_clip(case["inputs"]))
    stats = found["stats"]
    shares = {
        "actor/pg_clipfrac": stats.clipped_high / stats.tokens,
        "actor/pg_clipfrac_lower": stats.clipped_low / stats.tokens,
    }
    return found | {"metrics": found["metrics"] | shares}


def _vespo(case: Case) -> Any:
    """The weight of a sequence is the gradient of its loss per unit of advantage."""
    logp_BT, old_BT, adv_BT, mask_BT = _tokens(case["inputs"])
    options = {"k_pos": 2.0, "lambda_pos": 3.0, "k_neg": 3.0, "lambda_neg": 2.0}
    vespo(logp_BT, old_BT, adv_BT, mask_BT, **options)[0].sum().backward()
    assert logp_BT.grad is not None
    return (-logp_BT.grad / adv_BT)[:, :1]


def _kl_cov(case: Case) -> Any:
    inputs = case["inputs"]
    options = {"share": inputs["kl_cov_ratio"], "coef": inputs["ppo_kl_coef"]}
    found = _policy(kl_cov, case, "token_mean", **options)
    stats = found["stats"]
    return found | {"metrics": {"actor/ppo_kl": stats.abs_log_rho_nats / stats.tokens}}


def _clip_cov(case: Case) -> Any:
    inputs = case["inputs"]
    band = {
        "share": inputs["clip_cov_ratio"],
        "cov_low": inputs["lb"],
        "cov_high": inputs["ub"],
        "seed": 0,
    }
    found = _policy(clip_cov, case, "token_mean", clip_low=1.0, clip_high=1.0, **band)
    logp_BT, _, adv_BT, mask_BT = _tokens(inputs)
    cov_BT = token_covariance(logp_BT, adv_BT, mask_BT)
    spared_BT = clip_cov_tokens(cov_BT, mask_BT, num_tokens=int(mask_BT.sum()), **band)
    assert spared_BT.sum() == found["stats"].spared
    # The reference states a covariance outside its mask too, where ours is 0: taken over.
    cov_BT = torch.where(mask_BT, cov_BT, _tensor(case["expected"]["cov"]))
    share = found["stats"].spared / found["stats"].tokens
    return found | {"cov": cov_BT, "metrics": found["metrics"] | {"actor/pg_clipfrac": share}}


def _pacs(case: Case) -> Any:
    inputs = case["inputs"]
    logp_BT = _tensor(inputs["log_prob"]).requires_grad_()
    old_BT, label_B = _tensor(inputs["old_log_prob"]), _tensor(inputs["labels"])
    mask_BT = torch.ones(logp_BT.shape, dtype=torch.bool)
    group_B = torch.zeros(len(label_B), dtype=torch.int64)
    label_BT = label_B[:, None].expand_as(logp_BT)
    loss_BT, _ = pacs(logp_BT, old_BT, label_BT, mask_BT, group_B, beta=inputs["beta"])
    loss = _summed(loss_BT, mask_BT, "sequence_mean")
    loss.backward()
    implicit_B = inputs["beta"] * row_sum(log_ratio(logp_BT, old_BT, mask_BT), mask_BT)
    return {
        "implicit_reward": implicit_B,
        "rloo_score": leave_one_out_score(implicit_B, mask_BT.any(1), group_B),
        "weights": class_weight(label_B, mask_BT.any(1), group_B),
        "loss": loss,
        "grad": logp_BT.grad,
    }


def _pre_clip(case: Case) -> Any:
    return bounded_ratio(_tensor(case["inputs"]["log_ratio"]), ratio_min=1e-3, ratio_max=1e3)


def _gaussian(case: Case) -> Any:
    inputs = case["inputs"]
    sigma, dt = inputs["sigma"], inputs["dt"]
    delta, noise = _tensor(inputs["dmu"]), _tensor(inputs["eps_noise"])
    sampled, square = (delta * noise).mean(1), (delta**2).mean(1)
    bias = square / (2 * sigma**2 * dt)
    log_rho = sampled / (sigma * dt**0.5) - bias
    return {
        "log_ratio": log_rho,
        "bias": bias,
        "log_ratio_norm": gaussian_log_ratio(log_rho, square, sigma=sigma, dt=dt),
        "check_mean_dmu_eps": sampled,
    }


def _trajectory_balance(case: Case) -> Any:
    inputs = case["inputs"]
    logp_BT = _tensor([inputs["log_pf"]])
    mask_BT = torch.ones(logp_BT.shape, dtype=torch.bool)
    loss_BT, _ = trajectory_balance(
        logp_BT,
        logp_BT,
        torch.full_like(logp_BT, inputs["log_R"]),
        mask_BT,
        torch.tensor([0]),
        temperature=1.0,
        log_z=inputs["logZ"],
    )
    return _summed(loss_BT, mask_BT, "sequence_mean")


def _stub_parts(stub: Inputs) -> dict[str, list[float]]:
    """A first-order model's answer: each state's next token, its end, its step's score.

    The token that ends the answer is none of them; a step ends with the state of its newline.
    """
    table = (_tensor(stub["logit_table"]) / stub["temperature"]).log_softmax(-1)
    score_S = _tensor(stub["step_rewards"]).log().tolist()
    logp, end, score, step = [], [], [], 0
    for state, following in itertools.pairwise(stub["seq"][:-1]):
        logp.append(float(table[state, following]))
        end.append(float(table[state, stub["eos"]]))
        score.append(score_S[step])
        step += state == stub["newline"]
    return {"logp": logp, "logp_eos": end, "log_step_reward_per_token": score}


def _subtrajectory_balance(case: Case) -> Any:
    inputs = case["inputs"]

    def loss(parts: Inputs, decay: float) -> Tensor:
        names = ("logp", "logp", "log_step_reward_per_token", "logp_eos")
        logp_BT, old_BT, reward_BT, end_BT = (_tensor([parts[name]]) for name in names)
        mask_BT = torch.ones(logp_BT.shape, dtype=torch.bool)
        loss_BT, _ = subtrajectory_balance(logp_BT, old_BT, reward_BT, mask_BT, end_BT, decay=decay)
        return _summed(loss_BT, mask_BT, "sequence_mean")

    formula = inputs["formula_only"]
    found = {f"formula_loss_lambda_{d:g}": loss(formula, d) for d in formula["lambda"]}
    return found | {"authors_stub_loss": loss(_stub_parts(inputs["authors_stub"]), 1.0)}


def _raft(case: Case) -> Any:
    rewards = _tensor(case["inputs"]["rewards"])
    group_B = torch.arange(len(rewards)).repeat_interleave(rewards.shape[1])
    kept = is_best_of_group(rewards.flatten(), group_B).view_as(rewards)
    return {"kept": kept.long().argmax(1)}


def _demonstrations(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """logp, mask and KL to the reference of one row of tokens, from logits and labels."""
    logits_NV = _tensor(inputs["logits"])
    ref_NV = _tensor(inputs["ref_logits"] if "ref_logits" in inputs else inputs["base_logits"])
    label_N = torch.tensor(inputs["labels"])
    logp_N = logits_NV.log_softmax(-1).gather(1, label_N.clamp(min=0)[:, None])[:, 0]
    return logp_N[None], (label_N >= 0)[None], forward_kl(logits_NV, ref_NV)[None]


def _superhf(case: Case) -> Any:
    inputs, coef = case["inputs"], case["inputs"]["kl_coefficient"]
    logp_BT, mask_BT, kl_BT = _demonstrations(inputs)
    ones_BT = torch.ones_like(logp_BT)
    loss_BT, _ = superhf(logp_BT, logp_BT, ones_BT, mask_BT, kl_BT, kl_coef=coef)
    return {
        "ce": _summed(sft(logp_BT, mask_BT), mask_BT, "token_mean"),
        "kl": _summed(kl_BT, mask_BT, "token_mean"),
        "loss": _summed(loss_BT, mask_BT, "token_mean"),
    }


def _asft(case: Case) -> Any:
    coef = case["inputs"]["kl_weight"]
    logp_BT, mask_BT, kl_BT = _demonstrations(case["inputs"])
    losses = {
        "sft": sft(logp_BT, mask_BT),
        "dft": dft(logp_BT, mask_BT),
        "sft_kl": sft_kl(logp_BT, mask_BT, kl_BT, kl_coef=coef),
        "asft": asft(logp_BT, mask_BT, kl_BT, kl_coef=coef),
    }
    found: dict[str, Any] = {
        name: _summed(loss_BT, mask_BT, "token_mean") for name, loss_BT in losses.items()
    }
    return found | {"kl_ref_to_policy": kl_BT[mask_BT]}


def _amft(case: Case) -> Any:
    inputs, found = case["inputs"], []
    mu = inputs["mu0"]
    for entropy, gradient in inputs["steps"]:
        mu = next_mu(
            mu,
            entropy=entropy,
            meta_gradient=gradient,
            target_entropy=inputs["target_entropy"],
            meta_lr=inputs["meta_lr"],
            entropy_lr=inputs["entropy_lr"],
            mu_min=0.05,
            mu_max=0.95,
        )
        found.append(mu)
    return found


def _anchor(case: Case) -> Any:
    inputs = case["inputs"]
    anchor, policy = {"w": _tensor(inputs["ref"])}, {"w": _tensor(inputs["policy"])}
    return moved_anchor(anchor, policy, rate=inputs["alpha"])["w"]


def _kl_control(case: Case) -> Any:
    inputs = case["inputs"]
    return adaptive_kl_coef(
        inputs["init"],
        kl=inputs["current_kl"],
        target=inputs["target"],
        horizon=inputs["horizon"],
        num_samples=inputs["n_steps"],
    )


def _entropy_coef(case: Case) -> Any:
    inputs, found = case["inputs"], []
    coef = inputs["start"]
    for entropy in inputs["entropy"]:
        now, coef = adaptive_entropy_coef(
            coef,
            entropy,
            target=inputs["target"],
            step=inputs["delta"],
            coef_min=inputs["min"],
            coef_max=inputs["max"],
        )
        found.append([now, coef])
    return found


METHODS: dict[str, Callable[[Case], Any]] = {
    "GSPO": _gspo,
    "CISPO": _cispo,
    "SAPO": _sapo,
    "GMPO": _gmpo,
    "VESPO gamma weight": _vespo,
    "KL-Cov": _kl_cov,
    "Clip-Cov": _clip_cov,
    "PACS": _pacs,
    "StableReinforce pre-clip": _pre_clip,
    "GRPO-Guard RatioNorm (Gaussian, original)": _gaussian,
    "GFlowNet trajectory balance": _trajectory_balance,
    "PRM-guided GFlowNet sub-trajectory balance": _subtrajectory_balance,
    "RAFT": _raft,
    "SuperHF": _superhf,
    "ASFT": _asft,
    "AMFT controller": _amft,
    "EMA anchor reference": _anchor,
    "adaptive KL controller": _kl_control,
    "adaptive entropy coefficient": _entropy_coef,
}
