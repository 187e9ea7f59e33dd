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
        if side is first and (is_call_head(side) or _is_measure(side) or _is_symbol_tuple(side)):
            return side
    return None


def is_call_head(node: Node) -> bool:
    """``f(x)``, ``T(10)``: parsed as a call, or as a product of one letter and a bracket."""
    if node.kind == "call":
        return len(node.value.partition("_")[0]) == 1
    return (
        node.kind == "mul"
        and len(node.args) == 2
        and node.args[0].kind == "sym"
        and node.args[1].kind in ("sym", "num")
    )


def _is_measure(node: Node) -> bool:
    """A length, an area, a ratio of such: all its letters are capitals, as points are."""
    names = free_symbols(node)
    return bool(names) and all(name[0].isupper() for name in names) and node.kind != "add"


def _is_symbol_tuple(node: Node) -> bool:
    return node.kind == "tuple" and all(arg.kind in ("sym", "call", "mul") for arg in node.args)


def written(node: Node) -> str:
    if node.kind == "sym":
        return str(node.value)
    inner = ",".join(written(arg) for arg in node.args)
    return f"{node.value if node.kind in ('call', 'num') else node.kind}({inner})"
