import resource
import subprocess
import sys
import textwrap

import pytest
import torch

from llmalign.scale.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    load_newest,
    rng_state,
    save_checkpoint,
    set_rng_state,
)


def save(root, step, keep=3, size=10):
    return save_checkpoint(
        root, step, {"m": {"w": torch.full((size,), float(step))}}, {"s": step}, keep=keep
    )


def test_a_checkpoint_reads_back_and_old_ones_go(tmp_path):
    for step in (1, 2, 3, 10):
        save(tmp_path, step, keep=2)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000010", "step-00000003"]
    tensors, state = load_checkpoint(list_checkpoints(tmp_path)[0])
    assert state == {"s": 10} and tensors["m"]["w"][0] == 10


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest"])
def test_a_corrupted_newest_falls_back_to_the_one_before_and_says_so(tmp_path, damage):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    file = newest / ("manifest.json" if damage == "manifest" else "m.pt")
    if damage == "remove":
        file.unlink()
    else:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data[: len(data) // 2] if damage in {"cut", "manifest"} else data)
    notes = []
    _, state = load_newest(tmp_path, note=notes.append)
    assert state == {"s": 1}
    assert len(notes) == 1 and "step-00000002" in notes[0] and "trying the one before" in notes[0]


def test_when_all_are_corrupted_nothing_is_believed(tmp_path):
    (save(tmp_path, 1) / "m.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match="all 1 checkpoints .* are corrupted"):
        load_newest(tmp_path, note=lambda _: None)


def test_an_unfinished_folder_is_never_read_and_is_cleared_away(tmp_path):
    (tmp_path / ".writing-00000005-1").mkdir(parents=True)
    assert load_newest(tmp_path, note=lambda _: None) is None
    save(tmp_path, 6)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000006"]


def test_a_disk_that_takes_no_more_leaves_the_last_good_one(tmp_path):
    # A file-size limit makes the operating system refuse the write for real.
    code = textwrap.dedent(f"""
        import resource, sys
        from pathlib import Path
        import torch
        from llmalign.scale.checkpoint import save_checkpoint
        root = Path({str(tmp_path)!r})
        save_checkpoint(root, 1, {{"m": torch.zeros(10)}}, {{}}, keep=1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_checkpoint(root, 2, {{"m": torch.zeros(1_000_000)}}, {{}}, keep=1)
        except RuntimeError as error:
            print(error)
    """)
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "checkpoint of step 2 cannot be written" in out and "step-00000001" in out
    assert "--resume auto" in out
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert load_newest(tmp_path, note=print) is not None
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_random_generators_go_on_where_they_were(tmp_path):
    import random

    import numpy as np

    def draw():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()

    state = rng_state()
    torch.save(state, tmp_path / "rng.pt")
    expected = draw()
    draw()
    set_rng_state(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert draw() == expected
