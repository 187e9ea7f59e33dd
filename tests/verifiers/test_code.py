import contextlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmalign.verifiers import GoldError, Judgement, Verdict, sandbox
from llmalign.verifiers.code import audit_row, budget_s, check_gold, find_program, judge, prepare
from llmalign.verifiers.pool import VerifierPool

CASES = [{"args": [1, 2], "expected": 3}, {"args": [7, 35], "expected": 42}]
ADD = {"type": "function", "entry_point": "add", "cases": CASES}
ASSERTS = {
    "type": "asserts",
    "entry_point": "add",
    "code": "assert add(1, 2) == 3\nassert add(7, 35) == 42\n",
}
CHECK = {
    "type": "asserts",
    "entry_point": "add",
    "code": "def check(candidate):\n    assert candidate(1, 2) == 3\ncheck(add)\n",
}
UNITTEST = {
    "type": "asserts",
    "entry_point": "add",
    "code": "import io, unittest\nclass T(unittest.TestCase):\n"
    "    def test_a(self): self.assertEqual(add(1, 2), 3)\n"
    "    def test_b(self): self.assertRaises(TypeError, add, 1, 'x')\n"
    "suite = unittest.TestLoader().loadTestsFromTestCase(T)\n"
    "assert unittest.TextTestRunner(stream=io.StringIO()).run(suite).wasSuccessful()\n",
}
SORT = {
    "type": "stdio",
    "cases": [{"stdin": "3 1 2\n", "stdout": "1 2 3\n"}, {"stdin": "9\n", "stdout": "9\n"}],
}
GOOD = "def add(a, b): return a + b"
GOOD_SORT = "print(*sorted(map(int, input().split())))"


def strict() -> bool:
    with contextlib.suppress(sandbox.SandboxError):
        return sandbox.probe().level == "strict"
    return False


needs_strict = pytest.mark.skipif(not strict(), reason="this machine forbids the strict level")


def verdict(program: str, gold: Mapping[str, Any], **more: Any) -> Verdict:
    return judged(program, {**gold, **more}).verdict


def judged(program: str, gold: Mapping[str, Any]) -> Judgement:
    return judge(program, gold, form="program")


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("```\nx = 1\n```", "x = 1"),
        ("so\n```py\na\n```\nand\n```python\nb\n```\ndone", "b"),
        ("```python\na\n```\nprints\n```text\nb\n```", "a"),
        ("```output\nb\n```", ""),
        ("~~~python\na\n~~~", "a"),
        ("````python\n```\na\n```\n````", "```\na\n```"),
        ("1. so\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y"),
        ("```python\na\nb", "a\nb"),
        ("<think>```python\na\n```</think>```", ""),
        ("<think>\n```python\na\n```\n</think>\n```python\nb\n```", "b"),
        ("<think>x</think>print(1)", "print(1)"),
        ("print(1)", "print(1)"),
        ("``` python title=x\na\n```", "a"),
        ("```python\r\na\r\n```\r\n", "a"),
        ("", ""),
    ],
)
def test_the_program_of_a_response(text: str, program: str) -> None:
    assert find_program(text, "response").strip() == program


def test_a_program_is_taken_as_it_is() -> None:
    assert find_program("```python\na\n```", "program") == "```python\na\n```"


@needs_strict
@pytest.mark.parametrize(
    ("gold", "program"),
    [
        (ADD, GOOD), (ADD, "add = lambda a, b: a + b"), (ADD, f"import warnings\n{GOOD}"),
        (ADD, "from operator import add"), (ADD, "print('debug')\n" + GOOD),
        (ADD | {"entry_point": "Solution.add"}, "class Solution:\n    def add(s, a, b): return a"
         " + b"),
        (ADD | {"prelude": "from math import fsum"}, "def add(a, b): return int(fsum([a, b]))"),
        (ADD | {"float_tol": 0.1}, "def add(a, b): return a + b + 0.01"),
        (ASSERTS, GOOD), (CHECK, GOOD), (UNITTEST, GOOD),
        (ASSERTS | {"shared_interpreter": True}, GOOD),
        (SORT, GOOD_SORT), (SORT | {"checker": "exact"}, GOOD_SORT),
        (SORT, "import sys; print(*sorted(open(0).read().split())); sys.exit(0)"),
        (SORT | {"checker": "float"}, "print(*sorted(map(float, input().split())))"),
        (SORT | {"checker": "custom", "checker_code":
                 "def check(stdin, got, expected): return sorted(stdin.split()) == got.split()"},
         "print('\\n'.join(sorted(input().split())))"),
    ],
)  # fmt: skip
def test_right_programs_pass(gold: dict[str, Any], program: str) -> None:
    found = judged(program, gold)
    assert (found.verdict, found.why) == (Verdict.RIGHT, "passes all tests")


FORGERIES = {
    "own ==": "class A:\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n"
    "    __hash__ = None\ndef add(a, b): return A()",
    "int subclass": "class I(int):\n    __eq__ = lambda s, o: True\n    __hash__ = int.__hash__\n"
    "def add(a, b): return I()",
    "float dunders": "class F(float):\n    __sub__ = __rsub__ = lambda s, o: 0.0\n"
    "    __eq__ = lambda s, o: True\n    __hash__ = float.__hash__\ndef add(a, b): return F(9)",
    "reflected ==": "class A:\n    __req__ = __eq__ = lambda s, o: True\n"
    "    __class__ = int\ndef add(a, b): return A()",
    "mock.ANY": "from unittest.mock import ANY\ndef add(a, b): return ANY",
    "MagicMock": "from unittest.mock import MagicMock\nadd = MagicMock()\n"
    "add.return_value.__eq__ = lambda s, o: True",
    "sys.exit(0)": "import sys\nsys.exit(0)",
    "os._exit(0)": "import os\nos._exit(0)",
    "exit in call": "def add(a, b): raise SystemExit(0)",
    "_exit in call": "import os\ndef add(a, b): os._exit(0)",
    "atexit": "import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b): return 0",
    "excepthook": "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef add(a, b): 1/0",
    "builtins": "import builtins\nbuiltins.all = lambda x: True\n"
    "builtins.isinstance = lambda *a: True\nbuiltins.len = lambda x: 2\n"
    "builtins.AssertionError = KeyError\ndef add(a, b): return 0",
    "unittest": "import unittest\nfor n in dir(unittest.TestCase):\n"
    "    if n.startswith('assert'): setattr(unittest.TestCase, n, lambda *a, **k: None)\n"
    "def add(a, b): return 0",
    "json": "import json, math\njson.dumps = lambda *a, **k: '3'\njson.loads = lambda *a: 3\n"
    "math.isclose = lambda *a, **k: True\ndef add(a, b): return 0",
    "frames": "import sys\ndef add(a, b):\n    f = sys._getframe()\n    while f:\n"
    "        for k, v in list(f.f_locals.items()) + list(f.f_globals.items()):\n"
    "            if 'expected' in str(k): return v\n"
    "            if hasattr(v, 'append'): v.append('passed')\n        f = f.f_back",
    "gc": "import gc\ndef add(a, b):\n    for o in gc.get_objects():\n"
    "        if isinstance(o, dict) and o.get('args') == [a, b]: return o.get('expected')",
    "trace": "import sys\nsys.settrace(lambda *a: None)\ndef add(a, b): return 0",
    "marker": "print('passed'); print('OK'); print('{\"done\": true}')\ndef add(a, b): return 0",
    "descriptors": 'import os\nm = b\'\\0\\0\\0\\x0d{"done":true}\\0\\0\\0\\x0b{"value":3}\'\n'
    "for fd in range(1, 64):\n    try: os.write(fd, m * 9)\n    except OSError: pass\n"
    "def add(a, b): return 0",
    "own check": "import builtins\ndef check(f): pass\ndef add(a, b): return 0\n"
    "builtins.check = check",
    "comment": "def add(a, b): return 0\nx = 1 #",
    "open string": 'def add(a, b): return 0\nx = """',
    "empty": "pass",
    "renamed": "def plus(a, b): return a + b",
    "prelude only": "from math import fsum",
    "subclass return": "class S(str): pass\ndef add(a, b): return S(a + b)",
    "text": "def add(a, b): return str(a + b)",
    "repr gadget": "class R:\n    __repr__ = __str__ = lambda s: '3'\ndef add(a, b): return R()",
    "pickle gadget": "class R:\n    __reduce__ = lambda s: (int, (3,))\ndef add(a, b): return R()",
    "fork": "import os\nif os.fork(): os._exit(0)\ndef add(a, b): return a + b",
    "thread forges": "import threading, os\ndef f():\n    while True:\n        try: os.write(3, "
    "b'\\0\\0\\0\\x0b{\"value\":9}')\n        except OSError: pass\n"
    "threading.Thread(target=f, daemon=True).start()\ndef add(a, b): return 0",
    "generator": "def add(a, b): yield a + b",
    "coroutine": "async def add(a, b): return a + b",
    "cycle": "def add(a, b):\n    x = []; x.append(x); return x",
    "deep": "def add(a, b):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
    "closed line": "import os\nos.closerange(0, 99)\ndef add(a, b): return a + b",
    "crash": "import ctypes\ndef add(a, b): ctypes.string_at(0)",
    "memory": "def add(a, b): return bytearray(2**40)",
    "base exception": "def add(a, b): raise GeneratorExit",
    "syntax": "def add(a, b) return a + b",
}


@needs_strict
@pytest.mark.parametrize("name", FORGERIES)
@pytest.mark.parametrize("gold", [ADD, ASSERTS], ids=["function", "asserts"])
def test_no_forgery_wins(gold: dict[str, Any], name: str) -> None:
    more = {"prelude": "from math import fsum\ndef add(a, b): return a + b"}
    found = judged(FORGERIES[name], {**gold, **more, "time_limit_s": 3})
    assert found.verdict is Verdict.WRONG, found
    assert found.why


@needs_strict
@pytest.mark.parametrize("name", ["own ==", "unittest", "builtins", "atexit", "sys.exit(0)"])
@pytest.mark.parametrize("gold", [CHECK, UNITTEST], ids=["check", "unittest"])
def test_no_forgery_wins_against_other_tests(gold: dict[str, Any], name: str) -> None:
    assert verdict(FORGERIES[name], gold, time_limit_s=3) is Verdict.WRONG


@needs_strict
@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("print(1)", "case 1: line 1 is '1', expected '1 2 3'"),
        ("input(); print()", "case 1: 0 lines of output, expected 1"),
        (GOOD_SORT + "; print(7)", "case 1: 2 lines of output, expected 1"),
        (GOOD_SORT + "; exit(3)", "case 1: exit status 3"),
        (GOOD_SORT + "; 1/0", "case 1: exit status 1: ZeroDivisionError: division by zero"),
        (f"{GOOD_SORT.replace('print(', 'print(end=chr(10),flush=True,')}; import os; os.abort()",
         "case 1: killed by SIGABRT"),
        ("import os; os.write(1, b'\\xff\\xfe')", "case 1: output is not UTF-8"),
        ("import sys; print(*sorted(input().split()), file=sys.stderr)", "case 1: 0 lines of"),
        ("while True: pass", "case 1: time limit exceeded"),
        ("x = [0] * 10**10", "case 1: exit status 1: MemoryError"),
        ("import sys\nwhile 1: sys.stdout.write('x' * 9**6)", "case 1: output limit exceeded"),
        ("def f(", "SyntaxError"),
        ("a = open('n', 'a+'); a.seek(0); print('1 2 3' if not a.read() else 9)\na.write('x')",
         "case 2: line 1 is '1 2 3', expected '9'"),
    ],
)  # fmt: skip
def test_wrong_programs_fail_for_a_reason(program: str, why: str) -> None:
    found = judged(program, SORT | {"time_limit_s": 0.7})
    assert found.verdict is Verdict.WRONG
    assert found.why.startswith(why)


@needs_strict
@pytest.mark.parametrize(
    ("gold", "program", "why"),
    [
        (ADD, "def add(a, b): return a - b", "case 1: gives -1, expected 3"),
        (ADD, "def add(a): return a", "case 1: raised TypeError"),
        (ADD, "import time\ndef add(a, b): time.sleep(9)", "time limit exceeded"),
        (ADD, "def plus(a, b): return a + b", "does not define add"),
        (ASSERTS, "def add(a, b): return 3", "AssertionError at: assert add(7, 35) == 42"),
        (ASSERTS, "def add(a, b): raise ValueError('no')", "ValueError: no at: assert add(1, 2)"),
        (ASSERTS, "import time\ndef add(a, b): time.sleep(9)", "time limit exceeded"),
    ],
)
def test_a_wrong_result_is_told(gold: dict[str, Any], program: str, why: str) -> None:
    found = judged(program, gold | {"time_limit_s": 0.3})
    assert found.verdict is Verdict.WRONG
    assert found.why.startswith(why)


@needs_strict
def test_a_caught_exit_of_the_program_still_fails_the_tests() -> None:
    code = "try:\n    add(1, 2)\nexcept BaseException:\n    pass\n"
    program = "def add(a, b): raise SystemExit(0)"
    assert verdict(program, ASSERTS, code=code) is Verdict.WRONG
    assert verdict("def add(a, b): raise KeyError", ASSERTS, code=code) is Verdict.RIGHT


@needs_strict
def test_a_program_that_changes_its_arguments_leaves_the_gold_alone() -> None:
    gold = {"type": "function", "entry_point": "f", "cases": [{"args": [[2, 1]], "expected": 2}]}
    program = "def f(x):\n    x.sort()\n    return x.pop()"
    for _ in range(3):
        assert verdict(program, gold) is Verdict.RIGHT
    in_place = ASSERTS | {"entry_point": "f", "code": "x = [2, 1]\nf(x)\nassert x == [1]"}
    assert verdict(program, in_place) is Verdict.RIGHT


@needs_strict
def test_helpers_of_the_prelude_are_those_of_the_tests() -> None:
    prelude = "def double(x): return 2 * x\ndef half(x): pass\n"
    code = "assert half(double(4)) == 4"
    gold = {"type": "asserts", "entry_point": "half", "code": code, "prelude": prelude}
    assert verdict("def half(x): return x // 2", gold) is Verdict.RIGHT
    assert verdict("def double(x): return x\ndef half(x): return x", gold) is Verdict.WRONG
    assert verdict("def other(x): return half(x)", gold) is Verdict.WRONG


@needs_strict
def test_classes_of_the_program_serve_the_tests() -> None:
    gold = {"type": "asserts", "entry_point": "total", "code": "assert total([P(1), P(2)]) == 3"}
    program = "class P:\n    def __init__(self, x): self.x = x\n"
    assert verdict(program + "def total(ps): return sum(p.x for p in ps)", gold) is Verdict.RIGHT
    assert verdict("def total(ps): return 3", gold) is Verdict.WRONG


@needs_strict
def test_tests_that_cannot_reach_the_program_are_a_fault_of_the_gold() -> None:
    gold = ASSERTS | {"code": "assert add(object(), 2) == 3"}
    with pytest.raises(GoldError, match="shared_interpreter: true"):
        judged(GOOD, gold)
    code = "x = object()\nassert add(x, 2) is x"
    forgiving = gold | {"code": code, "shared_interpreter": True}
    assert verdict("def add(a, b): return a", forgiving) is Verdict.RIGHT
    assert verdict("import sys; sys.exit(0)", forgiving) is Verdict.WRONG


@needs_strict
def test_a_response_is_judged_by_its_last_block() -> None:
    text = f"<think>\n```python\nx\n```\n</think>Try\n```python\n{GOOD}   \n\n```\nDone."
    found = judge(text, ADD)
    assert (found.verdict, found.answer) == (Verdict.RIGHT, GOOD)


@needs_strict
@pytest.mark.parametrize("text", ["", "  \n", "<think>x", "I cannot do this.", "```text\nno\n```"])
@pytest.mark.parametrize("gold", [ADD, ASSERTS, SORT], ids=["function", "asserts", "stdio"])
def test_a_response_without_a_program_has_no_answer(text: str, gold: dict[str, Any]) -> None:
    found = judge(text, gold)
    assert (found.verdict, found.answer) == (Verdict.NO_ANSWER, None)


@needs_strict
def test_a_block_with_an_error_of_syntax_is_an_answer_and_wrong() -> None:
    found = judge("```python\ndef add(\n```", ADD)
    assert (found.verdict, found.answer) == (Verdict.WRONG, "def add(")


@needs_strict
@pytest.mark.parametrize("text", ["\0", "\ud800", "x" * 1_000_001, "```" * 1000, "é" * 9, "#" * 9])
@pytest.mark.parametrize("gold", [ADD, ASSERTS, SORT], ids=["function", "asserts", "stdio"])
def test_no_text_raises(text: str, gold: dict[str, Any]) -> None:
    for form in ("response", "program"):
        found = judge(text, gold, form=form)  # type: ignore[arg-type]
        assert found.verdict in (Verdict.WRONG, Verdict.NO_ANSWER)


@needs_strict
def test_a_checker_that_stumbles_refuses_the_output() -> None:
    code = "def check(stdin, got, expected): return int(got) == 6"
    gold = SORT | {"checker": "custom", "checker_code": code}
    assert verdict("print(6)", gold) is Verdict.RIGHT
    assert verdict("print('six')", gold) is Verdict.WRONG
    assert judged("print(2)", SORT | {"checker": "operator:ne"}).why.endswith("output: TypeError")


def test_a_sandbox_that_fails_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmalign.verifiers.sandbox.host._home", sandbox.host._Home())
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    for gold in (ADD, ASSERTS, SORT):
        found = judged(GOOD, gold)
        assert found.verdict is Verdict.UNDECIDED
        assert found.why.startswith("sandbox: ")
    with pytest.raises(sandbox.SandboxError):
        prepare()


def test_below_the_level_asked_for_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    home = sandbox.host._Home()
    missing = {"seccomp": "left out", "landlock": "left out"}
    home.zygote, home.isolation = sandbox.host.start(missing)
    monkeypatch.setattr("llmalign.verifiers.sandbox.host._home", home)
    found = judged(GOOD, ADD)
    assert found.verdict is Verdict.UNDECIDED
    assert "expected 'strict'" in found.why and "seccomp" in found.why
    with pytest.raises(sandbox.SandboxError, match="ask for level 'none' by name"):
        prepare(level="basic")
    prepare(level="none")
    assert judge(GOOD, ADD, form="program", level="none").verdict is Verdict.RIGHT
    home.zygote.close()


@needs_strict
def test_tests_too_large_to_send_are_a_fault_of_the_gold() -> None:
    gold = ASSERTS | {"shared_interpreter": True, "code": "x = '" + "a" * 2**25 + "'"}
    with pytest.raises(GoldError, match="the tests cannot be sent"):
        judged(GOOD, gold)


def test_an_unusable_gold_is_an_error_before_anything_runs() -> None:
    for gold in (None, {"type": "stdio"}, {"type": "function", "cases": CASES}):
        with pytest.raises(GoldError):
            check_gold(gold)
        with pytest.raises(GoldError):
            judge(GOOD, gold)


def test_the_budget_covers_every_case_at_its_limit() -> None:
    limit = {"time_limit_s": 20}
    assert budget_s(ASSERTS | limit, {}) > 20
    assert budget_s(ADD | limit, {}) > 60
    assert budget_s(SORT | limit, {}) > 40


def test_a_labelled_row_is_judged_as_a_program() -> None:
    row = {"program": GOOD, "tests": ADD, "should_pass": True}
    assert audit_row(row) == (GOOD, ADD, {"form": "program"})


@needs_strict
def test_it_works_in_the_workers_of_a_pool() -> None:
    pairs = [(f"def add(a, b): return a + b + {n % 2}", ADD) for n in range(8)]
    with VerifierPool(2, timeout_s=30.0) as pool:
        found = pool.judge_many("llmalign.verifiers.code:judge", pairs, {"form": "program"})
    assert [judgement.verdict for judgement in found] == [Verdict.RIGHT, Verdict.WRONG] * 4


@needs_strict
def test_several_threads_get_each_their_own_verdict() -> None:
    programs = [f"def add(a, b): return a + b + {n % 3}" for n in range(12)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda program: verdict(program, ADD), programs))
    assert found == [Verdict.RIGHT, Verdict.WRONG, Verdict.WRONG] * 4


# Makes the interpreter readable for a user without rights, in a mount namespace of its own.
AS_NOBODY = """
set -e
mkdir "$1/home"; mount --bind "$HOME" "$1/home"
mount -t tmpfs -o mode=755 tmpfs "$HOME"
for name in .pyenv .local .venv; do
    [ -d "$1/home/$name" ] || continue
    mkdir "$HOME/$name"; mount --bind "$1/home/$name" "$HOME/$name"
done
umount "$1/home"
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$2" -c "$3"
"""


def as_nobody(script: str, folder: Path) -> str:
    """What a script prints when it runs as user 65534."""
    command = ["unshare", "--mount", "sh", "-c", AS_NOBODY, "sh"]
    command += [str(folder), sys.executable, textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr
    return done.stdout


def can_be_nobody() -> bool:
    probe = ["unshare", "--mount", "setpriv", "--reuid", "65534", "--clear-groups", "true"]
    with contextlib.suppress(OSError):
        return os.geteuid() == 0 and subprocess.run(probe, capture_output=True).returncode == 0
    return False


needs_root = pytest.mark.skipif(not can_be_nobody(), reason="needs root to become another user")


@needs_strict
@needs_root
def test_an_ordinary_user_gets_the_same_sandbox(tmp_path: Path) -> None:
    script = f"""
        import json, os
        from llmalign.verifiers import sandbox
        from llmalign.verifiers.code import judge
        found = [os.getuid(), sandbox.probe().level]
        for program in ({GOOD!r}, "def add(a, b): return 0", "import os; os._exit(0)"):
            found.append(judge(program, {ADD!r}, form="program").verdict.value)
        print(json.dumps(found))
    """
    assert json.loads(as_nobody(script, tmp_path)) == [65534, "strict", "right", "wrong", "wrong"]


# The shared corpus and data sets; none of them is part of this repository.
SHARED = Path(__file__).parents[2].parent / "shared"
CORPUS = SHARED / "conformance" / "code_attacks.jsonl"


def rows_of(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        pytest.skip(f"{path.name} is not here; it lies beside the repository")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def processes() -> set[str]:
    return {entry for entry in os.listdir("/proc") if entry.isdigit()}


def mistakes(rows: list[dict[str, Any]]) -> list[str]:
    """Rows that are judged wrongly, take too long, or leave a file, a process or a mount."""
    sandbox.probe()
    found, mounts = [], Path("/proc/self/mounts").read_text()
    for row in rows:
        victim = Path(row["victim_dir"]) if row.get("victim_dir") else None
        if victim:
            victim.mkdir(exist_ok=True)
            (victim / "keep").touch()
        before, began = processes(), time.monotonic()
        right = judged(row["program"], row["tests"])
        seconds = time.monotonic() - began
        time.sleep(row.get("canary_wait_s", 0))
        if victim and not (victim / "keep").exists():
            found.append(f"{row['id']} deleted {victim}")
        elif victim:
            shutil.rmtree(victim)
        if (right.verdict is Verdict.RIGHT) is not row["should_pass"]:
            found.append(f"{row['id']} is {right.verdict.value}: {right.why}")
        if right.verdict is Verdict.UNDECIDED or seconds > row.get("max_wall_s", 60):
            found.append(f"{row['id']} took {seconds:.1f} s: {right.why}")
        if row.get("canary_file") and Path(row["canary_file"]).exists():
            found.append(f"{row['id']} left {row['canary_file']}")
        found += [f"{row['id']} left {p}" for p in processes() - before if ours(p)]
    if Path("/proc/self/mounts").read_text() != mounts:
        found.append("a mount is left")
    return found


def ours(pid: str) -> bool:
    """Whether a process, still there after a moment, descends from this one."""
    time.sleep(0.1)
    with contextlib.suppress(OSError, IndexError):
        while pid not in ("0", "1"):
            pid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
            if pid == str(os.getpid()):
                return True
    return False


@needs_strict
@pytest.mark.slow
def test_the_corpus_of_attacks_as_this_user() -> None:
    assert mistakes(rows_of(CORPUS)) == []


@needs_strict
@needs_root
@pytest.mark.slow
def test_the_corpus_of_attacks_as_an_ordinary_user(tmp_path: Path) -> None:
    rows_of(CORPUS)
    script = f"""
        import importlib.util, json
        spec = importlib.util.spec_from_file_location("test_code", {__file__!r})
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        print(json.dumps(module.mistakes(module.rows_of(module.CORPUS))))
    """
    assert json.loads(as_nobody(script, tmp_path).splitlines()[-1]) == []
