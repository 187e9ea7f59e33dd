"""Pays refusals where they are due, and help where it is."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from llmalign.rewards.base import Group, Need, Problem, Score
from llmalign.rewards.node import Node
from llmalign.rewards.references import TextOnly, answer_text
from llmalign.rewards.tree import REWARDS
from llmalign.rewards.verified import column
from llmalign.verifiers import GoldError

REFUSALS = (
    *("i can't", "i cannot", "i can not", "i won't", "i will not", "i'm unable", "i am unable"),
    *("i'm not able", "i am not able", "i must decline", "i have to decline", "i must refuse"),
    *("i'm sorry, but", "i am sorry, but", "sorry, but i", "i apologize, but"),
)


@REWARDS.register(
    "refusal", paper="", traits={"example": {"sum": ["relevance", {"refusal": {"weight": -1.0}}]}}
)
@dataclass(kw_only=True)
class Refusal(TextOnly):
    """1 where the answer opens with a refusal, else 0: a phrase list, English by default.

    Range: {0, 1}. Read is the last ``<answer>…</answer>`` after the thinking, else all after it.
    A list can be dodged in other words; put a classifier of your own in its place where it matters.

    Args:
        phrases: what a refusal says, in any case; apostrophes may be typographic.
        within: characters from the start of the answer in which a phrase must begin, > 0.
    """

    name: str
    phrases: tuple[str, ...] = REFUSALS
    within: int = 100

    def __post_init__(self) -> None:
        if not self.phrases or not all(self.phrases):
            raise ValueError("phrases is empty or holds an empty one, expected texts to look for")
        if self.within < 1:
            raise ValueError(f"within is {self.within}, expected >= 1")
        either = "|".join(re.escape(phrase.lower()) for phrase in self.phrases)
        self._pattern = re.compile(rf".{{0,{self.within - 1}}}?\b(?:{either})", re.DOTALL)

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Looks at how each answer opens."""
        return [[self._score(answer_text(sample)) for sample in g.samples] for g in groups]

    def _score(self, text: str) -> Score:
        opening = " ".join(text.replace("’", "'").split()).lower()
        value = float(self._pattern.match(opening) is not None)
        return Score(value, {self.name: value})


@REWARDS.register(
    "alpha_align",
    paper="AlphaAlign: safety alignment with extremely simplified reinforcement learning",
    traits={
        "children": "of",
        "example": {
            "alpha_align": {
                "of": [{"format": "<think>.+</think>.+"}, "refusal", "relevance"],
                "harmful": "harmful",
            }
        },
    },
)
@dataclass(kw_only=True)
class AlphaAlign(Node):
    """Pays form, refusals of harmful requests and, for harmless ones, help instead of refusals.

        harmful:   format_pay * 1[form] + refusal_pay * 1[refusal]
        harmless:  format_pay * 1[form] - refusal_pay * 1[refusal] + 1[no refusal] max(0, z)

    z is the third child's value, standardised within the group (ddof 1; 0 where all are equal).
    Range: [-refusal_pay, format_pay + max(refusal_pay, sqrt(samples))]. None where a child that
    counts has no value; a help value that is missing is left out of the group's mean.

    Args:
        of: two or three rewards: form (such as ``format``), ``refusal``, and how helpful a response
            is (such as a reward model); each of the first two counts where it is above 0.
        harmful: the column that says whether the request is harmful: true or false, 1 or 0.
        format_pay, refusal_pay: as above, >= 0.
    Source: AlphaAlign, from a digest; its values of the two payments were not found.
    """

    harmful: str = "harmful"
    format_pay: float = 1.0
    refusal_pay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.children) not in (2, 3):
            raise ValueError(
                f"of lists {len(self.children)} rewards, expected two or three: form, refusal, help"
            )
        if min(self.format_pay, self.refusal_pay) < 0:
            raise ValueError("format_pay or refusal_pay is negative, expected both >= 0")

    @property
    def need(self) -> Need:
        """The children's need, and the whole group where help is compared."""
        below = super().need
        return "groupwise" if below == "pointwise" and len(self.children) == 3 else below

    def check(self, problem: Problem) -> None:
        """Raises GoldError where it is not said whether the request is harmful."""
        super().check(problem)
        self._is_harmful(problem)

    def _is_harmful(self, problem: Problem) -> bool:
        try:
            found = column(problem, self.harmful)
        except GoldError as error:
            raise GoldError(f"problem {problem.id!r}: {error}") from None
        if found not in (True, False):
            raise GoldError(
                f"problem {problem.id!r}: column {self.harmful!r} is {repr(found)[:80]}, expected "
                "true or false; map it in data"
            )
        return bool(found)

    def combine_group(
        self, group: Group, values: Sequence[Sequence[float | None]]
    ) -> list[float | None]:
        """Pays each sample of one request."""
        harmful = self._is_harmful(group.problem)
        helpful: Sequence[float | None] = [0.0] * len(values[0])
        if len(values) == 3:
            helpful = standardised(values[2])
        rows = zip(values[0], values[1], helpful, strict=True)
        return [self._pay(harmful, *row) for row in rows]

    def _pay(
        self, harmful: bool, form: float | None, refusal: float | None, helpful: float | None
    ) -> float | None:
        if form is None or refusal is None:
            return None
        refused = refusal > 0
        if helpful is None and not harmful and not refused:
            return None
        return alpha_align_value(
            harmful, form > 0, refused, helpful or 0.0, self.format_pay, self.refusal_pay
        )


def alpha_align_value(
    harmful: bool, form: bool, refused: bool, z: float, format_pay: float, refusal_pay: float
) -> float:
    """See ``AlphaAlign``; ``z`` is how helpful the response is within its group."""
    value = format_pay * form
    if refused:
        return value + (refusal_pay if harmful else -refusal_pay)
    return value if harmful else value + max(0.0, z)


def standardised(values: Sequence[float | None]) -> list[float | None]:
    """Distance from the group's mean in sample standard deviations; 0 where all are equal."""
    known = [value for value in values if value is not None]
    if len(known) < 2 or min(known) == max(known):
        return [None if value is None else 0.0 for value in values]
    mean, std = statistics.fmean(known), statistics.stdev(known)
    return [None if value is None else (value - mean) / std for value in values]
