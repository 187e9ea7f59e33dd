"""What runs inside the sandbox, around the program: loads it, and calls it when asked.

It shares its process with the program, which can take it over; so nothing here decides anything
and nothing here knows what is expected. All it can send is data, judged on the other side.

A message either way is four bytes of length (big endian) and JSON. The first one comes from the
host, ``{"mode": "script" | "session" | "shared", "source": …, "prelude": …, "tests": …}``; then,
in a session, requests ``{"do": …, "on": …, "args": […]}`` one by one.
"""

import atexit
import builtins
import itertools
import os
import random
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, NoReturn

from . import wire

MAX_ITERATED = 1_000_000  # items taken from one iterator
SCRIPT = "program.py"

# A program may replace those of the modules.
_read, _write, _exit = os.read, os.write, os._exit
_join_threads, _run_exit_hooks = threading._shutdown, atexit._run_exitfuncs  # type: ignore[attr-defined]


def main(talk: int) -> NoReturn:
    """Serves the host on descriptor ``talk``, then ends this process."""
    _fresh_streams()
    order = wire.loads(_receive(talk))
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=SCRIPT, __builtins__=builtins)
    sys.modules["__main__"] = module
    sys.argv[:] = [SCRIPT]
    random.seed(0)  # equal programs get equal verdicts
    mode = order["mode"]
    if mode == "script":
        _end(_script(talk, module, order["source"]), module)
    session = _Session(talk, module)
    if mode == "shared":
        _end(session.run_shared(order["source"], order["tests"]), module)
    session.load(order["source"], order["prelude"])
    session.serve()


def _fresh_streams() -> None:
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape")
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape")
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace")
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))


def _script(talk: int, module: types.ModuleType, source: str) -> int:
    """Runs the program as ``python program.py`` would; returns its exit status."""
    try:
        exec(compile(source, SCRIPT, "exec", dont_inherit=True), module.__dict__)
    except SystemExit as error:
        return _status_of(error.code)
    except BaseException as error:  # noqa: BLE001  (an uncaught error of the program is status 1)
        _say(talk, {"error": _described(error)})
        return 1
    return 0


def _status_of(code: object) -> int:
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


def _end(status: int, module: types.ModuleType) -> NoReturn:
    """Ends this process as the interpreter would, without taking all of it apart first."""
    try:
        _join_threads()
        _run_exit_hooks()
        module.__dict__.clear()  # what has a __del__ may still print
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001  (such as a closed stdout; the interpreter says 120)
        status = status or 120
    _exit(status)


def _described(error: BaseException) -> list[Any]:
    """[type, text, names of its base classes]: enough to raise its like on the other side."""
    kind = type(error)
    try:
        text = str(error)[:300]
    except BaseException:  # noqa: BLE001  (its own __str__ may do anything)
        text = ""
    return [str(kind.__name__), str(text), [str(base.__name__) for base in kind.__mro__]]


def _say(talk: int, message: dict[str, Any]) -> None:
    try:
        body = wire.dumps(message)
    except wire.WireError as error:
        body = wire.dumps({"unsendable": str(error)})
    rest = memoryview(len(body).to_bytes(4, "big") + body)
    while rest:
        rest = rest[_write(talk, rest) :]


def _receive(talk: int) -> bytes:
    size = int.from_bytes(_read_exactly(talk, 4), "big")
    return _read_exactly(talk, size)


def _read_exactly(talk: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = _read(talk, min(size - len(parts), 1 << 20))
        if not part:
            _exit(0)  # the host has heard enough
        parts += part
    return bytes(parts)


class _Session:
    """The objects of a program, by number, and the requests that reach them."""

    def __init__(self, talk: int, module: types.ModuleType) -> None:
        self._talk, self._module = talk, module
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._lent: dict[int, Callable[..., Any]] = {}

    def load(self, source: str, prelude: str) -> None:
        """Runs the program and says which names it has defined."""
        try:
            compiled = compile(source, SCRIPT, "exec", dont_inherit=True)
            _lend(prelude)
            exec(compiled, self._module.__dict__)
        except BaseException as error:  # noqa: BLE001  (reported, whatever it is)
            _say(self._talk, {"error": _described(error)})
            return
        names = [name for name in self._module.__dict__ if not name.startswith("__")]
        _say(self._talk, {"names": names})

    def run_shared(self, source: str, tests: str) -> int:
        """Program and tests in one namespace: the tests can be forged by the program."""
        try:
            for text in (source, tests):
                exec(compile(text, SCRIPT, "exec", dont_inherit=True), self._module.__dict__)
        except BaseException as error:  # noqa: BLE001  (reported, whatever it is)
            _say(self._talk, {"error": _described(error)})
            return 1
        _say(self._talk, {"done": True})
        return 0

    def serve(self) -> NoReturn:
        """Answers until the host is gone."""
        while True:
            self._serve_one(wire.loads(_receive(self._talk)))

    def _serve_one(self, request: dict[str, Any]) -> None:
        try:
            answer = self._answer(request)
        except wire.WireError as error:
            answer = {"unsendable": str(error)}
        except BaseException as error:  # noqa: BLE001  (an outcome like any other)
            answer = {"error": _described(error)}
        _say(self._talk, answer)

    def _borrow(self, number: int) -> Callable[..., Any]:
        """A function that lives with the tests: a call of it is a call over there."""
        if number in self._lent:
            return self._lent[number]

        def borrowed(*arguments: Any, **named: Any) -> Any:
            call = {"args": self._encode(list(arguments)), "named": self._encode(named)}
            _say(self._talk, {"callback": -1 - number, **call})
            while True:
                message = wire.loads(_receive(self._talk))
                if "returned" in message:
                    return wire.decode(message["returned"], self._resolve)
                if "raised" in message:
                    name, text = message["raised"]
                    raise _RAISED.get(name, Exception)(text)
                self._serve_one(message)

        self._lent[number] = borrowed
        return borrowed

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        target = self._find(request["on"])
        given = request["args"]
        arguments = wire.decode(given, self._resolve)
        if request["do"] != "call":
            return {"value": self._encode(_ACTIONS[request["do"]](target, *arguments))}
        named = wire.decode(request["named"], self._resolve)
        try:
            result = target(*arguments, **named)
        except Exception as error:  # noqa: BLE001  (what it changed before is reported too)
            answer = {"error": _described(error)}
        else:
            answer = {"value": self._encode(result)}
        changed = self._changed(arguments, given) if request["watch"] else []
        return {**answer, "changed": changed} if changed else answer

    def _changed(self, arguments: list[Any], given: list[Any]) -> list[list[Any]]:
        """[position, new content] of the arguments that the call has changed in place."""
        found: list[list[Any]] = []
        for position, argument in enumerate(arguments):
            if isinstance(argument, list | dict | set | bytearray):
                now = self._encode(argument)
                if now != given[position]:
                    found.append([position, now])
        return found

    def _find(self, where: Any) -> Any:
        """The object of a number, or of a dotted name below what the program defines."""
        if isinstance(where, int):
            return self._objects[where]
        first, *rest = where.split(".")
        found = self._module.__dict__[first]
        for name in rest:
            if isinstance(found, type):
                found = found()
            found = getattr(found, name)
        return found

    def _encode(self, value: Any) -> Any:
        return wire.encode(value, self._refer)

    def _refer(self, value: Any) -> dict[str, Any]:
        for lent, function in self._lent.items():
            if function is value:
                return {"h": lent, "type": "function"}
        number = self._numbers.setdefault(id(value), len(self._objects))
        if number == len(self._objects):
            self._objects.append(value)  # kept, so that its id stays its own
        found = {"h": number, "type": type(value).__name__[:80]}
        if isinstance(value, type) and issubclass(value, Exception):
            found["error"] = [base.__name__ for base in value.__mro__]
        return found

    def _resolve(self, tag: dict[str, Any]) -> Any:
        number = tag["h"]
        return self._borrow(number) if number < 0 else self._objects[number]


_RAISED: dict[str, type[Exception]] = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError)
}


def _lend(prelude: str) -> None:
    """Makes the prelude's names known to the program where it defines none of its own.

    They go among the builtins: a lent name never counts as defined by the program.
    """
    lent: dict[str, Any] = {"__name__": "prelude"}
    exec(compile(prelude, "prelude.py", "exec", dont_inherit=True), lent)
    for name, value in lent.items():
        if not name.startswith("__") and not hasattr(builtins, name):
            setattr(builtins, name, value)


def _iterated(target: Any) -> list[Any]:
    return list(itertools.islice(iter(target), MAX_ITERATED))


_ACTIONS: dict[str, Callable[..., Any]] = {
    "get": lambda target: target,
    "attr": getattr,
    "set_attr": lambda target, name, value: setattr(target, name, value),
    "item": lambda target, key: target[key],
    "set_item": lambda target, key, value: target.__setitem__(key, value),
    "del_item": lambda target, key: target.__delitem__(key),
    "len": lambda target: len(target),
    "list": _iterated,
    "next": lambda target: next(target),
    "str": lambda target: str(target),
    "repr": lambda target: repr(target),
    "bool": lambda target: bool(target),
    "int": lambda target: int(target),
    "float": lambda target: float(target),
    "isinstance": lambda target, value: isinstance(value, target),
}
