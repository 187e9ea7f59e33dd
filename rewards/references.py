"""What rewards that compare texts share: reading references and answers, and their n-grams."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from llmalign.rewards.base import Group, Need, Problem, Sample, Score, Services
from llmalign.rewards.verified import column
from llmalign.verifiers import GoldError
from llmalign.verifiers.extract import after_thinking
from llmalign.verifiers.format import tagged


class TextOnly:
    """A reward that needs no service; unless it says otherwise, any problem will do."""

    need: ClassVar[Need] = "pointwise"

    def bind(self, services: Services) -> None:
        """Needs nothing."""

    def check(self, problem: Problem) -> None:
        """Any problem will do."""


@dataclass(kw_only=True)
class Referenced(TextOnly, ABC):
    """Base of a reward that compares the answer of each response with one or several references."""

    name: str
    column: str = "references"
    min_reference_tokens: int = 1

    def __post_init__(self) -> None:
        if self.min_reference_tokens < 1:
            raise ValueError(f"min_reference_tokens is {self.min_reference_tokens}, expected >= 1")

    @abstractmethod
    def tokens(self, text: str) -> Sequence[str]:
        """A text as this measure reads it; a reference must have enough of them."""

    @abstractmethod
    def compare(
        self, answers: Sequence[str], references: Sequence[str]
    ) -> list[Mapping[str, float]]:
        """For each answer the value under "" and parts worth logging under their names."""

    def check(self, problem: Problem) -> None:
        """Raises GoldError where the references are missing or too short to compare with."""
        if fault := self._fault(references(problem, self.column)):
            raise GoldError(f"problem {problem.id!r}: column {self.column!r} {fault}")

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Compares each response; None for all of a problem whose references are too short."""
        return [self._score(group) for group in groups]

    def _fault(self, texts: Sequence[str]) -> str:
        shortest = min(texts, key=lambda text: len(self.tokens(text)))
        count = len(self.tokens(shortest))
        if count >= self.min_reference_tokens:
            return ""
        return (
            f"holds {shortest[:80]!r} with {count} tokens, expected {self.min_reference_tokens} or "
            f"more; use a verifier for short answers, or lower {self.name}.min_reference_tokens"
        )

    def _score(self, group: Group) -> list[Score]:
        texts = references(group.problem, self.column)
        if fault := self._fault(texts):
            note = f"{self.name}: column {self.column!r} {fault}"
            return [Score(None, {self.name: None}, note=note) for _ in group.samples]
        found = self.compare([answer_text(sample) for sample in group.samples], texts)
        return [named_score(self.name, parts) for parts in found]


def references(problem: Problem, name: str) -> list[str]:
    """The references in a column, a text or a list of texts; GoldError where there is none."""
    try:
        found = column(problem, name)
    except GoldError as error:
        raise GoldError(f"problem {problem.id!r}: {error}") from None
    texts = found if isinstance(found, list | tuple) else [found]
    ok = all(isinstance(t, str | int | float) and not isinstance(t, bool) for t in texts)
    ok = ok and all(not isinstance(t, float) or math.isfinite(t) for t in texts)  # a missing cell
    if not ok or not texts or not all(str(text).strip() for text in texts):
        raise GoldError(
            f"problem {problem.id!r}: column {name!r} is {repr(found)[:80]}, expected a text or a "
            "list of texts, none of them empty; drop the row, or name another column"
        )
    return [str(text) for text in texts]


def answer_text(sample: Sample) -> str:
    """What is compared: the last ``<answer>…</answer>`` after the thinking, else all after it."""
    text = after_thinking(sample.text)
    inside = tagged(text, "answer")
    return inside[-1].strip() if inside else text


def named_score(name: str, parts: Mapping[str, float]) -> Score:
    """A score whose value is the part "", and whose other parts are aspects ``name.part``."""
    return Score(parts[""], {f"{name}.{part}" if part else name: v for part, v in parts.items()})


def ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each run of ``n`` tokens occurs."""
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
