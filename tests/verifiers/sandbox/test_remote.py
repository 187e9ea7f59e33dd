"""What tests can do with a program's objects, and what a program cannot make them believe."""

import contextlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmalign.verifiers import sandbox
from llmalign.verifiers.sandbox import Limits, remote

PROGRAM = """
import math
LIMIT = 3
def echo(x): return x
def add(a, b=1): return a + b
def fail(kind): raise getattr(__builtins__, kind)("on purpose")
def own():
    class Odd(KeyError): pass
    raise Odd("mine")
def sort(x): x.sort(); x.append("end")
def grow(d, s): d["new"] = 1; s.add(9)
def count(n):
    for i in range(n): yield i
class Stack:
    def __init__(self, *items): self.items = list(items)
    def push(self, x): self.items.append(x); return self
    def __len__(self): return len(self.items)
    def __getitem__(self, i): return self.items[i]
    def __setitem__(self, i, x): self.items[i] = x
    def __delitem__(self, i): del self.items[i]
    def __iter__(self): return iter(self.items)
    def __contains__(self, x): return True
    def __eq__(self, other): return True
    def __str__(self): return f"Stack{self.items}"
    def __float__(self): return 2.5
    def __bool__(self): return False
    def __hash__(self): return 1
def big(): return 10 ** 9000
def quit_(): raise SystemExit(0)
def leave(): import os; os._exit(0)
def cycle():
    x = []; x.append(x); return x
"""


def strict() -> bool:
    with contextlib.suppress(sandbox.SandboxError):
        return sandbox.probe().level == "strict"
    return False


pytestmark = pytest.mark.skipif(not strict(), reason="this machine forbids the strict level")


@contextlib.contextmanager
def session_of(program: str, time_s: float = 10.0) -> Iterator[remote.Session]:
    order = {"mode": "session", "source": program, "prelude": ""}
    with sandbox.opened(Limits(time_s=time_s), "strict", order) as cell:
        yield remote.Session(cell, cell.started_at + time_s)


@pytest.fixture
def loaded() -> Iterator[remote.Session]:
    with session_of(PROGRAM) as session:
        assert {"echo", "Stack", "math", "LIMIT"} <= set(session.load())
        yield session


def test_names_are_data_or_stand_ins(loaded: remote.Session) -> None:
    assert loaded.get("LIMIT") == 3
    assert loaded.get("add")(1) == 2
    assert loaded.get("add")(1, b=5) == 6
    assert type(loaded.get("Stack")) is remote.RemoteObject


@pytest.mark.parametrize("value", [(1, [2.5, {"a": {1, 2}}]), 2**200, "ä", None, b"x", int])
def test_data_passes_through_unchanged(loaded: remote.Session, value: Any) -> None:
    found = loaded.get("echo")(value)
    assert type(found) is type(value) and found == value


def test_what_a_call_changes_in_its_arguments_is_changed_here(loaded: remote.Session) -> None:
    numbers: list[Any] = [3, 1, 2]
    assert loaded.get("sort")(numbers) is None
    assert numbers == [1, 2, 3, "end"]
    mapping: dict[str, int] = {}
    members = {1}
    loaded.get("grow")(mapping, members)
    assert (mapping, members) == ({"new": 1}, {1, 9})


def test_a_builtin_exception_is_raised_here_too(loaded: remote.Session) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        loaded.get("fail")("ValueError")
    with pytest.raises(KeyError, match="mine"):
        loaded.get("own")()
    assert loaded.stopped is None


@pytest.mark.parametrize("kind", ["AssertionError", "KeyboardInterrupt", "GeneratorExit"])
def test_an_exception_no_test_may_forgive_ends_the_session(
    loaded: remote.Session, kind: str
) -> None:
    with contextlib.suppress(Exception), pytest.raises(remote.Stopped):
        loaded.get("fail")(kind)
    assert loaded.stopped == f"{kind}: on purpose"
    with pytest.raises(remote.Stopped):
        loaded.get("add")(1)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("quit_", "SystemExit: 0"),
        ("leave", "the program ended by itself"),
        ("cycle", "the result cannot be sent: nested deeper than 150"),
    ],
)
def test_an_exit_or_an_unsendable_result_ends_the_session(
    loaded: remote.Session, name: str, why: str
) -> None:
    with pytest.raises(remote.Stopped):
        loaded.get(name)()
    assert loaded.stopped == why


def test_objects_do_what_their_class_says(loaded: remote.Session) -> None:
    make = loaded.get("Stack")
    stack = make(1, 2)
    assert stack.push(3).items == [1, 2, 3]
    stack[0] = 7
    del stack[1]
    assert (len(stack), list(stack), stack[0], stack[0:1]) == (2, [7, 3], 7, [7])
    assert (str(stack), f"{stack}") == ("Stack[7, 3]", "Stack[7, 3]")
    assert math.isclose(stack, 2.5)
    assert not stack
    assert isinstance(stack, make) and not isinstance(3, make)
    stack.items = [1]
    assert stack.items == [1]
    assert stack.push(2) == stack and hash(stack) == hash(stack.push(2))


def test_no_comparison_is_left_to_the_program(loaded: remote.Session) -> None:
    stack = loaded.get("Stack")(1)
    assert stack != 1 and stack != [1] and stack != loaded.get("Stack")(1)
    assert 1 in stack and 2 not in stack  # its own __contains__ says yes to all
    assert stack not in [1, None, "x"]
    for compare in (lambda: stack < 5, lambda: stack - 1, lambda: abs(stack), lambda: 5 > stack):
        with pytest.raises(TypeError):
            compare()


def test_generators_are_read_step_by_step_or_whole(loaded: remote.Session) -> None:
    numbers = loaded.get("count")(4)
    assert [next(numbers), next(numbers), *numbers] == [0, 1, 2, 3]
    with pytest.raises(StopIteration):
        next(numbers)


def test_a_huge_integer_arrives(loaded: remote.Session) -> None:
    assert loaded.get("big")() == 10**9000


def test_what_cannot_reach_the_program_is_told_apart(loaded: remote.Session) -> None:
    with pytest.raises(remote.Unsendable, match="type object cannot be sent"):
        loaded.get("echo")(object())
    assert loaded.get("echo")(loaded.get("add"))(2) == 3  # its own objects may go back


def test_a_stand_in_keeps_its_private_names() -> None:
    with session_of(PROGRAM) as session:
        session.load()
        stack = session.get("Stack")()
        with pytest.raises(AttributeError, match="stays in the sandbox"):
            stack.__dict__  # noqa: B018
        assert session.get("add").__name__ == "add"


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("def f(", "SyntaxError"), ("1/0", "ZeroDivisionError"), ("exit()", "SystemExit"),
        ("import os; os._exit(0)", "ended by itself"), ("import os; os._exit(3)", "exit status 3"),
        ("import os; os.close(3)", "exit status 1"), ("while True: pass", "time limit exceeded"),
        ("import os; os.abort()", "SIGABRT"),
        ("import os; os.write(3, b'x' * 100)", "a message of"),
        (r"import os; os.write(3, b'\0\0\0\2[]')", "malformed message"),
        (r"import os; os.write(3, b'\0\0\0\2{}')", "malformed message"),
        (r"import os; os.write(3, b'\0\0\0\3x')", "ended by itself|malformed"),
        (r"import os; os.write(3, b'\0\0\0\x0e{\"error\":[1,2]}')", "malformed message"),
        (r"import os; os.dup2(os.open('/dev/null', 2), 3)", "ended by itself|exit status"),
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_a_program_that_spoils_its_line_fails_for_a_reason(program: str, why: str) -> None:
    began = time.monotonic()
    with session_of(program, time_s=0.5) as session, pytest.raises(remote.Stopped, match=why):
        session.load()
        session.get("f")
    assert time.monotonic() - began < 4


def reply(text: str) -> str:
    """A program that answers the first request itself, before it is made."""
    body = text.encode()
    framed = len(body).to_bytes(4, "big") + body
    names = b'{"names":["f"]}'
    first = len(names).to_bytes(4, "big") + names
    return f"import os, time; os.write(3, {first + framed!r}); time.sleep(1000)"


@pytest.mark.parametrize(
    "text",
    [
        '{"value":{"f":"x"}}', '{"value":{"h":"x"}}', '{"value":{"h":1}}', '{"value":1.5}',
        '{"error":"x"}', '{"error":["E","t",3]}', '{"error":["E","t",["Exception",7]]}',
        '{"error":["E","t",["eval","Exception"]]}', '{"unsendable":[]}', "{}", '{"changed":3}',
    ],
)  # fmt: skip
def test_a_forged_answer_is_at_most_a_wrong_answer(text: str) -> None:
    with session_of(reply(text), time_s=5.0) as session:
        session.load()
        with pytest.raises((remote.Stopped, Exception)) as raised:
            session.get("f")
    assert not isinstance(raised.value, AttributeError | IndexError | NameError)


@pytest.mark.parametrize("change", ['[0,{"d":[]}]', '["x",1]', "[9,[]]", "[0]", "3", "[0,{}]"])
def test_a_forged_change_touches_only_what_was_handed_over(change: str) -> None:
    answer = f'{{"value":1,"changed":[{change}]}}'
    with session_of(reply(answer), time_s=5.0) as session:
        session.load()
        with pytest.raises(remote.Stopped, match="malformed message"):
            session.call("f", [[1]], {}, watch=True)


CALLER = """
class Odd(ValueError): pass
def odd(): raise Odd("mine")
def apply(f, *xs): return [f(x) for x in xs]
def same(f): return f
def careful(f):
    try: return f(0)
    except ZeroDivisionError as error: return f"caught {error}"
def forgive(f):
    try: f(0)
    except BaseException: pass
def twice(f): return lambda x: f(f(x))
def forever(f):
    while True: f(1)
"""


OF_THE_TESTS = """
seen = []
def note(x):
    seen.append(x)
    return x * 2
def refuse(x): raise AssertionError("wrong call")
def divide(x): return 1 // x
"""


def of_the_tests() -> dict[str, Any]:
    space: dict[str, Any] = {}
    exec(compile(OF_THE_TESTS, remote.TESTS, "exec"), space)
    return space


def test_functions_of_the_tests_are_called_where_the_tests_are() -> None:
    space = of_the_tests()
    note, seen = space["note"], space["seen"]
    with session_of(CALLER) as session:
        session.load()
        assert session.get("apply")(note, 1, "a", (2,)) == [2, "aa", (2, 2)]
        assert seen == [1, "a", (2,)]
        assert session.get("same")(note) is note
        assert session.get("twice")(note)(3) == 12
        assert session.get("careful")(space["divide"]).startswith("caught")
        space["apply"] = session.get("apply")
        exec(compile("def again(x): return apply(note, x)", remote.TESTS, "exec"), space)
        assert session.get("apply")(space["again"], 5) == [[10]]
        assert session.get("apply")(sorted, [2, 1]) == [[1, 2]]


def test_a_failed_assertion_in_a_lent_function_cannot_be_forgiven_by_the_program() -> None:
    with session_of(CALLER) as session:
        session.load()
        with pytest.raises(remote.Stopped, match="wrong call"):
            session.get("forgive")(of_the_tests()["refuse"])
        assert session.stopped == "AssertionError: wrong call"


def test_calling_a_lent_function_for_ever_ends_at_the_deadline() -> None:
    with session_of(CALLER, time_s=0.3) as session:
        session.load()
        with pytest.raises(remote.Stopped, match="time limit exceeded"):
            session.get("forever")(abs)


def test_exceptions_of_the_program_can_be_caught_by_their_own_class() -> None:
    with session_of(CALLER) as session:
        session.load()
        odd = session.get("Odd")
        assert issubclass(odd, ValueError)
        with pytest.raises(odd, match="mine"):
            session.get("odd")()


@pytest.mark.parametrize("function", [eval, exec, open, getattr, print, json.loads, Path])
def test_no_function_of_a_library_is_lent(loaded: remote.Session, function: Any) -> None:
    with pytest.raises(remote.Unsendable):
        loaded.get("echo")(function)


@pytest.mark.parametrize(
    "text",
    [
        '{"callback":5,"args":[],"named":{"d":[]}}', '{"callback":"x"}', '{"callback":-1}',
        '{"callback":0,"args":3,"named":{"d":[]}}', '{"value":{"h":-9,"type":"x"}}',
        '{"value":{"h":1,"type":"x","error":[7]},"x":1}',
    ],
)  # fmt: skip
def test_a_forged_call_reaches_nothing(text: str) -> None:
    with session_of(reply(text), time_s=5.0) as session:
        session.load()
        try:
            found = session.get("f")
        except remote.Stopped:
            return
    assert isinstance(found, type) and issubclass(found, Exception)
