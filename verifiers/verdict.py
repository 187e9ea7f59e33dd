"""What a verifier says about an answer."""

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """The four things that can be known about an answer."""

    RIGHT = "right"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"  # the text holds nothing that could be an answer
    UNDECIDED = "undecided"  # we could not tell: time ran out, a crash, or an answer beyond us


@dataclass(frozen=True)
class Judgement:
    """A verdict, the answer it is about, why (in words for a log), and what it cost.

    ``answer`` is the extracted answer in normal form, None where the text holds none: equal
    answers of one group have equal strings where the verifier can tell, so that they can vote.
    ``seconds`` is wall time spent on this one judgement.
    """

    verdict: Verdict
    answer: str | None
    why: str
    seconds: float = 0.0


class GoldError(ValueError):
    """The gold answer itself cannot be read: a fault of the data, never of the model."""
