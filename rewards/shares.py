"""Which node moved the policy: each node's share of the variance of the advantage."""

import math
from collections.abc import Sequence

from llmalign.rewards.base import Reward, Score
from llmalign.rewards.node import Node

Row = list[float]  # one entry per sample


def advantage_shares(
    reward: Reward, scores: Sequence[Sequence[Score]], advantages: Sequence[Sequence[float]]
) -> dict[str, float]:
    """Share of the advantage's variance by name of the node; empty where no advantage differs
    from 0.

    The root's share is what its value, within groups, explains of the advantage: 1 for group
    baselines, less where something else (a KL penalty, a baseline over the batch) has a part.
    It is handed down: by covariance where the children's values add up to the node's (a ``sum``, a
    ``gate``), so that a child that pulls the other way has a negative share; whole to an only
    child; otherwise in proportion to the squared correlation of child and node.

    Args:
        reward: the tree.
        scores: of the tree, by group and sample.
        advantages: mean advantage per token of the same samples, 0 where a sample has none.
    """
    groups = [
        ([score for score, _ in kept], [a for _, a in kept])
        for row, adv in zip(scores, advantages, strict=True)
        if (kept := [(s, a) for s, a in zip(row, adv, strict=True) if s.value is not None])
    ]
    total = sum(a * a for _, adv in groups for a in adv)
    if not total:
        return {}
    # An advantage is the centred reward times a factor of the group, such as 1 / std.
    factors = [_slope(adv, _values(row, reward.name)) for row, adv in groups]
    explained = sum(
        factor * _dot(_values(row, reward.name), adv)
        for factor, (row, adv) in zip(factors, groups, strict=True)
    )
    found = {reward.name: explained / total}
    _hand_down(reward, [row for row, _ in groups], [f * f for f in factors], found)
    return found


def _hand_down(
    node: Reward, groups: Sequence[Sequence[Score]], weights: Row, found: dict[str, float]
) -> None:
    if not isinstance(node, Node):
        return
    fractions = _fractions(node, groups, weights)
    for child, fraction in zip(node.children, fractions, strict=True):
        found[child.reward.name] = found[node.name] * fraction
        _hand_down(child.reward, groups, weights, found)


def _fractions(node: Node, groups: Sequence[Sequence[Score]], weights: Row) -> list[float]:
    """Each child's part in the variance of the node's value."""
    if len(node.children) == 1:
        return [1.0]
    own = [_values(row, node.name) for row in groups]
    names = [child.reward.name for child in node.children]
    variance = _covariance(own, own, weights)
    if not variance:
        return [0.0] * len(names)
    added = [[node.contributions([_plain(s, n) for n in names]) for s in row] for row in groups]
    if all(parts is not None for row in added for parts in row):
        by_child = [
            [_centred([parts[c] for parts in row if parts is not None]) for row in added]
            for c in range(len(names))
        ]
        return [_covariance(values, own, weights) / variance for values in by_child]
    squared = [_squared_correlation([_values(r, n) for r in groups], own, weights) for n in names]
    return [r2 / (sum(squared) or 1.0) for r2 in squared]


def _squared_correlation(a: Sequence[Row], b: Sequence[Row], weights: Row) -> float:
    variance = _covariance(a, a, weights) * _covariance(b, b, weights)
    return _covariance(a, b, weights) ** 2 / variance if variance else 0.0


def _covariance(a: Sequence[Row], b: Sequence[Row], weights: Row) -> float:
    """Of centred values, each group with its weight."""
    return math.fsum(w * _dot(x, y) for w, x, y in zip(weights, a, b, strict=True))


def _dot(a: Row, b: Row) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def _slope(y: Row, x: Row) -> float:
    return _dot(x, y) / variance if (variance := _dot(x, x)) else 0.0


def _values(row: Sequence[Score], name: str) -> Row:
    return _centred([_plain(score, name) for score in row])


def _plain(score: Score, name: str) -> float | None:
    return score.aspects.get(name)


def _centred(values: Sequence[float | None]) -> Row:
    """Values less their mean; what has none is at the mean."""
    known = [value for value in values if value is not None]
    # Equal values are equal: their mean may differ from them by rounding.
    if len(set(known)) < 2:
        return [0.0] * len(values)
    mean = math.fsum(known) / len(known)
    return [0.0 if value is None else value - mean for value in values]
