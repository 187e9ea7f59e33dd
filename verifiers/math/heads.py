"""What an equation names."""

from llmalign.verifiers.math.tree import Node, free_symbols


def head_of(node: Node) -> Node | None:
    """What an equation names: ``x``, ``f(x)``, ``(x, y)``, ``|AB|``; None if it names nothing."""
    first, last = node.args[0], node.args[-1]
    for side, other in ((first, last), (last, first)):
        if (
            side.kind == "sym"
            and free_symbols(side)
            and not (free_symbols(side) & free_symbols(other))
        ):
            return side
        if side is first and (side.kind == "text" or is_call_head(side) or _is_measure(side)):
            return side
    return first if _is_symbol_tuple(first) else None


def is_call_head(node: Node) -> bool:
    """``f(x)``, ``T(10)``, ``f^{-1}(x)``."""
    return node.kind == "call" and len(node.value.rstrip("'^-1").partition("_")[0]) == 1


def _is_measure(node: Node) -> bool:
    """A length, an area, a ratio of such: all its letters are capitals, as points are."""
    names = free_symbols(node)
    return bool(names) and all(name[0].isupper() for name in names) and node.kind != "add"


def _is_symbol_tuple(node: Node) -> bool:
    return node.kind == "tuple" and all(arg.kind in ("sym", "call") for arg in node.args)


def written(node: Node) -> str:
    """A name as text, for comparison with others."""
    if node.kind in ("sym", "text"):
        return str(node.value)
    inner = ",".join(written(arg) for arg in node.args)
    return f"{node.value if node.kind in ('call', 'num') else node.kind}({inner})"
