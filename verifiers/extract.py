"""Finds the answer in a response. Every function here is linear in the length of the text."""

import re
from collections.abc import Callable, Sequence
from typing import Literal, get_args

Marker = Literal["boxed", "hashes", "answer_tag", "answer_is", "conclusion", "whole", "last_number"]
MARKERS: tuple[Marker, ...] = get_args(Marker)
DEFAULT_MARKERS: tuple[Marker, ...] = MARKERS[:-1]  # never any number of the text

_BOX_TOKEN = re.compile(r"\\{1,2}(?:boxed|fbox)\s{0,9}\{|\\[\\{}]|[{}]")
_BOX_OPENING = re.compile(r"\\(?:boxed|fbox)\s{0,9}\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)[ \t]{1,9}(-?[0-9][0-9.,/]*|[A-Za-z])(?![A-Za-z0-9])")
_BOX_GAP = re.compile(
    r"(?:[\s,;&$]|\\q?quad|\\[,;()\[\]]|\\text\s?\{[^{}]{0,25}\b(?:and|or)\s?\}|and|or)*"
)
_PART_GAP = re.compile(r"[\s$]*(?:[a-z]+ ){0,3}[a-z]+[\s$]+and[\s$]+")
_LONE_MINUS = re.compile(r"[=$(\[]\s*-\s*$")
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_ANSWER_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL | re.IGNORECASE)
_ANSWER_IS = re.compile(r"(?:answer[*_ \t]*(?:is\b|:|=)|^A:)[:*_\s]*", re.IGNORECASE | re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Za-z<])")
_THE_X_IS = re.compile(r"The\b(?:(?!\bis\b).)*\bis:?\s+((?:(?!\bis\b).)+)")
_ANSWER_SHOWN = re.compile(r"\s*Answer\s*((?:\$\$?|\\\[|\\\().*)", re.DOTALL)
_LAST_NUMBER = re.compile(r"(?:(?<![\w)}])[-−])?\$?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?%?")
_CONCLUDES = re.compile(r"\b(?:therefore|thus|hence|so|we find that|we get|the answer)\b", re.I)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$(?![0-9])|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL)
_IS_FORMULA = re.compile(r"\b(?:is|are)\s*(?:\$[^$]+\$|\\\([^$]+?\\\)|\\\[[^$]+?\\\])\s*\.?$")
_STATES = re.compile(r"(?:\b(?:is|are|equals)\b|=)\s*:?")
_CHAT_TOKEN = re.compile(r"<\|[a-z_]+\|>.*", re.DOTALL)
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}(?:[ ,]+[A-Za-z]{2,}){2,}")
_COUNTED = re.compile(r"[^A-Za-z]*[0-9](?: [a-z]+){1,6}\.?")  # 9 boxes of cookies per day
_WHOLE_LIMIT = 300  # characters: what is longer is a solution, not an answer
_TAIL = 400


def after_thinking(text: str) -> str:
    """What stands after the last ``</think>``: the part meant to be read."""
    return text.rpartition("</think>")[2]


def extract(text: str, markers: Sequence[str] = DEFAULT_MARKERS) -> str | None:
    r"""The answer of a response, as written, or None where no marker finds one.

    Args:
        text: the response; only what stands after its last ``</think>`` is read.
        markers: tried in order, the first that finds something wins. ``boxed``: the last
            non-empty ``\boxed{…}``, joined with the boxes before it where only separators stand
            between; ``hashes``: the last ``#### x``; ``answer_tag``: the last
            ``<answer>x</answer>``; ``answer_is``: the last "answer is x", "answer: x" or line
            "A: x"; ``conclusion``: the value or only formula of a last sentence that starts with
            "therefore", "thus", "so" or "hence", or of the only sentence; ``whole``: the response
            itself, if it is an answer and nothing else; ``last_number``: the last number.
    Raises:
        ValueError: a marker is unknown.
    """
    text = after_thinking(text)
    for marker in markers:
        if marker not in _FINDERS:
            raise ValueError(f"markers holds {marker!r}, expected one of {', '.join(MARKERS)}")
        if found := _FINDERS[marker](text):
            return found
    return None


def _boxed(text: str) -> str | None:
    if "\\boxed" not in text and "\\fbox" not in text:
        return None
    boxes = [(start, end) for start, end in _box_spans(text) if _inside(text[start:end])]
    if not boxes:
        bare = _BARE_BOX.findall(text)
        return str(bare[-1]) if bare else None
    first = len(boxes) - 1
    while first and _only_separators(text, boxes[first - 1][1], boxes[first][0]):
        first -= 1
    contents = [_sign(text, start) + _inside(text[start:end]) for start, end in boxes[first:]]
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
    """Content of a box, or of the last and innermost where boxes nest."""
    openings = list(_BOX_OPENING.finditer(box, 0, len(box) - 1))
    start = openings[-1].end()
    depth = 1
    for token in _BRACE.finditer(box, start):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if not depth:
            return box[start : token.start()].strip()
    return box[start:-1].strip()


def _sign(text: str, start: int) -> str:
    r"""A minus that stands right before a box, as in ``= -\boxed{256}``, is part of it."""
    return "-" if _LONE_MINUS.search(text, max(0, start - 12), start) else ""


def _only_separators(text: str, start: int, end: int) -> bool:
    if end - start > 40:
        return False
    gap = _BOX_GAP.fullmatch(text, start, end) or _PART_GAP.fullmatch(text, start, end)
    return gap is not None


def _hashes(text: str) -> str | None:
    found = [match[1].strip() for match in _HASHES.finditer(text)]
    return next((answer for answer in reversed(found) if answer), None)


def _answer_tag(text: str) -> str | None:
    found = [match[1].strip() for match in _ANSWER_TAG.finditer(text)]
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


def _conclusion(text: str) -> str | None:
    tail = _CHAT_TOKEN.sub("", text[-_TAIL:]).strip()
    sentences = [part for part in re.split(r"(?<=[.!?])\s+(?=[A-Z<])|\n+", tail) if part.strip()]
    if not sentences:
        return None
    last = sentences[-1].strip()
    starts = list(_CONCLUDES.finditer(last))
    if not starts and len(sentences) > 1:
        return None
    last = last[starts[-1].start() if starts else 0 :]
    formulas = [next(filter(None, match.groups())) for match in _FORMULA.finditer(last)]
    if len(formulas) == 1 or (starts and formulas and _IS_FORMULA.search(last)):
        return str(formulas[-1]).strip()
    stated = _STATES.split(last.rstrip(". ")) if starts and not formulas else []
    value = stated[-1].strip() if len(stated) > 1 else ""
    return value if 0 < len(value) <= 80 and not _PROSE.search(value) else None


def _whole(text: str) -> str | None:
    text = text.strip()
    if shown := _ANSWER_SHOWN.fullmatch(text):
        text = shown[1]
    if not text or len(text) > _WHOLE_LIMIT or r"\boxed" in text:
        return None
    return text if _COUNTED.fullmatch(text) or not _PROSE.search(text) else None


def _last_number(text: str) -> str | None:
    found = _LAST_NUMBER.findall(text)
    return found[-1] if found else None


_FINDERS: dict[str, Callable[[str], str | None]] = {
    "boxed": _boxed,
    "hashes": _hashes,
    "answer_tag": _answer_tag,
    "answer_is": _answer_is,
    "conclusion": _conclusion,
    "whole": _whole,
    "last_number": _last_number,
}
