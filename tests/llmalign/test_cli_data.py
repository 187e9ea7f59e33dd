"""The data commands as a user meets them: in a process of their own."""

import json
import os
import socket
import subprocess
import sys

import pytest

REFERENCE = "the quick brown fox jumps over the lazy dog at noon"


def llmalign(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "llmalign.cli", "data", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )


@pytest.fixture
def pool(tmp_path):
    words = REFERENCE.split()
    rows = [
        {"id": f"cut {n}", "references": REFERENCE, "completion": " ".join(words[:n])}
        for n in (11, 5, 8)
    ]
    rows.append({"id": "short", "references": "Paris", "completion": "Paris"})
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps({"prompt": row["id"], **row}) + "\n" for row in rows))
    return path


def test_hard_writes_the_lowest_and_lists_what_has_no_score(pool, tmp_path):
    out = tmp_path / "hard.jsonl"
    done = llmalign("hard", "bleu", pool, "--count", 2, "--output", out)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["cut 8", "cut 5"]
    assert set(rows[0]) == {"id", "prompt", "references"}
    (left,) = json.loads((tmp_path / "hard.left_out.json").read_text())
    assert (left["row"], left["id"]) == (4, "short") and "expected 8 or more" in left["why"]
    assert "rows without score │ 1" in done.stdout and "column 'references' holds" in done.stdout
    before = out.read_bytes()
    again = llmalign("hard", "bleu", pool, "--count", 1, "--output", out)
    assert again.returncode == 1 and "exists; name another --output" in again.stderr
    assert out.read_bytes() == before
    forced = llmalign("hard", "bleu", pool, "--count", 1, "--output", out, "--overwrite", "--json")
    summary = json.loads(forced.stdout)
    assert (summary["kept"], summary["dropped"], summary["rows_without_score"]) == (1, 2, 1)
    assert len(out.read_text().splitlines()) == 1


def test_rubrics_with_a_judge_that_is_down_say_how_to_go_on(tmp_path):
    source, out = tmp_path / "pairs.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    with socket.socket() as taken:  # bound, not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        done = llmalign(
            "rubrics", source, "--output", out, "--judge-model", "m", "--judge-url", url,
            "--retries", 0,
        )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    kept = tmp_path / "out.progress.jsonl"
    assert f"0 of 1 pairs are done and kept in {kept}; mend the judge" in done.stderr
    assert not out.exists()
