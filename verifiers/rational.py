"""Exact arithmetic on untrusted text: a recursive-descent evaluator over fractions, never eval.

Grammar, with the usual precedence and no implicit product:

    sum     = product (("+" | "-") product)*
    product = signed (("*" | "/") signed)*
    signed  = ("+" | "-") signed | power
    power   = postfix ["^" signed]
    postfix = atom ["!"]
    atom    = number | "(" sum ")" | "{" sum "}" | "\\frac" group group
"""

import re
from fractions import Fraction

MAX_BITS = 10_000  # of a numerator plus denominator; str() of an int stops at 4,300 digits
MAX_DEPTH = 100  # two per bracket
MAX_FACTORIAL = 1_000

_NUMBER = re.compile(
    r"(?P<whole>[0-9]*)\.(?P<fixed>[0-9]*)"
    r"(?:\\overline\s*\{(?P<line>[0-9]+)\}|\\dot\s*\{?(?P<dot>[0-9])\}?)"
    r"|(?P<plain>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE](?P<exponent>[+-]?[0-9]+))?"
)


class NotRational(ValueError):
    """The text is no arithmetic on numbers."""


class TooLarge(ValueError):
    """The text is arithmetic, but its value or its nesting exceeds the caps."""


def evaluate(text: str, literals: list[Fraction] | None = None) -> Fraction:
    r"""The exact value of an arithmetic expression.

    Args:
        text: numbers (``12``, ``.5``, ``1e-3``, ``0.\overline{3}``), ``+ - * / ^ !``, round
            and curly brackets, ``\frac``; whitespace only between tokens.
        literals: every number read is appended here, in order.
    Raises:
        NotRational: anything else stands in the text, or it divides by zero.
        TooLarge: a value needs more than ``MAX_BITS`` bits or brackets nest too deep.
    """
    parser = _Parser(text, [] if literals is None else literals)
    value = parser.sum()
    if parser.peek():
        raise NotRational(f"unexpected {parser.peek()!r}")
    return value


class _Parser:
    def __init__(self, text: str, literals: list[Fraction]) -> None:
        self.text, self.literals = text, literals
        self.at = self.depth = 0

    def peek(self) -> str:
        """The next character that is no whitespace, "" at the end."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def take(self, options: str) -> str:
        """Consumes and returns the next character if it is one of ``options``, else ""."""
        found = self.peek()
        if not found or found not in options:
            return ""
        self.at += 1
        return found

    def expect(self, character: str) -> None:
        if not self.take(character):
            raise NotRational(f"expected {character!r}")

    def sum(self) -> Fraction:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge("nested too deep")
        value = self.product()
        while sign := self.take("+-"):
            term = self.product()
            value = _capped(value + term if sign == "+" else value - term)
        self.depth -= 1
        return value

    def product(self) -> Fraction:
        value = self.signed()
        while operator := self.take("*/"):
            factor = self.signed()
            value = _capped(value * factor if operator == "*" else _divide(value, factor))
        return value

    def signed(self) -> Fraction:
        negative = False
        while sign := self.take("+-"):
            negative ^= sign == "-"
        value = self.power()
        return -value if negative else value

    def power(self) -> Fraction:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge("nested too deep")
        base = self.atom()
        if self.take("!"):
            if self.peek() == "!":  # a double factorial is not the factorial of a factorial
                raise NotRational("unexpected '!'")
            base = _factorial(base)
        if self.take("^"):
            base = _power(base, self.signed())
        self.depth -= 1
        return base

    def atom(self) -> Fraction:
        if self.peek() in ("(", "{"):
            return self.group()
        if self.text.startswith(r"\frac", self.at):
            self.at += len(r"\frac")
            numerator = self.argument()
            return _divide(numerator, self.argument())
        match = _NUMBER.match(self.text, self.at)
        if not match:
            raise NotRational(f"unexpected {self.peek() or 'end'!r}")
        self.at = match.end()
        self.literals.append(_literal(match))
        return self.literals[-1]

    def group(self) -> Fraction:
        closing = ")" if self.take("({") == "(" else "}"
        value = self.sum()
        self.expect(closing)
        return value

    def argument(self) -> Fraction:
        r"""What follows ``\frac``: a group, or one digit as in ``\frac12``."""
        if self.peek() == "{":
            return self.group()
        digit = self.take("0123456789")
        if not digit:
            raise NotRational("expected an argument of a fraction")
        self.literals.append(Fraction(int(digit)))
        return self.literals[-1]


def _literal(match: re.Match[str]) -> Fraction:
    if len(match.group()) > MAX_BITS // 4:
        raise TooLarge("too many digits")
    if match["plain"] is None:
        period = match["line"] or match["dot"]
        fixed = match["whole"] + match["fixed"]
        nines = Fraction(int(period), 10 ** len(period) - 1)
        return _capped((int(fixed or "0") + nines) / 10 ** len(match["fixed"]))
    whole, _, decimals = match["plain"].partition(".")
    value = Fraction(int(whole + decimals), 10 ** len(decimals))
    if match["exponent"]:
        value = _capped(value * _power(Fraction(10), Fraction(int(match["exponent"]))))
    return _capped(value)


def _capped(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise TooLarge(f"needs more than {MAX_BITS:,} bits")
    return value


def _divide(numerator: Fraction, denominator: Fraction) -> Fraction:
    if not denominator:
        raise NotRational("division by zero")
    return _capped(numerator / denominator)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or (not base and exponent <= 0):
        raise NotRational("a power that is not rational")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(base) not in (0, 1) and abs(exponent) * (bits - 1) > MAX_BITS:
        raise TooLarge(f"needs more than {MAX_BITS:,} bits")
    return _capped(base ** int(exponent))


def _factorial(value: Fraction) -> Fraction:
    if value.denominator != 1 or value < 0:
        raise NotRational("factorial of what is no natural number")
    if value > MAX_FACTORIAL:
        raise TooLarge(f"factorial of more than {MAX_FACTORIAL:,}")
    product = 1
    for factor in range(2, int(value) + 1):
        product *= factor
    return _capped(Fraction(product))
