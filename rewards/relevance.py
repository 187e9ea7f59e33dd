"""Pays responses that bear on the question, are of some length and do not repeat themselves."""

import math
import pkgutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from llmalign.rewards.base import Group, Problem, Prompt, Score
from llmalign.rewards.references import TextOnly, answer_text, named_score, ngrams, references
from llmalign.rewards.rouge import words
from llmalign.rewards.tree import REWARDS

Similarity = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
NGRAM = 3  # characters, of the built-in similarity


@REWARDS.register(
    "relevance",
    paper="Preference-free Alignment Learning with R3",
    traits={"example": {"relevance": {"mode": "closed"}}},
)
@dataclass(kw_only=True)
class Relevance(TextOnly):
    """Relevance of the answer, times its length for open questions, times its variety (R3).

        open:    similarity(question, answer) * min(words, max_words) / 100 * variety
        closed:  similarity(reference, answer) * variety
        variety = distinct trigrams of words / trigrams of words   (1 below three words)

    Range: [0, max_words / 100] for open questions, [0, 1] for closed ones, with the built-in
    similarity. None where the similarity is no finite number. An answer that copies the question
    is relevant to it: pay another reward beside this one.

    Args:
        mode: ``open``, ``closed``, or ``auto``: closed where ``column`` holds a reference.
        column: the column that holds the references of closed questions; the best one counts.
        similarity: ``ngrams``: cosine of the counts of character trigrams; or your own
            ``my_pkg.my_mod:f`` from a list of pairs of texts to a list of numbers.
        max_words: longer answers earn no more; null for no bound.
    Source: Preference-free Alignment Learning with Regularized Relevance Reward, from a digest:
    there a dense retriever gives the similarity, length is not bounded, and the similarity of
    closed questions passes through an interpolation that was not found (here it stays as it is).
    """

    name: str
    mode: Literal["auto", "open", "closed"] = "auto"
    column: str = "references"
    similarity: str = "ngrams"
    max_words: int | None = 100

    def __post_init__(self) -> None:
        if self.max_words is not None and self.max_words < 1:
            raise ValueError(f"max_words is {self.max_words}, expected >= 1 or null")
        self._similarity = _similarity(self.similarity)

    def check(self, problem: Problem) -> None:
        """Raises GoldError where a closed question has no reference."""
        if self._is_closed(problem):
            references(problem, self.column)

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Asks for all similarities of a group at once."""
        return [self._score(group) for group in groups]

    def _is_closed(self, problem: Problem) -> bool:
        if self.mode == "auto":
            return problem.columns.get(self.column) not in (None, "", [], ())
        return self.mode == "closed"

    def _score(self, group: Group) -> list[Score]:
        closed = self._is_closed(group.problem)
        answers = [answer_text(sample) for sample in group.samples]
        beside = [question(group.problem.prompt)]
        if closed:
            beside = references(group.problem, self.column)
        found = list(self._similarity([(text, answer) for answer in answers for text in beside]))
        if len(found) != len(answers) * len(beside):
            raise ValueError(
                f"{self.similarity} returned {len(found)} values, expected one for each of "
                f"{len(answers) * len(beside)} pairs"
            )
        rows = [found[i : i + len(beside)] for i in range(0, len(found), len(beside))]
        return [self._one(a, row, closed) for a, row in zip(answers, rows, strict=True)]

    def _one(self, answer: str, similarities: Sequence[float], closed: bool) -> Score:
        if not all(map(math.isfinite, similarities)):
            note = f"{self.name}: similarity is {similarities}, expected finite numbers"
            return Score(None, {self.name: None}, note=note)
        said = words(answer)
        best, spread = float(max(similarities)), variety(said)
        long = length_incentive(len(said), self.max_words)
        value = closed_relevance(best, spread) if closed else open_relevance(best, long, spread)
        parts = {"": value, "similarity": best, "length": long, "variety": spread}
        return named_score(self.name, parts)


def open_relevance(similarity: float, length: float, variety: float) -> float:
    """R3 of an open question: relevance to the question * length incentive * variety."""
    return similarity * length * variety


def closed_relevance(similarity: float, variety: float) -> float:
    """R3 of a closed question: relevance to the reference * variety."""
    return similarity * variety


def length_incentive(num_words: int, max_words: int | None = None) -> float:
    """Words over 100, at most ``max_words`` of them."""
    return (num_words if max_words is None else min(num_words, max_words)) / 100


def variety(said: Sequence[str]) -> float:
    """Distinct trigrams of words over trigrams of words; 1 where there are none."""
    runs = ngrams(said, 3)
    return len(runs) / runs.total() if runs else 1.0


def question(prompt: Prompt) -> str:
    """The prompt, or the last message of the user in a chat."""
    if isinstance(prompt, str):
        return prompt
    return next((m["content"] for m in reversed(prompt) if m["role"] == "user"), "")


def ngram_similarity(first: str, second: str, n: int = NGRAM) -> float:
    """Cosine of the counts of runs of ``n`` characters in the words of two texts, in [0, 1]."""
    counts = [_characters(text, n) for text in (first, second)]
    dot = sum(count * counts[1][run] for run, count in counts[0].items())
    squares = [sum(count * count for count in one.values()) for one in counts]
    return dot / math.sqrt(squares[0] * squares[1]) if dot else 0.0


def _characters(text: str, n: int) -> Counter[str]:
    spaced = f" {' '.join(words(text))} "
    return Counter(spaced[i : i + n] for i in range(len(spaced) - n + 1))


def _similarity(path: str) -> Similarity:
    if path == "ngrams":
        return lambda pairs: [ngram_similarity(*pair) for pair in pairs]
    if ":" not in path:
        raise ValueError(f"similarity is {path!r:.80}, expected 'ngrams' or 'package.module:f'")
    try:
        found = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        shown = repr(path)[:80]
        raise ValueError(f"similarity is {shown}, but: {error}; is it on PYTHONPATH?") from error
    if not callable(found):
        raise ValueError(f"similarity is {path!r:.80}, expected a function")
    return found
