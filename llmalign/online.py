"""The loop that samples: roll out, score, compute advantages, update.

Shape letters in this file
    B  samples of a step    T  response tokens, right-padded
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llmalign.advantages import ADVANTAGES
from llmalign.batch import SharedBatch, TokenBatch
from llmalign.data import ProblemSampler
from llmalign.evaluation.run import evaluate_policy, sample_groups
from llmalign.experience import Experience, ScoredGroup, sample_metrics, sample_records
from llmalign.forward import Forward
from llmalign.losses import LOSSES
from llmalign.losses.aggregate import sequence_weights
from llmalign.losses.kl import kl_penalty
from llmalign.losses.mismatch import mean_one, mismatch_weights, off_policy_mask
from llmalign.observe.log import write_json, write_samples
from llmalign.optim import Updater, UpdateResult
from llmalign.policy import Policy
from llmalign.problems import load_problems
from llmalign.reference import Reference
from llmalign.rewards import Group, RewardHost, Score
from llmalign.rewards.disagreement import disagreement
from llmalign.rewards.shares import advantage_shares
from llmalign.rollout import SamplingParams, sample_seed
from llmalign.rollout.hf import HfEngine
from llmalign.run import RunFolder
from llmalign.schema import Recipe
from llmalign.scoring import open_host


class OnlineLoop:
    """State of an online run, and one step of it; ``llmalign.training`` drives it."""

    def __init__(self, recipe: Recipe, folder: RunFolder, policy: Policy) -> None:
        self.recipe, self.folder, self.policy = recipe, folder, policy
        self.engine = HfEngine(policy, batch_size=recipe.rollout.batch_size)
        self.params = SamplingParams(
            max_new_tokens=recipe.rollout.max_new_tokens,
            temperature=recipe.rollout.temperature,
            top_p=recipe.rollout.top_p,
            top_k=recipe.rollout.top_k,
            min_p=recipe.rollout.min_p,
            max_kept=recipe.rollout.max_kept,
            stop=tuple(recipe.rollout.stop),
        )
        self.reference = Reference(policy) if recipe.kl.coef else None
        self.host = open_host(recipe, step_reward(recipe), policy, self.reference)
        problems = load_problems(recipe, policy, self.host)
        self.train_set, self.held_out, self.left_out = (
            problems.train,
            problems.held_out,
            problems.left_out,
        )
        self.sampler = ProblemSampler(
            len(self.train_set), seed=recipe.seed, shuffle=recipe.data.shuffle
        )
        self.forward = Forward(policy, recipe.schedule)
        self.updater = Updater(policy, recipe.optimizer, total_steps=recipe.schedule.steps)
        loss = LOSSES.get(recipe.loss.kind, "loss.kind")
        self._loss, self._traits = loss.thing, loss.traits
        self._advantage = ADVANTAGES.get(recipe.advantage.kind, "advantage.kind").thing
        if problems.left_out:
            write_json(folder.path / "left_out.json", problems.left_out)

    def close(self) -> None:
        """Ends the reward processes."""
        self.host.close()

    # -- one step ---------------------------------------------------------------------------

    def step(self, step: int) -> dict[str, Any]:
        """One step: samples, scores, advantages, updates. Returns its metrics."""
        clock = _Clock()
        self.host.step = step
        groups, discarded = self.rollout()
        clock.lap("rollout")
        experience = self.experience(groups)
        self.advantages(experience)
        results, stats = self.update(experience, step)
        clock.lap("update")
        self._write_samples(experience, discarded, step)
        metrics = self._metrics(experience, discarded, results, stats)
        if self.updater.bad_in_a_row:
            self._refuse_bad_update(experience, step, results)
        return metrics | clock.read(metrics["tokens_generated"])

    def rollout(self) -> tuple[list[ScoredGroup], list[ScoredGroup]]:
        """Groups to train on, and groups that dynamic sampling generated and discarded.

        Each round asks only for the groups that are still missing, so nothing is left over when
        the step is full; the budget bounds the groups of all rounds together.
        """
        wanted = self.recipe.sampling.problems_per_step
        dynamic = self.recipe.sampling.dynamic
        budget = wanted * (dynamic.max_batches if dynamic else 1)
        kept: list[ScoredGroup] = []
        discarded: list[ScoredGroup] = []
        while len(kept) < wanted and len(kept) + len(discarded) < budget:
            room = min(wanted - len(kept), budget - len(kept) - len(discarded))
            for scored in self._generate(room):
                useful = dynamic is None or scored.differs(self._metric_name)
                (kept if useful else discarded).append(scored)
        return kept, discarded

    @property
    def _metric_name(self) -> str | None:
        dynamic = self.recipe.sampling.dynamic
        if dynamic is not None and dynamic.metric is not None:
            return dynamic.metric
        # The overlong penalty differs by length alone: all-wrong groups would pass the filter.
        return "reward" if self.recipe.overlong.buffer_share else None

    def _generate(self, count: int) -> list[ScoredGroup]:
        drawn = self.sampler.next(count)
        prompted = [self.train_set[index] for index, _ in drawn]
        futures: dict[int, Any] = {}
        groups: dict[int, Group] = {}

        def on_group(index: int, group: Group) -> None:
            groups[index] = group
            futures[index] = self.host.submit(_without_kept(group))

        sample_groups(
            self.engine,
            prompted,
            self.params,
            seeds=lambda p, s: sample_seed(self.recipe.seed, prompted[p][0].id, drawn[p][1], s),
            samples=self.recipe.rollout.samples_per_problem,
            on_group=on_group,
        )
        self.host.flush()
        return [
            _trained_part(groups[p], futures[p].result(), prompted[p][1], self._group_size)
            for p in range(len(prompted))
        ]

    @property
    def _group_size(self) -> int:
        """Samples of each problem that are trained on."""
        return self.recipe.sampling.train_samples or self.recipe.rollout.samples_per_problem

    def experience(self, groups: list[ScoredGroup]) -> Experience:
        """Tensors of a step, with old and reference log-probs where the algorithm needs them."""
        samples = [
            (g, s, score)
            for g in groups
            for s, score in zip(g.group.samples, g.scores, strict=True)
        ]
        values = [float("nan") if score.value is None else score.value for _, _, score in samples]
        reward_B = torch.tensor(values, dtype=torch.float64)
        size = self._group_size
        group_B = torch.arange(len(groups)).repeat_interleave(size)
        length_B = torch.tensor([len(s.token_ids) for _, s, _ in samples])
        cut_B = torch.tensor([s.truncated for _, s, _ in samples], dtype=torch.bool)
        kept_B = ~reward_B.isnan()
        if self.recipe.overlong.filter:
            kept_B &= ~cut_B
        width = int(length_B.max()) if samples else 0
        mask_BT = (torch.arange(width)[None, :] < length_B[:, None]) & kept_B[:, None]
        experience = Experience(groups, reward_B, group_B, mask_BT)
        if samples and self._needs_old:
            experience.logp_old_BT = self._forward_all(experience, self.policy)
        if samples and self.recipe.mismatch.kind is not None:
            self._weigh(experience)
        if samples and self.reference is not None:
            experience.logp_ref_BT = self._forward_all(experience, self.reference)
        return experience

    def _weigh(self, experience: Experience) -> None:
        """Weights for what the engine's log-probs are off the trainer's, and their statistics."""
        mismatch = self.recipe.mismatch
        assert experience.logp_old_BT is not None and mismatch.kind is not None
        tensors = (experience.logp_old_BT, experience.logp_sampled_BT, experience.mask_BT)
        weight_BT, stats = mismatch_weights(
            *tensors,
            kind=mismatch.kind,
            low=mismatch.low,
            high=mismatch.high,
            level=mismatch.level,
        )
        if mismatch.mean_one:
            weight_BT = mean_one(weight_BT, experience.mask_BT, level=mismatch.level)
        experience.weight_BT = weight_BT
        experience.mismatch = {k: float(v) for k, v in vars(stats).items()}

    @property
    def _needs_old(self) -> bool:
        # One update of a fresh batch is exactly on-policy: the ratio is 1 and needs no old pass.
        schedule = self.recipe.schedule
        several = schedule.updates_per_batch * schedule.epochs_per_batch > 1
        several = several or self.recipe.mismatch.kind is not None
        return several or (bool(self.recipe.kl.coef) and self.recipe.kl.place == "reward")

    @torch.no_grad()
    def _forward_all(self, experience: Experience, model: Policy | Reference) -> Tensor:
        rows = experience.rows
        logp_BT = torch.zeros(experience.mask_BT.shape)
        for portion, batch in self.forward.batches(rows, range(len(rows))):
            found = model.logprobs(
                batch,
                temperature=self.params.temperature,
                kept=experience.kept(portion, self.policy.device),
            )
            logp = found[0] if isinstance(found, tuple) else found
            logp_BT[portion, : logp.shape[1]] = logp.to(logp_BT)
        return logp_BT

    def advantages(self, experience: Experience) -> None:
        """Fills ``adv_BT``; a KL term placed in the reward is a penalty per token."""
        penalty_BT = torch.zeros(experience.mask_BT.shape, dtype=torch.float64)
        kl = self.recipe.kl
        if kl.coef and kl.place == "reward" and experience.logp_old_BT is not None:
            assert experience.logp_ref_BT is not None
            penalty_BT -= kl.coef * kl_penalty(
                experience.logp_old_BT,
                experience.logp_ref_BT,
                experience.mask_BT,
                kind=kl.estimator,
            )
        if int(experience.mask_BT.sum()) < 2:  # nothing, or nothing to compare it with
            experience.adv_BT = torch.zeros_like(penalty_BT)
            return
        experience.adv_BT = self._advantage(
            experience.reward_B,
            experience.group_B,
            experience.mask_BT,
            penalty_BT,
            **self.recipe.advantage.options,
        )

    # -- updates ----------------------------------------------------------------------------

    def update(
        self, experience: Experience, step: int
    ) -> tuple[list[UpdateResult], dict[str, float]]:
        """All optimizer steps on one batch of experience."""
        schedule = self.recipe.schedule
        results: list[UpdateResult] = []
        stats: dict[str, float] = {}
        for epoch in range(schedule.epochs_per_batch):
            for rows in self._minibatches(len(experience.groups), step, epoch):
                active = self._active(experience, rows)
                if not active:
                    continue
                losses = self._losses(experience, rows, active, stats)
                results.append(self.updater.update(losses, step=step))
        self.engine.sync(self.policy.version)
        return results, stats

    def _minibatches(self, num_groups: int, step: int, epoch: int) -> Iterator[list[int]]:
        """Sample indices of each optimizer step: whole groups, dealt out in a seeded order."""
        size = self._group_size
        parts = min(self.recipe.schedule.updates_per_batch, num_groups)
        order = list(range(num_groups))
        if parts > 1:
            generator = torch.Generator().manual_seed(
                sample_seed(self.recipe.seed, "minibatch", step, epoch)
            )
            order = torch.randperm(num_groups, generator=generator).tolist()
        for part in range(parts):
            yield [g * size + s for g in sorted(order[part::parts]) for s in range(size)]

    def _active(self, experience: Experience, rows: Sequence[int]) -> list[int]:
        """Rows with a gradient: a zero advantage has none unless KL or entropy is in the loss, or
        the loss looks at every row."""
        everywhere = (
            self._traits.get("every_row", False)
            or self.recipe.entropy.bonus > 0
            or (self.recipe.kl.coef > 0 and self.recipe.kl.place == "loss")
        )
        has_token_B = experience.mask_BT.any(1)
        has_adv_B = (experience.adv_BT != 0).any(1)
        return [b for b in rows if has_token_B[b] and (everywhere or has_adv_B[b])]

    def _losses(
        self,
        experience: Experience,
        rows: Sequence[int],
        active: Sequence[int],
        stats: dict[str, float],
    ) -> Iterator[Tensor]:
        """Micro-batch losses that add up to the loss over ``rows``; weights are of all ``rows``."""
        index = torch.tensor(rows)
        tokens_B = experience.mask_BT[index].sum(1)
        weight_B = torch.zeros(len(experience.reward_B), dtype=torch.float64)
        weight_B[index] = sequence_weights(
            tokens_B,
            kind=self.recipe.aggregate,
            max_tokens=self.recipe.rollout.max_new_tokens,
            num_sequences=int((tokens_B > 0).sum()),
        )
        units = self._units(experience, active)
        for portion, batch in self.forward.batches(experience.rows, active, units):
            yield self._microbatch_loss(experience, batch, portion, weight_B[portion], stats)

    def _units(self, experience: Experience, active: Sequence[int]) -> list[int] | None:
        """Which rows must go through the model together, for the loss to see them together."""
        if self._traits.get("whole_batch"):
            return [0] * len(active)
        if self._traits.get("whole_groups"):
            return [int(experience.group_B[b]) for b in active]
        return None

    def _microbatch_loss(
        self,
        experience: Experience,
        batch: TokenBatch | SharedBatch,
        portion: list[int],
        weight_B: Tensor,
        stats: dict[str, float],
    ) -> Tensor:
        device, kl, bonus = self.policy.device, self.recipe.kl, self.recipe.entropy.bonus
        logp_BT, entropy_BT = self.policy.logprobs(
            batch,
            temperature=self.params.temperature,
            entropy_gradient=bonus > 0,
            kept=experience.kept(portion, device),
        )
        width = logp_BT.shape[1]

        def here(tensor_BT: Tensor) -> Tensor:
            part = tensor_BT[portion, :width]
            return part.to(device, dtype=logp_BT.dtype if part.is_floating_point() else part.dtype)

        mask_BT = here(experience.mask_BT)
        old_BT = (
            logp_BT.detach() if experience.logp_old_BT is None else here(experience.logp_old_BT)
        )
        tensors = [logp_BT, old_BT, here(experience.adv_BT), mask_BT]
        if "group_B" in self._traits.get("extra", ()):
            tensors.append(experience.group_B[portion].to(device))
        loss_BT, loss_stats = self._loss(*tensors, **self.recipe.loss.options)
        _add(stats, {k: float(v) for k, v in vars(loss_stats).items()})
        if experience.weight_BT is not None:
            loss_BT = loss_BT * here(experience.weight_BT)
        delta = self.recipe.mismatch.off_policy_delta
        if delta is not None:
            sampled_BT, adv_BT = here(experience.logp_sampled_BT), here(experience.adv_BT)
            keep_BT = off_policy_mask(logp_BT, sampled_BT, adv_BT, mask_BT, delta=delta)
            _add(stats, {"off_policy_tokens": float((mask_BT & ~keep_BT).sum())})
            loss_BT = loss_BT * keep_BT
        if experience.logp_ref_BT is not None:
            kl_BT = kl_penalty(logp_BT, here(experience.logp_ref_BT), mask_BT, kind=kl.estimator)
            _add(stats, {"kl_ref_nats": float(kl_BT.detach().sum())})
            if kl.place == "loss":
                loss_BT = loss_BT + kl.coef * kl_BT
        if bonus:
            loss_BT = loss_BT - bonus * torch.where(mask_BT, entropy_BT, 0.0)
        _add(stats, {"entropy_nats": float(torch.where(mask_BT, entropy_BT, 0.0).detach().sum())})
        return (weight_B.to(device, dtype=logp_BT.dtype)[:, None] * loss_BT).sum()

    # -- what is written --------------------------------------------------------------------

    @property
    def evaluates(self) -> bool:
        """Whether there are held-out problems."""
        return bool(self.held_out)

    def evaluate(self, label: str) -> dict[str, Any]:
        """Held-out evaluation; every sample goes to ``eval/LABEL.json``."""
        return evaluate_policy(
            self.engine,
            self.host,
            self.held_out,
            self.recipe.evaluate,
            self.params,
            seed=self.recipe.seed,
            output=self.folder.path / "eval" / f"{label}.json",
        )

    def state_dict(self) -> dict[str, Any]:
        """The JSON-able part of the state; tensors are the updater's."""
        return {"sampler": self.sampler.state_dict(), "reward": self.host.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what ``state_dict`` returned."""
        self.sampler.load_state_dict(state["sampler"])
        self.host.load_state_dict(state.get("reward", {}))

    def _write_samples(
        self, experience: Experience, discarded: list[ScoredGroup], step: int
    ) -> None:
        observe = self.recipe.observe
        if step % observe.samples_every:
            return
        records = list(sample_records(experience, discarded, step, self.policy.tokenizer))
        write_samples(self.folder.path, step, records[: observe.samples_per_step])

    def _refuse_bad_update(
        self, experience: Experience, step: int, results: list[UpdateResult]
    ) -> None:
        limit = self.recipe.schedule.max_bad_updates
        if self.updater.bad_in_a_row < limit:
            return
        records = list(sample_records(experience, [], step, self.policy.tokenizer))
        path = write_samples(self.folder.path, step, records, kind="bad")
        raise RuntimeError(
            f"loss is {results[-1].loss} and gradient norm {results[-1].grad_norm} in "
            f"{self.updater.bad_in_a_row} updates in a row (schedule.max_bad_updates is {limit}); "
            f"none was applied, the samples are in {path}; lower optimizer.lr and go on "
            "from the last checkpoint"
        )

    def _metrics(
        self,
        experience: Experience,
        discarded: list[ScoredGroup],
        results: list[UpdateResult],
        stats: dict[str, float],
    ) -> dict[str, Any]:
        trained = stats.get("tokens", 0.0)
        everything = experience.groups + discarded
        metrics = _update_metrics(results) | sample_metrics(everything)
        metrics |= _host_metrics(self.host)
        metrics["disagreement"] = disagreement(self.host.reward, [g.scores for g in everything])
        shares = advantage_shares(self.host.reward, *experience.scores_and_advantages())
        metrics |= {f"share/{name}": share for name, share in shares.items()}
        generated = metrics["tokens_generated"]
        used = min(generated, int(trained / max(1, self.recipe.schedule.epochs_per_batch)))
        same = sum(not g.differs(self._metric_name) for g in everything)
        metrics |= _mismatch_metrics(experience.mismatch)
        return metrics | {
            "entropy": stats["entropy_nats"] / trained if trained else None,
            "kl": stats["kl_ref_nats"] / trained if trained and "kl_ref_nats" in stats else None,
            "kl_old": stats["kl_old_nats"] / trained
            if trained and "kl_old_nats" in stats
            else None,
            "clip_share": _clip_share(stats, trained),
            "ratio_max": stats.get("rho_max"),
            "groups": len(everything),
            "degenerate_groups": same,
            "degenerate_share": same / len(everything),
            "dropped": len(discarded),
            "unfilled": self.recipe.sampling.problems_per_step - len(experience.groups),
            "tokens_trained": used,
            "tokens_wasted": generated - used,
            "wasted_share": 1 - used / generated,
        }


def _trained_part(
    group: Group, scores: list[Score], prompt_ids: tuple[int, ...], count: int
) -> ScoredGroup:
    """The first samples of a group, with the scores they got among all of it."""
    return ScoredGroup(replace(group, samples=group.samples[:count]), scores[:count], prompt_ids)


def _without_kept(group: Group) -> Group:
    """Kept sets are megabytes that no reward reads."""
    samples = (replace(s, kept_ids=b"", kept_counts=b"") for s in group.samples)
    return replace(group, samples=tuple(samples))


def step_reward(recipe: Recipe) -> Any:
    """The recipe's reward tree, with DAPO's soft overlong penalty beside it where it is on."""
    overlong = recipe.overlong
    if not overlong.buffer_share:
        return recipe.reward
    buffer = max(1, round(overlong.buffer_share * recipe.rollout.max_new_tokens))
    penalty = {"buffer_tokens": buffer, "factor": overlong.factor, "name": "overlong"}
    named = {"sum": {"of": [recipe.reward], "name": "reward"}}
    return {"sum": {"of": [named, {"soft_overlong": penalty}], "name": "reward_with_overlong"}}


def _update_metrics(results: Sequence[UpdateResult]) -> dict[str, Any]:
    applied = [r for r in results if r.applied]
    return {
        "loss": sum(r.loss for r in applied) / len(applied) if applied else None,
        "grad_norm": applied[-1].grad_norm if applied else None,
        "lr": results[-1].lr if results else None,
        "updates": len(applied),
        "bad_updates": len(results) - len(applied),
    }


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


def _add(total: dict[str, float], more: dict[str, float]) -> None:
    for key, value in more.items():
        before = total.get(key, 0.0)
        total[key] = max(before, value) if key.endswith("_max") else before + value


class _Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self._laps[f"seconds_{phase}"] = now - self._last
        self._last = now

    def read(self, tokens: int) -> dict[str, float]:
        seconds = time.perf_counter() - self._start
        return {"seconds": seconds, **self._laps, "tokens_per_second": tokens / seconds}


@contextlib.contextmanager
def open_online(recipe: Recipe, folder: RunFolder, policy: Policy) -> Iterator[OnlineLoop]:
    """The loop, with its reward processes ended however the run ends."""
    loop = OnlineLoop(recipe, folder, policy)
    try:
        yield loop
    finally:
        loop.close()
