"""Bends the value of a child around reference values of the same problem (PAR and its siblings)."""

import math
import statistics
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from llmalign.rewards.base import Group, Problem, Sample, Score
from llmalign.rewards.node import Node, Values, needs_whole_batch, scores_of
from llmalign.rewards.references import references as texts_in
from llmalign.rewards.tree import REWARDS
from llmalign.verifiers import GoldError, Judgement, Verdict

Curve = Literal["sigmoid", "tanh", "log_sigmoid", "identity"]
MAX_LOG = 700.0  # exp() of more overflows
MAX_KNOWN = 100_000  # problems whose reference answers keep their values
_MOVING = ("groupwise", "paired_groups", "policy_logprobs")


@REWARDS.register(
    "centred",
    paper="Reward Shaping (PAR); LSC: arXiv:2402.00742",
    traits={
        "short": "of",
        "children": "of",
        "example": {"centred": {"of": "rouge", "reference_answers": "drafts"}},
    },
)
@dataclass(kw_only=True)
class Centred(Node):
    """The child's value against reference values of the same problem, through a curve.

    Range: by the curve. ``sigmoid``: mean_m sigmoid(k (r - ref_m)) (PAR), in (0, 1). ``tanh``: the
    same with tanh, in (-1, 1). ``identity``: k (r - mean ref). ``log_sigmoid``: log sigmoid of
    k (r - q), q a quantile of a normal fit of the references (LSC), in (-inf, 0); summed over
    several rewards it is a soft "all of them". None, counted as undecided, where the child has a
    value for no reference answer.

    Args:
        curve: one of the above.
        references: column with the values of reference answers to the problem (a list); null: 0.
        reference_answers: column with the reference answers themselves (a list of texts), such as
            those of the model before training. The child scores them once per problem, and must
            not change with the step. Not together with ``references``.
        k: steepness, > 0.
        offset: taken off r; 3 with ``sigmoid`` is SGFC, the centred sigmoid of a shifted reward.
        quantile: of the fit, in (0, 1), for ``log_sigmoid``.
    Source: Reward Shaping to Mitigate Reward Hacking in RLHF (PAR, and its baselines); Transforming
    and Combining Rewards for Aligning Large Language Models, arXiv:2402.00742 (log-sigmoid).
    """

    single: ClassVar[bool] = True

    curve: Curve = "sigmoid"
    references: str | None = None
    reference_answers: str | None = None
    k: float = 1.0
    offset: float = 0.0
    quantile: float = 0.85

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.k > 0:
            raise ValueError(f"k is {self.k}, expected > 0")
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile is {self.quantile}, expected it in (0, 1)")
        if self.references is not None and self.reference_answers is not None:
            raise ValueError("references and reference_answers are set, expected only one of them")
        moving = needs_whole_batch(self.children[0].reward) or self.need in _MOVING
        if self.reference_answers is not None and moving:
            raise ValueError(
                f"reference_answers is {self.reference_answers!r}, expected null above a reward "
                "that compares samples or reads the policy; give their values as references"
            )
        self._known: dict[tuple[str, ...], list[float]] = {}
        self._lock = threading.Lock()

    def check(self, problem: Problem) -> None:
        """Raises GoldError where the references are missing, no finite numbers, or no texts."""
        super().check(problem)
        self._references(problem)
        if self.reference_answers is not None:
            texts_in(problem, self.reference_answers)

    def _references(self, problem: Problem) -> list[float]:
        if self.references is None:
            return [0.0]
        found = problem.columns.get(self.references)
        numbers = isinstance(found, list | tuple) and all(
            isinstance(x, int | float) and math.isfinite(x) for x in found
        )
        if not numbers or not found:
            raise GoldError(
                f"problem {problem.id!r}: column {self.references!r} is {repr(found)[:80]}, "
                "expected a list of finite numbers: rewards of reference answers"
            )
        return [float(x) for x in found]

    def combine_batch(self, groups: Sequence[Group], values: Sequence[Values]) -> Values:
        """Bends each value of a group by the same references."""
        if self.reference_answers is None:
            by_group = [self._references(group.problem) for group in groups]
        else:
            by_group = self._scored_answers(groups, self.reference_answers)
        shape, offset = (self.curve, self.k, self.quantile), self.offset
        return [
            [None if v is None or not refs else centred(v - offset, refs, *shape) for v in row]
            for row, refs in zip(values[0], by_group, strict=True)
        ]

    def _scored_answers(self, groups: Sequence[Group], name: str) -> list[list[float]]:
        keys = [(g.problem.id, *texts_in(g.problem, name)) for g in groups]
        with self._lock:
            found = {key: self._known[key] for key in keys if key in self._known}
        asked = {k: g for k, g in zip(keys, groups, strict=True) if k not in found}
        made = [
            replace(g, samples=tuple(Sample(text, (), (), "eos") for text in key[1:]))
            for key, g in asked.items()
        ]
        scores = scores_of(self.children[0].reward, made) if made else []
        found |= {
            key: [score.value for score in row if score.value is not None]
            for key, row in zip(asked, scores, strict=True)
        }
        with self._lock:  # what could not be scored is asked for again
            self._known |= {key: found[key] for key in asked if len(found[key]) == len(key) - 1}
            while len(self._known) > MAX_KNOWN:
                del self._known[next(iter(self._known))]
        return [found[key] for key in keys]

    def _merged(self, scores: Sequence[Score], value: float | None) -> Score:
        merged = super()._merged(scores, value)
        if value is not None or scores[0].value is None:
            return merged
        why = "no reference answer has a value"
        judgement = Judgement(Verdict.UNDECIDED, None, why)
        return replace(merged, judgement=judgement, note=f"{self.name}: {why}")


def centred(
    value: float, references: Sequence[float], curve: Curve, k: float = 1.0, quantile: float = 0.85
) -> float:
    """A value against its references, see ``Centred``."""
    if curve == "sigmoid":
        return statistics.fmean(sigmoid(k * (value - ref)) for ref in references)
    mean = statistics.fmean(references)
    if curve == "log_sigmoid":
        spread = statistics.stdev(references) if len(references) > 1 else 0.0
        z = statistics.NormalDist().inv_cdf(quantile)
        centre = mean + z * (spread + 1e-5) if len(references) > 1 else mean
        return log_sigmoid(k * (value - centre))
    if curve == "tanh":
        return statistics.fmean(math.tanh(k * (value - ref)) for ref in references)
    return k * (value - mean)


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1 / (1 + math.exp(-x)) if x > -MAX_LOG else 0.0


def log_sigmoid(x: float) -> float:
    """log of the sigmoid, in nats."""
    return -math.log1p(math.exp(-x)) if x > -MAX_LOG else x
