"""Equality of two answers by their structure, then of their parts as values.

Lists and sets are free of order, tuples are not; a list must match completely. Where ``gold`` is
given its role (``lenient``), a decimal gold accepts what rounds to it; all else is symmetric.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from flint import acb

from llmalign.verifiers.math.heads import head_of, is_call_head, written
from llmalign.verifiers.math.identity import random_values
from llmalign.verifiers.math.regions import NoRegion, is_chain, is_region, same_region
from llmalign.verifiers.math.scalars import exact, same_scalar
from llmalign.verifiers.math.tree import Node, free_symbols, negative, substitute
from llmalign.verifiers.math.values import Undefined, evaluate

MAX_COMPARED = 8  # items of one list with each other
MAX_SIGNS = 4  # "±" in one answer
INTEGER_NAMES = frozenset("knmlj")


def same(a: Node, b: Node, *, lenient: bool = False) -> bool | None:
    """Whether two answers mean the same; None where we cannot tell.

    Args:
        a: the gold, where one of them is.
        b: the other.
        lenient: ``a`` is the gold: as a decimal it accepts what rounds to it.
    """
    a, b = _plain(a), _plain(b)
    if a == b:
        return True
    if "matrix" in (a.kind, b.kind):
        return _matrices(a, b, lenient)
    if is_region(a) or is_region(b):
        return _regions(a, b)
    if _is_equation(a) and _is_equation(b):
        return _equations(a, b, lenient)
    if _is_many(a) or _is_many(b):
        return _many(a, b, lenient)
    if _is_equation(a) or _is_equation(b):
        left, right = (_value_of(n) if _is_equation(n) else n for n in (a, b))
        if left is None or right is None:
            return False
        return same(left, right, lenient=lenient) or _same_period(a, b)
    if "tuple" in (a.kind, b.kind):
        return a.kind == b.kind and a.value == b.value and _in_order(a.args, b.args, lenient)
    if "ratio" in (a.kind, b.kind):
        return _ratios(a, b)
    return same_scalar(a, b, lenient)


def _plain(node: Node) -> Node:
    """A node without what only presents it: approximations after the value, one-element sets."""
    while True:
        if node.kind == "rel" and "~" in node.value:
            cut = max(node.value.index("~"), int(free_symbols(node.args[0]) != frozenset()))
            kept = node.args[: cut + 1]
            signs = tuple("=" if sign == "~" else sign for sign in node.value[:cut])
            node = kept[0] if len(kept) == 1 else Node("rel", kept, signs)
        elif node.kind == "set" and len(node.args) == 1 and not is_region(node.args[0]):
            node = node.args[0]
        elif node.kind == "matrix" and len(node.args) == 1 and node.value != "determinant":
            node = node.args[0]
        elif node.kind == "rel" and node.value == ("in",) and node.args[1].kind == "set":
            node = node.args[1]
        elif node.kind == "union" and (flat := _finite_union(node)):
            node = flat
        elif node.kind in ("add", "neg", "mul", "div") and (matrix := _matrix_value(node)):
            node = matrix
        else:
            return node


def _matrix_value(node: Node) -> Node | None:
    """Sums of matrices and multiples of one, entry by entry; None for all else."""
    inner = [arg for arg in node.args if arg.kind == "matrix" and arg.value is None]
    shapes = {tuple(len(row.args) for row in matrix.args) for matrix in inner}
    if len(shapes) != 1 or (node.kind != "add" and len(inner) != 1) or node.args[-1].kind == "pm":
        return None
    if node.kind == "add" and len(inner) != len(node.args):
        terms = [arg if arg.kind == "matrix" else _matrix_value(arg) for arg in node.args]
        return None if None in terms else _matrix_value(Node("add", tuple(t for t in terms if t)))
    rows = []
    for i, row in enumerate(inner[0].args):
        entries = [
            tuple(a.args[i].args[j] if a in inner else a for a in node.args)
            for j in range(len(row.args))
        ]
        rows.append(Node("tuple", tuple(Node(node.kind, entry) for entry in entries), "()"))
    return Node("matrix", tuple(rows))


def _finite_union(node: Node) -> Node | None:
    if all(arg.kind == "set" for arg in node.args):
        return Node("set", tuple(item for arg in node.args for item in arg.args))
    return None


# --- matrices and tuples


def _matrices(a: Node, b: Node, lenient: bool) -> bool | None:
    left, right = _column(a), _column(b)
    if left.kind != right.kind or left.value != right.value:
        return False
    return _in_order(left.args, right.args, lenient)


def _column(node: Node) -> Node:
    """A matrix of one column as a tuple."""
    if node.kind == "matrix" and all(len(row.args) == 1 for row in node.args):
        return Node("tuple", tuple(row.args[0] for row in node.args), "()")
    return node


def _in_order(a: Sequence[Node], b: Sequence[Node], lenient: bool) -> bool | None:
    if len(a) != len(b):
        return False
    return _all(same(x, y, lenient=lenient) for x, y in zip(a, b, strict=True))


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    unknown = False
    for verdict in verdicts:
        if verdict is False:
            return False
        unknown |= verdict is None
    return None if unknown else True


# --- sets of reals


def _regions(a: Node, b: Node) -> bool | None:
    if a.kind == b.kind == "rel" and (is_chain(a) or is_chain(b)):
        return _chains(a, b)
    try:
        return same_region(a, b)
    except NoRegion:
        if a.kind == b.kind == "rel" and a.value == b.value:
            return _in_order(a.args, b.args, False)
        if a.kind == b.kind == "list":
            return _match(a.args, b.args, False)
        return False


def _chains(a: Node, b: Node) -> bool | None:
    left, right = _ascending(a), _ascending(b)
    return left.value == right.value and _in_order(left.args, right.args, False)


def _ascending(node: Node) -> Node:
    if any(operator in (">", ">=") for operator in node.value):
        turned = {">": "<", ">=": "<=", "<": ">", "<=": ">="}
        operators = tuple(turned.get(op, op) for op in reversed(node.value))
        return Node("rel", tuple(reversed(node.args)), operators)
    return node


# --- equations


def _is_equation(node: Node) -> bool:
    return node.kind == "rel" and set(node.value) == {"="}


def _value_of(node: Node) -> Node | None:
    """The value an equation gives, if it names something and its sides agree."""
    head = head_of(node)
    if head is None:
        values = list(node.args)
    else:
        values = [arg for arg in node.args if arg is not head]
        values = [v for v in values if v.kind != "sym" or not free_symbols(v)] or values[-1:]
    if head is None and free_symbols(node):
        return None
    if any(same(values[0], other) is not True for other in values[1:]):
        return None
    return values[0]


def _body(node: Node) -> Node | None:
    """The value of ``f(x) = …`` with its argument renamed, so that ``f(t) = …`` reads the same."""
    head, value = head_of(node), _value_of(node)
    if head is None or value is None or not is_call_head(head):
        return value
    for place, argument in enumerate(head.args):
        if argument.kind == "sym":
            value = substitute(value, argument.value, Node("sym", value=f"argument{place}"))
    return value


def _equations(a: Node, b: Node, lenient: bool) -> bool | None:
    left, right = _value_of(a), _value_of(b)
    if left is not None and right is not None:
        heads = head_of(a), head_of(b)
        if all(head is not None and is_call_head(head) for head in heads):
            left, right = _body(a), _body(b)
        assert left is not None and right is not None
        verdict = same(left, right, lenient=lenient)
        if verdict or _same_period(a, b) or heads[0] == heads[1]:
            return verdict or _same_period(a, b)
    names = free_symbols(a)
    if len(names) < 2 and left is not None and right is not None:
        return False
    if names != free_symbols(b) or len(a.args) != 2 or len(b.args) != 2:
        return False
    return _proportional(_difference(a), _difference(b))


def _difference(node: Node) -> Node:
    return Node("add", (node.args[0], negative(node.args[1])))


def _proportional(a: Node, b: Node) -> bool | None:
    """Whether ``a = c b`` with a constant c other than zero, at random points."""
    names = sorted(free_symbols(a) | free_symbols(b))
    values: list[tuple[acb, acb]] = []
    for index in range(8):
        try:
            env = random_values(names, index)
            values.append((evaluate(a, env), evaluate(b, env)))
        except Undefined:
            continue
        except (KeyError, TypeError):
            return False
    if len(values) < 4:
        return None
    first_a, first_b = values[0]
    if first_a.contains(0) or first_b.contains(0):
        return first_a.contains(0) and first_b.contains(0) and a == b
    return all((x * first_b - y * first_a).contains(0) for x, y in values[1:])


def _same_period(a: Node, b: Node) -> bool:
    """``k pi`` and ``n pi``: the integer parameter of a family may have any name."""
    left, right = (_value_of(n) if _is_equation(n) else n for n in (a, b))
    if left is None or right is None or not any(_is_equation(n) for n in (a, b)):
        return False
    names = free_symbols(left), free_symbols(right)
    if any(len(n) != 1 or not n <= INTEGER_NAMES for n in names) or names[0] == names[1]:
        return False
    if not any(n.kind == "sym" and n.value == "pi" for n in left.walk()):
        return False
    renamed = substitute(right, next(iter(names[1])), Node("sym", value=next(iter(names[0]))))
    return same(left, renamed) is True


# --- lists and sets


def _is_many(node: Node) -> bool:
    return node.kind in ("list", "set", "empty") or any(n.kind == "pm" for n in node.walk())


@dataclass(frozen=True)
class _Items:
    values: list[Node]
    heads: list[str]  # as long as values where every item is named, else empty
    bracketed: bool


def _many(a: Node, b: Node, lenient: bool) -> bool | None:
    left, right = _items(a), _items(b)
    if left is None or right is None:
        return None if left is right else False
    if a.kind == "list" and a.value == "cases" or b.kind == "list" and b.value == "cases":
        return _match(_flat(a), _flat(b), lenient)
    if left.heads and right.heads and _distinct(left.heads) and set(left.heads) == set(right.heads):
        where = dict(zip(right.heads, right.values, strict=True))
        pairs = ((where[h], v) for h, v in zip(left.heads, left.values, strict=True))
        return _all(same(v, w, lenient=lenient) for w, v in pairs)
    named, bare = (left, right) if left.heads and not right.heads else (right, left)
    if named.heads and not bare.heads and _distinct(_bases(named.heads)):
        return _named_against_bare(named, bare, a, b, lenient)
    return _match(left.values, right.values, lenient)


def _named_against_bare(
    named: _Items, bare: _Items, a: Node, b: Node, lenient: bool
) -> bool | None:
    """``x = 2, y = -1`` against ``2, -1`` or ``(2, -1)``: in the order written, or by name."""
    values = bare.values
    if len(values) == 1 and values[0].kind == "tuple" and values[0].value == "()":
        values = list(values[0].args)
    by_name = [
        v for _, v in sorted(zip(named.heads, named.values, strict=True), key=lambda p: p[0])
    ]
    verdicts = [_in_order(order, values, lenient) for order in (named.values, by_name)]
    return True if True in verdicts else verdicts[0]


def _distinct(heads: Sequence[str]) -> bool:
    return len(heads) > 1 and len(set(heads)) == len(heads)


def _bases(heads: Sequence[str]) -> list[str]:
    return [head.partition("_")[0] if "_" in head else head for head in heads]


def _flat(node: Node) -> Sequence[Node]:
    return node.args if node.kind in ("list", "set") else (node,)


def _items(node: Node) -> _Items | None:
    """The items of a list or set, ``±`` expanded; None where there are too many signs."""
    if node.kind == "empty":
        return _Items([], [], True)
    if node.kind == "list" and node.value == ";":
        return _groups(node)
    values: list[Node] = []
    heads: list[str] = []
    for item in _flat(node):
        item = _plain(item)
        head = head_of(item) if _is_equation(item) else None
        value = _value_of(item) if _is_equation(item) else item
        if value is None:
            value, head = item, None
        expanded = expand_signs(value)
        if expanded is None:
            return None
        for one in expanded:
            inner = _flat(one) if one.kind == "set" else [one]
            values += inner
            heads += [written(head)] * len(inner) if head is not None else []
    return _Items(values, heads if len(heads) == len(values) else [], node.kind == "set")


def _groups(node: Node) -> _Items:
    """``p=5, q=2; p=7, q=2``: each part a tuple, its items in order of their names."""
    tuples = []
    for part in node.args:
        items = _items(part)
        if items is None or len(items.values) < 2:
            tuples.append(part)
            continue
        values = items.values
        if items.heads:
            pairs = sorted(zip(items.heads, values, strict=True), key=lambda p: p[0])
            values = [value for _, value in pairs]
        tuples.append(Node("tuple", tuple(values), "()"))
    return _Items(tuples, [], False)


def expand_signs(node: Node) -> list[Node] | None:
    """All values of an expression with ``±``, each sign on its own; None beyond four signs."""
    places = [n for n in node.walk() if n.kind == "pm"]
    if not places:
        return [node]
    if len(places) > MAX_SIGNS:
        return None
    found: list[Node] = []
    for signs in product((1, -1), repeat=len(places)):
        value = _signed(node, iter(signs))
        if not any(same(value, other) for other in found):
            found.append(value)
    return found


def _signed(node: Node, signs: Iterator[int]) -> Node:
    if node.kind == "pm":
        sign = next(signs)
        args = [_signed(arg, signs) for arg in node.args]
        last = args[-1] if sign > 0 else negative(args[-1])
        return Node("add", (args[0], last)) if len(args) == 2 else last
    if not node.args:
        return node
    args = [_signed(arg, signs) for arg in node.args]
    return Node(node.kind, tuple(args), node.value, node.places)


def _distinct_values(nodes: Sequence[Node]) -> list[Node]:
    """Without what stands there twice, as a set would; in short lists by value: ``3/9 or 1/3``."""
    distinct = list(dict.fromkeys(nodes))
    if not 1 < len(distinct) <= MAX_COMPARED:
        return distinct
    kept: list[Node] = []
    for node in distinct:
        if not any(same(node, other) for other in kept):
            kept.append(node)
    return kept


def _match(a: Sequence[Node], b: Sequence[Node], lenient: bool) -> bool | None:
    """Whether two lists hold the same values, in any order and however often."""
    a, b = _distinct_values(a), _distinct_values(b)
    if len(a) != len(b):
        return False
    left, right = [exact(x) for x in a], [exact(y) for y in b]
    if None not in left and None not in right and Counter(left) == Counter(right):
        return True
    if len(a) > 30 and None not in left and None not in right and not lenient:
        return False
    rest, unmatched = list(b), []
    for item in a:
        found = next(
            (k for k, other in enumerate(rest) if same(item, other, lenient=lenient)), None
        )
        if found is None:
            unmatched.append(item)
        else:
            del rest[found]
    if not unmatched:
        return True
    pairs = product(unmatched, rest)
    return None if any(same(x, y, lenient=lenient) is None for x, y in pairs) else False


def _ratios(a: Node, b: Node) -> bool | None:
    """``a : b : c`` up to a factor; a ratio of two equals their quotient."""
    left, right = (n.args if n.kind == "ratio" else None for n in (a, b))
    if left is None or right is None:
        terms, other = (left, b) if left is not None else (right, a)
        assert terms is not None
        return len(terms) == 2 and same(Node("div", (terms[0], terms[1])), other)
    if len(left) != len(right):
        return False
    return _all(
        same(Node("mul", (left[0], y)), Node("mul", (right[0], x)))
        for x, y in zip(left[1:], right[1:], strict=True)
    )
