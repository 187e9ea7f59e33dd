"""The expression tree of a mathematical answer."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any


@dataclass(frozen=True, slots=True)
class Node:
    r"""One node: what it is, its operands, and what it carries.

    ======================  ==========================================================
    kind                    args; value
    ======================  ==========================================================
    num                     value: Fraction; ``places``: decimals as written, or None
    sym, text, space        value: a name, words, or a set such as ``R``
    inf, empty              infinity; the empty set
    add, mul                any number of terms or factors
    div, pow, neg, pm       ``a/b``, ``a^b``, ``-a``, ``a ± b`` (or ``± b``)
    call                    value: the function; args: its arguments
    deg                     degrees of arc
    sum, prod, int, lim     value: the variable; args: bounds, then the body
    tuple                   value: the brackets, such as ``[)``
    list, set, matrix       items; rows (each a tuple) for a matrix
    union, inter, minus     of sets
    builder                 ``{x | condition}``; args: the condition
    rel                     value: the relations; args: what stands between them
    ratio                   ``a : b : c``
    ======================  ==========================================================
    """

    kind: str
    args: tuple["Node", ...] = ()
    value: Any = None
    places: int | None = None

    def walk(self) -> Iterator["Node"]:
        """This node and all below it."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.args)


ZERO = Node("num", value=Fraction(0))
INFINITY = Node("inf")


def height(node: Node) -> int:
    """Number of levels of a tree."""
    levels, layer = 0, [node]
    while layer:
        levels += 1
        layer = [arg for parent in layer for arg in parent.args]
    return levels


def number(value: Fraction | int) -> Node:
    """An exact number."""
    return Node("num", value=Fraction(value))


def negative(node: Node) -> Node:
    """Minus a node."""
    return Node("neg", (node,))


def free_symbols(node: Node) -> frozenset[str]:
    """Names of the variables of a node that no sum, integral or limit binds."""
    if node.kind == "sym":
        return frozenset((node.value,)) - CONSTANTS
    found = frozenset().union(*map(free_symbols, node.args)) if node.args else frozenset()
    return found - {node.value} if node.kind in ("sum", "prod", "int", "lim") else found


CONSTANTS = frozenset(("pi", "e", "i"))


def substitute(node: Node, name: str, new: Node) -> Node:
    """A node with a variable replaced."""
    if node.kind == "sym":
        return new if node.value == name else node
    if not node.args or (node.kind in ("sum", "prod", "int", "lim") and node.value == name):
        return node
    args = tuple(substitute(arg, name, new) for arg in node.args)
    return Node(node.kind, args, node.value, node.places)
