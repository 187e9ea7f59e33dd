"""Pays quotations that stand in the sources given."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from llmalign.rewards.base import Group, Need, Problem, Score, Services
from llmalign.rewards.tree import REWARDS
from llmalign.rewards.verified import column
from llmalign.verifiers import GoldError
from llmalign.verifiers.extract import after_thinking

_MAX_TEXT = 200_000  # characters of a response that are read
_QUOTED = re.compile(
    r"“([^“”]{1,2000})”|«([^«»]{1,2000})»|\"([^\"\n]{1,2000})\"|^[ \t]{0,3}>[ \t]?(.{1,2000})$",
    re.MULTILINE,
)
_MARKER = re.compile(r"[\s.,;:”»\"]{0,9}((?:\[[0-9]{1,4}(?:\s?[,;]\s?[0-9]{1,4}){0,9}\]\s?){1,9})")
_ANY_MARKER = re.compile(r"\[([0-9]{1,4}(?:\s?[,;]\s?[0-9]{1,4}){0,9})\]")
_NUMBER = re.compile(r"[0-9]+")
_LEFT_OUT = re.compile(r"\[?(?:\.{3}|…)\]?")
_WORD = re.compile(r"\w+")
_MIN_PART = 3  # words of a part between ``…``: shorter ones stand in any text


@dataclass(frozen=True)
class Quotation:
    """Words between quotation marks, and the numbers of the sources cited right after them."""

    text: str
    cited: tuple[int, ...]


@REWARDS.register("citation", paper="", traits={"example": {"citation": {"cited": "required"}}})
@dataclass(kw_only=True)
class Citation:
    """The share of the quotations in a response that stand, word for word, in their source.

    Range: [0, 1]; 0 for a response without quotations. Compared are words, without case and
    punctuation; ``…`` inside a quotation leaves out words of the source, between parts of three
    words or more. Equal quotations count once, and with fewer than ``min_quotes`` the missing ones
    count as not found.

    Quotations stand between ``"…"`` (on one line), ``“…”`` or ``«…»``, or on lines that start with
    ``>``; sources are cited right after them as ``[1]`` or ``[1, 3]``, counted from 1. Only what
    follows the thinking is read.

    Args:
        column: the column with the sources: texts, or mappings with ``text``.
        cited: ``required``: a quotation counts only in a source cited with it; ``optional``: any
            source will do where none is cited; ``ignored``: any source will do.
        min_words: shorter quotations are not looked at, > 0.
        min_quotes: quotations expected, > 0.
    """

    need: ClassVar[Need] = "pointwise"

    name: str
    column: str = "sources"
    cited: Literal["required", "optional", "ignored"] = "optional"
    min_words: int = 4
    min_quotes: int = 1

    def __post_init__(self) -> None:
        for option in ("min_words", "min_quotes"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} is {getattr(self, option)}, expected > 0")

    def bind(self, services: Services) -> None:
        """Needs nothing."""

    def check(self, problem: Problem) -> None:
        """Raises GoldError that names the problem where its sources cannot be read."""
        try:
            self.sources(problem)
        except GoldError as error:
            raise GoldError(f"problem {problem.id!r}: {error}") from None

    def sources(self, problem: Problem) -> list[str]:
        """The texts of the sources."""
        given = column(problem, self.column)
        texts = [_source_text(one) for one in given] if isinstance(given, list | tuple) else []
        found = [text for text in texts if text and text.strip()]
        if not texts or len(found) < len(texts):
            shown = f"column {self.column!r} is {repr(given)[:80]}"
            raise GoldError(f"{shown}, expected a list of texts or of mappings with 'text'")
        return found

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Looks each quotation up."""
        scores = []
        for group in groups:
            sources = [words(text) for text in self.sources(group.problem)]
            scores.append([self._score(sample.text, sources) for sample in group.samples])
        return scores

    def _score(self, text: str, sources: Sequence[str]) -> Score:
        response = after_thinking(text)[:_MAX_TEXT]
        quoted: dict[str, bool] = {}
        for quotation in find_quotations(response):
            spelled = words(_LEFT_OUT.sub(" ", quotation.text))
            if len(spelled.split()) >= self.min_words:
                right = self._is_found(quotation, sources)
                quoted[spelled] = quoted.get(spelled, True) and right
        found = sum(quoted.values())
        value = found / max(len(quoted), self.min_quotes)
        unknown = sum(not 1 <= number <= len(sources) for number in cited_numbers(response))
        aspects = {
            self.name: value,
            f"{self.name}.quotes": float(len(quoted)),
            f"{self.name}.found": float(found),
            f"{self.name}.unknown_sources": float(unknown),
        }
        missing = [q for q, right in quoted.items() if not right]
        note = f"{self.name}: not in its source: {missing[0][:80]!r}" if missing else ""
        return Score(value, aspects, note=note or ("" if quoted else f"{self.name}: no quotation"))

    def _is_found(self, quotation: Quotation, sources: Sequence[str]) -> bool:
        candidates = list(sources)
        if self.cited == "required" or (self.cited == "optional" and quotation.cited):
            numbers = [n for n in quotation.cited if 1 <= n <= len(sources)]
            candidates = [sources[n - 1] for n in numbers]
        return any(is_quoted(quotation.text, source) for source in candidates)


def _source_text(source: Any) -> str | None:
    text = source.get("text") if isinstance(source, Mapping) else source
    return text if isinstance(text, str) else None


def find_quotations(text: str) -> list[Quotation]:
    """The quotations of a text, in order, each with the sources cited right after it."""
    found = []
    for match in _QUOTED.finditer(text):
        inside = next(group for group in match.groups() if group)
        after = _MARKER.match(text, match.end())
        within = _ANY_MARKER.findall(inside) if match[4] else []  # at the end of a quoted line
        cited = [*_NUMBER.findall(after[1] if after else ""), *_NUMBER.findall(" ".join(within))]
        if match[4]:
            inside = _ANY_MARKER.sub(" ", inside)
        found.append(Quotation(inside, tuple(map(int, cited))))
    return found


def cited_numbers(text: str) -> list[int]:
    """All numbers of sources that a text cites."""
    return [int(n) for inside in _ANY_MARKER.findall(text) for n in _NUMBER.findall(inside)]


def is_quoted(quotation: str, source: str) -> bool:
    """Whether the parts of a quotation between ``…`` stand in a source one after another; parts of
    less than three words are no quotation.

    Args:
        quotation: as written.
        source: as ``words`` gives it.
    """
    parts = [part for part in map(words, _LEFT_OUT.split(quotation)) if part]
    if len(parts) > 1 and min(len(part.split()) for part in parts) < _MIN_PART:
        return False
    at = 0
    padded = f" {source} "
    for part in parts:
        place = padded.find(f" {part} ", at)
        if place < 0:
            return False
        at = place + len(part) + 1
    return bool(parts)


def words(text: str) -> str:
    """The words of a text in small letters, one space between."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))
