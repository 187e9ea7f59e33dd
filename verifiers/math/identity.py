"""Identity testing: two expressions at random points.

"These differ" is a proof, because values are balls that do not overlap. "These agree" means: to
1e-30 of the value, and of one where the value is larger, at every point tried (Schwartz-Zippel:
what is no identity fails almost everywhere).
"""

import random
from functools import lru_cache

from flint import acb, arb, ctx, fmpq

from llmalign.verifiers.math.tree import Node, free_symbols
from llmalign.verifiers.math.values import Beyond, Undefined, Values, evaluate, start

PRECISIONS = (128, 512, 2048)  # bits
AGREEMENT = arb(10) ** -30  # absolute above one: sqrt(2) + 10^40 is not sqrt(2) + 10^40 + 1
APPROXIMATE = arb(10) ** -12  # where a limit or an infinite sum was taken numerically
NOTHING = arb(10) ** -100  # a difference this small at the last precision is none
POINTS = 7


def same_value(a: Node, b: Node) -> bool | None:
    """Whether two expressions agree as functions of their variables; None where nobody knows.

    Raises:
        TypeError: one of them is no number.
    """
    names = sorted(free_symbols(a) | free_symbols(b))
    count = POINTS if names else 1
    integers = _integer_names(a) | _integer_names(b)
    agreed = 0
    undefined: set[str] = set()
    for index in range(4 * count if names else 1):
        found = _agree_at(a, b, names, integers, index, undefined)
        if found is False:
            return False
        agreed += found is True
        if agreed == count:
            return True
    if agreed:
        return True if agreed >= 3 else None
    return False if len(undefined) == 1 else None


def _integer_names(node: Node) -> frozenset[str]:
    """Variables that stand in the bounds of a sum or product."""
    found: frozenset[str] = frozenset()
    for inner in node.walk():
        if inner.kind in ("sum", "prod"):
            found |= free_symbols(inner.args[0]) | free_symbols(inner.args[1])
    return found


def _agree_at(
    a: Node, b: Node, names: list[str], integers: frozenset[str], index: int, undefined: set[str]
) -> bool | None:
    """At one point, with more digits as long as the balls overlap. None: no value there, and
    ``undefined`` says on which side."""
    for precision in PRECISIONS:
        ctx.prec = precision
        env = {n: acb(3 + index) if n in integers else _point(n, index) for n in names}
        left, right = _value_or_none(a, env), _value_or_none(b, env)
        if left is None or right is None:
            undefined.update(["left"] if left is None else [], ["right"] if right is None else [])
            return None
        if not _real_where_it_matters(left, right, index, names):
            return None
        difference = left - right
        if not difference.contains(0):
            return False
        size = max(left.abs_upper(), right.abs_upper(), key=float)
        error = difference.abs_upper()
        if error <= min(size, arb(1), key=float) * AGREEMENT:
            return True
    if error <= NOTHING:
        return True
    return True if error <= size * APPROXIMATE else None


def _value_or_none(node: Node, env: Values) -> acb | None:
    try:
        return evaluate(node, env)
    except Undefined:
        return None


def _real_where_it_matters(left: acb, right: acb, index: int, names: list[str]) -> bool:
    """At points with negative coordinates only real values count: outside their domain, roots and
    logarithms have branches that answers do not mean."""
    if not names or index % 3 != 2:  # see ``_point``
        return True
    return bool(left.imag.contains(0) and right.imag.contains(0))


@lru_cache(maxsize=4096)
def _coordinates(name: str, index: int) -> tuple[int, int]:
    random_state = random.Random(f"{name}/{index}".encode("utf-8", "surrogatepass"))
    return random_state.randint(1, 10**9), random_state.randint(0, 1)


def _point(name: str, index: int) -> acb:
    """Coordinate of a variable at the ``index``-th point: in (0, 1), in (1, 4), or signed."""
    share, negative = _coordinates(name, index)
    value = arb(fmpq(share, 10**9 + 7))
    if index % 3 == 1:
        value = 1 + 3 * value
    elif index % 3 == 2:
        value = -3 * value if negative else 2 * value
    return acb(value)


def constant(node: Node) -> acb | None:
    """The value of an expression without variables, None where it has none or is no number."""
    ctx.prec = PRECISIONS[0]
    try:
        return evaluate(node, {})
    except (Undefined, KeyError, TypeError):
        return None


def random_values(names: list[str], index: int) -> dict[str, acb]:
    """Values of variables at one point, the same for equal names, to 128 bits."""
    ctx.prec = PRECISIONS[0]
    return {name: _point(name, index) for name in names}


def out_of_reach(node: Node) -> bool:
    """Whether an expression is too large or too long to evaluate."""
    start(node)
    try:
        evaluate(node, random_values(sorted(free_symbols(node)), 0))
    except Beyond:
        return True
    except (Undefined, KeyError, TypeError):
        return False
    return False
