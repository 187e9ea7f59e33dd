"""Pays phrases that go with careful reasoning, whether or not the answer is right."""

from collections.abc import Sequence
from dataclasses import dataclass

from llmalign.rewards.base import Group, Sample, Score
from llmalign.rewards.references import TextOnly, named_score, ngrams
from llmalign.rewards.tree import REWARDS
from llmalign.verifiers.extract import extract

PHRASES = (
    *("i need to", "we need to", "let's focus on", "let me try", "let's try", "let us try"),
    *("first, ", "firstly, ", "next, ", "finally, ", "let us first", "let's first", "let me first"),
    *("we know that", "we can observe ", "we can see ", "if we", "given there "),
    *("since we ", "because we ", "consequently", "as a result", "thus", "therefore", "hence"),
    *("so that", "thereby", "for instance ", "for example "),
    *("wait", "alternatively", "let me check", "let me see", "try again", "still not"),
    *("not working", "not correct", "does not work", "doesn't work", "makes sense"),
)


@REWARDS.register(
    "reasoning_pattern",
    paper="The Climb Carves Wisdom Deeper Than the Summit: noisy rewards in learning to reason",
    traits={
        "example": {"calibrate": [{"noise": {"of": "math", "rate": 0.2}}, "reasoning_pattern"]}
    },
)
@dataclass(kw_only=True)
class ReasoningPattern(TextOnly):
    """Share of reasoning phrases in the response, less its repetition (RPR); no gold is read.

    Range: [0, 1]. A response without a boxed answer earns 0. Alone it pays for stuffing phrases:
    it is meant to correct a noisy reward, ``{calibrate: {of: [noisy, reasoning_pattern]}}``.

    Args:
        phrases: sought in the lower-case response, each counts once; English by default.
        enough: how many of them earn 1, > 0.
        ngram: length in words of the runs whose repetition is taken off, > 0.
        boxed: whether a boxed answer is required.
        forbidden: each occurrence takes off 1: a turn of the user that the model invents.
    Source: The Climb Carves Wisdom Deeper Than the Summit, 40 phrases and their full count of 20.
    Different from the released code: repetition is the share of runs that have stood there before,
    because its share of *distinct* runs that repeat falls as a loop goes on; "makes sense" is
    spelt so.
    """

    name: str
    phrases: tuple[str, ...] = PHRASES
    enough: int = 20
    ngram: int = 20
    boxed: bool = True
    forbidden: str = "user: "

    def __post_init__(self) -> None:
        if not self.phrases or not all(self.phrases):
            raise ValueError("phrases is empty or holds an empty one, expected texts to look for")
        for option in ("enough", "ngram"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} is {getattr(self, option)}, expected >= 1")

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Counts phrases."""
        return [[self._score(sample) for sample in group.samples] for group in groups]

    def _score(self, sample: Sample) -> Score:
        found = share_of_phrases(sample.text, self.phrases, self.enough)
        again = repetition(sample.text.lower(), self.ngram)
        value = pattern_reward(
            sample.text,
            self.phrases,
            enough=self.enough,
            ngram=self.ngram,
            forbidden=self.forbidden,
        )
        if self.boxed and extract(sample.text, ("boxed",)) is None:
            value = 0.0
        return named_score(self.name, {"": value, "phrases": found, "repetition": again})


def pattern_reward(
    text: str, phrases: Sequence[str], enough: int, ngram: int, forbidden: str
) -> float:
    """max(0, min(1, phrases found / enough) - repetition - occurrences of ``forbidden``)."""
    lower = text.lower()
    invented = lower.count(forbidden.lower()) if forbidden else 0
    value = share_of_phrases(text, phrases, enough) - repetition(lower, ngram) - invented
    return max(0.0, value)


def share_of_phrases(text: str, phrases: Sequence[str], enough: int) -> float:
    """Phrases that occur in the lower-case text, over ``enough``, at most 1."""
    lower = text.lower()
    return min(1.0, sum(phrase.lower() in lower for phrase in phrases) / enough)


def repetition(text: str, n: int) -> float:
    """Share of the runs of ``n`` words that have stood in the text before; 0 where it has none."""
    runs = ngrams(text.split(), n)
    return 1 - len(runs) / runs.total() if runs else 0.0
