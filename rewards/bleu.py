"""Pays BLEU against reference answers; also what all rewards that compare with references share."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from llmalign.rewards.base import Group, Need, Problem, Sample, Score, Services
from llmalign.rewards.tree import REWARDS
from llmalign.rewards.verified import column
from llmalign.verifiers import GoldError
from llmalign.verifiers.extract import after_thinking
from llmalign.verifiers.format import tagged

MAX_ORDER = 4  # of the n-grams of BLEU


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


@REWARDS.register(
    "bleu", paper="BLEUBERI: BLEU is a surprisingly effective reward for instruction following"
)
@dataclass(kw_only=True)
class Bleu(Referenced):
    """Smoothed sentence BLEU of the answer against reference answers.

    Range: [0, 1]. The answer is the last ``<answer>…</answer>`` after the thinking, else all of
    it; an empty one earns 0. Smoothing pays short texts for nothing: one wrong token against a
    reference of one token earns 0.84, eight wrong tokens against eight 0.13. So a problem with a
    reference of fewer than ``min_reference_tokens`` is an error before training, and not scorable.

    Args:
        column: the column that holds the references, a text or a list of texts.
        min_reference_tokens: what the shortest reference must have.
    Source: BLEUBERI. Different from the released code: what tokenises to nothing (such as
    ``<skipped>``) is 0 as an answer and an error as a reference, no division by zero; references
    have a least length (1 turns that off).
    """

    min_reference_tokens: int = 8

    def tokens(self, text: str) -> list[str]:
        """Tokens of mteval-v13a."""
        return tokens_13a(text)

    def compare(
        self, answers: Sequence[str], references: Sequence[str]
    ) -> list[Mapping[str, float]]:
        """BLEU, with its brevity penalty and the ratio of lengths."""
        tokenised = [tokens_13a(text) for text in references]
        found = [sentence_bleu(tokens_13a(text), tokenised) for text in answers]
        _forget_texts()
        return [
            {"": b.bleu, "brevity_penalty": b.brevity_penalty, "length_ratio": b.length_ratio}
            for b in found
        ]


@dataclass(frozen=True)
class BleuParts:
    """BLEU of one sentence and what it is made of; lengths in tokens."""

    bleu: float
    precisions: tuple[float, ...]
    brevity_penalty: float
    length_ratio: float
    translation_length: int
    reference_length: int


def sentence_bleu(
    answer: Sequence[str], references: Sequence[Sequence[str]], max_order: int = MAX_ORDER
) -> BleuParts:
    """BLEU with every order smoothed, of one answer.

        p_n  = (matches_n + 1) / (count_n + 1)       an n-gram matches as often as in the reference
                                                      that holds it most
        BLEU = BP * exp(mean_n log p_n),   BP = exp(1 - 1 / ratio) where ratio <= 1, else 1
        ratio = tokens of the answer / tokens of the shortest reference

    Args:
        answer: its tokens; none at all give 0.
        references: tokens of each, none empty.
        max_order: longest n-gram, >= 1.
    Raises:
        ValueError: there is no reference, or an empty one.
    Source: BLEUBERI: tokenizer 13a, order 4, smoothing on.
    """
    shortest = min(map(len, references), default=0)
    if not shortest:
        raise ValueError("references holds none or an empty one, expected tokens in each")
    precisions = tuple(_precision(answer, references, n) for n in range(1, max_order + 1))
    ratio = len(answer) / shortest
    brevity = 1.0 if ratio > 1 else math.exp(1 - 1 / ratio) if ratio else 0.0
    bleu = brevity * math.exp(sum(map(math.log, precisions)) / max_order)
    return BleuParts(bleu, precisions, brevity, ratio, len(answer), shortest)


def _precision(answer: Sequence[str], references: Sequence[Sequence[str]], n: int) -> float:
    most: Counter[tuple[str, ...]] = Counter()
    for reference in references:
        most |= ngrams(reference, n)
    found = ngrams(answer, n)
    return ((found & most).total() + 1) / (found.total() + 1)


def ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each run of ``n`` tokens occurs."""
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def tokens_13a(text: str) -> list[str]:
    """Tokens of a text by the rules of mteval-v13a, as sacrebleu has them."""
    return list(_tokenizer_13a()(text).split())


@cache
def _tokenizer_13a() -> Any:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()


def _forget_texts() -> None:
    """sacrebleu keeps the last 65,536 texts it tokenised; responses do not come twice."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

    for kind in (Tokenizer13a, TokenizerRegexp):
        kind.__call__.cache_clear()
