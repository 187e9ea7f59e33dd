"""Answers that are no expressions: letters of a choice, times of day, numerals in a base, words."""

import re

_WRAPPED = re.compile(r"\\text\s*\{([^{}]*)\}")
_CHOICE_GOLD = re.compile(r"\(?\s*([A-Z])\s*\)?\.?")
_CHOICE = re.compile(
    r"(?:option|choice|answer)?\s*(?:"
    r"\(\s*([A-Za-z])\s*\)(?:\s*[.:]?\s*\S.*)?|([A-Za-z])\s*[.:)]\s+\S.*|([A-Za-z])\s*[.)]?)",
    re.DOTALL | re.IGNORECASE,
)
_CHOICES = re.compile(r"[A-Z](?:\s*(?:,|and|\s)\s*[A-Z])+")
_TIME = re.compile(
    r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?\s*(?:([ap])\s*\.?\s*m\s*\.?)?", re.IGNORECASE
)
_NUMERAL = re.compile(r"(-?(?:[0-9.]|[A-Z]*[0-9])[0-9A-Z.]*)\s*_\s*\{?\s*(\w+)\s*\}?")
_BASE_NAMES = dict(
    zip(
        "two three four five six seven eight nine ten eleven twelve sixteen".split(),
        [*range(2, 13), 16],
        strict=True,
    )
)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_OPTION_LABEL = re.compile(r"^(?:\([A-Z]\)\s*|[A-Z][).]\s+)(?=\S)")
_WORDS = re.compile(r"[\w\s,.;:'\"!?()-]*[^\W\d_]{2}[\w\s,.;:'\"!?()-]*")
_NO_WORD = re.compile(r"[^\w\s,]")
_ALL_REALS = re.compile(
    r"(?:the )?(?:set of )?all (?:the )?(?:real numbers|reals|real values(?: of \w)?)|all real x"
)


def without_text(text: str) -> str:
    r"""The content of every ``\text{}`` in its place."""
    return re.sub(r"\s+", " ", _WRAPPED.sub(r" \1 ", text)).strip()


def choice_letter(gold: str) -> str | None:
    """The letter of a gold such as ``B`` or ``(B)``; None where the gold is no choice."""
    match = _CHOICE_GOLD.fullmatch(without_text(gold))
    return match[1] if match else None


def chosen_letter(answer: str) -> str | None:
    """The letter that an answer chooses: ``b``, ``(B)``, ``B. 5``, ``Option B``; None for more
    than one or none."""
    match = _CHOICE.fullmatch(without_text(answer))
    if match is None:
        return None
    return str(match[1] or match[2] or match[3]).upper()


def time_of_day(text: str) -> tuple[int, int, int, str] | None:
    """Hour, minute, second and "a", "p" or "" of ``8:34 p.m.``; None where it is no time."""
    match = _TIME.fullmatch(_OPTION_LABEL.sub("", without_text(text)))
    if match is None or int(match[1]) > 24 or int(match[2]) > 59:
        return None
    return int(match[1]), int(match[2]), int(match[3] or 0), (match[4] or "").lower()


def is_certainly_time(text: str) -> bool:
    """Whether ``a:b`` cannot be a ratio: it has seconds, a.m. or p.m., or a leading zero."""
    match = _TIME.fullmatch(_OPTION_LABEL.sub("", without_text(text)))
    return bool(match and (match[3] or match[4] or match[2].startswith("0")))


def same_time(a: tuple[int, int, int, str], b: tuple[int, int, int, str]) -> bool:
    """Whether two times are one; without a.m. or p.m. an hour above 12 tells the half."""
    if a[3] and b[3]:
        return a == b
    return _of_24(a) == _of_24(b) or (not (a[3] and b[3]) and a[:3] == b[:3] and _either(a, b))


def _either(a: tuple[int, int, int, str], b: tuple[int, int, int, str]) -> bool:
    return bool(a[3]) != bool(b[3]) or not a[3]


def _of_24(time: tuple[int, int, int, str]) -> tuple[int, int, int]:
    hour = time[0]
    if time[3]:
        hour = hour % 12 + (12 if time[3] == "p" else 0)
    return hour, time[1], time[2]


def based_numeral(text: str) -> tuple[str, int] | None:
    """Digits and base of ``204_5`` or ``204_{five}``; None where a text is no such numeral."""
    match = _NUMERAL.fullmatch(without_text(text).replace("{ ", "{").replace(" }", "}"))
    if match is None:
        return None
    base = _BASE_NAMES.get(match[2].lower()) or (int(match[2]) if match[2].isdigit() else 0)
    if not 2 <= base <= 36:
        return None
    return match[1].lstrip("0"), base


def words(text: str) -> str:
    """A text as its words, "" where it is none: case, articles, punctuation, spaces and the order
    of a list do not matter."""
    lower = _OPTION_LABEL.sub("", without_text(text)).casefold()
    if not _WORDS.fullmatch(lower):
        return ""
    lower = _NO_WORD.sub(" ", _ARTICLES.sub(" ", lower))
    items = (" ".join(item.split()) for item in re.split(r",|\band\b", lower))
    return ", ".join(sorted(filter(None, items)))


def is_all_reals(text: str) -> bool:
    """Whether a text says "all real numbers"."""
    return _ALL_REALS.fullmatch(without_text(text).lower().strip(" .")) is not None
