"""Pays text that is quoted from a trusted corpus, and pairs responses by how much they quote."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from llmalign.rewards.base import Group, Problem, Score, Services
from llmalign.rewards.references import TextOnly, answer_text, named_score, references
from llmalign.rewards.tree import REWARDS

_BASE = 0x9E3779B97F4A7C15  # odd, so that a position in an n-gram is never multiplied away


@REWARDS.register(
    "quote",
    paper="Verifiable by Design: Aligning Language Models to Quote from Pre-Training Data",
    traits={"example": {"quote": {"column": "sources"}}},
)
@dataclass(kw_only=True)
class Quote(TextOnly):
    """Share of the answer's runs of characters that stand word for word in trusted texts (QUIP).

    Range: [0, 1]; 0, with a note, for an answer shorter than one run: it quotes nothing. The answer
    is the last ``<answer>…</answer>`` after the thinking, else all of it; runs of white space are
    one space. One quoted sentence said over and over earns 1: bound the length beside it.

    Args:
        corpus: files of trusted text: JSONL with a text under ``field`` in each line, else plain.
        column: the column that holds the trusted texts of each problem, in place of a corpus.
        ngram: characters of a run, > 0.
        lowercase: whether case counts for nothing.
        field: key of the text in JSONL.
    Source: Verifiable by Design, QUIP; 25 characters are reconstructed. The authors ask a Bloom
    filter; here 8 bytes are kept for each run of the corpus, found by bisection.
    """

    name: str
    corpus: tuple[str, ...] = ()
    column: str = ""
    ngram: int = 25
    lowercase: bool = False
    field: str = "text"

    def __post_init__(self) -> None:
        if bool(self.corpus) == bool(self.column):
            raise ValueError(
                f"corpus is {list(self.corpus)} and column is {self.column!r}, expected exactly one"
            )
        if self.ngram < 1:
            raise ValueError(f"ngram is {self.ngram}, expected >= 1")
        self._index: QuoteIndex | None = None

    def bind(self, services: Services) -> None:
        """Reads the corpus; ValueError where a file is missing, unreadable or empty."""
        if self.corpus and self._index is None:
            texts = [text for path in self.corpus for text in read_texts(path, self.field)]
            self._index = QuoteIndex.of(texts, self.ngram, self.lowercase)

    def check(self, problem: Problem) -> None:
        """Raises GoldError where the trusted texts of a problem are missing."""
        if self.column:
            references(problem, self.column)

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Looks up every run of every answer."""
        return [self._score(group) for group in groups]

    def _score(self, group: Group) -> list[Score]:
        index = self._index
        if self.column:
            texts = references(group.problem, self.column)
            index = QuoteIndex.of(texts, self.ngram, self.lowercase)
        if index is None:
            raise RuntimeError(f"reward {self.name!r} is not bound; score through a RewardHost")
        return [self._one(index, answer_text(sample)) for sample in group.samples]

    def _one(self, index: "QuoteIndex", text: str) -> Score:
        hits = index.hits(text)
        if not hits:
            note = f"{self.name}: the answer has fewer than {self.ngram} characters"
            return Score(0.0, {self.name: 0.0}, note=note)
        longest = longest_run(hits)
        characters = longest + self.ngram - 1 if longest else 0
        return named_score(self.name, {"": sum(hits) / len(hits), "longest": float(characters)})


@dataclass(frozen=True)
class QuoteIndex:
    """All runs of ``ngram`` characters of some texts, by a 64-bit hash."""

    ngram: int
    lowercase: bool
    keys: Any  # sorted uint64 array

    @classmethod
    def of(cls, texts: Iterable[str], ngram: int, lowercase: bool = False) -> "QuoteIndex":
        """The index of some texts; no run spans two of them."""
        import numpy as np

        parts = [_hashes(_plain(text, lowercase), ngram) for text in texts]
        return cls(ngram, lowercase, np.unique(np.concatenate([_hashes("", ngram), *parts])))

    def hits(self, text: str) -> list[bool]:
        """For each run of the text whether it stands in the index; none for a shorter text."""
        import numpy as np

        found = _hashes(_plain(text, self.lowercase), self.ngram)
        if not len(self.keys):
            return [False] * len(found)
        place = np.minimum(np.searchsorted(self.keys, found), len(self.keys) - 1)
        return list((self.keys[place] == found).tolist())


def _plain(text: str, lowercase: bool) -> str:
    spaced = " ".join(text.split())
    return spaced.lower() if lowercase else spaced


def _hashes(text: str, n: int) -> Any:
    """Polynomial hash modulo 2**64 of each run of ``n`` characters."""
    import numpy as np

    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    count = max(0, len(codes) - n + 1)
    hashes = np.zeros(count, np.uint64)
    for offset in range(n if count else 0):
        hashes = hashes * np.uint64(_BASE) + codes[offset : offset + count]
    return hashes


def longest_run(hits: Sequence[bool]) -> int:
    """Length of the longest unbroken run of hits."""
    longest = current = 0
    for hit in hits:
        current = current + 1 if hit else 0
        longest = max(longest, current)
    return longest


def read_texts(path: str, field: str) -> Iterator[str]:
    """The texts of a file: one for each line of JSONL, else the whole file.

    Raises:
        ValueError: it does not exist, or a line holds no text under ``field``.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"corpus names {path!r}, which is no file; expected plain text or JSONL")
    if file.suffix != ".jsonl":
        yield file.read_text(encoding="utf-8")
        return
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                text = json.loads(line)[field]
            except (ValueError, KeyError, TypeError):
                text = None
            if not isinstance(text, str):
                raise ValueError(f"{path} line {number} has no text under {field!r}; set field")
            yield text


def quote_pairs(
    shares: Sequence[float], lengths: Sequence[int], *, min_gap: float, max_length_gap: float
) -> list[tuple[int, int]]:
    """Pairs (chosen, rejected) of one problem's responses that differ in quoting, not in length.

    A pair stands where the chosen share is more than ``min_gap`` larger and the lengths differ by
    less than ``max_length_gap`` of the shorter one.
    Source: Quote-Tuning (Verifiable by Design), which takes 0.1 for both.
    """
    ordered = []
    for i, j in combinations(range(len(shares)), 2):
        high, low = (i, j) if shares[i] >= shares[j] else (j, i)
        apart, shorter = abs(lengths[i] - lengths[j]), min(lengths[i], lengths[j])
        if shares[high] - shares[low] > min_gap and apart < max_length_gap * shorter:
            ordered.append((high, low))
    return ordered


def best_quote_pair(
    shares: Sequence[float], pairs: Sequence[tuple[int, int]]
) -> tuple[int, int] | None:
    """The pair with the highest mean share, the first of equals; None where there is none."""
    return max(pairs, key=lambda pair: shares[pair[0]] + shares[pair[1]], default=None)
