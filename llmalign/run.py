"""The folder of a run: whose it is, what made it, and how it is left in good order."""

import importlib.metadata
import json
import os
import platform
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from llmalign import __version__
from llmalign.observe.log import write_json
from llmalign.scale.checkpoint import list_checkpoints
from llmalign.schema import Recipe

_PACKAGES = (
    "torch transformers accelerate datasets peft safetensors "
    "deepspeed vllm trl math-verify sympy numpy"
).split()


class RunFolder:
    """``OUTPUT/NAME/`` and the files in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.final = path / "final"
        self.summary = path / "summary.json"
        self.warm_start = path / "warm_start"

    def finished_summary(self, steps: int) -> dict[str, Any] | None:
        """The summary of a run that came to its end after ``steps`` or more; else None."""
        if not self.summary.is_file() or not self.final.is_dir():
            return None
        summary = json.loads(self.summary.read_text(encoding="utf-8"))
        return dict(summary) if summary["steps"] >= steps else None

    def open(self, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
        """Makes the folder this recipe's, or says whose it is.

        Raises:
            ValueError: it holds another recipe's run, or a run of this recipe and neither
                ``resume`` nor ``overwrite`` was asked for.
        """
        owner = self._owner()
        if overwrite and self.path.exists():
            _remove_run(self.path)
            owner = None
        if owner is not None and owner != recipe.identity:
            raise ValueError(
                f"{self.path} holds a run of another recipe (identity {owner}, this one is "
                f"{recipe.identity}); choose another --name, or --overwrite to delete that run"
            )
        if owner is not None and not resume:
            raise ValueError(
                f"{self.path} already holds a run of this recipe; "
                "go on with --resume auto, choose another --name, or --overwrite to delete it"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        # First of all files: from here on the folder has an owner, whenever the process dies.
        write_json(self.path / "environment.json", environment(recipe))
        (self.path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")

    def _owner(self) -> str | None:
        path = self.path / "environment.json"
        if not path.is_file():
            if self.path.is_dir() and any(self.path.iterdir()):
                raise ValueError(
                    f"{self.path} is not empty and holds no run; choose another --name or --output"
                )
            return None
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["identity"])
        except (ValueError, KeyError):
            raise ValueError(
                f"{path} is not readable, so it is unknown whose run this is; "
                "choose another --name, or --overwrite to delete that run"
            ) from None


def environment(recipe: Recipe) -> dict[str, Any]:
    """Versions, machine and the recipe's hashes: what can make two runs differ."""
    return {
        "llmalign": __version__,
        "recipe_hash": recipe.hash,
        "identity": recipe.identity,
        "python": platform.python_version(),
        "packages": {p: v for p in _PACKAGES if (v := _version(p)) is not None},
        "platform": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "command": sys.argv,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _remove_run(path: Path) -> None:
    # Only what is recognisably a run is ever deleted.
    if not (path / "environment.json").is_file() and not list_checkpoints(path / "checkpoints"):
        raise ValueError(
            f"{path} does not look like a run, so it is not deleted; remove it yourself"
        )
    shutil.rmtree(path)


class StopRequest:
    """SIGTERM or Ctrl-C: the step in flight is finished and saved, then the run ends with code 0.

    A second signal ends the process at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # elsewhere signals cannot be set
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.asked:
            os._exit(128 + number)
        self.asked = True
