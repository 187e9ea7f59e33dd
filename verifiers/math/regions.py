"""Sets of real numbers, however written: intervals, unions, inequalities, set-builders.

A set becomes a membership test and its finitely many breaking points. Two sets are equal when they
agree at every breaking point of either and once between each two neighbours. Endpoints with
variables are compared at several values of the variables.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cmp_to_key

from flint import acb, arb

from llmalign.verifiers.math.identity import random_values
from llmalign.verifiers.math.tree import Node, free_symbols, negative
from llmalign.verifiers.math.values import Undefined, Values, compare_real, evaluate

ORDERS = frozenset(("<", ">", "<=", ">=", "!="))
ASSIGNMENTS = 4  # of values to the parameters, where there are any
_LIMIT = 200  # breaking points

_HOLDS: dict[str, Callable[[int], bool]] = {
    "<": lambda c: c < 0,
    ">": lambda c: c > 0,
    "<=": lambda c: c <= 0,
    ">=": lambda c: c >= 0,
    "!=": lambda c: c != 0,
    "=": lambda c: c == 0,
}


class NoRegion(ValueError):
    """Not a set of real numbers that can be compared by its breaking points."""


@dataclass(frozen=True)
class Region:
    """A set of reals: where membership may change, and the membership itself."""

    breaks: tuple[acb, ...]
    contains: Callable[[acb], bool]


def is_region(node: Node) -> bool:
    """Whether a node is certainly a set of reals, not a tuple or a list of values."""
    kind = node.kind
    if kind == "tuple":
        open_ended = any(_infinite(arg) for arg in node.args)
        return len(node.args) == 2 and (node.value in ("[)", "(]") or open_ended)
    if kind == "space":
        return node.value == "R"
    if kind == "rel":
        return bool(ORDERS & set(node.value)) or "in" in node.value
    if kind in ("union", "inter", "minus"):
        return any(map(is_region, node.args)) or node.args[0].kind == "tuple"
    if kind == "list" and node.value != "cases":
        return any(arg.kind == "rel" and is_region(arg) for arg in node.args)
    return kind == "builder"


def is_chain(node: Node) -> bool:
    """Whether a node orders several quantities, as in ``b < a < d``, rather than bound one."""
    if node.kind != "rel" or not set(node.value) <= ORDERS:
        return False
    if not free_symbols(node):
        return True
    bare = [arg for arg in node.args if arg.kind == "sym" and free_symbols(arg)]
    return len(bare) > 1 and len(bare) == len(node.args)


def same_region(a: Node, b: Node) -> bool:
    """Whether two nodes are the same set of reals.

    Raises:
        NoRegion: one of them is none.
    """
    names = sorted(_parameters(a) | _parameters(b))
    agreed = 0
    for index in range(ASSIGNMENTS if names else 1):
        env = random_values(names, index)
        try:
            left, right = region(a, env), region(b, env)
            if not _agree(left, right):
                return False
            agreed += 1
        except (Undefined, KeyError, TypeError) as error:
            raise NoRegion(str(error)) from None
    return agreed > 0


def _agree(left: Region, right: Region) -> bool:
    breaks = _sorted_distinct([*left.breaks, *right.breaks])
    probes = list(breaks)
    if breaks:
        # Beside a huge number, one more is the same number to the digits we carry.
        first, last = breaks[0], breaks[-1]
        probes += [first - 1 - abs(first), last + 1 + abs(last)]
        probes += [(x + y) / 2 for x, y in zip(breaks, breaks[1:], strict=False)]
    else:
        probes = [acb(0)]
    return all(left.contains(x) == right.contains(x) for x in probes)


def _sorted_distinct(points: Sequence[acb]) -> list[acb]:
    if len(points) > _LIMIT:
        raise NoRegion("too many pieces")
    ordered = sorted(points, key=cmp_to_key(compare_real))
    distinct = ordered[:1]
    for point in ordered[1:]:
        if compare_real(distinct[-1], point):
            distinct.append(point)
    return distinct


def _parameters(node: Node) -> frozenset[str]:
    if node.kind == "rel" and (ORDERS | {"=", "in"}) & set(node.value):
        return free_symbols(node) - {_variable(node)}
    if not node.args:
        return free_symbols(node)
    return frozenset().union(*map(_parameters, node.args))


def region(node: Node, env: Values) -> Region:
    """The set that a node describes, at given values of its parameters."""
    if node.kind == "tuple":
        return _interval(node, env)
    if node.kind == "space" and node.value == "R":
        return Region((), lambda x: True)
    if node.kind == "empty":
        return Region((), lambda x: False)
    if node.kind == "builder":
        return region(node.args[0], env)
    if node.kind == "rel":
        return _relation(node, env)
    if node.kind in ("union", "inter", "minus"):
        return _combined(node.kind, [region(arg, env) for arg in node.args])
    if node.kind == "set":
        return _combined("union", [_point(arg, env) for arg in node.args])
    if node.kind == "list" and node.value != "cases":
        parts = [region(arg, env) if is_set(arg) else _point(arg, env) for arg in node.args]
        together = node.value == "and" or any("!=" in (a.value or ()) for a in node.args)
        return _combined("inter" if together else "union", parts)
    return _point(node, env)


def is_set(node: Node) -> bool:
    """Whether a node denotes a set rather than a number."""
    return node.kind in (
        "tuple",
        "space",
        "empty",
        "builder",
        "rel",
        "union",
        "inter",
        "minus",
        "set",
    )


def _combined(kind: str, parts: Sequence[Region]) -> Region:
    breaks = tuple(point for part in parts for point in part.breaks)
    if kind == "union":
        return Region(breaks, lambda x: any(part.contains(x) for part in parts))
    if kind == "inter":
        return Region(breaks, lambda x: all(part.contains(x) for part in parts))
    first, *rest = parts
    return Region(breaks, lambda x: first.contains(x) and not any(p.contains(x) for p in rest))


def _point(node: Node, env: Values) -> Region:
    value = evaluate(node, env)
    return Region((value,), lambda x: compare_real(x, value) == 0)


def _infinite(node: Node) -> int:
    """1 or -1 for plus or minus infinity, else 0."""
    if node.kind == "neg":
        return -_infinite(node.args[0])
    return 1 if node.kind == "inf" else 0


def _interval(node: Node, env: Values) -> Region:
    if len(node.args) != 2:
        raise NoRegion("an interval has two ends")
    low, high = node.args
    breaks: list[acb] = []
    tests: list[Callable[[acb], bool]] = []
    if not _infinite(low):
        breaks.append(evaluate(low, env))
        tests.append(_bound(breaks[-1], 1, node.value[0] == "["))
    elif _infinite(low) > 0:
        raise NoRegion("an interval from infinity")
    if not _infinite(high):
        breaks.append(evaluate(high, env))
        tests.append(_bound(breaks[-1], -1, node.value[1] == "]"))
    elif _infinite(high) < 0:
        raise NoRegion("an interval to minus infinity")
    return Region(tuple(breaks), lambda x: all(test(x) for test in tests))


def _bound(end: acb, side: int, closed: bool) -> Callable[[acb], bool]:
    def test(x: acb) -> bool:
        found = compare_real(x, end)
        return found == side or (closed and found == 0)

    return test


def _relation(node: Node, env: Values) -> Region:
    """``a < f(x) <= b``, each part linear in the one variable; ``x \\in S``."""
    if node.value == ("in",):
        if is_set(node.args[1]):
            return region(node.args[1], env)
        raise NoRegion("an element of no set")
    if node.value == ("=",) and is_set(node.args[1]):
        return region(node.args[1], env)
    variable = _variable(node)
    node = _without_call(node, variable)
    breaks: list[acb] = []
    pairs = list(zip(node.args, node.args[1:], node.value, strict=False))
    for left, right, operator in pairs:
        if operator not in _HOLDS:
            raise NoRegion(operator)
        if _infinite(left) or _infinite(right):
            continue
        if variable in free_symbols(left) | free_symbols(right):
            breaks.append(_root(left, right, variable, env))

    def contains(x: acb) -> bool:
        at = {**env, variable: x}
        return all(_holds(left, right, operator, at) for left, right, operator in pairs)

    return Region(tuple(breaks), contains)


def _holds(left: Node, right: Node, operator: str, at: Values) -> bool:
    for side, order in ((left, 1), (right, -1)):
        if infinite := _infinite(side):
            return _HOLDS[operator](infinite * order)
    return _HOLDS[operator](compare_real(evaluate(left, at), evaluate(right, at)))


def _variable(node: Node) -> str:
    """What a relation is about: its one variable, a bare side, or the name of a bare call."""
    if node.value == ("in",):
        return next(iter(free_symbols(node.args[0])), "")
    for arg in node.args[1:-1] or node.args:
        if arg.kind == "sym" and free_symbols(arg):
            return str(arg.value)
        if arg.kind == "call" and _is_open_call(arg):
            return _call_name(arg)
    names = free_symbols(node)
    if len(names) == 1:
        return next(iter(names))
    return ""


def _is_open_call(node: Node) -> bool:
    return all(arg.kind == "sym" for arg in node.args) and len(node.value) == 1


def _call_name(node: Node) -> str:
    return f"{node.value}()"


def _without_call(node: Node, variable: str) -> Node:
    """``f(x)`` as a variable of its own."""
    if not variable.endswith("()"):
        return node
    new = Node("sym", value=variable)
    args = tuple(new if a.kind == "call" and _call_name(a) == variable else a for a in node.args)
    return Node("rel", args, node.value)


def _root(left: Node, right: Node, variable: str, env: Values) -> acb:
    gap = Node("add", (left, negative(right)))
    at0, at1, at2 = (evaluate(gap, {**env, variable: acb(k)}) for k in (0, 1, 2))
    slope = at1 - at0
    if not (at2 - at1 - slope).contains(0) or slope.contains(0):
        raise NoRegion("not linear")
    if (at2 - at1 - slope).abs_upper() > arb(10) ** -20:
        raise NoRegion("not linear")
    return -at0 / slope
