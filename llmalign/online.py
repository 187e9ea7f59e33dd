"""The loop that samples: roll out, score, compute advantages, update."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmalign.collect import Collected, Collector
from llmalign.control import Controls
from llmalign.critic import Critic
from llmalign.evaluation.run import evaluate_policy
from llmalign.experience import Experience, sample_records
from llmalign.forward import Forward
from llmalign.imitation import Imitation
from llmalign.learn import Learner
from llmalign.ledger import step_metrics
from llmalign.losses import LOSSES
from llmalign.observe.log import write_json, write_samples
from llmalign.optim import Updater, UpdateResult
from llmalign.policy import Policy
from llmalign.prepare import Preparer
from llmalign.problems import load_problems
from llmalign.reference import MovingReference, Reference, open_reference
from llmalign.rollout import SamplingParams
from llmalign.rollout.hf import HfEngine
from llmalign.run import RunFolder
from llmalign.schema import Recipe
from llmalign.scoring import open_host


class OnlineLoop:
    """State of an online run, and one step of it; ``llmalign.training`` drives it.

    ``collector`` samples and scores, ``preparer`` makes tensors of it, ``learner`` updates.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder, policy: Policy) -> None:
        self.recipe, self.folder, self.policy = recipe, folder, policy
        self.reference = _open_reference(recipe, policy)
        self.host = open_host(recipe, step_reward(recipe), policy, _start(self.reference))
        problems = load_problems(recipe, policy, self.host)
        self.held_out, self.left_out = problems.held_out, problems.left_out
        self.engine = HfEngine(policy, batch_size=recipe.rollout.batch_size)
        self.params = sampling_params(recipe)
        self.collector = Collector(
            recipe, self.engine, self.params, self.host, problems.train, policy
        )
        self.updater = Updater(policy, recipe.optimizer, total_steps=recipe.schedule.steps)
        self.controls = Controls(recipe)
        forward = Forward(policy, recipe.schedule)
        self.critic: Critic | None = None
        if recipe.critic is not None:
            self.critic = Critic(
                policy, recipe.critic, model=recipe.model, schedule=recipe.schedule
            )
        self.preparer = Preparer(recipe, policy, forward, self.reference, self.critic)
        self.imitation: Imitation | None = None
        if recipe.imitation is not None:
            self.imitation = Imitation(recipe, recipe.imitation, policy, forward)
            self.left_out += self.imitation.left_out
        self.learner = Learner(
            recipe,
            policy,
            forward,
            self.updater,
            self.controls,
            self.reference,
            self.critic,
            self.imitation,
        )
        if self.left_out:
            write_json(folder.path / "left_out.json", self.left_out)

    def close(self) -> None:
        """Ends the reward processes."""
        self.host.close()

    # -- one step ---------------------------------------------------------------------------

    def step(self, step: int) -> dict[str, Any]:
        """One step: samples, scores, advantages, updates. Returns its metrics."""
        clock = _Clock()
        self.host.step = step
        found = self.collector.collect(step)
        clock.lap("rollout")
        experience = self.preparer.experience(found.groups)
        self.preparer.advantages(experience, step=step, kl_coef=self.controls.kl_coef)
        results, stats = self.learner.update(experience, step)
        self.engine.sync(self.policy.version)
        clock.lap("update")
        self._write_samples(experience, found, step)
        metrics = step_metrics(
            found,
            experience,
            results,
            stats,
            self.host,
            metric_name=self.collector.metric_name,
            wanted=self.recipe.sampling.problems_per_step,
            epochs=self.recipe.schedule.epochs_per_batch,
        )
        metrics |= self.controls.after_step(
            kl=metrics["kl"], entropy=metrics["entropy"], num_samples=len(experience.reward_B)
        )
        if self.imitation is not None:
            metrics |= self.imitation.after_step(metrics["entropy"])
        self._refuse_bad_updates(experience, step, results)
        if found.note:
            metrics["note"] = found.note
        return metrics | clock.read(metrics["tokens_generated"])

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
        return {
            "collector": self.collector.state_dict(),
            "controls": self.controls.state_dict(),
            "reward": self.host.state_dict(),
            "imitation": self.imitation and self.imitation.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what ``state_dict`` returned."""
        self.collector.load_state_dict(state["collector"])
        self.controls.load_state_dict(state["controls"])
        self.host.load_state_dict(state.get("reward", {}))
        if self.imitation is not None:
            self.imitation.load_state_dict(state["imitation"])

    def tensors(self) -> dict[str, Any]:
        """The part of the state that is tensors, beside the updater's."""
        parts = {"reference": self.reference, "critic": self.critic}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def load_tensors(self, state: dict[str, Any]) -> None:
        """Puts back what ``tensors`` returned."""
        for name, part in (("reference", self.reference), ("critic", self.critic)):
            if part is not None:
                part.load_state_dict(state[name])

    def save_final(self, folder: Path) -> None:
        """What the run is for: the model, and the critic's beside it where there is one."""
        self.policy.save(folder)
        if self.critic is not None:
            self.critic.save(folder / "critic")

    def _write_samples(self, experience: Experience, found: Collected, step: int) -> None:
        observe = self.recipe.observe
        self.collector.write_dropped(self.folder.path, found, step)
        if step % observe.samples_every:
            return
        records = list(sample_records(experience, found.discarded, step, self.policy.tokenizer))
        write_samples(self.folder.path, step, records[: observe.samples_per_step])

    def _refuse_bad_updates(
        self, experience: Experience, step: int, results: list[UpdateResult]
    ) -> None:
        limit = self.recipe.schedule.max_bad_updates
        critic = self.critic
        in_a_row = critic.updater.bad_in_a_row if critic else 0
        who, lower = "the critic's loss or gradient is not finite", "critic.optimizer.lr"
        if self.updater.bad_in_a_row >= limit:
            in_a_row, lower = self.updater.bad_in_a_row, "optimizer.lr"
            who = f"loss is {results[-1].loss} and gradient norm {results[-1].grad_norm}"
        if in_a_row < limit:
            return
        records = list(sample_records(experience, [], step, self.policy.tokenizer))
        path = write_samples(self.folder.path, step, records, kind="bad")
        raise RuntimeError(
            f"{who} in {in_a_row} updates in a row (schedule.max_bad_updates is {limit}); none was "
            f"applied, the samples are in {path}; lower {lower} and go on from the last checkpoint"
        )


def sampling_params(recipe: Recipe) -> SamplingParams:
    """The distribution that a recipe samples from, and where it stops."""
    rollout = recipe.rollout
    return SamplingParams(
        max_new_tokens=rollout.max_new_tokens,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        top_k=rollout.top_k,
        min_p=rollout.min_p,
        max_kept=rollout.max_kept,
        stop=tuple(rollout.stop),
    )


def _open_reference(recipe: Recipe, policy: Policy) -> Reference | None:
    loss = LOSSES.get(recipe.loss.kind, "loss.kind")
    if not recipe.kl.coef and "ref_kl_BT" not in loss.inputs:
        return None
    kl = recipe.kl
    return open_reference(policy, kind=kl.reference, rate=kl.rate, every=kl.every)


def _start(reference: Reference | None) -> Reference | None:
    """The reference where it is the frozen start policy, which rewards may then share."""
    return None if isinstance(reference, MovingReference) else reference


def step_reward(recipe: Recipe) -> Any:
    """The recipe's reward tree, with DAPO's soft overlong penalty beside it where it is on."""
    overlong = recipe.overlong
    if not overlong.buffer_share:
        return recipe.reward
    buffer = max(1, round(overlong.buffer_share * recipe.rollout.max_new_tokens))
    penalty = {"buffer_tokens": buffer, "factor": overlong.factor, "name": "overlong"}
    named = {"sum": {"of": [recipe.reward], "name": "reward"}}
    return {"sum": {"of": [named, {"soft_overlong": penalty}], "name": "reward_with_overlong"}}


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
