"""Does a program do what it should? It runs in a sandbox; what it gave is judged outside.

Expected values never enter the sandbox: inputs go in, plain data comes out and is compared here.
Tests written as code run here too, against stand-ins for what the program defines.
"""

import builtins
import re
import textwrap
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Literal

from llmalign.verifiers import VERIFIERS, sandbox
from llmalign.verifiers.extract import after_thinking
from llmalign.verifiers.sandbox import compare, remote, wire
from llmalign.verifiers.sandbox.gold import Tests, read_gold
from llmalign.verifiers.sandbox.host import MAX_PROGRAM
from llmalign.verifiers.verdict import GoldError, Judgement, Verdict

Form = Literal["response", "program"]

CELL_S = 1.0  # what one start of a program may cost on a busy machine, beside its own time
_START_S = 10.0

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^`\n]*)$", re.MULTILINE)
_PYTHON = {"", "python", "py", "python3", "python2", "py3", "pycon"}


def check_gold(gold: Any) -> None:
    """Raises GoldError unless ``gold`` is a test object, see ``sandbox.gold``."""
    read_gold(gold)


def budget_s(gold: Any, options: Mapping[str, Any]) -> float:
    """The longest one judgement may take, in seconds: every case up to its limit."""
    tests = read_gold(gold)
    runs = {"stdio": len(tests.cases), "function": len(tests.cases) + 1, "asserts": 1}
    return _START_S + runs[tests.type] * (tests.time_limit_s + CELL_S)


def prepare(*, form: Form = "response", level: sandbox.Level = "strict") -> None:
    """Starts the sandbox; raises SandboxError where the machine does not reach ``level``."""
    sandbox.probe().demand(level)


def audit_row(row: Mapping[str, Any]) -> tuple[str, Any, dict[str, Any]]:
    """How a labelled row is judged: its program by its tests."""
    return row["program"], row["tests"], {"form": "program"}


def find_program(text: str, form: Form) -> str:
    """The program in a response: its last block of Python code, else all of it; or ``text``.

    Only what stands after the last ``</think>`` is read. A block that is never closed counts.
    """
    if form == "program":
        return text
    text = after_thinking(text)
    blocks = [body for label, body in _blocks(text) if label in _PYTHON]
    return blocks[-1] if blocks else ("" if _FENCE.search(text) else text)


def _blocks(text: str) -> list[tuple[str, str]]:
    """(label, content) of each fenced block."""
    found: list[tuple[str, str]] = []
    fence, label, lines = "", "", [""]
    for line in text.splitlines():
        match = _FENCE.match(line)
        if match and not fence:
            fence, label, lines = match[1], match[2].strip().partition(" ")[0].lower(), []
        elif match and match[1].startswith(fence) and not match[2].strip():
            found.append((label, textwrap.dedent("\n".join(lines))))
            fence = ""
        elif fence:
            lines.append(line)
    if fence:
        found.append((label, textwrap.dedent("\n".join(lines))))
    return found


@VERIFIERS.register(
    "code",
    paper="",
    traits={
        "signature": "code|v1",
        "check_gold": check_gold,
        "preload": (),
        "budget_s": budget_s,
        "prepare": prepare,
        "audit_row": audit_row,
    },
)
def judge(
    text: str, gold: Any, *, form: Form = "response", level: sandbox.Level = "strict"
) -> Judgement:
    """Runs a Python program against its tests, inside a sandbox that it cannot deceive.

    Args:
        text: a response, or a program. Whatever it is, it never raises.
        gold: the tests: ``{"type": "stdio", "cases": [{"stdin": …, "stdout": …}]}``,
            ``{"type": "function", "entry_point": …, "cases": [{"args": […], "expected": …}]}`` or
            ``{"type": "asserts", "entry_point": …, "code": …}``, with their limits; see
            ``sandbox.gold.Tests`` for every key.
        form: ``response``: the program is the last fenced block after the last ``</think>``, or
            all of the text where there is none; ``program``: the text is the program.
        level: the least isolation that will do; where the machine offers less, undecided.
    Raises:
        GoldError: the tests cannot be read, or hand the program what cannot reach it.
    """
    tests = read_gold(gold)
    program = find_program(text, form).rstrip()
    if not program.strip():
        return Judgement(Verdict.NO_ANSWER, None, "no program found")
    answer = "\n".join(line.rstrip() for line in program.splitlines())
    if len(program) > MAX_PROGRAM:
        return Judgement(Verdict.WRONG, None, f"the program is over {MAX_PROGRAM} characters")
    try:
        why = _KINDS[tests.type](program, tests, level)
    except sandbox.SandboxError as error:
        return Judgement(Verdict.UNDECIDED, answer, f"sandbox: {error}"[:300])
    except OSError as error:  # such as too many open files: ours, not the program's
        return Judgement(Verdict.UNDECIDED, answer, f"sandbox: {error}"[:300])
    except wire.WireError as error:
        raise GoldError(f"the tests cannot be sent: {error}; split them") from None
    except MemoryError:
        return Judgement(Verdict.UNDECIDED, answer, "sandbox: out of memory outside it")
    if why:
        unread = why.startswith("SyntaxError") and form == "response" and program == text.rstrip()
        verdict = Verdict.NO_ANSWER if unread else Verdict.WRONG
        return Judgement(verdict, None if unread else answer, why)
    return Judgement(Verdict.RIGHT, answer, "passes all tests")


def _stdio(program: str, tests: Tests, level: sandbox.Level) -> str:
    """Each case is a run of its own; in words the first failure, or nothing."""
    for number, case in enumerate(tests.cases, 1):
        found = sandbox.run(program, case["stdin"], limits=tests.limits, level=level)
        if found.remark.startswith("SyntaxError"):
            return found.remark
        why = found.why if found.status != "ok" else _output_differs(tests, case, found.stdout)
        if why:
            return f"case {number}: {why}"
    return ""


def _output_differs(tests: Tests, case: Mapping[str, Any], got: bytes) -> str:
    expected = case["stdout"].encode("utf-8", "surrogatepass")
    try:
        text = got.decode()
    except UnicodeDecodeError:
        return "output is not UTF-8"
    if tests.custom is not None:
        return _custom_differs(tests.custom, case, text)
    if tests.checker == "float":
        return compare.floats_differ(expected, got, tests.float_tol or 0.0)
    if tests.checker == "exact":
        return compare.texts_differ(expected, got)
    return compare.tokens_differ(expected, got)


def _custom_differs(check: Callable[..., Any], case: Mapping[str, Any], got: str) -> str:
    try:
        right = check(case["stdin"], got, case["stdout"])
    except Exception as error:  # noqa: BLE001  (a checker that stumbles over an output refuses it)
        return f"the checker refuses the output: {type(error).__name__}"
    return "" if right else "the checker refuses the output"


def _function(program: str, tests: Tests, level: sandbox.Level) -> str:
    """All cases call into one run of the program; in words the first failure, or nothing."""
    order = {"mode": "session", "source": program, "prelude": tests.prelude}
    with sandbox.opened(tests.session_limits, level, order) as cell:
        session = remote.Session(cell, cell.started_at + tests.time_limit_s)
        try:
            if missing := _undefined(session.load(), tests.entry_point):
                return missing
            for number, case in enumerate(tests.cases, 1):
                session.deadline = time.monotonic() + tests.time_limit_s
                if why := _case_differs(session, tests, case):
                    return f"case {number}: {why}"
        except remote.Stopped as stopped:
            return str(stopped)
    return ""


def _undefined(names: list[str], entry: str) -> str:
    return "" if entry.partition(".")[0] in names else f"does not define {entry}"


def _case_differs(session: remote.Session, tests: Tests, case: Mapping[str, Any]) -> str:
    try:
        got = session.call(tests.entry_point, case["args"], case["kwargs"], watch=False)
    except remote.Unsendable as error:
        raise GoldError(f"case arguments cannot be sent: {error}") from None
    except Exception as error:  # noqa: BLE001  (raised by the program, in our terms)
        return f"raised {type(error).__name__}: {str(error)[:100]}"
    expected = case["expected"]
    if compare.same_value(expected, got, tolerance=tests.float_tol, typed=tests.typed):
        return ""
    if isinstance(got, remote.RemoteObject):
        return f"gives an object, expected {compare.show(expected)}"
    return f"gives {compare.show(got)}, expected {compare.show(expected)}"


def _asserts(program: str, tests: Tests, level: sandbox.Level) -> str:
    """The tests run here, the program there; in words the first failure, or nothing."""
    if tests.shared_interpreter:
        return _shared(program, tests, level)
    order = {"mode": "session", "source": program, "prelude": tests.prelude}
    with sandbox.opened(tests.limits, level, order) as cell:
        session = remote.Session(cell, cell.started_at + tests.time_limit_s)
        try:
            names = session.load()
            if tests.entry_point and (missing := _undefined(names, tests.entry_point)):
                return missing
            _run_tests(session, tests, names)
        except remote.Stopped as stopped:
            return str(stopped)
        except remote.Unsendable as error:
            raise GoldError(
                f"the tests hand the program what cannot reach it: {error}; "
                "set shared_interpreter: true in the gold, which a program can forge"
            ) from None
        except (Exception, SystemExit) as error:  # noqa: BLE001  (a test failed)
            return session.stopped or _failure(error, tests.code)
        return session.stopped or ""


def _run_tests(session: remote.Session, tests: Tests, names: list[str]) -> None:
    """Runs trusted test code, with the program's names where it has none of its own."""
    space: dict[str, Any] = {"__name__": "tests"}
    exec(compile(tests.prelude, "prelude", "exec"), space)
    own = tests.own_names
    for name in tests.wanted_names:
        given = name in names and name not in own and name not in space
        if name == tests.entry_point.partition(".")[0] or (given and not hasattr(builtins, name)):
            space[name] = session.get(name)
        elif name in tests.modules and name not in space:
            space[name] = __import__(name)  # tests lean on what programs usually import
    exec(compile(tests.code, remote.TESTS, "exec"), space)


def _failure(error: BaseException, code: str) -> str:
    """A failed test in words, with its line."""
    lines = code.splitlines()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == remote.TESTS and frame.lineno and frame.lineno <= len(lines):
            where = lines[frame.lineno - 1].strip()[:80]
            return f"{type(error).__name__}: {str(error)[:60]} at: {where}".replace(":  at", " at")
    return f"{type(error).__name__}: {str(error)[:100]}"


def _shared(program: str, tests: Tests, level: sandbox.Level) -> str:
    """Program and tests in one interpreter: a program that tries can forge its success."""
    order = {"mode": "shared", "source": program, "tests": f"{tests.prelude}\n{tests.code}"}
    with sandbox.opened(tests.limits, level, order) as cell:
        session = remote.Session(cell, cell.started_at + tests.time_limit_s)
        try:
            return session.outcome()
        except remote.Stopped as stopped:
            return str(stopped)


_KINDS: dict[str, Callable[[str, Tests, sandbox.Level], str]] = {
    "stdio": _stdio,
    "function": _function,
    "asserts": _asserts,
}
