r"""Is the right option chosen? Multiple choice with one letter or a set of letters.

A letter counts as ``B``, ``(B)``, ``B.``, ``Option B``, ``\textbf{(B)}``, or before its text
(``B. 5``, ``(B) 5``, ``B, because …``). A lone small letter is read as a capital. Digits are no
letters. Several letters are one answer made of all of them (``A, C``, ``A and C``, ``AC``), right
only where the gold is that set; "A or B" is never right. Where the options are known, the full
text of exactly one of them counts as its letter, and a letter beside another option's text is
wrong.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from llmalign.verifiers import VERIFIERS
from llmalign.verifiers.extract import after_thinking
from llmalign.verifiers.format import marked_answer
from llmalign.verifiers.latex import normalise
from llmalign.verifiers.verdict import GoldError, Judgement, Verdict

Options = Mapping[str, str]  # letter -> text
Letters = frozenset[str]

MAX_ANSWER = 2_000  # characters
_ITS_TEXT = "a letter with its text"

_WRAPPER = re.compile(r"\\text\s?\{([^{}]*)\}")
_LEAD = re.compile(r"(?:the\s+)?(?:correct\s+|final\s+)?(?:option|choice|answer)s?\b[\s:]*", re.I)
_SINGLE = re.compile(r"[(\[{]?\s?([A-Za-z])\s?[)\]}]?\s?[.:,;]?")
_LETTER = r"[(\[{]?[A-Z][)\]}]?"
_JOINED = rf"(?:{_LETTER}(?:\s?[,;&、]\s?(?:and\s)?|\s(?:and\s)?))*{_LETTER}[.]?"
_SEVERAL = re.compile(rf"{_JOINED}|[A-Z]{{2,10}}[.]?")
_MARKED = re.compile(
    r"(?:[(\[{]([A-Za-z])[)\]}]\s?[.:,]?|([A-Za-z])\)|([A-Z])\s?[.:,;=-])\s?(?P<rest>.+)"
    r"|([A-Z])\s(?P<after>(?:because|since|as|is|or|not)\b.+)",
    re.DOTALL,
)
_HEDGE = re.compile(r"(?:or|and|also|maybe|perhaps|possibly)\b", re.IGNORECASE)
_CHOICE_IS = re.compile(r"(?:option|choice)[*_ \t]*(?:is\b|:)[:*_ \t]*([^\n]+)", re.IGNORECASE)
_SPACE = re.compile(r"\s+")


def check_gold(gold: Any) -> None:
    """Raises GoldError unless ``gold`` is a letter, letters, or a mapping of letter and options."""
    _read_gold(gold)


def _read_gold(gold: Any) -> tuple[Letters, Options]:
    letter, given = (gold.get("letter"), gold.get("options")) if isinstance(gold, Mapping) else (
        gold, None)  # fmt: skip
    letters = _letters(_clean(letter)) if isinstance(letter, str) else None
    if not letters:
        hint = "a letter such as 'B', or 'A,C'; for numbers use verifier 'math'"
        raise GoldError(f"gold letter is {repr(letter)[:80]}, expected {hint}")
    if isinstance(given, list | tuple):
        given = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", given, strict=False))
    options = {} if given is None else given
    if not isinstance(options, Mapping) or not all(
        isinstance(part, str) for item in options.items() for part in item
    ):
        raise GoldError(f"options is {repr(given)[:80]}, expected texts, or letters with texts")
    options = {key.strip("()[]. ").upper(): text for key, text in options.items()}
    if options and not letters <= options.keys():
        raise GoldError(f"gold letter is {letter!r}, expected one of {', '.join(options)[:80]}")
    return letters, options


def _clean(answer: str) -> str:
    text = normalise(answer)
    for _ in range(3):  # \textbf{\text{(B)}}
        text = _WRAPPER.sub(r"\1", text)
    text = _SPACE.sub(" ", text.replace("*", " ").replace("`", " ")).strip()
    return _LEAD.sub("", text, count=1).removeprefix("is ").strip() if _LEAD.match(text) else text


def _letters(text: str) -> Letters | None:
    """The letters of a text that is nothing but letters."""
    if single := _SINGLE.fullmatch(text):
        return frozenset(single[1].upper())
    if _SEVERAL.fullmatch(text):
        return frozenset(re.findall("[A-Z]", text))
    return None


def _with_text(text: str, options: Options) -> Letters:
    """The options with this text: in its very case where there is one, else in any case."""
    plain = _plain(text)
    exact = frozenset(letter for letter, option in options.items() if _plain(option) == plain)
    return exact or frozenset(
        letter
        for letter, option in options.items()
        if _plain(option).casefold() == plain.casefold()
    )


def _plain(text: str) -> str:
    return _SPACE.sub("", _clean(text)).rstrip(".")


def read_choice(answer: str, options: Options) -> tuple[Letters | None, str]:
    """The letters of a bare answer, or None and why it names none."""
    if len(answer) > MAX_ANSWER:
        return None, "the answer is too long for a choice"
    text = _clean(answer)
    marked = _MARKED.fullmatch(text)
    letters, why = _marked(marked, options) if marked else (None, "names no option")
    if letters and why == _ITS_TEXT:
        return letters, why
    bare = _letters(text)
    alike = _with_text(answer, options)
    # "B" is letter B even where another option reads "B"; "c", "S" or "A and B" may be texts.
    is_letter = _SINGLE.fullmatch(text) and text[0].isupper() and text[0] in options
    if len(alike) == 1 and not is_letter:
        return alike, "the text of an option"
    if len(alike) > 1 and not bare:
        return None, "the text of several options"
    letters = bare or letters
    if letters and options and not letters <= options.keys():
        return None, f"{','.join(sorted(letters))} is no option"
    return letters, "names its letter" if letters else why


def _marked(marked: re.Match[str], options: Options) -> tuple[Letters | None, str]:
    """The letter that stands before more text."""
    letter = next(group for group in marked.groups() if group).upper()
    rest = marked["rest"] or marked["after"]
    texts = _with_text(rest, options)
    if letter in texts:
        return frozenset(letter), _ITS_TEXT
    if texts and not _letters(rest):
        return None, f"{letter} beside the text of another option"
    if _letters(rest) or _HEDGE.match(rest):
        return None, "several answers"
    return frozenset(letter), "names its letter"


def find_choice(text: str, options: Options) -> str | None:
    r"""The choice of a response, as written.

    It stands where ``marked_answer`` finds it, else after the last "option is" or "choice is",
    else in the last line, where that names an option.
    """
    if found := marked_answer(text):
        return found
    text = after_thinking(text)
    if named := _CHOICE_IS.findall(text):
        return named[-1]
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and read_choice(lines[-1], options)[0]:
        return lines[-1]
    return None


@VERIFIERS.register(
    "choice",
    paper="",
    traits={"signature": "choice|v1", "check_gold": check_gold, "preload": ()},
)
def judge(text: str, gold: Any, *, form: Literal["response", "answer"] = "response") -> Judgement:
    """Whether the option chosen is the right one.

    Args:
        text: the whole response, or a bare answer; never raises on it.
        gold: ``"B"``, ``"A,C"`` for a set, or ``{"letter": "B", "options": ["5", "6"]}``, where
            options may also be a mapping from letters to texts.
        form: ``response``: the choice is found as in ``find_choice``; ``answer``: the text is one.
    Raises:
        GoldError: the gold is no letter, or not among its options.
    """
    expected, options = _read_gold(gold)
    answer = text.strip() if form == "answer" else find_choice(text, options)
    if not answer:
        return Judgement(Verdict.NO_ANSWER, None, "no choice found")
    letters, why = read_choice(answer, options)
    if letters is None and form == "answer" and (inner := marked_answer(text)):
        letters, why = read_choice(inner, options)
    if letters is None:
        return Judgement(Verdict.WRONG, None, why)
    verdict = Verdict.RIGHT if letters == expected else Verdict.WRONG
    return Judgement(verdict, ",".join(sorted(letters)), why)
