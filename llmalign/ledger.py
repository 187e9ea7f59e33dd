"""The figures of one step: what was generated, learnt and thrown away, and what the update did."""

from collections.abc import Sequence
from typing import Any

from llmalign.collect import Collected
from llmalign.critic import value_metrics
from llmalign.experience import Experience, sample_metrics
from llmalign.learn import Stats
from llmalign.optim import UpdateResult
from llmalign.rewards import RewardHost
from llmalign.rewards.disagreement import disagreement
from llmalign.rewards.shares import advantage_shares


def step_metrics(
    found: Collected,
    experience: Experience,
    results: Sequence[UpdateResult],
    stats: Stats,
    host: RewardHost,
    *,
    metric_name: str | None,
    wanted: int,
    epochs: int,
) -> dict[str, Any]:
    """All figures of a step.

    Args:
        found: the groups of the step.
        experience: what was learnt from.
        results, stats: of its updates.
        host: what scored it.
        metric_name: the reward node that says whether a group teaches something; None: the reward.
        wanted: groups that the step should have had.
        epochs: how often each sample was learnt from.
    """
    fresh = found.fresh + found.discarded
    trained = stats.get("tokens", 0.0)
    metrics = _update_metrics(results) | sample_metrics(fresh) | _host_metrics(host)
    metrics["disagreement"] = disagreement(host.reward, [g.scores for g in fresh])
    shares = advantage_shares(host.reward, *experience.scores_and_advantages())
    metrics |= {f"share/{name}": share for name, share in shares.items()}
    metrics |= _mismatch_metrics(experience.mismatch) | _critic_metrics(experience)
    replayed = [g for g in found.groups if g.age]
    if replayed:
        metrics["replayed_groups"] = len(replayed)
        metrics["replay_age"] = sum(g.age for g in replayed) / len(replayed)
    again = sum(len(s.token_ids) for g in replayed for s in g.group.samples)
    generated = found.tokens_generated
    used = min(generated, max(0, int(trained / max(1, epochs)) - again))
    same = sum(not g.differs(metric_name) for g in fresh)
    return metrics | {
        "entropy": _per_token(stats, "entropy_nats"),
        "kl": _per_token(stats, "kl_ref_nats"),
        "kl_old": _per_token(stats, "kl_old_nats"),
        "clip_share": _clip_share(stats, trained),
        "ratio_max": stats.get("rho_max"),
        "groups": len(fresh),
        "degenerate_groups": same,
        "degenerate_share": same / len(fresh),
        "dropped": len(found.discarded),
        "unfilled": wanted - len(found.groups),
        "tokens_generated": generated,
        "tokens_trained": used,
        "tokens_wasted": generated - used,
        "wasted_share": 1 - used / generated,
    }


def _per_token(stats: Stats, name: str) -> float | None:
    """The mean over the tokens that were learnt from; None where it was not measured."""
    tokens = stats.get("tokens")
    return stats[name] / tokens if tokens and name in stats else None


def _update_metrics(results: Sequence[UpdateResult]) -> dict[str, Any]:
    applied = [r for r in results if r.applied]
    return {
        "loss": sum(r.loss for r in applied) / len(applied) if applied else None,
        "grad_norm": applied[-1].grad_norm if applied else None,
        "lr": results[-1].lr if results else None,
        "updates": len(applied),
        "bad_updates": len(results) - len(applied),
    }


def _critic_metrics(experience: Experience) -> dict[str, float | None]:
    value_BT, return_BT = experience.value_BT, experience.return_BT
    if value_BT is None or return_BT is None:
        return {}
    return value_metrics(value_BT, return_BT, experience.mask_BT, experience.value_sums)


def _mismatch_metrics(stats: dict[str, float]) -> dict[str, Any]:
    tokens = stats.get("tokens")
    if not tokens:
        return {}
    square = stats["weight_square"]
    return {
        "kl_engine": stats["kl_engine_nats"] / tokens,
        "mismatch/weight": stats["weight"] / tokens,
        "mismatch/effective_share": stats["weight"] ** 2 / square / tokens if square else 0.0,
        "mismatch/truncated_share": stats["truncated"] / tokens,
        "mismatch/masked_share": stats["masked"] / tokens,
        "mismatch/masked_sequences": stats["masked_sequences"],
        "mismatch/ratio_max": stats["ratio_max"],
    }


def _host_metrics(host: RewardHost) -> dict[str, Any]:
    stats = host.stats()
    return {"seconds_reward": stats.seconds, "slowest": stats.slowest}


def _clip_share(stats: dict[str, float], tokens: float) -> float | None:
    if not tokens or "clipped_low" not in stats:
        return None
    return (stats["clipped_low"] + stats["clipped_high"]) / tokens
