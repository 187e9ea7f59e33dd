"""Monitors: figures of a run that warn, or stop it, when they look like a reward being gamed.

They are audits, not promises: a run that none of them stops may still have gone wrong.
"""

import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmalign.schema import Limit
from llmalign.schema import Monitors as Options

# monitor -> (metric it reads, what the figure is, what one may do)
_LEVELS = {
    "reward_length": (
        "reward_length",
        "correlation of reward and length within groups",
        "look whether length alone earns; a length reward or a gate may help",
    ),
    "truncated": (
        "truncated_share",
        "share of samples cut at the limit",
        "raise rollout.max_new_tokens, or put a price on length (overlong)",
    ),
    "disagreement": (
        "disagreement",
        "share of sample pairs that the members of an ensemble order differently",
        "look at the samples they disagree on, or pay mean_minus_std or uwo",
    ),
}
JUMP_METRICS = ("reward", "tokens_mean", "entropy", "kl", "grad_norm", "loss")
_MIN_HISTORY = 10  # steps before a jump can be told from the ordinary
_FLOOR = 0.01  # least spread, relative to the median: a flat stretch makes no step a jump


@dataclass(frozen=True)
class Alarm:
    """What a monitor says; ``stop`` where the run shall end."""

    message: str
    stop: bool


class Monitors:
    """Looks at the metrics of each step and remembers what it needs; see the recipe's block."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._in_a_row: dict[str, int] = {}
        self._history: dict[str, deque[float]] = {}

    def look(self, metrics: Mapping[str, Any]) -> list[Alarm]:
        """Alarms of one step. A warning comes once when a figure has been over its limit for
        ``patience`` steps, and again only after it was below."""
        alarms = []
        for name, (metric, what, advice) in _LEVELS.items():
            value = metrics.get(metric)
            limit: Limit = getattr(self.options, name)
            alarms += self._level(name, value, limit, f"{what} is", advice)
        for metric in JUMP_METRICS:
            alarms += self._jump(metric, metrics.get(metric))
        return alarms

    def _level(
        self, name: str, value: float | None, limit: Limit, what: str, advice: str
    ) -> list[Alarm]:
        found = []
        for kind, bound in (("warn", limit.warn), ("stop", limit.stop)):
            key = f"{name}/{kind}"
            over = value is not None and bound is not None and value > bound
            self._in_a_row[key] = self._in_a_row.get(key, 0) + 1 if over else 0
            steps_left = self.options.patience - self._in_a_row[key]
            # A run that was stopped and goes on unchanged is stopped again.
            if steps_left == 0 or (kind == "stop" and steps_left < 0):
                steps = f" for {self.options.patience} steps" if self.options.patience > 1 else ""
                message = f"{what} {value:.3g}, above monitors.{name}.{kind} {bound:g}{steps}; "
                found.append(Alarm(message + advice, stop=kind == "stop"))
        return found

    def _jump(self, metric: str, value: float | None) -> list[Alarm]:
        if value is None:
            return []
        history = self._history.setdefault(metric, deque(maxlen=self.options.jump_window))
        alarms = []
        if len(history) >= min(_MIN_HISTORY, self.options.jump_window):
            median = statistics.median(history)
            spread = 1.4826 * statistics.median(abs(x - median) for x in history)
            distance = abs(value - median) / max(spread, _FLOOR * abs(median), 1e-8)
            what = f"{metric} jumped from about {median:.3g} to {value:.3g}, in robust deviations"
            alarms = self._single(distance, what)
        history.append(value)
        return alarms

    def _single(self, distance: float, what: str) -> list[Alarm]:
        advice = "look at the samples of this step"
        limit = self.options.jump
        for kind, bound in (("stop", limit.stop), ("warn", limit.warn)):
            if bound is not None and distance > bound:
                message = f"{what} {distance:.3g}, above monitors.jump.{kind} {bound:g}; {advice}"
                return [Alarm(message, stop=kind == "stop")]
        return []

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        history = {name: list(values) for name, values in self._history.items()}
        return {"in_a_row": dict(self._in_a_row), "history": history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state_dict`` returned."""
        self._in_a_row = dict(state["in_a_row"])
        window = self.options.jump_window
        self._history = {n: deque(v, maxlen=window) for n, v in state["history"].items()}
