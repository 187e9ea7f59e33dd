"""Which samples of a group are trained on, where more are sampled than learnt from.

A baseline of a few chosen samples is not the baseline of all. Of one right answer in eight, kept
beside one wrong one, the advantage is 0.5 among the two and 0.875 among the eight. Both are used,
and the caller chooses:

    among the chosen    ``keep_only`` before the advantage: the group is cut, the rest forgotten
    among all           the advantage of the whole group, then ``chosen_rows`` as a mask on its loss

All rules but ``first`` and ``random`` look at the reward, so what is kept is no fair draw of what
the policy does: ``best`` and ``spread`` change the expected gradient under either baseline.

Shape letters in this file
    B  samples of a step, group by group
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from llmalign.experience import ScoredGroup
from llmalign.rewards import Score

How = Literal["first", "spread", "balanced", "best", "random"]


def select(reward: Sequence[float | None], count: int, *, how: How, seed: int) -> list[int]:
    """Indices of ``count`` samples of one group, ascending; equal rewards go by index.

        first      as they come: many vote, the first few learn
        spread     the largest variance of reward:  max_S  sum_S r^2 / M - (sum_S r / M)^2
        balanced   as many above as below the mean of the group, as they come
        best       the highest rewards
        random     a seeded draw

    A sample without a finite reward is chosen only where all others are chosen already, the first
    ones first: the result always has ``count`` entries.

    Args:
        reward: of each sample; None (or NaN, or infinite) is not scorable.
        count: how many to choose, from 1 to the number of samples (M above).
        how: the rule.
        seed: of the draw; only ``random`` reads it.
    Raises: ValueError: ``count`` is out of range, or there is no such rule.
    Source: ``spread`` is the max-variance down-sampling of Xu et al. 2025 (PODS), arXiv:2504.13818;
        ``best`` is the choice of RAFT (Dong et al. 2023, arXiv:2304.06767) with more than one kept;
        ``balanced`` and all ties reconstructed.
    """
    if not 1 <= count <= len(reward):
        raise ValueError(
            f"count is {count}, expected 1 to {len(reward)}, the samples of the group; "
            "sample more, or train on fewer"
        )
    rules: dict[str, Callable[[Sequence[float], int], list[int]]] = {
        "first": _first,
        "spread": _spread,
        "balanced": _balanced,
        "best": _best,
        "random": partial(_random, seed=seed),
    }
    if how not in rules:
        raise ValueError(f"how is {how!r:.80}, expected one of {', '.join(get_args(How))}")
    value = {i: float(r) for i, r in enumerate(reward) if r is not None and math.isfinite(r)}
    scored = list(value)
    if len(scored) > count:
        return sorted(scored[j] for j in rules[how](list(value.values()), count))
    unscored = [i for i in range(len(reward)) if i not in value]
    return sorted(scored + unscored[: count - len(scored)])


def keep_only(scored: ScoredGroup, chosen: Sequence[int]) -> ScoredGroup:
    """The group with the chosen samples and the scores they got among all of them; an advantage
    computed on it compares the chosen with each other."""
    place = {old: new for new, old in enumerate(chosen)}
    samples = tuple(scored.group.samples[i] for i in chosen)
    scores = [_renumbered(scored.scores[i], place) for i in chosen]
    return replace(scored, group=replace(scored.group, samples=samples), scores=scores)


def _renumbered(score: Score, place: Mapping[int, int]) -> Score:
    """Comparisons name samples by their index, and those with a sample left out go with it."""
    versus = {place[other]: leads for other, leads in score.versus.items() if other in place}
    return replace(score, versus=versus)


def chosen_rows(chosen: Sequence[Sequence[int]], sizes: Sequence[int]) -> Tensor:
    """bool [B]: the chosen samples of whole groups of ``sizes``; a mask for the loss where the
    advantage compares all samples of a group."""
    kept_B = torch.zeros(sum(sizes), dtype=torch.bool)
    start = 0
    for indices, size in zip(chosen, sizes, strict=True):
        if any(not 0 <= i < size for i in indices):
            raise ValueError(f"chosen is {list(indices)!r:.80}, expected indices below {size}")
        kept_B[[start + i for i in indices]] = True
        start += size
    return kept_B


# -- the rules: more values than ``count``, all finite ---------------------------------------------


def _first(value: Sequence[float], count: int) -> list[int]:
    return list(range(count))


def _best(value: Sequence[float], count: int) -> list[int]:
    return sorted(range(len(value)), key=lambda i: (-value[i], i))[:count]


def _random(value: Sequence[float], count: int, seed: int) -> list[int]:
    return random.Random(seed).sample(range(len(value)), count)


def _spread(value: Sequence[float], count: int) -> list[int]:
    """For some k, the k lowest and the ``count`` - k highest: moving an inner value of a choice to
    one of its ends never lowers the variance. Of equal variances, the one with fewer of the lowest.
    """
    exact = _integers(value)
    order = sorted(range(len(value)), key=lambda i: (value[i], i))
    highest, lowest = order[-count:], order[:count]
    total = sum(exact[i] for i in highest)
    square = sum(exact[i] ** 2 for i in highest)
    spreads = [count * square - total**2]  # of k = 0, in units of variance * count^2
    for leaves, enters in zip(highest, lowest, strict=True):
        total += exact[enters] - exact[leaves]
        square += exact[enters] ** 2 - exact[leaves] ** 2
        spreads.append(count * square - total**2)
    k = spreads.index(max(spreads))
    rest = sorted(order[k:], key=lambda i: (-value[i], i))
    return order[:k] + rest[: count - k]


def _balanced(value: Sequence[float], count: int) -> list[int]:
    """Half of ``count`` from each side of the mean; what a side lacks comes from the other one, and
    what both lack from the mean itself, where no advantage is."""
    exact = _integers(value)
    total = sum(exact)
    side = [_sign(len(exact) * e - total) for e in exact]
    above, below = ([i for i, s in enumerate(side) if s == which] for which in (1, -1))
    chosen = above[: count // 2] + below[: count // 2]
    taken = set(chosen)
    rest = [i for i in range(len(value)) if i not in taken]
    rest.sort(key=lambda i: (side[i] == 0, i))
    return chosen + rest[: count - len(chosen)]


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


def _integers(value: Sequence[float]) -> list[int]:
    """The values times one power of two: sums of them are exact, so that equal is equal."""
    ratios = [v.as_integer_ratio() for v in value]
    scale = max(denominator for _, denominator in ratios)
    return [numerator * (scale // denominator) for numerator, denominator in ratios]
