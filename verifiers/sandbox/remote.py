"""The program's functions and objects as the tests see them: stand-ins that ask the sandbox.

Tests run here, on the trusted side. What comes back is plain data of exact builtin types, or a
``RemoteObject``, which is equal to nothing but itself: no comparison is ever left to the program.
"""

import builtins
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from . import wire
from .cell import Cell, describe

TESTS = "tests"  # file name that test code is compiled under
# Builtins that do no harm whatever a program calls them with.
_HARMLESS = (abs, all, any, chr, len, max, min, ord, round, sorted, sum)
_GRACE_S = 2.0  # for the keeper to tell how a program ended


class Stopped(BaseException):
    """The program is over, or did what no test may forgive; passes through ``except Exception``."""


class Unsendable(Exception):
    """The tests hand the program something that cannot pass into the sandbox."""


class Session:
    """Requests to one loaded program, each before ``deadline``.

    Attributes:
        stopped: why the session is over; None while it goes on.
        deadline: monotonic time, in seconds.
    """

    def __init__(self, cell: Cell, deadline: float) -> None:
        self._cell = cell
        self.deadline = deadline
        self.stopped: str | None = None
        self._lent: list[Callable[..., Any]] = []
        self._errors: dict[str, type[Exception]] = {}

    def load(self) -> list[str]:
        """Waits until the program has run; the names it defines. Raises Stopped."""
        answer = self._receive()
        if "error" in answer:
            self.stop(describe(answer["error"]) or "malformed message")
        names = answer.get("names")
        if not isinstance(names, list):
            self.stop("malformed message")
        return [name for name in names if isinstance(name, str)]

    def outcome(self) -> str:
        """Waits for tests that run beside the program; why they failed, or nothing."""
        answer = self._receive()
        if answer.get("done") is True:
            return ""
        return describe(answer.get("error")) or "malformed message"

    def get(self, name: str) -> Any:
        """What the program calls ``name``, a dotted path; data, or a RemoteObject."""
        return self.ask("get", name)

    def ask(self, do: str, on: int | str, *arguments: Any) -> Any:
        """One request; raises what the program raised, or Stopped."""
        message = {"do": do, "on": on, "args": self._encode(list(arguments))}
        return self._value(self._exchange(message))

    def call(
        self, on: int | str, arguments: Sequence[Any], named: dict[str, Any], *, watch: bool
    ) -> Any:
        """Calls a function; ``watch``: what it changes in its arguments is changed here too."""
        message = {
            "do": "call",
            "on": on,
            "args": self._encode(list(arguments)),
            "named": self._encode(named),
            "watch": watch,
        }
        answer = self._exchange(message)
        if watch:
            self._update(arguments, answer.get("changed", []))
        return self._value(answer)

    def stop(self, why: str) -> NoReturn:
        """Ends the session for good."""
        self.stopped = self.stopped or why
        raise Stopped(self.stopped)

    def _encode(self, value: Any) -> Any:
        try:
            return wire.encode(value, self._refer)
        except wire.WireError as error:
            raise Unsendable(str(error)) from None

    def _refer(self, value: Any) -> dict[str, Any]:
        """Objects of the program go back by number; functions of the tests are lent."""
        number = _number_of(value, self)
        if number is not None:
            return {"h": number}
        if not _may_be_lent(value):
            return wire.refuse(value)
        if value not in self._lent:
            self._lent.append(value)
        return {"h": -1 - self._lent.index(value)}

    def _resolve(self, tag: dict[str, Any]) -> Any:
        number, kind = tag["h"], tag.get("type")
        if not isinstance(number, int) or not isinstance(kind, str):
            raise wire.WireError("malformed handle")
        if number < 0:
            return self._lent_as(-1 - number)
        if isinstance(tag.get("error"), list):
            return self._error_class(tag["error"])
        return RemoteObject(self, number, kind[:80])

    def _lent_as(self, number: Any) -> Callable[..., Any]:
        if not isinstance(number, int) or not 0 <= number < len(self._lent):
            raise wire.WireError("malformed handle")
        return self._lent[number]

    def _error_class(self, names: list[Any]) -> type[Exception]:
        """An exception class of the program as one of ours, so that tests can catch it."""
        name = str(names[0])[:80] if names else "Exception"
        if name not in self._errors:
            self._errors[name] = type(name, (_nearest(names),), {})
        return self._errors[name]

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        self._send(message)
        return self._receive()

    def _send(self, message: dict[str, Any]) -> None:
        if self.stopped:
            raise Stopped(self.stopped)
        try:
            self._cell.send(message, self.deadline)
        except TimeoutError:
            self.stop("time limit exceeded")
        except EOFError:
            self.stop(self._how_it_ended())
        except wire.WireError as error:
            raise Unsendable(str(error)) from None

    def _receive(self) -> dict[str, Any]:
        """The program's answer; serves the calls of lent functions that come before it."""
        while "callback" in (message := self._next()):
            self._call_back(message)
        return message

    def _call_back(self, message: dict[str, Any]) -> None:
        try:
            function = self._lent_as(message["callback"])
            arguments = wire.decode(message.get("args"), self._resolve)
            named = wire.decode(message.get("named"), self._resolve)
            if not isinstance(arguments, list) or not isinstance(named, dict):
                raise wire.WireError("malformed call")
        except wire.WireError as error:
            self.stop(str(error))
        answer: dict[str, Any]
        try:
            answer = {"returned": self._encode(function(*arguments, **named))}
        except AssertionError as error:  # the program must not be the one to catch it
            self.stop(f"AssertionError: {str(error)[:100]}")
        except Unsendable:
            raise
        except Exception as error:  # noqa: BLE001  (raised again in the program)
            answer = {"raised": [type(error).__name__, str(error)[:300]]}
        self._send(answer)

    def _next(self) -> dict[str, Any]:
        try:
            return self._cell.receive(self.deadline)
        except TimeoutError:
            self.stop("time limit exceeded")
        except EOFError:
            self.stop(self._how_it_ended())
        except wire.WireError as error:
            self.stop(str(error))

    def _how_it_ended(self) -> str:
        status = self._cell.finish(time.monotonic() + _GRACE_S)
        if status == "timeout" and self._cell.ended is None:
            return "the program closed its line to the tests"
        return self._cell.why(status) if status != "ok" else "the program ended by itself"

    def _value(self, answer: dict[str, Any]) -> Any:
        if "value" in answer:
            try:
                return wire.decode(answer["value"], self._resolve)
            except wire.WireError as error:
                self.stop(str(error))
        if "unsendable" in answer:
            self.stop(f"the result cannot be sent: {answer['unsendable']!s:.100}")
        self._raise(answer.get("error"))

    def _raise(self, error: Any) -> NoReturn:
        """Raises the builtin exception nearest to the one the program raised."""
        told = describe(error)
        bases = error[2] if told and isinstance(error[2], list) else []
        if "Exception" not in bases or "AssertionError" in bases:
            self.stop(told or "malformed message")
        kind = self._errors.get(str(error[0])) or _nearest(bases)
        raise kind(str(error[1]))

    def _update(self, arguments: Sequence[Any], changed: Any) -> None:
        try:
            for position, content in changed:
                _replace(arguments[position], wire.decode(content, self._resolve))
        except (TypeError, ValueError, LookupError):
            self.stop("malformed message")


def _may_be_lent(value: Any) -> bool:
    """Whether a program may call this, with any data: what the tests define, and no library."""
    if isinstance(value, types.MethodType):
        value = value.__func__
    if isinstance(value, types.FunctionType):
        return value.__code__.co_filename == TESTS
    return any(value is harmless for harmless in _HARMLESS)


def _nearest(names: Sequence[Any]) -> type[Exception]:
    """The first builtin exception among class names that takes a text alone."""
    for name in names:
        found = getattr(builtins, name, None) if isinstance(name, str) else None
        if isinstance(found, type) and issubclass(found, Exception):
            if not issubclass(found, UnicodeError) or found is UnicodeError:
                return found
    return Exception


def _replace(target: Any, content: Any) -> None:
    """Gives a list, dict, set or bytearray new content in place."""
    if type(target) is not type(content):
        raise TypeError("a change of type")
    if isinstance(target, list | bytearray):
        target[:] = content
    elif isinstance(target, dict | set):
        target.clear()
        target.update(content)


class RemoteObject:
    """An object of the program. Its methods, items and length can be asked for; it compares equal
    to itself only, and it takes part in no arithmetic."""

    __slots__ = ("_number", "_session", "_type")

    def __init__(self, session: Session, number: int, kind: str) -> None:
        object.__setattr__(self, "_session", session)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_type", kind)

    def _ask(self, do: str, *arguments: Any) -> Any:
        return self._session.ask(do, self._number, *arguments)

    def _ask_for(self, do: str, kind: type) -> Any:
        found = self._ask(do)
        if type(found) is not kind:
            raise TypeError(f"{self._type} object gives no {kind.__name__}")
        return found

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._session.call(self._number, arguments, named, watch=True)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__name__":
            raise AttributeError(f"{self._type!r} object: {name!r} stays in the sandbox")
        return self._ask("attr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set_attr", name, value)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self._ask("list")[key]
        return self._ask("item", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._ask("set_item", key, value)

    def __delitem__(self, key: Any) -> None:
        self._ask("del_item", key)

    def __len__(self) -> int:
        return self._ask_for("len", int)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._ask_for("list", list))

    def __next__(self) -> Any:
        return self._ask("next")

    def __contains__(self, value: Any) -> bool:
        return any(item == value for item in self)

    def __bool__(self) -> bool:
        return self._ask_for("bool", bool)

    def __int__(self) -> int:
        return self._ask_for("int", int)

    def __float__(self) -> float:
        return self._ask_for("float", float)

    def __str__(self) -> str:
        return self._ask_for("str", str)

    def __repr__(self) -> str:
        return self._ask_for("repr", str)

    def __instancecheck__(self, value: Any) -> bool:
        if _number_of(value, self._session) is None:
            return False
        return self._ask("isinstance", value) is True

    def __eq__(self, other: object) -> bool:
        return _number_of(other, self._session) == self._number

    def __hash__(self) -> int:
        return hash((id(self._session), self._number))


def _number_of(value: Any, session: Session) -> int | None:
    """The number of a RemoteObject of this session, None for anything else."""
    if type(value) is RemoteObject and value._session is session:
        return value._number
    return None
