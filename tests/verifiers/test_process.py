"""Whatever happens to a worker process: what the caller sees of it, and what is left of it."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmalign.verifiers import Verdict
from llmalign.verifiers.pool import VerifierPool

TIMEOUT_S = 0.6  # of the pool of conftest.py
KIND = "llmalign_test_plugin:judge"


def plugin(pool: VerifierPool, *texts: str, **options: Any) -> list[Verdict]:
    pairs = [(text, None) for text in texts]
    judgements = pool.judge_many(KIND, pairs, options)
    return [judgement.verdict for judgement in judgements]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hang", "timed out after 0.6 s"),
        ("hang in C", "timed out after 0.6 s"),
        ("die", "crashed: SIGKILL"),
        ("exit", "raised SystemExit: 3"),
        ("raise", "raised KeyError: 'inside'"),
        ("bomb", "out of memory"),
        ("segfault", "crashed: SIGSEGV"),
        ("stop", "timed out after 0.6 s"),
        ("nonsense", "raised TypeError: the verifier gave True"),
    ],
)
def test_a_failure_is_undecided_says_why_and_the_pool_goes_on(
    pool: VerifierPool, text: str, why: str
) -> None:
    began = time.perf_counter()
    pairs = [("yes", None), (text, None), ("no", None)]
    judgements = pool.judge_many(KIND, pairs)
    assert [j.verdict for j in judgements] == [Verdict.RIGHT, Verdict.UNDECIDED, Verdict.WRONG]
    assert why in judgements[1].why
    # Room for a busy machine and a new worker, but far below the sleep.
    assert time.perf_counter() - began < TIMEOUT_S + 20
    assert plugin(pool, "yes", "other") == [Verdict.RIGHT, Verdict.WRONG]


@pytest.mark.parametrize(
    "answer",
    ["1E+1000000000", "9**9**9**9", "10**10**10", "9" * 100_000, "9" * 1_900, "99999999!",
     "(x+1)**5000", "(" * 900 + ")" * 900, "\\frac{1}{" * 200],
    ids=lambda answer: answer[:16],
)  # fmt: skip
def test_hostile_answers_come_back_within_the_limit_and_are_never_right(
    pool: VerifierPool, answer: str
) -> None:
    began = time.perf_counter()
    (judgement,) = pool.judge_many("math", [(rf"\boxed{{{answer}}}", r"\frac{1}{2}")])
    assert judgement.verdict is not Verdict.RIGHT
    assert judgement.seconds < TIMEOUT_S + 5
    assert time.perf_counter() - began < TIMEOUT_S + 20


def test_a_worker_that_forks_answers_once_and_its_children_go_with_it(
    plugin_folder: Path, tmp_path: Path
) -> None:
    with VerifierPool(1, 5.0) as pool:
        texts = ["fork twice", "a", "fork and hang", "b", "threads", "c"]
        judgements = pool.judge_many(KIND, [(text, None) for text in texts])
        assert [j.answer for j in judgements] == texts
        assert plugin(pool, "yes") == [Verdict.RIGHT]


def test_a_flood_of_output_neither_stalls_nor_shows(
    pool: VerifierPool, capfd: pytest.CaptureFixture[str]
) -> None:
    assert plugin(pool, "flood", "yes") == [Verdict.WRONG, Verdict.RIGHT]
    assert "".join(capfd.readouterr()) == ""


def test_what_a_verifier_prints_does_not_reach_the_protocol(
    pool: VerifierPool, capfd: pytest.CaptureFixture[str]
) -> None:
    assert plugin(pool, "noise", "yes") == [Verdict.WRONG, Verdict.RIGHT]
    assert "noise" not in "".join(capfd.readouterr())


def test_a_large_text_passes_through_the_pipes(pool: VerifierPool) -> None:
    text = "é" * 1_000_000
    (judgement,) = pool.judge_many(KIND, [(text, None)], {"answer": text})
    assert judgement.verdict is Verdict.RIGHT
    assert judgement.answer == text


def test_a_lone_surrogate_passes_through_the_pipes(pool: VerifierPool) -> None:
    assert plugin(pool, "\ud800") == [Verdict.WRONG]


def test_a_thousand_requests_with_every_kind_of_failure_among_them(plugin_folder: Path) -> None:
    bad = {
        "hang": "timed out",
        "hang in C": "timed out",
        "stop": "timed out",
        "die": "crashed: SIGKILL",
        "segfault": "crashed: SIGSEGV",
        "exit": "raised SystemExit",
        "raise": "raised KeyError",
        "bomb": "out of memory",
        "nonsense": "raised TypeError",
        "flood": "",
        "fork twice": "",
        "noise": "",
    }
    texts = [f"text {i}" for i in range(1000)]
    for place, text in zip(range(7, 1000, 20), itertools.cycle(bad), strict=False):
        texts[place] = text
    began = time.perf_counter()
    with VerifierPool(2, 0.4, memory_mb=1024, cache_size=0) as pool:
        judgements = pool.judge_many(KIND, [(text, None) for text in texts])
        stats = pool.stats()
    assert time.perf_counter() - began < 60  # two workers: 14 time-outs of 0.4 s, 26 starts
    for text, judgement in zip(texts, judgements, strict=True):
        if bad.get(text):
            assert judgement.verdict is Verdict.UNDECIDED and bad[text] in judgement.why
        else:
            assert (judgement.verdict, judgement.answer) == (Verdict.WRONG, text)
    assert stats.judged == 1000
    expected = Counter(bad[text].partition(":")[0] for text in texts if bad.get(text))
    assert stats.undecided == expected
    assert stats.killed == expected["timed out"] + expected["out of memory"]
    assert stats.restarted >= stats.killed + expected["crashed"] - 2  # save where none came after


def test_a_worker_that_cannot_start_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with VerifierPool(1) as pool:
        began = time.perf_counter()
        with pytest.raises(RuntimeError, match="cannot start: crashed: exit status 1"):
            pool.judge_many("math", [(rf"\boxed{{{i}}}", 1) for i in range(5000)])
        assert time.perf_counter() - began < 10


def test_workers_outlive_an_interrupt_of_the_whole_group(plugin_folder: Path) -> None:
    code = """
        import os, signal, sys, time
        from llmalign.verifiers.pool import VerifierPool
        kind = "llmalign_test_plugin:judge"
        pool = VerifierPool(1, 30.0)
        pid = pool.judge_many(kind, [("pid", 1)])[0].answer
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
            os.killpg(0, number)
        os.kill(int(pid), signal.SIGINT)
        time.sleep(0.2)
        assert pool.judge_many(kind, [("pid", 2)])[0].answer == pid
        pool.close()
    """
    process = _start(code, plugin_folder)
    assert process.wait(60) == 0


@pytest.mark.parametrize("text", ["child", "daemon"])
def test_nothing_outlives_a_killed_parent(plugin_folder: Path, tmp_path: Path, text: str) -> None:
    note = tmp_path / "pids"
    code = f"""
        from llmalign.verifiers.pool import VerifierPool
        pool = VerifierPool(2, 1000.0)
        pool.judge_many({KIND!r}, [({text!r}, {str(note)!r})])
    """
    process = _start(code, plugin_folder)
    _wait_for(note.exists)
    _wait_for(lambda: len(_descendants(process.pid)) == 5)  # two guards, two workers, its own
    family = _descendants(process.pid) | set(map(int, note.read_text().split()))
    process.kill()
    process.wait()
    _wait_for(lambda: not any(map(_alive, family)))


@pytest.mark.parametrize("text", ["child", "daemon"])
def test_what_a_verifier_started_dies_with_its_worker(
    pool: VerifierPool, tmp_path: Path, text: str
) -> None:
    note = tmp_path / "pids"
    (judgement,) = pool.judge_many(KIND, [(text, str(note))])
    assert "timed out" in judgement.why
    pids = [int(pid) for pid in note.read_text().split()]
    assert len(pids) == 2
    _wait_for(lambda: not any(map(_alive, pids)))


def test_a_closed_pool_leaves_no_process(plugin_folder: Path) -> None:
    before = _descendants(os.getpid())
    with VerifierPool(1, 5.0) as pool:
        assert plugin(pool, "fork and hang", "yes")[1] is Verdict.RIGHT
        assert len(_descendants(os.getpid()) - before) == 3  # guard, worker, the worker's child
    assert not _descendants(os.getpid()) - before


def test_a_worker_goes_before_its_trainer_when_the_machine_runs_out_of_memory(
    pool: VerifierPool,
) -> None:
    pid = pool.judge_many(KIND, [("pid", "for the kernel")])[0].answer
    own, workers = (Path(f"/proc/{p}/oom_score_adj").read_text() for p in ("self", pid))
    assert int(workers) > int(own)


def test_a_worker_does_not_outlive_its_guard(plugin_folder: Path) -> None:
    with VerifierPool(1, 60.0) as pool:
        pid = int(pool.judge_many(KIND, [("pid", None)])[0].answer or 0)
        threading.Timer(0.3, os.kill, (_parent(pid), signal.SIGKILL)).start()
        (judgement,) = pool.judge_many(KIND, [("hang", None)])
        assert judgement.why == "crashed: SIGKILL"
        assert plugin(pool, "yes") == [Verdict.RIGHT]
    assert not _alive(pid)


@pytest.mark.slow
def test_a_guard_that_stands_still_is_killed_too(plugin_folder: Path) -> None:
    with VerifierPool(1, 0.5) as pool:
        pid = int(pool.judge_many(KIND, [("pid", None)])[0].answer or 0)
        os.kill(_parent(pid), signal.SIGSTOP)
        assert plugin(pool, "hang", "yes") == [Verdict.UNDECIDED, Verdict.RIGHT]
        _wait_for(lambda: not _alive(pid))


def test_a_pool_outlives_the_thread_that_opened_it(plugin_folder: Path) -> None:
    with ThreadPoolExecutor(1) as thread:
        pool = thread.submit(VerifierPool, 1, 5.0).result()
    with pool:
        pid = pool.judge_many(KIND, [("pid", 1)])[0].answer
        assert pool.judge_many(KIND, [("pid", 2)])[0].answer == pid


def test_a_fork_cannot_use_the_pool_and_does_it_no_harm(pool: VerifierPool) -> None:
    pid = pool.judge_many(KIND, [("pid", "before the fork")])[0].answer
    inside, outside = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            pool.judge_many(KIND, [("yes", None)])
        except RuntimeError as error:
            pool.close()
            pipes = [os.readlink(f"/proc/self/fd/{fd}") for fd in _pipes_of_workers(pool)]
            os.write(outside, f"{error} {pipes}".encode())
        finally:
            os._exit(0)
    os.close(outside)
    os.waitpid(child, 0)
    with os.fdopen(inside) as pipe:
        said = pipe.read()
    assert "is a fork of it; open a pool in each process" in said and said.endswith("[]")
    again = {pool.judge_many(KIND, [("pid", f"after {i}")])[0].answer for i in range(20)}
    assert pid in again and plugin(pool, "yes") == [Verdict.RIGHT]


def test_ranks_have_pools_of_their_own(plugin_folder: Path) -> None:
    code = f"""
        from llmalign.verifiers.pool import VerifierPool
        with VerifierPool(2, 20.0) as pool:
            found = pool.judge_many({KIND!r}, [(f"{{i}}", None) for i in range(300)])
        assert [j.answer for j in found] == [f"{{i}}" for i in range(300)]
    """
    ranks = [_start(code, plugin_folder) for _ in range(3)]
    assert [rank.wait(60) for rank in ranks] == [0, 0, 0]


def _start(code: str, folder: Path) -> "subprocess.Popen[bytes]":
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            above = int(entry.name)
            while above not in (0, 1, pid):
                above = _parent(above)
            if above == pid and entry.name != str(pid) and _alive(int(entry.name)):
                found.add(int(entry.name))
    return found


def _pipes_of_workers(pool: VerifierPool) -> list[int]:
    processes = [worker._process for worker in pool._workers]
    pipes = [pipe for p in processes if p for pipe in (p.stdin, p.stdout) if pipe]
    return [pipe.fileno() for pipe in pipes if not pipe.closed]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in ("Z", "X")


def _wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)
