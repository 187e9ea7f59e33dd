"""How the parser puts nodes together."""

import re
from fractions import Fraction

from llmalign.verifiers.math.lexer import NotMath
from llmalign.verifiers.math.tree import ZERO, Node, negative, number

MAX_LITERAL = 4_000  # digits of one number

_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\(?:overline|dot|bar)\s*\{?([0-9]+)\}?")


def add(terms: list[Node]) -> Node:
    if len(terms) == 1:
        return terms[0]
    if len(terms) == 2 and terms[1].kind == "neg" and terms[1].args[0].kind in _SET_KINDS:
        return Node("minus", (terms[0], terms[1].args[0]))  # S - {1}
    return Node("add", tuple(terms))


_SET_KINDS = ("set", "builder", "union")


def joined_sets(kind: str, left: Node, right: Node) -> Node:
    """Chains of one operation stay flat, however long."""
    before = left.args if left.kind == kind and kind != "minus" else (left,)
    return Node(kind, (*before, right))


def multiply(left: Node, right: Node, implicit: bool = False) -> Node:
    """A product; an integer before a proper fraction of numbers is a mixed number."""
    if implicit:
        if right.kind == "deg" and (left.kind == "deg" or _last_term(left).kind == "deg"):
            return Node("add", (left, right))  # 60 degrees 42 minutes
        if left.kind == "neg" and is_mixed(left.args[0], right):
            return negative(Node("add", (left.args[0], right)))
        if is_mixed(left, right):
            return Node("add", (left, right))
    if left.kind == "mul":
        return Node("mul", (*left.args, right))
    return Node("mul", (left, right))


def _last_term(node: Node) -> Node:
    return node.args[-1] if node.kind == "add" else node


def is_integer(node: Node) -> bool:
    return node.kind == "num" and node.places is None and node.value.denominator == 1


def last_factor(node: Node) -> Node:
    return node.args[-1] if node.kind == "mul" else node


def is_mixed(whole: Node, part: Node) -> bool:
    return (
        whole.kind == "num"
        and whole.places is None
        and part.kind == "div"
        and all(arg.kind == "num" and arg.places is None for arg in part.args)
    )


def literal(text: str) -> Node:
    if len(text) > MAX_LITERAL:
        raise NotMath("a number with too many digits")
    if match := _REPEATING.fullmatch(text):
        whole, fixed, period = match.groups()
        nines = Fraction(int(period), 10 ** len(period) - 1)
        return number((int((whole + fixed) or "0") + nines) / 10 ** len(fixed))
    mantissa, _, exponent = text.lower().partition("e")
    whole, point, decimals = mantissa.partition(".")
    value = Fraction(int(whole + decimals), 10 ** len(decimals))
    if not exponent:
        return Node("num", value=value, places=len(decimals) if point else None)
    power = Node("pow", (number(10), number(int(exponent))))
    return Node("mul", (Node("num", value=value), power)) if value else ZERO
