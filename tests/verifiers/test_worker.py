import json
import os
import signal
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from llmalign.verifiers import GoldError, Judgement, Verdict
from llmalign.verifiers.worker import OUT_OF_MEMORY, answer, load, resolve


def says(text: str, gold: Any, *, shout: bool = False) -> Any:
    """A verifier of this test, reached as ``MODULE:says``."""
    if text == "gold":
        raise GoldError("gold is bad")
    if text == "memory":
        raise MemoryError
    if text == "exit":
        sys.exit(2)
    if text == "deep":
        return says(text, gold)
    return {
        "none": None,
        "number": Judgement(Verdict.RIGHT, 3, ""),  # type: ignore[arg-type]
    }.get(text, Judgement(Verdict.RIGHT, text, "as it is"))


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "llmalign_test_worker", sys.modules[__name__])
    resolve.cache_clear()
    return "llmalign_test_worker:says"


def ask(kind: str, text: str) -> dict[str, Any]:
    return answer({"kind": kind, "text": text, "gold": None, "options": {}})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("memory", OUT_OF_MEMORY),
        ("exit", "raised SystemExit: 2"),
        ("deep", "raised RecursionError"),
        ("none", "raised TypeError: the verifier gave None, expected a Judgement"),
        ("number", "raised TypeError: the verifier gave Judgement"),
    ],
)
def test_whatever_a_verifier_does_is_undecided_and_says_why(kind: str, text: str, why: str) -> None:
    found = ask(kind, text)
    assert found["verdict"] == "undecided" and found["answer"] is None
    assert why in found["why"]
    assert found["seconds"] >= 0


def test_a_bad_gold_is_told_apart_from_a_judgement(kind: str) -> None:
    assert ask(kind, "gold")["gold_error"] == "gold is bad"


def test_an_answer_is_verdict_answer_reason_and_seconds(kind: str) -> None:
    found = ask(kind, "hello")
    assert 0 < found.pop("seconds") < 1
    assert found == {"verdict": "right", "answer": "hello", "why": "as it is"}


@pytest.mark.parametrize(
    ("kind", "options", "fault"),
    [
        ("maths", {}, "unknown verifier 'maths'"),
        ("no_such_module:judge", {}, "ModuleNotFoundError"),
        ("json:decoder", {}, "expected a function"),
        ("math", {"marker": 1}, "unexpected keyword argument 'marker'"),
    ],
)
def test_what_cannot_be_loaded_is_a_fault(kind: str, options: dict[str, Any], fault: str) -> None:
    found = load({"load": kind, "options": options})
    assert fault in found["fault"] and not found["machine"]


def test_loading_prepares_and_imports_what_a_verifier_needs_first() -> None:
    code = """
        import sys
        from llmalign.verifiers.worker import load
        assert "math_verify" not in sys.modules
        assert load({"load": "llmalign.verifiers.peers:trl", "options": {}}) == {"loaded": True}
        assert "math_verify" in sys.modules
        print(load({"load": "format", "options": {}})["fault"])
    """
    code = textwrap.dedent(code)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "format has no condition" in out.stdout


def _message(body: dict[str, Any]) -> bytes:
    encoded = json.dumps(body).encode()
    return len(encoded).to_bytes(4, "big") + encoded


def _worker(*messages: dict[str, Any], parent: int | None = None) -> tuple[list[Any], int]:
    """The answers of one worker process to messages written at once, and its exit status."""
    process = subprocess.run(
        [sys.executable, "-m", "llmalign.verifiers.worker", str(parent or os.getpid())],
        input=b"".join(map(_message, messages)),
        capture_output=True,
        timeout=60,
    )
    answers, rest = [], process.stdout
    while rest:
        size = int.from_bytes(rest[:4], "big")
        answers.append(json.loads(rest[4 : 4 + size]))
        rest = rest[4 + size :]
    return answers, process.returncode


def test_requests_written_at_once_are_answered_in_order_until_stdin_ends() -> None:
    requests = [
        {"kind": "math", "text": rf"\boxed{{{i}}}", "gold": 1, "options": {}} for i in range(50)
    ]
    loading = {"load": "math", "options": {}}
    answers, status = _worker({"memory_mb": 1024}, loading, *requests)
    assert answers[:2] == [{"ready": True}, {"loaded": True}]
    assert [a["answer"] for a in answers[2:]] == [str(i) for i in range(50)]
    assert status == 0


def test_a_worker_whose_parent_is_gone_already_does_not_start() -> None:
    assert _worker({"memory_mb": 1024}, parent=1) == ([], 1)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
def test_the_guard_ends_as_its_worker_ended(number: int) -> None:
    # os.kill(0, number) reaches the worker's process group, which the guard is no part of.
    kill = {"kind": "os:kill", "text": 0, "gold": number, "options": {}}
    assert _worker({"memory_mb": 1024}, kill) == ([{"ready": True}], -number)
