r"""A recursive-descent parser of mathematical answers: LaTeX as models write it, or plain text.

Never an eval: the text becomes a tree of ``Node``s or NotMath. Grammar, loosest first:

    answer   = list (";" list)*
    list     = relation (("," | "and" | "or") relation)*
    relation = set (("=" | "<" | "\le" | "\in" | …) set)*
    set      = ratio (("\cup" | "\cap" | "\setminus") ratio)*
    ratio    = sum (":" sum)*
    sum      = product (("+" | "-" | "\pm") product)*
    product  = sign (["*" | "/"] sign)*                a missing operator is a product
    power    = postfix ["^" exponent]
    postfix  = atom ("!" | "^\circ" | "%" | "_" subscript | "'")*
"""

from llmalign.verifiers.math.atoms import MAX_DEPTH, Atoms
from llmalign.verifiers.math.build import add, is_integer, joined_sets, last_factor, multiply
from llmalign.verifiers.math.lexer import (
    CLOSING,
    RELATIONS,
    SETS,
    STOPPERS,
    NotMath,
    Token,
    tokens_of,
)
from llmalign.verifiers.math.tree import Node, height, negative, number

MAX_HEIGHT = 200  # of the tree


def parse(text: str) -> Node:
    """The tree of a normalised answer (see ``latex.normalise``).

    Raises:
        NotMath: it cannot be read, or is too long, too deep or holds too large a literal.
    """
    parser = _Parser(tokens_of(text))
    tree = parser.answer()
    if parser.peek():
        raise NotMath(f"unexpected {parser.peek()!r}")
    if height(tree) > MAX_HEIGHT:
        raise NotMath("nested too deep")
    return tree


class _Parser(Atoms):
    def parsed(self, tokens: list[Token]) -> Node:
        """A sum that takes all of some tokens."""
        inner = _Parser(tokens)
        value = inner.sum()
        if inner.peek():
            inner.fail()
        return value

    def answer(self) -> Node:
        groups = [self.items()]
        while self.take(";"):
            if self.peek() and self.peek() not in CLOSING:
                groups.append(self.items())
        return groups[0] if len(groups) == 1 else Node("list", tuple(groups), ";")

    def items(self) -> Node:
        items = [self.relation()]
        used: set[str] = set()
        while separators := self._separators():
            used.update(separators)
            if not self.peek() or self.peek() in CLOSING or self.peek() == ";":
                if separators == [","]:  # a comma at the end means nothing
                    break
                self.fail()
            items.append(self.relation())
        if len(items) == 1:
            return items[0]
        together = used & {"and", r"\land", r"\wedge"}
        return Node("list", tuple(items), "and" if together and "or" not in used else "or")

    def _separators(self) -> list[str]:
        found = []
        while separator := self.take(",", "and", "or", r"\land", r"\lor", r"\wedge", r"\vee"):
            found.append(separator)
        if len([s for s in found if s == ","]) > 1:
            self.fail()
        return found

    def relation(self) -> Node:
        operands = [self.sets()]
        operators = []
        while self.kind() != "text" and (operator := RELATIONS.get(self._negated())):
            self.at += 1
            operators.append(operator)
            operands.append(self.sets())
        return Node("rel", tuple(operands), tuple(operators)) if operators else operands[0]

    def _negated(self) -> str:
        """The next relation; ``\\not=`` is read as one."""
        if self.peek() == r"\not":
            self.at += 1
            return r"\ne" if self.peek() == "=" else ""
        return self.peek()

    def sets(self) -> Node:
        left = self.ratio()
        while operator := self.take(*SETS):
            left = joined_sets(SETS[operator], left, self.ratio())
        return left

    def ratio(self) -> Node:
        parts = [self.sum()]
        while self.peek() == ":" and not self._ends_condition():
            self.at += 1
            if self.take("="):  # f := …
                self.at -= 1
                break
            parts.append(self.sum())
        return parts[0] if len(parts) == 1 else Node("ratio", tuple(parts))

    def _ends_condition(self) -> bool:
        return self.bars < 0  # inside { x : … }, where the colon means "such that"

    # --- arithmetic

    def sum(self) -> Node:
        terms = [self.product()]
        while sign := self.take("+", "-", r"\pm", r"\mp"):
            term = self.product()
            if sign in (r"\pm", r"\mp"):
                terms = [Node("pm", (add(terms), term))]
            else:
                terms.append(negative(term) if sign == "-" else term)
        return add(terms)

    def product(self) -> Node:
        value = self.signed()
        while True:
            if operator := self.take("*", "/"):
                factor = self.signed()
                value = Node("div", (value, factor)) if operator == "/" else multiply(value, factor)
            elif self.starts_factor():
                value = self.juxtaposed(value)
            elif self.kind() == "text":
                self.unit()  # words behind a value are its unit or a remark
            elif self.peek() in (r"\mod", r"\bmod", r"\pmod"):
                self.at += 1
                value = Node("call", (value, self.signed()), "mod")
            else:
                return value

    def juxtaposed(self, value: Node) -> Node:
        """A product without its sign; two numbers side by side are a mixed number or nothing."""
        digits = self.kind() == "number" and self.tokens[self.at - 1][0] == "number"
        factor = self.power()
        if digits and last_factor(value).kind == "num":
            if not (is_integer(value) and is_integer(factor) and self.take("/")):
                raise NotMath("two numbers side by side")
            factor = Node("div", (factor, self.power()))  # 2 5/8
        return multiply(value, factor, implicit=True)

    def unit(self) -> None:
        r"""Words behind a value, such as ``\text{ cm}^2`` or ``\text{ m} / \text{ s}``."""
        while self.kind() == "text":
            self.at += 1
            if self.take("^"):
                self.exponent()
            follows = self.tokens[self.at + 1 : self.at + 2]
            if self.peek() in ("/", "*") and follows and follows[0][0] == "text":
                self.at += 1

    def signed(self) -> Node:
        signs = 0
        while sign := self.take("+", "-"):
            signs += sign == "-"
        if self.take(r"\pm", r"\mp"):
            value = Node("pm", (self.signed(),))
        else:
            value = self.power()
        return negative(value) if signs % 2 else value

    def starts_factor(self) -> bool:
        kind, text = (self.kind(), self.peek()) if self.peek() else ("", "")
        if kind in ("number", "letter", "begin", "space"):
            return True
        if kind == "word":
            return text not in ("and", "or", ",")
        if kind == "sign":
            return text in ("(", "[", "{") or (text == "|" and not self.bars)
        if kind == "command":
            return not (text in RELATIONS or text in SETS or text in CLOSING or text in STOPPERS)
        return False

    def power(self) -> Node:
        base = self.postfix()
        if self.take("^"):
            return Node("pow", (base, self.exponent()))
        return base

    def exponent(self) -> Node:
        sign = self.take("-", "+")
        if self.peek() in ("(", "{", "["):
            value = self.bracketed()
        else:
            value = self.postfix()
        if self.take("^"):
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise NotMath("nested too deep")
            value = Node("pow", (value, self.exponent()))
            self.depth -= 1
        return negative(value) if sign == "-" else value

    def postfix(self) -> Node:
        value = self.atom()
        while True:
            if self.take("!"):
                if self.peek() == "!":
                    raise NotMath("a double factorial")
                value = Node("call", (value,), "factorial")
            elif self.take("%", r"\%"):
                value = Node("div", (value, number(100)))
            elif self.peek() == "^" and self._degree():
                value = Node("deg", (value,))
            elif self.peek() == "'" and value.kind == "num":
                self.at += 1
                value = self._minutes(value)
            else:
                return value

    def _minutes(self, value: Node) -> Node:
        """Minutes or seconds of arc."""
        parts = 3600 if self.take("'") else 60
        return Node("deg", (Node("div", (value, number(parts))),))

    def _degree(self) -> bool:
        """Takes ``^\\circ`` or ``^{\\circ}`` if it stands here."""
        ahead = [text for _, text in self.tokens[self.at + 1 : self.at + 4]]
        if ahead[:1] == [r"\circ"]:
            self.at += 2
            return True
        if ahead == ["{", r"\circ", "}"]:
            self.at += 4
            return True
        return False

    # --- atoms
