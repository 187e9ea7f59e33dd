"""Tokens of a mathematical answer, and a cursor over them."""

import re
from typing import NoReturn

MAX_TOKENS = 5_000


class NotMath(ValueError):
    """The text is no mathematics that this parser knows."""


FUNCTIONS = set(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth log ln"
    " lg exp sqrt cbrt gcd lcm max min abs floor ceil factorial det Re Im arg sgn".split()
)
SYNONYMS = {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "ctg": "cot",
    "tg": "tan",
    "cosec": "csc",
    "arctg": "arctan",
    "arcctg": "arccot",
    "operatornamearccot": "arccot",
}
GREEK = set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi"
    " rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi"
    " Psi Omega ell hbar nabla partial".split()
)
RELATIONS = {
    "=": "=",
    "<": "<",
    ">": ">",
    r"\le": "<=",
    r"\ge": ">=",
    r"\ne": "!=",
    "<=": "<=",
    ">=": ">=",
    "!=": "!=",
    r"\in": "in",
    r"\approx": "~",
    r"\sim": "~",
    r"\equiv": "==",
    r"\subset": "sub",
    r"\subseteq": "sub",
}
SETS = {r"\cup": "union", r"\cap": "inter", r"\setminus": "minus", r"\backslash": "minus"}
PAIRS = {
    "(": ")",
    "[": "]",
    r"\{": r"\}",
    "{": "}",
    r"\langle": r"\rangle",
    r"\lfloor": r"\rfloor",
    r"\lceil": r"\rceil",
    r"\lvert": r"\rvert",
    r"\lVert": r"\rVert",
    "|": "|",
    r"\|": r"\|",
}
CLOSING = set(PAIRS.values()) | {"&", r"\\", r"\end"}

_WORD = "|".join(
    sorted(
        FUNCTIONS | set(SYNONYMS) | {"pi", "and", "or", "infinity", "inf"},
        key=len,
        reverse=True,
    )
)
_GREEK_WORD = "|".join(sorted(GREEK, key=len, reverse=True))
_TOKEN = re.compile(
    r"(?P<number>[0-9]*\.[0-9]*\\(?:overline|dot|bar)\s*\{?[0-9]+\}?"
    r"|(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+(?![0-9A-Za-z.]))?)"
    r"|(?P<command>\\(?:[a-zA-Z]+|.))"
    rf"|(?P<word>(?:{_WORD}|{_GREEK_WORD})(?![A-Za-z])|(?:{_WORD}))"
    r"|(?P<letter>[^\W\d_])"
    r"|(?P<sign><=|>=|!=|[-+*/^_=<>()\[\]{}|,;:!%'&])",
    re.DOTALL,
)
# An accent makes another letter; an arrow and a hat both mark vectors, a line over AB is nothing.
_ACCENTS = {
    r"\hat": "vec", r"\vec": "vec", r"\bar": "bar", r"\tilde": "tilde", r"\dot": "dot",
    r"\overline": "", r"\overrightarrow": "", r"\ddot": "ddot",
}  # fmt: skip
_LONG_WORD = re.compile(r"[A-Za-z]{4,}")
_TEXT = re.compile(r"\s*\{([^{}]*)\}")
_JOINED = re.compile(r"(.+?)[,\s]+(and|or)")
_SPACE = re.compile(r"\s*\{?\s*([RZNQC])\s*\}?(?:\s*[_^]\s*(?:\{[^{}]*\}|[^\s{}]))*")
_BEGIN = re.compile(r"\s*\{([a-zA-Z*]+)\}(?:\s*\{[lcr|\s]*\})?")
STOPPERS = {r"\pm", r"\mp", r"\to", r"\rightarrow", r"\mod", r"\bmod", r"\pmod", r"\mid", r"\%"} | {
    r"\land", r"\lor", r"\wedge", r"\vee", r"\not", r"\Rightarrow", r"\circ", r"\cr",
}  # fmt: skip


Token = tuple[str, str]  # class, text


def tokens_of(text: str) -> list[Token]:
    """All tokens of a text, in order; raises NotMath."""
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise NotMath(f"unexpected {text[at]!r}")
        kind, found = match.lastgroup or "", match.group()
        at = match.end()
        if kind == "command":
            at = _command(text, at, found, tokens)
        elif kind == "word" or kind == "letter":
            _letters(text, match, tokens)
        else:
            tokens.append((kind, found))
        if len(tokens) > MAX_TOKENS:
            raise NotMath("too long")
    return tokens


def _command(text: str, at: int, command: str, tokens: list[Token]) -> int:
    if command in (r"\text", r"\operatorname", *_ACCENTS):
        if match := _TEXT.match(text, at):
            _quoted(command, match[1].strip(), tokens)
            return match.end()
        if command in (r"\text", r"\operatorname"):
            raise NotMath(f"{command} without its words")
        return at
    if command == r"\begin" or command == r"\end":
        match = _BEGIN.match(text, at)
        if match is None:
            raise NotMath(f"{command} without a name")
        tokens.append(("begin" if command == r"\begin" else "sign", match[1]))
        if command == r"\end":
            tokens[-1] = ("sign", r"\end")
        return match.end()
    if command == r"\mathbb":
        if match := _SPACE.match(text, at):
            tokens.append(("space", match[1]))
            return match.end()
        raise NotMath("an unknown set of numbers")
    if command in (r"\ ", r"\$", r"\limits", r"\nolimits", r"\displaystyle", r"\mid"):
        if command == r"\mid":
            tokens.append(("sign", "|"))
        return at
    tokens.append(("command", command))
    return at


def _quoted(command: str, words: str, tokens: list[Token]) -> None:
    """Words in ``\\text{}``, and letters under an accent."""
    lower = words.lower().strip(" ,.;:")
    if command in _ACCENTS:
        if not words:
            raise NotMath(f"{command} over nothing")
        tokens.append(("letter", f"{_ACCENTS[command]} {words}".strip()))
    elif lower in ("and", "or"):
        tokens.append(("word", lower))
    elif not lower:
        if "," in words or ";" in words:
            tokens.append(("sign", ","))
    elif match := _JOINED.fullmatch(lower):
        tokens += [("text", match[1]), ("word", match[2])]
    elif lower in FUNCTIONS or lower in SYNONYMS:
        tokens.append(("word", lower))
    elif len(words.strip()) == 1:
        tokens.append(("letter", words.strip()))
    else:
        tokens.append(("text", lower))


def _letters(text: str, match: re.Match[str], tokens: list[Token]) -> None:
    found = match.group()
    if match.lastgroup == "letter":
        run = _LONG_WORD.match(text, match.start())
        starts = match.start() == 0 or not text[match.start() - 1].isalpha()
        if run and starts and not re.search(_WORD, run.group()):
            raise NotMath(f"unknown word {run.group()!r}")
    tokens.append(("word" if len(found) > 1 else "letter", found))


class Cursor:
    """A place in a list of tokens."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0

    def peek(self) -> str:
        """Text of the next token, "" at the end."""
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def kind(self) -> str:
        """Class of the next token, "" at the end."""
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def take(self, *options: str) -> str:
        """Consumes and returns the next token if it is one of ``options``, else ""."""
        found = self.peek()
        if found not in options or not found or self.kind() == "text":
            return ""
        self.at += 1
        return found

    def fail(self) -> NoReturn:
        """Raises NotMath at the next token."""
        raise NotMath(f"unexpected {self.peek() or 'end'!r}")

    def expect(self, token: str) -> None:
        """Consumes a token that must stand here."""
        if not self.take(token):
            self.fail()

    # --- lists, relations, sets
