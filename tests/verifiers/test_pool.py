import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmalign.verifiers import GoldError, Verdict
from llmalign.verifiers.pool import VerifierPool

TIMEOUT_S = 1.0

PLUGIN = """
import os, signal, subprocess, sys, time
from llmalign.verifiers import GoldError, Judgement, Verdict

def judge(text, gold, *, answer="yes"):
    if text == "hang":
        time.sleep(1000)
    if text == "hang in C":
        (10 ** 10 ** 8) ** 10
    if text == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if text == "exit":
        sys.exit(3)
    if text == "raise":
        raise KeyError("inside")
    if text == "bomb":
        return [0] * 10 ** 10
    if text == "bad gold":
        raise GoldError("gold is bad")
    if text == "noise":
        print("noise " * 1000)
        os.write(1, b"noise" * 1000)
    if text == "child":
        child = subprocess.Popen(["sleep", "1000"])
        with open(gold, "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        time.sleep(1000)
    if text == "pid":
        return Judgement(Verdict.RIGHT, str(os.getpid()), "")
    return Judgement(Verdict.RIGHT if text == answer else Verdict.WRONG, text, "")

not_a_function = 3
"""


@pytest.fixture(scope="module")
def plugin_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "llmalign_test_plugin.py").write_text(PLUGIN)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def pool(plugin_folder: Path) -> Iterator[VerifierPool]:
    with VerifierPool(2, TIMEOUT_S, memory_mb=1024) as pool:
        pool.judge_many("llmalign_test_plugin:judge", [("warm", None)])
        yield pool


def plugin(pool: VerifierPool, *texts: str, **options: Any) -> list[Verdict]:
    pairs = [(text, None) for text in texts]
    judgements = pool.judge_many("llmalign_test_plugin:judge", pairs, options)
    return [judgement.verdict for judgement in judgements]


def test_judgements_come_in_the_order_of_the_pairs(pool: VerifierPool) -> None:
    pairs = [(rf"\boxed{{{i}}}", i if i % 3 else i + 1) for i in range(64)]
    judgements = pool.judge_many("math", pairs, {"forms": ["boxed"]})
    assert [j.answer for j in judgements] == [str(i) for i in range(64)]
    assert [j.verdict is Verdict.RIGHT for j in judgements] == [bool(i % 3) for i in range(64)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hang", "timed out after 1 s"),
        ("hang in C", "timed out after 1 s"),
        ("die", "crashed: SIGKILL"),
        ("exit", "raised SystemExit: 3"),
        ("raise", "raised KeyError: 'inside'"),
        ("bomb", "out of memory"),
    ],
)
def test_a_failure_is_undecided_says_why_and_the_pool_goes_on(
    pool: VerifierPool, text: str, why: str
) -> None:
    began = time.perf_counter()
    pairs = [("yes", None), (text, None), ("no", None)]
    judgements = pool.judge_many("llmalign_test_plugin:judge", pairs)
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


def test_what_a_verifier_prints_does_not_reach_the_protocol(
    pool: VerifierPool, capfd: pytest.CaptureFixture[str]
) -> None:
    assert plugin(pool, "noise", "yes") == [Verdict.WRONG, Verdict.RIGHT]
    assert "noise" not in "".join(capfd.readouterr())


def test_a_large_text_passes_through_the_pipes(pool: VerifierPool) -> None:
    text = "é" * 1_000_000
    (judgement,) = pool.judge_many("llmalign_test_plugin:judge", [(text, None)], {"answer": text})
    assert judgement.verdict is Verdict.RIGHT
    assert judgement.answer == text


def test_a_lone_surrogate_passes_through_the_pipes(pool: VerifierPool) -> None:
    assert plugin(pool, "\ud800") == [Verdict.WRONG]


def test_threads_share_the_pool_and_get_their_own_answers(pool: VerifierPool) -> None:
    def judge(i: int) -> list[str | None]:
        pairs = [(rf"\boxed{{{i * 100 + k}}}", 1) for k in range(10)]
        return [j.answer for j in pool.judge_many("math", pairs)]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(judge, range(1, 25)))
    assert found == [[str(i * 100 + k) for k in range(10)] for i in range(1, 25)]


def test_coroutines_share_the_pool(pool: VerifierPool) -> None:
    async def judge_all() -> list[list[Verdict]]:
        calls = [asyncio.to_thread(plugin, pool, f"{i}", answer=f"{i}") for i in range(8)]
        return await asyncio.gather(*calls)

    assert asyncio.run(judge_all()) == [[Verdict.RIGHT]] * 8


def test_decided_judgements_are_remembered_and_undecided_ones_are_not(pool: VerifierPool) -> None:
    pairs = [("pid", "remembered")] * 3
    first = pool.judge_many("llmalign_test_plugin:judge", pairs)
    again = pool.judge_many("llmalign_test_plugin:judge", pairs)
    assert len({j.answer for j in first + again}) == 1
    assert again[0].seconds == 0.0 < first[0].seconds
    before = pool.judge_many("llmalign_test_plugin:judge", [("raise", "again")])
    after = pool.judge_many("llmalign_test_plugin:judge", [("raise", "again")])
    assert min(before[0].seconds, after[0].seconds) > 0.0


def test_options_and_golds_are_part_of_what_is_remembered(pool: VerifierPool) -> None:
    assert plugin(pool, "maybe") == [Verdict.WRONG]
    assert plugin(pool, "maybe", answer="maybe") == [Verdict.RIGHT]
    assert [pool.judge_many("math", [(r"\boxed{5}", g)])[0].verdict for g in (5, 6)] == [
        Verdict.RIGHT,
        Verdict.WRONG,
    ]


@pytest.mark.parametrize(
    ("kind", "gold"),
    [("llmalign_test_plugin:judge", None), ("math", ""), ("math", object())],
    ids=["plug-in", "empty", "not JSON"],
)
def test_a_bad_gold_is_raised_in_the_caller(pool: VerifierPool, kind: str, gold: Any) -> None:
    with pytest.raises(GoldError, match="gold is"):
        pool.judge_many(kind, [("bad gold", gold)])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("maths", {}, "unknown verifier 'maths'; did you mean 'math'"),
        ("math", {"form": ["boxed"]}, "unknown option 'form'; did you mean 'forms'"),
        ("math", {"forms": ["box"]}, "expected"),
        ("llmalign_no_such_module:judge", {}, "No module named"),
        ("llmalign_test_plugin:judges", {}, "has no attribute 'judges'"),
        ("llmalign_test_plugin:not_a_function", {}, "expected a function"),
        ("llmalign_test_plugin:judge", {"reply": "yes"}, "unexpected keyword argument 'reply'"),
    ],
)
def test_a_wrong_verifier_or_option_is_an_error_of_the_caller(
    pool: VerifierPool, kind: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pool.judge_many(kind, [("yes", "1")], options)


def test_no_pairs_give_no_judgements(pool: VerifierPool) -> None:
    assert pool.judge_many("math", []) == []


@pytest.mark.parametrize(
    "arguments",
    [{"workers": 0}, {"workers": 1, "timeout_s": 0.0}, {"workers": 1, "memory_mb": -1}],
    ids=["workers", "timeout_s", "memory_mb"],
)
def test_the_limits_must_be_positive(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected > 0"):
        VerifierPool(**arguments)


def test_a_worker_that_cannot_start_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with VerifierPool(1) as pool:
        with pytest.raises(RuntimeError, match="cannot start: crashed: exit status 1"):
            pool.judge_many("math", [(r"\boxed{1}", 1)])


def test_a_closed_pool_refuses_and_the_call_under_way_fails(plugin_folder: Path) -> None:
    pool = VerifierPool(1, timeout_s=60.0)
    plugin(pool, "warm")
    failures: list[BaseException] = []

    def hang() -> None:
        try:
            plugin(pool, "hang", "yes")
        except RuntimeError as error:
            failures.append(error)

    caller = threading.Thread(target=hang)
    caller.start()
    time.sleep(0.3)
    began = time.perf_counter()
    pool.close()
    caller.join(10)
    assert time.perf_counter() - began < 10
    assert "closed" in str(failures[0])
    with pytest.raises(RuntimeError, match="closed"):
        plugin(pool, "yes")


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


def test_no_worker_outlives_a_killed_parent(plugin_folder: Path, tmp_path: Path) -> None:
    note = tmp_path / "pids"
    code = f"""
        from llmalign.verifiers.pool import VerifierPool
        pool = VerifierPool(2, 1000.0)
        pool.judge_many("llmalign_test_plugin:judge", [("child", {str(note)!r})])
    """
    process = _start(code, plugin_folder)
    _wait_for(lambda: note.exists() and len(note.read_text().split()) == 2)
    worker, grandchild = map(int, note.read_text().split())
    workers = _children(process.pid)
    assert worker in workers and len(workers) == 2
    process.kill()
    process.wait()
    _wait_for(lambda: not any(map(_alive, workers)))
    os.kill(grandchild, signal.SIGKILL)  # a verifier's own children are not ours to find


def test_what_a_verifier_started_dies_with_its_worker(pool: VerifierPool, tmp_path: Path) -> None:
    note = tmp_path / "pids"
    (judgement,) = pool.judge_many("llmalign_test_plugin:judge", [("child", str(note))])
    assert "timed out" in judgement.why
    _wait_for(lambda: not any(_alive(int(pid)) for pid in note.read_text().split()))


def _start(code: str, folder: Path) -> "subprocess.Popen[bytes]":
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )


def _children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for t in threads for child in (t / "children").read_text().split()]


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
