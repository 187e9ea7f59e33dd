"""Equality of two single values: exact, in degrees, or as a decimal stands for a number."""

from fractions import Fraction

from flint import arb, fmpq

from llmalign.verifiers.math.identity import constant, same_value
from llmalign.verifiers.math.tree import Node, free_symbols, number

LONG_DECIMAL = 12  # significant digits from which a decimal stands for the number it was cut from


def exact(node: Node) -> Fraction | None:
    """The rational number that simple arithmetic gives, None for all else."""
    if node.kind == "num":
        return node.value
    if node.kind == "neg":
        inner = exact(node.args[0])
        return None if inner is None else -inner
    if node.kind == "div":
        top, bottom = (exact(arg) for arg in node.args)
        return None if top is None or not bottom else top / bottom
    return None


def _is_angle(node: Node) -> bool:
    """Whether a node is given in degrees as a whole."""
    if node.kind in ("deg",):
        return True
    if node.kind in ("add", "neg"):
        return all(map(_is_angle, node.args))
    return (
        node.kind == "mul" and _is_angle(node.args[-1]) and not any(map(_is_angle, node.args[:-1]))
    )


def _degrees(node: Node) -> Node:
    if node.kind == "deg":
        return node.args[0]
    return Node(node.kind, tuple(map(_degrees, node.args)), node.value, node.places)


def same_scalar(a: Node, b: Node, lenient: bool) -> bool | None:
    if _is_angle(a) or _is_angle(b):
        left, right = (_degrees(n) if _is_angle(n) else n for n in (a, b))
        if _is_angle(a) and _is_angle(b):
            return same_scalar(left, right, lenient)
        return _values(left, right, lenient) or _values(a, b, False)
    return _values(a, b, lenient)


def _values(a: Node, b: Node, lenient: bool) -> bool | None:
    if a.kind == "text" or b.kind == "text":
        return a == b
    if (infinite := _infinity(a)) or _infinity(b):
        return infinite == _infinity(b)
    try:
        verdict = same_value(a, b)
    except TypeError:
        return False
    if verdict:
        return True
    if not free_symbols(a) and not free_symbols(b):
        if lenient and _rounds_to(a, b):
            return True
        if _cut_from(a, b) or _cut_from(b, a):
            return True
    return verdict


def _infinity(node: Node) -> int:
    if node.kind == "neg":
        return -_infinity(node.args[0])
    return 1 if node.kind == "inf" else 0


def decimal_of(node: Node) -> tuple[Fraction, int] | None:
    """Value and places of a decimal as written, sign included; None where a node is none."""
    if node.kind == "neg":
        inner = decimal_of(node.args[0])
        return None if inner is None else (-inner[0], inner[1])
    return (node.value, node.places) if node.kind == "num" and node.places is not None else None


def _rounds_to(gold: Node, other: Node) -> bool:
    """Whether a number rounds to a decimal gold; another decimal must have as many places."""
    written, given = decimal_of(gold), decimal_of(other)
    if written is None or written[1] == 0 or (given is not None and given[1] < written[1]):
        return False
    return _near(other, written[0], Fraction(1, 2 * 10 ** written[1]))


def _cut_from(decimal: Node, other: Node) -> bool:
    """Whether a long decimal agrees with a number in all its digits, but for the last."""
    written = decimal_of(decimal)
    if written is None or decimal_of(other) is not None:
        return False
    value, places = written
    if len(str(abs(value.numerator * 10**places // value.denominator)).lstrip("0")) < LONG_DECIMAL:
        return False
    known = exact(other)
    if known is not None and _finite_decimals(known):
        return False
    return _near(other, value, Fraction(1, 10**places))


def _finite_decimals(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _near(node: Node, value: Fraction, distance: Fraction) -> bool:
    found = constant(node)
    if found is None or not found.imag.contains(0):
        return False
    gap = abs(found.real - arb(fmpq(value.numerator, value.denominator)))
    return bool(gap <= arb(fmpq(distance.numerator, distance.denominator)) + arb(10) ** -25)


def near_percent(value: Fraction, places: int, other: Node) -> bool:
    """Whether a number, or a hundred times it, rounds to a percentage."""
    half = Fraction(1, 2 * 10**places) if places else Fraction(0)
    hundredfold = Node("mul", (number(100), other))
    return _near(other, value, half) or _near(hundredfold, value, half)
