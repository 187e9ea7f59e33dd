from dataclasses import dataclass
from typing import Any

import pytest

from llmalign.rewards import Group, Problem, Sample, Score
from llmalign.rewards.base import Need, Services
from llmalign.rewards.combine import Sum
from llmalign.rewards.tree import Child
from llmalign.verifiers import GoldError, Judgement, Verdict


@dataclass
class Fixed:
    """Scores as given, one per sample."""

    name: str
    given: list[Score]
    need: Need = "pointwise"
    bound: Services | None = None

    def bind(self, services: Services) -> None:
        self.bound = services

    def check(self, problem: Problem) -> None:
        if self.name in problem.columns:
            raise GoldError(f"{self.name} is bad")

    def score(self, groups: Any) -> list[list[Score]]:
        scores = iter(self.given)
        return [[next(scores) for _ in group.samples] for group in groups]


def fixed(name: str, *values: float | None, **fields: Any) -> Fixed:
    return Fixed(name, [Score(value, {name: value}, **fields) for value in values])


def groups(*sizes: int) -> list[Group]:
    sample = Sample("x", (1,), (0.0,), "eos")
    return [Group(Problem("p", "q"), (sample,) * size) for size in sizes]


def test_a_sum_adds_weighted_values_and_lists_every_node() -> None:
    a, b = fixed("a", 1.0, 2.0, 3.0), fixed("b", 10.0, 20.0, 30.0)
    node = Sum(name="total", of=[Child(a, 1.0), Child(b, -0.5)])
    scores = node.score(groups(1, 2))
    # 1 - 5, 2 - 10, 3 - 15
    assert [[s.value for s in row] for row in scores] == [[-4.0], [-8.0, -12.0]]
    assert scores[1][1].aspects == {"a": 3.0, "b": 30.0, "total": -12.0}


@pytest.mark.parametrize(
    ("values", "weights", "total"),
    [
        ((None, 1.0), (1.0, 1.0), None),
        ((1.0, None), (1.0, -2.0), None),
        ((None, 1.0), (0.0, 2.0), 2.0),
        ((None, None), (0.0, 0.0), 0.0),
    ],
)
def test_only_a_child_without_weight_may_lack_a_value(
    values: tuple[float | None, ...], weights: tuple[float, ...], total: float | None
) -> None:
    leaves = [fixed(f"c{i}", value) for i, value in enumerate(values)]
    children = [Child(leaf, weight) for leaf, weight in zip(leaves, weights, strict=True)]
    (score,) = Sum(name="sum", of=children).score(groups(1))[0]
    assert score.value == total
    assert score.aspects == {"c0": values[0], "c1": values[1], "sum": total}


def test_the_first_judgement_is_kept_and_notes_are_joined() -> None:
    first, second = (Judgement(Verdict.WRONG, answer, "") for answer in ("1", "2"))
    children = [
        fixed("a", 1.0, note="x"),
        fixed("b", 1.0, judgement=first, note="y"),
        fixed("c", 1.0, judgement=second),
    ]
    (score,) = Sum(name="sum", of=[Child(c) for c in children]).score(groups(1))[0]
    assert score.judgement is first
    assert score.note == "x; y"


def test_a_sum_binds_and_checks_all_its_children() -> None:
    children = [fixed("a"), fixed("b")]
    node = Sum(name="sum", of=[Child(c) for c in children])
    services = Services(verify=lambda kind, pairs, options: [])
    node.bind(services)
    assert [c.bound for c in children] == [services, services]
    node.check(Problem("p", "q"))
    with pytest.raises(GoldError, match="b is bad"):
        node.check(Problem("p", "q", {"b": 1}))


@pytest.mark.parametrize(
    ("needs", "need"),
    [
        (["pointwise", "pointwise"], "pointwise"),
        (["groupwise", "pointwise"], "groupwise"),
        (["paired_groups", "groupwise"], "paired_groups"),
        (["groupwise", "judge"], "judge"),
    ],
)
def test_a_sum_needs_the_most_that_a_child_needs(needs: list[Need], need: Need) -> None:
    children = [Child(Fixed(f"c{i}", [], n)) for i, n in enumerate(needs)]
    assert Sum(name="sum", of=children).need == need
