"""Experiment trackers of others, by name: tensorboard, wandb, trackio. Only numbers are sent."""

import importlib
import json
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from llmalign.observe.log import plain
from llmalign.verifiers.registry import unknown

PROJECT = "llmalign"


class Tracker(Protocol):
    """Takes the numbers of each step to where somebody looks at them."""

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Sends the numbers among ``metrics``; text, None and what is not finite stay here."""
        ...

    def close(self) -> None:
        """Sends what is left and ends the tracker's run."""
        ...


def open_trackers(
    names: list[str], *, run_folder: Path, run_name: str, config: Mapping[str, Any]
) -> list[Tracker]:
    """Opens the trackers that the recipe's ``observe.trackers`` names; all of them or none.

    A resumed run goes on in the same tracker run where the tracker can.

    Raises: ValueError: a name is unknown. RuntimeError: a tracker's package is not installed.
    """
    for name in names:
        if name not in _OPENERS:
            raise ValueError(f"observe.trackers: {unknown('tracker', name, _OPENERS)}")
    with ExitStack() as opened:
        trackers = []
        for name in names:
            tracker = _OPENERS[name](run_folder, run_name, dict(plain(config)))
            opened.callback(tracker.close)
            trackers.append(tracker)
        opened.pop_all()
    return trackers


class TensorBoard:
    """Event files under ``tensorboard/`` of the run folder."""

    def __init__(self, run_folder: Path, run_name: str, config: dict[str, Any]) -> None:
        module = _package("tensorboard", "torch.utils.tensorboard")
        self._writer = module.SummaryWriter(log_dir=str(run_folder / "tensorboard"))
        self._writer.add_text("recipe", f"{run_name}\n\n```\n{json.dumps(config, indent=2)}\n```")

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """One scalar per number."""
        for name, value in _numbers(metrics).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases; its id is kept in the run folder, so that a resumed run goes on.

    The service drops steps at or before its last one, such as those a resumed run repeats.
    """

    def __init__(self, run_folder: Path, run_name: str, config: dict[str, Any]) -> None:
        wandb = _package("wandb", "wandb")
        note = run_folder / "wandb_id.txt"
        if not note.exists():
            note.write_text(uuid.uuid4().hex[:12])
        self._run = wandb.init(
            project=PROJECT,
            name=run_name,
            id=note.read_text().strip(),
            dir=str(run_folder),
            config=config,
            resume="allow",
        )

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """All numbers of the step in one call."""
        self._run.log(_numbers(metrics), step=step)

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


class Trackio:
    """A run of trackio, found again by its name."""

    def __init__(self, run_folder: Path, run_name: str, config: dict[str, Any]) -> None:
        self._trackio = _package("trackio", "trackio")
        self._trackio.init(project=PROJECT, name=run_name, config=config, resume="allow")

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """All numbers of the step in one call."""
        self._trackio.log(_numbers(metrics), step=step)

    def close(self) -> None:
        """Ends the run."""
        self._trackio.finish()


_OPENERS: dict[str, Callable[[Path, str, dict[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": Trackio,
}


def _package(name: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeError(
            f"observe.trackers has {name!r}, expected an installed package ({error}); "
            "run pip install 'llmalign[track]' or take it out of the recipe"
        ) from error


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    values = {key: plain(value) for key, value in metrics.items() if key != "step"}
    return {
        key: value
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
