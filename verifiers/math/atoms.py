"""What an expression is made of: brackets, functions, commands, sums, matrices."""

from abc import ABC, abstractmethod

from llmalign.verifiers.math.build import literal, multiply
from llmalign.verifiers.math.lexer import (
    CLOSING,
    FUNCTIONS,
    GREEK,
    PAIRS,
    SYNONYMS,
    Cursor,
    NotMath,
    Token,
    tokens_of,
)
from llmalign.verifiers.math.tree import INFINITY, Node, negative, number

MAX_DEPTH = 40  # of nested atoms; each may take 18 of Python's thousand frames


class Atoms(Cursor, ABC):
    """Parses atoms; the grammar above them is the parser's."""

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(tokens)
        self.depth = 0
        self.bars = 0  # open |…|, where a bar closes; -1 in { x | … }, where it means "such that"

    @abstractmethod
    def answer(self) -> Node: ...

    @abstractmethod
    def sum(self) -> Node: ...

    @abstractmethod
    def product(self) -> Node: ...

    @abstractmethod
    def power(self) -> Node: ...

    @abstractmethod
    def exponent(self) -> Node: ...

    @abstractmethod
    def starts_factor(self) -> bool: ...

    @abstractmethod
    def parsed(self, tokens: list[Token]) -> Node: ...

    def atom(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotMath("nested too deep")
        value = self._atom(self.kind(), self.peek())
        self.depth -= 1
        return value

    def _atom(self, kind: str, text: str) -> Node:
        if kind == "number":
            self.at += 1
            return literal(text)
        if kind == "letter":
            self.at += 1
            return self.symbol(text)
        if kind == "word" and text not in ("and", "or", ","):
            self.at += 1
            return self.named(SYNONYMS.get(text, text))
        if kind == "text" or kind == "space":
            self.at += 1
            return Node(kind, value=text)
        if kind == "begin":
            self.at += 1
            return self.environment(text)
        if kind == "sign" and (text in ("(", "[", "{") or (text == "|" and self.bars <= 0)):
            return self.bracketed()
        if kind == "command" and text not in CLOSING:
            return self.bracketed() if text in PAIRS else self.command()
        self.fail()

    def symbol(self, name: str) -> Node:
        """A variable with its subscript, or a call of what is named like a function."""
        if self.take("_"):
            name += "_" + self.subscript()
        while self.take("'"):
            name += "'"
        named_so = name[0] in "fghFGH"
        if named_so and self._texts(7) == ["^", "{", "-", "1", "}", "("]:
            self.at += 5
            name += "^-1"
        if name == "C" and self.peek() == "(":
            return self._choose()
        if self.peek() == "(" and (named_so or self._is_defined()):
            inner = self.bracketed()
            return Node("call", inner.args if inner.kind in ("tuple", "list") else (inner,), name)
        return Node("sym", value=name)

    def _texts(self, count: int) -> list[str]:
        return [text for _, text in self.tokens[self.at : self.at + count - 1]]

    def _is_defined(self) -> bool:
        """Whether ``(x) =`` or ``(10) =`` follows: then a letter before it is a function."""
        ahead = self.tokens[self.at + 1 : self.at + 8]
        for place, (kind, text) in enumerate(ahead):
            if text == ")":
                return place > 0 and [t for _, t in ahead[place + 1 : place + 2]] == ["="]
            if kind not in ("letter", "number") and text != ",":
                return False
        return False

    def _choose(self) -> Node:
        """``C(n, k)``; with one argument C is a factor."""
        inner = self.bracketed()
        if inner.kind in ("tuple", "list") and len(inner.args) == 2:
            return Node("call", inner.args, "binom")
        return multiply(Node("sym", value="C"), inner)

    def subscript(self) -> str:
        if self.take("{"):
            parts, depth = [], 1
            while depth and self.peek():
                depth += {"{": 1, "}": -1}.get(self.peek(), 0)
                if depth:
                    parts.append(self.peek())
                self.at += 1
            return "".join(parts)
        text = self.peek()
        if not text:
            self.fail()
        self.at += 1
        return text

    def named(self, name: str) -> Node:
        if name == "pi":
            return Node("sym", value="pi")
        if name in ("infinity", "inf"):
            return INFINITY
        if name in GREEK:
            return self.symbol(name)
        if name in ("sqrt", "cbrt"):
            return self.root(name)
        return self.function(name)

    def command(self) -> Node:
        name = self.peek()[1:]
        self.at += 1
        if name == "infty":
            return INFINITY
        if name in ("emptyset", "varnothing"):
            return Node("empty")
        if name == "frac":
            return Node("div", (self.argument(), self.argument()))
        if name in ("binom", "dbinom", "tbinom", "choose"):
            return Node("call", (self.argument(), self.argument()), "binom")
        if name in ("sum", "prod", "int", "lim"):
            return self.operator(name)
        if name in ("ldots", "dots", "cdots", "dotsc", "dotsb"):
            return Node("text", value="...")
        if name in ("angle", "triangle"):
            return self.power()
        if name in GREEK or name in FUNCTIONS or name in SYNONYMS or name == "pi":
            return self.named(SYNONYMS.get(name, name))
        raise NotMath(f"unknown command \\{name}")

    def root(self, name: str) -> Node:
        degree = number(3) if name == "cbrt" else number(2)
        if self.peek() == "[":
            self.at += 1
            degree = self.sum()
            self.expect("]")
        return Node("call", (degree, self.argument()), "root")

    def argument(self) -> Node:
        """An argument of a command: a group, or one token (one digit of a number)."""
        if self.peek() in ("{", "("):
            return self.bracketed()
        if self.kind() == "number" and len(self.peek()) > 1:
            kind, text = self.tokens[self.at]
            if not text.isdigit():
                self.fail()
            self.tokens[self.at] = (kind, text[1:])
            return number(int(text[0]))
        return self.atom()

    def function(self, name: str) -> Node:
        base = exponent = None
        if self.take("_"):
            base = self.argument() if self.peek() == "{" else self.atom()
        if self.take("^"):
            exponent = self.exponent()
        args = self.function_arguments()
        if name == "log" and base is not None:
            args = (base, *args)
        elif base is not None:
            raise NotMath(f"a subscript of {name}")
        inverse = exponent is not None and exponent == negative(number(1))
        if inverse and name in ("sin", "cos", "tan", "cot", "sec", "csc"):
            return Node("call", args, "arc" + name)
        value = Node("call", args, name)
        return Node("pow", (value, exponent)) if exponent is not None else value

    def function_arguments(self) -> tuple[Node, ...]:
        if self.peek() in ("(", "{", "[", r"\{"):
            inner = self.bracketed()
            if self.take("^"):  # sin(x)^2 is the square of the sine
                self.at -= 1
            return inner.args if inner.kind in ("tuple", "list") else (inner,)
        value = self.signed_factor()
        while self.starts_factor() and not self._starts_function():
            value = multiply(value, self.power(), implicit=True)
        return (value,)

    def signed_factor(self) -> Node:
        return negative(self.power()) if self.take("-") else self.power()

    def _starts_function(self) -> bool:
        name = self.peek().lstrip("\\")
        return SYNONYMS.get(name, name) in FUNCTIONS and name not in ("sqrt", "cbrt")

    def operator(self, name: str) -> Node:
        r"""``\sum_{k=1}^{n} body``, ``\int_a^b body\,dx``, ``\lim_{x\to a} body``."""
        self.expect("_")
        if name == "int":
            low = self.argument()
            self.expect("^")
            high = self.argument()
            return self.integral(low, high)
        self.expect("{")
        variable = self.peek()
        self.at += 1
        if name == "lim":
            if not self.take(r"\to", r"\rightarrow"):
                self.fail()
        else:
            self.expect("=")
        low = self.sum()
        self.expect("}")
        bounds: tuple[Node, ...] = (low,)
        if name != "lim":
            self.expect("^")
            bounds = (low, self.argument())
        return Node(name, (*bounds, self.indexed(self.product(), variable)), variable)

    def integral(self, low: Node, high: Node) -> Node:
        ends = [
            k
            for k in range(self.at, len(self.tokens) - 1)
            if self.tokens[k] == ("letter", "d") and self.tokens[k + 1][0] == "letter"
        ]
        if not ends:
            raise NotMath("an integral without its variable")
        variable = self.tokens[ends[0] + 1][1]
        body = self.tokens[self.at : ends[0]]
        tree = self.parsed(body) if body else number(1)
        self.at = ends[0] + 2
        return Node("int", (low, high, tree), variable)

    def bracketed(self) -> Node:
        opening = self.peek()
        self.at += 1
        if opening in ("|", r"\lvert", r"\|", r"\lVert"):
            return self.absolute(opening)
        bars, self.bars = self.bars, (-1 if opening == r"\{" else 0)
        if self._empty(opening):
            self.bars = bars
            return Node("empty")
        inner = self.answer()
        if opening == r"\{" and self.take("|", ":"):
            inner = self._builder(inner)
        self.bars = bars
        closing = self.take(")", "]", r"\}", "}", r"\rangle", r"\rfloor", r"\rceil")
        if not closing:
            self.fail()
        return self._enclosed(opening, inner, closing)

    def _builder(self, subject: Node) -> Node:
        """``{x | condition}``; in ``{x \\in S | condition}`` the numbers of S that fulfil it."""
        condition = Node("builder", (self.answer(),))
        if subject.kind == "rel" and subject.value == ("in",):
            return Node("inter", (condition, subject.args[1]))
        return condition

    def _empty(self, opening: str) -> bool:
        if opening == r"\{" and self.take(r"\}"):
            return True
        return False

    def absolute(self, opening: str) -> Node:
        self.bars = max(self.bars, 0) + 1
        inner = self.sum()
        self.bars -= 1
        self.expect(PAIRS[opening])
        return Node("call", (inner,), "abs")

    def _enclosed(self, opening: str, inner: Node, closing: str) -> Node:
        if opening == r"\lfloor" or opening == r"\lceil":
            if PAIRS[opening] != closing:
                self.fail()
            return Node("call", (inner,), "floor" if opening == r"\lfloor" else "ceil")
        items = inner.args if inner.kind == "list" else (inner,)
        if opening == r"\{":
            if closing != r"\}":
                self.fail()
            return inner if inner.kind in ("builder", "inter") else Node("set", items)
        if opening == "{":
            if closing != "}":
                self.fail()
            # {1,2} without backslashes is a set that lost them
            return Node("set", items) if inner.kind == "list" else inner
        if opening == r"\langle":
            return Node("tuple", items, "()")
        if closing not in (")", "]"):
            self.fail()
        if len(items) == 1 and opening + closing in ("()", "[]"):
            listed = opening == "[" and inner.kind in ("tuple", "set")
            return Node("tuple", items, "[]") if listed else inner
        return Node("tuple", items, opening + closing)

    def environment(self, name: str) -> Node:
        rows: list[Node] = []
        cells: list[Node] = []
        while True:
            if self.peek() not in ("&", r"\\", r"\end", r"\cr"):
                cells.append(self.answer())
            if self.take("&"):
                continue
            end = self.take(r"\\", r"\cr", r"\end")
            if not end:
                self.fail()
            if cells:
                rows.append(Node("tuple", tuple(cells), "()"))
            cells = []
            if end == r"\end":
                break
        if name == "cases":
            return Node("list", tuple(row.args[0] for row in rows), "cases")
        if name == "vmatrix":
            return Node("matrix", tuple(rows), "determinant")
        if "matrix" not in name and name != "array":
            raise NotMath(f"unknown environment {name}")
        return Node("matrix", tuple(rows))

    def indexed(self, body: Node, variable: str) -> Node:
        """The body of a sum with ``a_k`` as a function of its index k."""
        if body.kind == "sym" and variable in body.value.partition("_")[2]:
            name, _, index = body.value.partition("_")
            return Node("call", (self.parsed(tokens_of(index)),), name)
        if not body.args:
            return body
        args = tuple(self.indexed(arg, variable) for arg in body.args)
        return Node(body.kind, args, body.value, body.places)
