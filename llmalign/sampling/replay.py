"""Groups kept for another use, under a bound on their age.

The old log-probs of a replayed group are those of the policy that sampled it, as its samples carry
them; they must not be computed anew. The ratio

    rho = exp(logp - logp_old)

of the present policy to that one then corrects for the age, as far as its clipping lets it. Scores
and advantages need no correction, they compare samples of one policy with each other.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

Item = TypeVar("Item")
Pick = Literal["priority", "uniform"]


def half_priority(pass_rate: float) -> float:
    """1 at a pass rate of 1/2, falling to 0 at 0 and 1:  1 - |2 p - 1|.

    Groups of medium difficulty first is what ExGRPO found best (Zhan et al. 2025,
    arXiv:2510.02245); the formula is reconstructed.

    Raises: ValueError: ``pass_rate`` is outside [0, 1].
    """
    if not 0 <= pass_rate <= 1:
        raise ValueError(f"pass_rate is {pass_rate}, expected 0 to 1")
    return 1 - abs(2 * pass_rate - 1)


@dataclass
class _Entry(Generic[Item]):
    item: Item
    step: int
    priority: float
    uses: int = 0


class ReplayBuffer(Generic[Item]):
    """Keeps items for reuse: each at most ``max_uses`` times, none older than ``max_age``.

    Steps are optimizer steps (``weights_version``), since these age a sample. Which item goes first
    is certain: under ``priority`` the highest, of equals the one used less, then the newer; under
    ``uniform`` a seeded draw. A full buffer gives up what would go last (``uniform``: the oldest).
    ``lost`` counts what left it unused, by ``stale`` and ``full``.

    Args:
        capacity: how many items it holds, > 0.
        max_age: optimizer steps after which an item is stale, > 0.
        max_uses: how often one item may be taken, > 0.
        pick: which items are taken.
        encode: an item as JSON values, for the state.
        decode: what ``encode`` was given.
    Raises: ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        capacity: int,
        max_age: int,
        max_uses: int,
        pick: Pick,
        encode: Callable[[Item], Any],
        decode: Callable[[Any], Item],
    ) -> None:
        for name, value in (("capacity", capacity), ("max_age", max_age), ("max_uses", max_uses)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected >= 1")
        if pick not in ("priority", "uniform"):
            raise ValueError(f"pick is {pick!r:.80}, expected 'priority' or 'uniform'")
        self._capacity, self._max_age, self._max_uses = capacity, max_age, max_uses
        self._pick, self._encode, self._decode = pick, encode, decode
        self._entries: list[_Entry[Item]] = []  # in the order they came
        self.lost = {"stale": 0, "full": 0}

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, step: int, item: Item, priority: float) -> None:
        """Keeps an item sampled by the weights of ``step``.

        Raises: ValueError: ``priority`` is NaN, which has no place in an order.
        """
        if math.isnan(priority):
            raise ValueError(f"priority is {priority}, expected a number")
        self._entries.append(_Entry(item, step, priority))
        if len(self._entries) > self._capacity:
            last = self._ranked()[-1]
            self.lost["full"] += not self._entries[last].uses
            del self._entries[last]

    def expire(self, step: int) -> list[tuple[Item, int]]:
        """Gives up what is stale at ``step``, and returns it with its age, for the list."""
        stale = [e for e in self._entries if step - e.step > self._max_age]
        self._entries = [e for e in self._entries if step - e.step <= self._max_age]
        self.lost["stale"] += sum(not e.uses for e in stale)
        return [(e.item, step - e.step) for e in stale]

    def take(self, step: int, count: int, seed: int) -> list[tuple[Item, int]]:
        """At most ``count`` items with their age in optimizer steps, which is at least 1: what the
        present weights sampled is fresh. What is stale is given up before.

        Raises: ValueError: ``step`` is before that of an item.
        """
        newest = max((e.step for e in self._entries), default=step)
        if step < newest:
            raise ValueError(f"step is {step}, expected at least {newest}, that of the newest item")
        self.expire(step)
        places = [place for place in self._ranked() if self._entries[place].step < step]
        if self._pick == "uniform":
            random.Random(seed).shuffle(places)
        taken = [self._entries[place] for place in places[:count]]
        for entry in taken:
            entry.uses += 1
        self._entries = [e for e in self._entries if e.uses < self._max_uses]
        return [(e.item, step - e.step) for e in taken]

    def _ranked(self) -> list[int]:
        """Places of the entries, those to take first before the others."""

        def rank(place: int) -> tuple[float, int, int, int]:
            entry = self._entries[place]
            if self._pick == "uniform":
                return (0.0, 0, -entry.step, -place)
            return (-entry.priority, entry.uses, -entry.step, -place)

        return sorted(range(len(self._entries)), key=rank)

    def state_dict(self) -> dict[str, Any]:
        """The items and their history, in JSON values."""
        return {
            "entries": [
                {
                    "item": self._encode(e.item),
                    "step": e.step,
                    "priority": e.priority,
                    "uses": e.uses,
                }
                for e in self._entries
            ],
            "lost": dict(self.lost),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state_dict`` returned."""
        self._entries = [
            _Entry(self._decode(e["item"]), e["step"], e["priority"], e["uses"])
            for e in state["entries"]
        ]
        self.lost = dict(state["lost"])
