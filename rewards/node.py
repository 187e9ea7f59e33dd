"""What nodes of the reward tree have in common: children, and one value made of theirs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmalign.rewards.base import Group, Need, Problem, Reward, Score, Services
from llmalign.rewards.tree import Child
from llmalign.verifiers import GoldError, Judgement, Verdict

Values = list[list[float | None]]  # by group and sample; None: not scorable

_FROM_LEAST: list[Need] = ["pointwise", "groupwise", "paired_groups"]


@dataclass(kw_only=True)
class Node:
    """Base of a node. A subclass says what it makes of its children's values: of those of one
    sample (``combine``), of one group (``combine_group``) or of all groups (``combine_batch``).

    Args:
        of: the children, each a reward of its own; one may stand without a list.
    """

    single: ClassVar[bool] = False  # takes exactly one child
    whole_batch: ClassVar[bool] = False  # needs all groups of a step at once

    name: str
    of: list[Any]

    def __post_init__(self) -> None:
        if not self.of:
            raise ValueError("of is empty, expected at least one reward")
        if self.single and len(self.of) > 1:
            raise ValueError(f"of lists {len(self.of)} rewards, expected one")
        self.children: list[Child] = list(self.of)
        self.services: Services | None = None

    @property
    def need(self) -> Need:
        """The largest need of any child, or of the node itself."""
        needs = {child.reward.need for child in self.children}
        special = needs - set(_FROM_LEAST)
        return min(special) if special else max(needs, key=_FROM_LEAST.index)

    def bind(self, services: Services) -> None:
        """Binds the children."""
        self.services = services
        for child in self.children:
            child.reward.bind(services)

    def check(self, problem: Problem) -> None:
        """Raises GoldError where a child does."""
        for child in self.children:
            child.reward.check(problem)

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Scores the children, then makes one value of theirs."""
        by_child = [scores_of(child.reward, groups) for child in self.children]
        values = [[[score.value for score in scores] for scores in one] for one in by_child]
        made = self.combine_batch(groups, values)
        return [
            [self._merged(sample, v) for sample, v in zip(zip(*one, strict=True), row, strict=True)]
            for one, row in zip(zip(*by_child, strict=True), made, strict=True)
        ]

    def combine_batch(self, groups: Sequence[Group], values: Sequence[Values]) -> Values:
        """Values by group and sample, from the children's values by child, group and sample."""
        return [
            self.combine_group(group, list(one))
            for group, one in zip(groups, zip(*values, strict=True), strict=True)
        ]

    def combine_group(
        self, group: Group, values: Sequence[Sequence[float | None]]
    ) -> list[float | None]:
        """Values by sample, from the children's values by child and sample."""
        return [self._combine_known(sample) for sample in zip(*values, strict=True)]

    def combine(self, values: Sequence[float]) -> float | None:
        """One value, from those of the children for one sample."""
        raise NotImplementedError

    def contributions(self, values: Sequence[float | None]) -> list[float] | None:
        """What each child adds to the node's value for one sample, from the children's values;
        None for nodes whose value is no sum."""
        return None

    def _combine_known(self, values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return self.combine(known) if len(known) == len(values) else None

    def _merged(self, scores: Sequence[Score], value: float | None) -> Score:
        aspects = {name: aspect for score in scores for name, aspect in score.aspects.items()}
        judgement = _telling(scores, value is None)
        note = "; ".join(dict.fromkeys(score.note for score in scores if score.note))
        steps = next((score.steps for score in scores if score.steps), ())
        seconds = max(score.seconds for score in scores)
        versus = next((score.versus for score in scores if score.versus), {})
        return Score(value, {**aspects, self.name: value}, judgement, note, steps, seconds, versus)

    def state(self) -> dict[str, Any]:
        """What the node remembers between steps, as JSON values; empty for most."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state`` gave."""


def scores_of(reward: Reward, groups: Sequence[Group]) -> list[list[Score]]:
    """What a reward says of groups; where it raises, the samples of that group are undecided.

    Raises:
        GoldError: a problem lacks what the reward reads.
        RuntimeError, OSError, MemoryError: the machine is at fault, or the way rewards are run.
    """
    try:
        return reward.score(groups)
    except (GoldError, OSError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and not isinstance(error, RecursionError):
            raise
        if len(groups) > 1:
            return [scores_of(reward, [group])[0] for group in groups]
        why = f"raised {type(error).__name__}: {str(error)[:200]}"
        judgement = Judgement(Verdict.UNDECIDED, None, why)
        score = Score(None, {reward.name: None}, judgement, f"{reward.name}: {why}")
        return [[score] * len(group.samples) for group in groups]


def _telling(scores: Sequence[Score], lost: bool) -> Judgement | None:
    """The judgement that stands for all: the first, or where the value is lost the undecided one
    that lost it."""
    judgements = [score.judgement for score in scores if score.judgement is not None]
    undecided = [j for j in judgements if j.verdict is Verdict.UNDECIDED]
    return next(iter(undecided if lost and undecided else judgements), None)


def walk(reward: Reward) -> Iterator[Reward]:
    """A reward and all below it."""
    yield reward
    for child in getattr(reward, "children", ()):
        yield from walk(child.reward)


def needs_whole_batch(reward: Reward) -> bool:
    """Whether some node compares samples of different groups."""
    return any(getattr(node, "whole_batch", False) for node in walk(reward))


def tree_state(reward: Reward) -> dict[str, Any]:
    """What all nodes remember, by name."""
    found = {n.name: s for n in walk(reward) if hasattr(n, "state") and (s := n.state())}
    return found


def load_tree_state(reward: Reward, state: Mapping[str, Any]) -> None:
    """Gives each node what it remembered.

    Raises:
        ValueError: a name in ``state`` is no node of this tree.
    """
    nodes = {node.name: node for node in walk(reward) if hasattr(node, "load_state")}
    for name, remembered in state.items():
        if name not in nodes:
            raise ValueError(
                f"the saved reward state names {name!r}, which this reward tree does not have; "
                "resume with the recipe the run was started with"
            )
        nodes[name].load_state(remembered)
