"""Checkpoints: whole or not at all, and checked before they are believed.

A checkpoint is written into a temporary folder, every file and the folder fsynced, and then
renamed; ``manifest.json`` holds the SHA-256 of each file. A folder with another name is an
unfinished one and never read. What goes into ``state`` is the loops' business.
"""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

_MANIFEST = "manifest.json"


def step_folder(root: Path, step: int) -> Path:
    """``root/step-00000042``."""
    return root / f"step-{step:08d}"


def save_checkpoint(
    root: Path, step: int, tensors: dict[str, Any], state: dict[str, Any], *, keep: int
) -> Path:
    """Writes the checkpoint of ``step`` atomically, then removes all but the newest ``keep``.

    Args:
        root: the ``checkpoints`` folder.
        step: finished optimizer-loop steps.
        tensors: file stem -> object for ``torch.save`` (state dicts).
        state: JSON-able rest.
        keep: how many checkpoints stay, >= 1.
    Raises:
        RuntimeError: the disk would not take it; the checkpoints before are untouched.
    """
    final = step_folder(root, step)
    temporary = root / f".writing-{step:08d}-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(root)
        temporary.mkdir()
        for name, value in tensors.items():
            torch.save(value, temporary / f"{name}.pt")
        (temporary / "state.json").write_text(json.dumps(state), encoding="utf-8")
        digests = {p.name: _digest(p) for p in sorted(temporary.iterdir())}
        (temporary / _MANIFEST).write_text(json.dumps(digests, indent=1), encoding="utf-8")
        for path in temporary.iterdir():
            _fsync(path)
        _fsync(temporary)
        if final.exists():  # the step was saved before and the run was resumed from an older one
            shutil.rmtree(final)
        temporary.rename(final)
        _fsync(root)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        newest = next(iter(list_checkpoints(root)), None)
        raise RuntimeError(
            f"checkpoint of step {step} cannot be written to {root}: {error}; the last good one is "
            f"{newest.name if newest else 'none'}; free some space and go on with --resume auto"
        ) from error
    for old in list_checkpoints(root)[keep:]:
        shutil.rmtree(old)
    return final


def list_checkpoints(root: Path) -> list[Path]:
    """Finished checkpoints, newest first."""
    return sorted(root.glob("step-*"), reverse=True) if root.is_dir() else []


def load_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """``(tensors, state)`` of one checkpoint, after every file was checked against its digest.

    Raises:
        ValueError: a file is missing, changed or cut short.
    """
    try:
        digests = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"checkpoint {folder} has no readable {_MANIFEST}: {error}") from None
    for name, expected in digests.items():
        path = folder / name
        if not path.is_file() or _digest(path) != expected:
            raise ValueError(f"checkpoint {folder} is corrupted: {name} is missing or was changed")
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    tensors = {
        p.stem: torch.load(p, map_location="cpu", weights_only=True) for p in folder.glob("*.pt")
    }
    return tensors, state


def load_newest(
    root: Path, *, note: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The newest checkpoint that is whole; says which ones were passed over. None if there is none.

    Raises:
        ValueError: there are checkpoints, but every one is corrupted.
    """
    folders = list_checkpoints(root)
    for folder in folders:
        try:
            return load_checkpoint(folder)
        except ValueError as error:
            note(f"{error}; trying the one before")
    if folders:
        raise ValueError(
            f"all {len(folders)} checkpoints in {root} are corrupted; "
            "start anew with --overwrite or under another name"
        )
    return None


def seed_everything(seed: int) -> None:
    """Seeds every global random generator that a library below us might use."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """State of every global random generator that a library below us might use."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [str(kind), keys.tolist(), position, has_gauss, gauss],  # type: ignore[union-attr]
        "python": list(random.getstate()),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Puts back what ``rng_state`` returned."""
    torch.set_rng_state(state["torch"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _remove_unfinished(root: Path) -> None:
    for leftover in root.glob(".writing-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
