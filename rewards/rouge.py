"""Pays ROUGE-L against reference answers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmalign.rewards.references import Referenced
from llmalign.rewards.tree import REWARDS

_WORD = re.compile(r"[^\W_]+")


@REWARDS.register(
    "rouge",
    paper="ROUGE: Lin 2004 (ROUGE-L)",
    traits={"example": {"rouge": {"column": "references"}}},
)
@dataclass(kw_only=True)
class Rouge(Referenced):
    """F1 of the longest common subsequence of words, ROUGE-L, with the best of the references.

    Range: [0, 1]. The answer is the last ``<answer>…</answer>`` after the thinking, else all of
    it; one without words earns 0. Words are runs of letters and digits of any script, lower case,
    not stemmed. A script without spaces is one word to it: take ``chrf`` there.

    Args:
        column: the column that holds the references, a text or a list of texts.
        min_reference_tokens: words the shortest reference must have.
    Source: Lin 2004, ROUGE-L with beta 1; the best reference counts.
    """

    def tokens(self, text: str) -> list[str]:
        """Lower-case words."""
        return words(text)

    def compare(
        self, answers: Sequence[str], references: Sequence[str]
    ) -> list[Mapping[str, float]]:
        """F1 against the best reference, with its precision and recall."""
        read = [words(text) for text in references]
        return [self._best(words(answer), read) for answer in answers]

    def _best(self, answer: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        f1, precision, recall = max(rouge_l(answer, reference) for reference in references)
        return {"": f1, "precision": precision, "recall": recall}


def words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case."""
    return _WORD.findall(text.lower())


def rouge_l(answer: Sequence[str], reference: Sequence[str]) -> tuple[float, float, float]:
    """(F1, precision, recall) of the longest common subsequence of two lists of words.

    precision = LCS / len(answer), recall = LCS / len(reference); 0 where either list is empty.
    """
    common = lcs_length(answer, reference)
    if not common:
        return 0.0, 0.0, 0.0
    precision, recall = common / len(answer), common / len(reference)
    return 2 * precision * recall / (precision + recall), precision, recall


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    One row of the usual table is kept as the bits of an integer: bit i is 0 where the entry grows
    from i to i + 1. A word of ``second`` updates all of it in three operations on integers.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << i
    everywhere = (1 << len(first)) - 1
    row = everywhere
    for word in second:
        hits = row & places.get(word, 0)
        row = ((row + hits) | (row - hits)) & everywhere
    return len(first) - row.bit_count()
