"""Finds the answer in a response. Every function here is linear in the length of the text."""

import re
from collections.abc import Callable, Sequence
from typing import Literal, get_args

Form = Literal["boxed", "hashes", "answer_is", "last_number"]
FORMS: tuple[Form, ...] = get_args(Form)
DEFAULT_FORMS: tuple[Form, ...] = ("boxed", "hashes", "answer_is")

_BOX_TOKEN = re.compile(r"\\(?:boxed|fbox)\s{0,9}\{|\\[\\{}]|[{}]")
_BOX_GAP = re.compile(r"(?:[\s,;&$]|\\q?quad|\\[,;()\[\]]|\\text\s?\{\s?(?:and|or)\s?\}|and|or)*")
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_ANSWER_IS = re.compile(r"answer[*_ \t]*(?:is\b|:|=)[:*_\s]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Za-z<])")
_THE_X_IS = re.compile(r"The\b(?:(?!\bis\b).)*\bis:?\s+((?:(?!\bis\b).)+)")
_LAST_NUMBER = re.compile(r"(?:(?<![\w)}])[-−])?\$?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?%?")


def after_thinking(text: str) -> str:
    """What stands after the last ``</think>``: the part meant to be read."""
    return text.rpartition("</think>")[2]


def extract(text: str, forms: Sequence[str] = DEFAULT_FORMS) -> str | None:
    r"""The answer of a response, as written, or None where no form finds one.

    Args:
        text: the response; only what stands after its last ``</think>`` is read.
        forms: tried in order, the first that finds something wins. ``boxed``: the last non-empty
            ``\boxed{…}``, joined with the boxes before it where only separators stand between;
            ``hashes``: the last ``#### x``; ``answer_is``: the last "answer is x" or
            "answer: x"; ``last_number``: the last number of the text.
    Raises:
        ValueError: a form is unknown.
    """
    text = after_thinking(text)
    for form in forms:
        if form not in _FINDERS:
            raise ValueError(f"forms holds {form!r}, expected one of {', '.join(FORMS)}")
        if found := _FINDERS[form](text):
            return found
    return None


def _boxed(text: str) -> str | None:
    boxes = [(start, end) for start, end in _box_spans(text) if _inside(text[start:end])]
    if not boxes:
        return None
    first = len(boxes) - 1
    while first and _only_separators(text, boxes[first - 1][1], boxes[first][0]):
        first -= 1
    contents = [_inside(text[start:end]) for start, end in boxes[first:]]
    return ", ".join(dict.fromkeys(contents))


def _box_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of each outermost balanced box, command and brackets included."""
    spans: list[tuple[int, int]] = []
    opened: list[tuple[int, bool]] = []
    for token in _BOX_TOKEN.finditer(text):
        if token.group().endswith("{") and token.group() != r"\{":
            opened.append((token.start(), len(token.group()) > 1))
        elif token.group() == "}" and opened:
            start, is_box = opened.pop()
            if is_box:
                while spans and spans[-1][0] > start:
                    spans.pop()
                spans.append((start, token.end()))
    return spans


def _inside(box: str) -> str:
    content = box[box.index("{") + 1 : -1].strip()
    nested = _boxed(content) if "boxed" in content or "fbox" in content else None
    return nested or content


def _only_separators(text: str, start: int, end: int) -> bool:
    return end - start <= 40 and _BOX_GAP.fullmatch(text, start, end) is not None


def _hashes(text: str) -> str | None:
    found = [match[1].strip() for match in _HASHES.finditer(text)]
    return next((answer for answer in reversed(found) if answer), None)


def _answer_is(text: str) -> str | None:
    for start in reversed([match.end() for match in _ANSWER_IS.finditer(text)]):
        line = text[start:].partition("\n")[0] if start < len(text) else ""
        found = _SENTENCE_END.split(line, maxsplit=1)[0].strip()
        if found:
            # "Answer: The largest n is 34." names the quantity before its value.
            named = _THE_X_IS.fullmatch(found)
            return named[1] if named else found
    return None


def _last_number(text: str) -> str | None:
    found = _LAST_NUMBER.findall(text)
    return found[-1] if found else None


_FINDERS: dict[str, Callable[[str], str | None]] = {
    "boxed": _boxed,
    "hashes": _hashes,
    "answer_is": _answer_is,
    "last_number": _last_number,
}
