"""Pays BLEU against reference answers."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from llmalign.rewards.references import Referenced, ngrams
from llmalign.rewards.tree import REWARDS

MAX_ORDER = 4  # of the n-grams of BLEU


@REWARDS.register(
    "bleu",
    paper="BLEUBERI: BLEU is a surprisingly effective reward for instruction following",
    traits={"example": {"bleu": {"column": "references"}}},
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
