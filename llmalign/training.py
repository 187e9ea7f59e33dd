"""Runs a recipe from its first step to its summary, and takes up a broken run where it was.

The two loops (``online``, ``offline``) know one step; everything around steps is here, once:
the run folder, checkpoints, evaluation before and after, signals, display and report.
"""

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from llmalign.observe import (
    LiveDisplay,
    RunLog,
    open_trackers,
    write_json,
    write_report,
)
from llmalign.observe.monitors import Monitors
from llmalign.optim import Updater
from llmalign.policy import Policy, load_policy
from llmalign.run import RunFolder, StopRequest
from llmalign.scale.checkpoint import (
    load_checkpoint,
    load_newest,
    rng_state,
    save_checkpoint,
    seed_everything,
    set_rng_state,
)
from llmalign.schema import Choice, Entropy, Evaluate, Kl, Overlong, Recipe

COUNTED = (
    "updates",
    "bad_updates",
    "groups",
    "degenerate_groups",
    "undecided",
    "not_scorable",
    "dropped",
    "tokens_generated",
)


class Loop(Protocol):
    """What a training loop is to this module."""

    policy: Policy
    updater: Updater
    left_out: list[dict[str, Any]]

    @property
    def evaluates(self) -> bool: ...
    def step(self, step: int) -> dict[str, Any]: ...
    def evaluate(self, label: str) -> dict[str, Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...
    def tensors(self) -> dict[str, Any]: ...
    def load_tensors(self, state: dict[str, Any]) -> None: ...
    def save_final(self, folder: Path) -> None: ...


def train(recipe: Recipe, *, resume: str | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Runs ``recipe``; returns the summary that is also written to ``summary.json``.

    Args:
        recipe: what to run.
        resume: ``"auto"`` goes on from the newest whole checkpoint of the run folder (or starts,
            where there is none); a path goes on from that checkpoint; None starts a new run.
        overwrite: deletes the run that the folder holds.
    Raises:
        ValueError: bad data, or a run folder that holds another run.
        RuntimeError: the model cannot be loaded, the loss stays non-finite, the disk is full.
    """
    folder = RunFolder(Path(recipe.output) / recipe.name)
    folder.open(recipe, resume=resume is not None, overwrite=overwrite)
    if done := folder.finished_summary(recipe.schedule.steps):
        print(
            f"{folder.path} is finished ({done['steps']} steps); nothing is left to do", flush=True
        )
        return done
    with StopRequest() as stop:
        return _run(recipe, folder, resume, stop)


def _run(
    recipe: Recipe, folder: RunFolder, resume: str | None, stop: StopRequest
) -> dict[str, Any]:
    warm_seconds = 0.0
    start_path: Path | None = None
    if recipe.warm_start is not None:
        warm = _warm_start(recipe, folder, stop)
        if stop.asked:
            return warm
        warm_seconds, start_path = warm["train_seconds"], folder.warm_start / "final"
    seed_everything(recipe.seed)
    policy = load_policy(recipe.model, seed=recipe.seed, path=start_path)
    with _open_loop(recipe, folder, policy) as loop:
        run = _Run(recipe, folder, loop, stop)
        run.restore(resume)
        summary = run.to_the_end()
    if summary.get("finished"):
        summary["warm_start_seconds"] = warm_seconds
        summary["train_seconds"] += warm_seconds
        write_json(folder.summary, summary)
        write_report(folder.path)
    return summary


def _open_loop(
    recipe: Recipe, folder: RunFolder, policy: Policy
) -> contextlib.AbstractContextManager[Any]:
    if recipe.stage == "policy":
        from llmalign.online import open_online

        return open_online(recipe, folder, policy)
    from llmalign.offline import open_offline

    return open_offline(recipe, folder, policy)


def _warm_start(recipe: Recipe, folder: RunFolder, stop: StopRequest) -> dict[str, Any]:
    """The supervised stage as a run of its own in ``warm_start/``; done once, then reused."""
    assert recipe.warm_start is not None
    stage = recipe.model_copy(
        update={
            "name": "warm_start",
            "output": str(folder.path),
            "algorithm": "sft",
            "warm_start": None,
            "data": recipe.warm_start.data,
            "optimizer": recipe.warm_start.optimizer,
            "schedule": recipe.warm_start.schedule,
            "loss": Choice(kind="sft"),
            "aggregate": "token_mean",
            "reward": None,
            "imitation": None,
            "kl": Kl(),
            "entropy": Entropy(),
            "overlong": Overlong(),
            "evaluate": Evaluate(),
        }
    )
    inner = RunFolder(folder.warm_start)
    inner.open(stage, resume=True, overwrite=False)
    if done := inner.finished_summary(stage.schedule.steps):
        return done
    return _run(stage, inner, "auto", stop)


class _Run:
    """One run between its first step and its last."""

    def __init__(self, recipe: Recipe, folder: RunFolder, loop: Loop, stop: StopRequest) -> None:
        self.recipe, self.folder, self.loop, self.stop = recipe, folder, loop, stop
        self.next_step = 0
        self.seconds = self.seconds_save = 0.0
        self.totals: dict[str, float] = {}
        self.before: dict[str, Any] | None = None
        self.notes: list[str] = []
        self.monitors = Monitors(recipe.monitors)
        if loop.left_out:
            self._note(
                f"{len(loop.left_out)} problems were left out; "
                f"which and why is in {folder.path / 'left_out.json'}"
            )
        self.display: LiveDisplay | None = None

    def _note(self, message: str) -> None:
        self.notes.append(message)
        display = getattr(self, "display", None)
        if display is not None:
            display.note(message)
        else:
            print(message, flush=True)

    # -- state --------------------------------------------------------------------------------

    def restore(self, resume: str | None) -> None:
        """Takes up the state of a checkpoint, if one was asked for and there is one."""
        if resume is None:
            return
        if resume == "auto":
            found = load_newest(self.folder.checkpoints, note=self._note)
        else:
            found = load_checkpoint(Path(resume))
        if found is None:
            return
        tensors, state = found
        if state["identity"] != self.recipe.identity:
            raise ValueError(
                f"checkpoint {resume} is of another recipe (identity {state['identity']}, "
                f"this one is {self.recipe.identity})"
            )
        self.loop.updater.load_state_dict(tensors["trainable"])
        self.loop.load_tensors(tensors["loop"])
        self.loop.load_state_dict(state["loop"])
        self.loop.policy.version = state["version"]
        self.loop.updater.bad_in_a_row = state["bad_in_a_row"]
        self.next_step = state["next_step"]
        self.seconds, self.totals, self.before = state["seconds"], state["totals"], state["before"]
        self.notes += [n for n in state["notes"] if n not in self.notes]
        self.monitors.load_state_dict(state["monitors"])
        set_rng_state(tensors["rng"])
        self._note(f"resumed after step {self.next_step}")

    def save(self) -> None:
        """A checkpoint of everything that the next step depends on."""
        state = {
            "next_step": self.next_step,
            "identity": self.recipe.identity,
            "loop": self.loop.state_dict(),
            "version": self.loop.policy.version,
            "bad_in_a_row": self.loop.updater.bad_in_a_row,
            "seconds": self.seconds,
            "totals": self.totals,
            "before": self.before,
            "notes": self.notes,
            "monitors": self.monitors.state_dict(),
        }
        tensors = {
            "trainable": self.loop.updater.state_dict(),
            "loop": self.loop.tensors(),
            "rng": rng_state(),
        }
        save_checkpoint(
            self.folder.checkpoints,
            self.next_step,
            tensors,
            state,
            keep=self.recipe.schedule.keep_checkpoints,
        )

    # -- the way through ----------------------------------------------------------------------

    def to_the_end(self) -> dict[str, Any]:
        """Before-evaluation, steps, after-evaluation, final model, summary."""
        steps = self.recipe.schedule.steps
        with contextlib.ExitStack() as stack:
            resume_step = self.next_step - 1 if self.next_step else None
            log = stack.enter_context(RunLog(self.folder.path, resume_step=resume_step))
            trackers = open_trackers(
                self.recipe.observe.trackers,
                run_folder=self.folder.path,
                run_name=self.recipe.name,
                config=self.recipe.model_dump(mode="json"),
            )
            for tracker in trackers:
                stack.callback(tracker.close)
            self.display = stack.enter_context(
                LiveDisplay(
                    steps,
                    title=f"{self.recipe.name} · {self.recipe.algorithm}",
                    start_step=self.next_step,
                )
            )
            if self.before is None and self.loop.evaluates:
                self.before = self._evaluate("before")
            while self.next_step < steps and not self.stop.asked:
                metrics = self._step()
                log.log(metrics)
                for tracker in trackers:
                    tracker.log(metrics, metrics["step"])
                self.display.update(self.next_step, metrics)
                # After the line is written: a kill in between costs a step, never a line.
                self._heed_monitors(metrics)
                self._save_if_due()
            if self.stop.asked and self.next_step < steps:
                return self._stopped()
            return self._finish()

    def _evaluate(self, label: str) -> dict[str, Any]:
        if self.display is not None:
            self.display.note(f"evaluating {label} training ...")
        summary = self.loop.evaluate(label)
        self._note(describe(label, summary))
        return summary

    def _step(self) -> dict[str, Any]:
        started = time.perf_counter()
        step, schedule = self.next_step, self.recipe.schedule
        metrics = {"step": step, **self.loop.step(step)}
        self.next_step = step + 1
        every = self.recipe.evaluate.every
        if every and self.next_step % every == 0 and self.next_step < schedule.steps:
            if self.loop.evaluates:
                summary = self.loop.evaluate(f"step-{self.next_step:08d}")
                metrics |= {
                    f"eval/{k}": v
                    for k, v in summary.items()
                    if isinstance(v, int | float) and not isinstance(v, bool)
                }
        for key in COUNTED:
            self.totals[key] = self.totals.get(key, 0) + (metrics.get(key) or 0)
        if metrics.get("bad_updates"):
            self._note(
                f"step {step}: loss or gradient was not finite in {metrics['bad_updates']} "
                "update(s); skipped"
            )
        if metrics.get("unfilled"):
            self._note(
                f"step {step}: generation budget spent, trained on "
                f"{metrics['unfilled']} groups fewer than asked for"
            )
        if note := metrics.pop("note", ""):
            self._note(f"step {step}: {note}")
        self.seconds += time.perf_counter() - started
        metrics["seconds_save"], self.seconds_save = self.seconds_save, 0.0
        return metrics

    def _heed_monitors(self, metrics: dict[str, Any]) -> None:
        for alarm in self.monitors.look(metrics):
            message = f"step {metrics['step']}: {alarm.message}"
            if alarm.stop:
                self.save()
                raise RuntimeError(
                    f"{message}; the state is saved: raise or unset the limit and go on with "
                    "--resume auto"
                )
            self._note(message)

    def _save_if_due(self) -> None:
        schedule = self.recipe.schedule
        due = self.next_step % schedule.checkpoint_every == 0 or self.next_step == schedule.steps
        if due or self.stop.asked:
            started = time.perf_counter()
            self.save()
            self.seconds_save = time.perf_counter() - started  # shown with the next step
            self.seconds += self.seconds_save

    def _stopped(self) -> dict[str, Any]:
        self._note(
            f"stopped after step {self.next_step} of {self.recipe.schedule.steps}; "
            "the state is saved, go on with --resume auto"
        )
        return {"finished": False, "steps": self.next_step, "train_seconds": self.seconds}

    def _finish(self) -> dict[str, Any]:
        after = self._evaluate("after") if self.loop.evaluates else None
        groups = int(self.totals.get("groups", 0))
        if groups and self.totals["degenerate_groups"] == groups:
            self._note(
                f"nothing could be learnt from the reward: in all {groups} groups every sample had "
                f"the same one; {int(self.totals['updates'])} updates came from KL or entropy alone"
            )
        _replace_folder(self.folder.final, self.loop.save_final)
        return {
            "name": self.recipe.name,
            "algorithm": self.recipe.algorithm,
            "finished": True,
            "before": self.before,
            "after": after,
            "train_seconds": self.seconds,
            "steps": self.next_step,
            **{key: int(value) for key, value in self.totals.items()},
            "left_out": len(self.loop.left_out),
            "notes": self.notes,
        }


def describe(label: str, summary: dict[str, Any]) -> str:
    """One line for people: pass@1 with its interval, pass@k, maj@k; the mean reward where no
    verifier says what is right."""
    if summary["pass@1"] is None:
        return f"{label}: no sample could be judged ({summary['undecided']} undecided)"
    if not summary["verified"] and summary["reward"] is not None:
        parts = [_with_interval("reward", summary["reward"], summary["reward_ci"])]
    else:
        parts = [_with_interval("pass@1", summary["pass@1"], summary["ci"])]
        for name in ("pass@k", "maj@k"):
            parts += [
                f"{name.replace('k', k)} {value:.3f}"
                for k, value in summary[name].items()
                if k != "1" and value is not None
            ]
    parts.append(f"on {summary['problems']} problems")
    if summary["undecided"]:
        parts.append(f"{summary['undecided']} undecided")
    return f"{label}: " + ", ".join(parts)


def _with_interval(name: str, value: float, interval: list[float]) -> str:
    low, high = interval
    return f"{name} {value:.3f} [{low:.3f}, {high:.3f}]"


def _replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Writes a folder beside ``target`` and puts it in its place when it is whole."""
    temporary = target.with_name(f".writing-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    write(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
