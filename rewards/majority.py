"""Rewards agreement with the answer most samples of a group give: no label needed."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from llmalign.rewards.base import Group, Need, Problem, Sample, Score, Services, Verify
from llmalign.rewards.tree import REWARDS
from llmalign.verifiers import VERIFIERS, GoldError, Judgement, Verdict
from llmalign.verifiers.extract import DEFAULT_MARKERS, Marker, extract

VERIFIER = "math"
_ANY_GOLD = "0"  # for a judgement that is only asked for its answer

ClassT = TypeVar("ClassT", bound=Hashable)


@dataclass(frozen=True)
class Ballot(Generic[ClassT]):
    """What a vote came to.

    Attributes:
        label: the class with most votes, None where nobody voted; ties go to the class whose first
            vote stands earliest.
        ratio: votes for it over all samples, those without a vote included; 0 where nobody voted.
        agrees: per sample, whether its vote is the label.
    """

    label: ClassT | None
    ratio: float
    agrees: list[bool]


def majority_vote(classes: Sequence[ClassT | None]) -> Ballot[ClassT]:
    """The vote of one group; None is no vote, yet counts in the denominator of the ratio.

    Ties are decided by position. Each sample is drawn from a random stream of its own index, so
    that position does not depend on the order of batches, and no kind of answer is favoured.

    Source: Zuo et al. 2025 (TTRL), arXiv:2504.16084.
    """
    votes = Counter(c for c in classes if c is not None)  # in order of the first vote
    if not votes:
        return Ballot(None, 0.0, [False] * len(classes))
    label = max(votes, key=votes.__getitem__)
    return Ballot(label, votes[label] / len(classes), [c == label for c in classes])


def cross_labels(
    classes: Sequence[ClassT | None], paired_classes: Sequence[ClassT | None]
) -> tuple[Ballot[ClassT], Ballot[ClassT]]:
    """Two groups, a question and its paraphrase, each labelled by the majority of the other.

    Args:
        classes: the answers to the question, equal answers in equal classes; None for no answer.
        paired_classes: the same for the paraphrase, in the same classes.
    Returns: per group its ballot: the label of the other group and who agrees with it; none do
        where the other group has no answer.
    Source: Zhang et al. 2025 (Co-Reward), arXiv:2508.00410.
    """
    label, paired_label = majority_vote(classes).label, majority_vote(paired_classes).label
    return _against(paired_label, classes), _against(label, paired_classes)


def _against(label: ClassT | None, classes: Sequence[ClassT | None]) -> Ballot[ClassT]:
    agrees = [c is not None and c == label for c in classes]
    return Ballot(label, sum(agrees) / len(classes) if classes else 0.0, agrees)


@dataclass(frozen=True)
class Answers:
    """The answers of one group, equal ones in the same class.

    Attributes:
        classes: per sample the number of its class; None where it has no readable answer.
        judgements: per sample what the verifier found; undecided without an answer: unknown.
    """

    classes: list[int | None]
    judgements: list[Judgement]

    def known(self, index: int) -> bool:
        """False where the verifier could not tell whether a sample has an answer."""
        judgement = self.judgements[index]
        return judgement.verdict is not Verdict.UNDECIDED or judgement.answer is not None


@dataclass
class _Open:
    """The distinct forms of one group that are not yet in a class."""

    samples: dict[str, Sample]  # normal form -> its first sample
    waiting: list[str]  # the most voted first, then the earliest
    class_of: dict[str, int] = field(default_factory=dict)
    num_classes: int = 0


def answer_classes(
    groups: Sequence[Group], verify: Verify, markers: Sequence[Marker] = DEFAULT_MARKERS
) -> list[Answers]:
    """Sorts the answers of each group into classes that the math verifier calls equal.

    Answers of one normal form are equal. The most voted form opens a class; the others join if
    each is right with the other as gold, so that the order of a comparison does not matter; what
    is left opens the next class. An undecided comparison leaves two answers apart. One request per
    class and direction serves all groups, and a verifier pool remembers what it was asked.
    """
    options = {"markers": list(markers)}
    samples = [sample for group in groups for sample in group.samples]
    judged = verify(VERIFIER, [(sample.text, _ANY_GOLD) for sample in samples], options)
    judgements = iter(judged)
    found = [[next(judgements) for _ in group.samples] for group in groups]
    opened = [_open(group, js, markers) for group, js in zip(groups, found, strict=True)]
    while any(state.waiting for state in opened):
        _close_one_class(opened, verify, options, markers)
    return [
        Answers([state.class_of.get(j.answer or "") for j in js], js)
        for state, js in zip(opened, found, strict=True)
    ]


def _open(group: Group, judgements: Sequence[Judgement], markers: Sequence[Marker]) -> _Open:
    votes = Counter(j.answer for j in judgements if j.answer)
    first: dict[str, Sample] = {}
    for sample, judgement in zip(group.samples, judgements, strict=True):
        form = judgement.answer
        if form and form not in first and _is_gold(_written(sample, markers)):
            first[form] = sample
    return _Open(first, sorted(first, key=lambda form: -votes[form]))


def _close_one_class(
    opened: Sequence[_Open], verify: Verify, options: Mapping[str, Any], markers: Sequence[Marker]
) -> None:
    """Moves the first waiting form of every group and its equals into a new class."""
    heads = [(state, state.waiting.pop(0)) for state in opened if state.waiting]
    pairs = [(state, head, form) for state, head in heads for form in state.waiting]
    for flip in (False, True):
        asked = [
            _pair(state, form, head, markers) if flip else _pair(state, head, form, markers)
            for state, head, form in pairs
        ]
        judged = verify(VERIFIER, asked, options) if asked else []
        right = [j.verdict is Verdict.RIGHT for j in judged]
        pairs = [pair for pair, is_right in zip(pairs, right, strict=True) if is_right]
    for state, head in heads:
        equals = {form for owner, _, form in pairs if owner is state}
        state.class_of |= dict.fromkeys([head, *equals], state.num_classes)
        state.waiting = [form for form in state.waiting if form not in equals]
        state.num_classes += 1


def _pair(state: _Open, gold: str, form: str, markers: Sequence[Marker]) -> tuple[str, str]:
    return state.samples[form].text, _written(state.samples[gold], markers)


def _written(sample: Sample, markers: Sequence[Marker]) -> str:
    # The answer as written: a normal form has lost its spaces and need not be LaTeX.
    return extract(sample.text, markers) or ""


def _is_gold(answer: str) -> bool:
    try:
        VERIFIERS.get(VERIFIER, "majority").traits["check_gold"](answer)
    except GoldError:
        return False
    return True


@dataclass(kw_only=True)
class Voted:
    """Base of a reward whose label is the answer that the samples of a group vote for."""

    name: str
    markers: tuple[Marker, ...] = DEFAULT_MARKERS

    def __post_init__(self) -> None:
        if not self.markers:
            raise ValueError("markers is empty, expected at least one marker such as 'boxed'")
        self._services: Services | None = None

    def bind(self, services: Services) -> None:
        """Takes the host's services; before ``score``."""
        self._services = services

    def check(self, problem: Problem) -> None:
        """Any problem will do: the group labels itself."""

    def services(self) -> Services:
        """Those of the host; RuntimeError before ``bind``."""
        if self._services is None:
            raise RuntimeError(f"reward {self.name!r} is not bound; score through a RewardHost")
        return self._services

    def answered(self, groups: Sequence[Group]) -> list[Answers]:
        """The answers of each group, equal ones in one class."""
        return answer_classes(groups, self.services().verify, self.markers)


@REWARDS.register("majority", paper="TTRL, arXiv:2504.16084", traits={"example": "majority"})
@dataclass(kw_only=True)
class Majority(Voted):
    """``right`` for the answer most samples of the group agree on, else ``wrong``; needs no gold.

    Range: {wrong, right}. A sample without a readable answer has no vote, counts in the
    denominator of ``majority_ratio``, and is ``wrong``; so is every sample of a group without any
    answer. None where the verifier could not tell whether there is an answer. Ties go to the
    answer whose first sample has the lowest index. Aspects, for the name ``majority``:
    ``majority_ratio``, and ``majority_agreement``, the part of the group that gives this sample's
    own answer.

    Args:
        right, wrong: paid for the majority's answer, the larger, and for any other.
        markers: how the answer is found in the response, as for ``math``.

    Source: Zuo et al. 2025, arXiv:2504.16084. Unlike its released code, answers are counted as
    equal by the math verifier in either direction, and a label needs no sampling order.
    """

    need: ClassVar[Need] = "groupwise"

    right: float = 1.0
    wrong: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.right <= self.wrong:
            raise ValueError(
                f"right is {self.right} and wrong is {self.wrong}; "
                "right must be the larger, or the policy is paid to leave the majority"
            )

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Lets each group vote."""
        return [self._score(answers) for answers in self.answered(groups)]

    def _score(self, answers: Answers) -> list[Score]:
        ballot = majority_vote(answers.classes)
        votes = Counter(answers.classes)
        scores = []
        for index, own in enumerate(answers.classes):
            value: float | None = self.right if ballot.agrees[index] else self.wrong
            note = ""
            if own is None:
                known = answers.known(index)
                value = value if known else None
                note = f"{self.name}: " + (
                    "no readable answer" if known else answers.judgements[index].why
                )
            agreement = 0.0 if own is None else votes[own] / len(answers.classes)
            aspects = {
                self.name: value,
                f"{self.name}_ratio": ballot.ratio,
                f"{self.name}_agreement": agreement,
            }
            scores.append(Score(value, aspects, note=note))
        return scores
