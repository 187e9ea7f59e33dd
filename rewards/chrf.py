"""Pays chrF or chrF++ against reference answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llmalign.rewards.references import Referenced
from llmalign.rewards.tree import REWARDS


@REWARDS.register(
    "chrf",
    paper="chrF: Popović 2015; chrF++: Popović 2017",
    traits={"example": {"chrf": {"word_order": 2}}},
)
@dataclass(kw_only=True)
class Chrf(Referenced):
    """chrF of the answer: F-score of character n-grams, with the best of the references.

    Range: [0, 1]. The answer is the last ``<answer>…</answer>`` after the thinking, else all of
    it; an empty one earns 0. It needs no words, so it suits scripts without spaces.

    Args:
        column: the column that holds the references, a text or a list of texts.
        min_reference_tokens: characters other than spaces the shortest reference must have.
        char_order: longest n-gram of characters, > 0.
        word_order: longest n-gram of words; 0 is chrF, 2 is chrF++.
        beta: how many times as important recall is as precision, > 0.
        lowercase: whether case counts for nothing.
    Source: Popović 2015 and 2017, computed by sacrebleu for single sentences.
    """

    char_order: int = 6
    word_order: int = 0
    beta: int = 2
    lowercase: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, least in (("char_order", 1), ("word_order", 0), ("beta", 1)):
            if getattr(self, option) < least:
                raise ValueError(f"{option} is {getattr(self, option)}, expected >= {least}")

    @cached_property
    def _metric(self) -> Any:
        from sacrebleu.metrics.chrf import CHRF

        return CHRF(self.char_order, self.word_order, self.beta, lowercase=self.lowercase)

    def tokens(self, text: str) -> str:
        """Characters without spaces."""
        return "".join(text.split())

    def compare(
        self, answers: Sequence[str], references: Sequence[str]
    ) -> list[Mapping[str, float]]:
        """chrF of each answer."""
        texts = list(references)
        return [{"": self._metric.sentence_score(a, texts).score / 100} for a in answers]
