"""Functions as rewards and rewards as functions, in the calling convention of TRL.

``f(prompts=…, completions=…, completion_ids=…, **columns) -> list[float | None]``: all lists of
one entry per sample; a chat's completion is ``[{"role": "assistant", "content": text}]``.
"""

import importlib
import inspect
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmalign.rewards.base import (
    Group,
    Need,
    Problem,
    Reward,
    RewardFunction,
    Sample,
    Score,
    Services,
)
from llmalign.rewards.tree import REWARDS


@REWARDS.register("call", paper="", traits={"short": "function"})
@dataclass(kw_only=True)
class Call:
    """A function of your own, in the calling convention of TRL, as a reward.

    Range: the function's. None, NaN and infinity are not scorable; an exception makes the samples
    of that call not scorable, and the note says what was raised. Calls are never concurrent.

    Args:
        function: ``my_pkg.my_mod:f``, importable from where the run starts.
    """

    need: ClassVar[Need] = "groupwise"

    name: str
    function: str

    def __post_init__(self) -> None:
        self._function = _import(self.function)
        self._accepted = _accepted(self._function)
        self._lock = threading.Lock()

    def bind(self, services: Services) -> None:
        """Needs nothing."""

    def check(self, problem: Problem) -> None:
        """Any problem will do."""

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Calls the function once with all samples; ValueError for a result of wrong length."""
        arguments = _arguments(groups)
        if self._accepted is not None:
            arguments = {name: arguments[name] for name in self._accepted if name in arguments}
        count = sum(len(group.samples) for group in groups)
        scores = iter(self._call(arguments, count))
        return [[next(scores) for _ in group.samples] for group in groups]

    def _call(self, arguments: Mapping[str, Any], count: int) -> list[Score]:
        try:
            with self._lock:
                values = list(self._function(**arguments))
        except Exception as error:  # noqa: BLE001  (counted by the host as not scorable, with its reason)
            note = f"{self.name}: raised {type(error).__name__}: {str(error)[:200]}"
            return [Score(None, {self.name: None}, note=note)] * count
        if len(values) != count:
            raise ValueError(f"{self.function} returned {len(values)} values, expected {count}")
        return [self._score(value) for value in values]

    def _score(self, value: Any) -> Score:
        if value is None:
            return Score(None, {self.name: None}, note=f"{self.name}: returned None")
        number = float(value)
        if not math.isfinite(number):
            return Score(None, {self.name: None}, note=f"{self.name}: returned {number}")
        return Score(number, {self.name: number})


def _import(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError(f"function is {path!r:.80}, expected 'package.module:function'")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"function is {path!r:.80}, but: {error}; is it on PYTHONPATH?") from error
    if not callable(found) or inspect.iscoroutinefunction(found):
        raise ValueError(f"function is {path!r:.80}, expected an ordinary function")
    return found


def _accepted(function: Callable[..., Any]) -> list[str] | None:
    """Names of its parameters, None where it takes any."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters]


def _arguments(groups: Sequence[Group]) -> dict[str, list[Any]]:
    samples = [(group.problem, sample) for group in groups for sample in group.samples]
    names = dict.fromkeys(name for group in groups for name in group.problem.columns)
    columns = {name: [problem.columns.get(name) for problem, _ in samples] for name in names}
    chats = [not isinstance(problem.prompt, str) for problem, _ in samples]
    return {
        **columns,
        "prompts": [
            [dict(message) for message in p.prompt] if not isinstance(p.prompt, str) else p.prompt
            for p, _ in samples
        ],
        "completions": [
            [{"role": "assistant", "content": s.text}] if chat else s.text
            for chat, (_, s) in zip(chats, samples, strict=True)
        ],
        "completion_ids": [list(sample.token_ids) for _, sample in samples],
    }


def as_trl(reward: Reward) -> RewardFunction:
    """A reward as a function for TRL's trainers: ``reward_funcs=[as_trl(build_reward("math"))]``.

    Consecutive samples with the same prompt and columns are one group. Worker processes start
    with the first call and end with the interpreter. Arguments that are no list of one entry per
    sample (such as the trainer's state) are not columns.
    """
    from llmalign.rewards.host import RewardHost

    lock = threading.Lock()
    hosts: list[RewardHost] = []

    def reward_function(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        with lock:
            if not hosts:
                hosts.append(RewardHost(reward))
        groups = list(_groups(prompts, completions, completion_ids, columns))
        return [score.value for scores in hosts[0].score(groups) for score in scores]

    reward_function.__name__ = reward.name
    return reward_function


def _groups(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]] | None,
    columns: Mapping[str, Any],
) -> Iterator[Group]:
    count = len(prompts)
    lists = {n: v for n, v in columns.items() if isinstance(v, list | tuple)}
    per_sample = {n: v for n, v in lists.items() if len(v) == count}
    rows = [(prompt, {n: v[i] for n, v in per_sample.items()}) for i, prompt in enumerate(prompts)]
    samples = [
        Sample(_text(completions[i]), tuple(completion_ids[i]) if completion_ids else (), (), "eos")
        for i in range(count)
    ]
    start = 0
    for end in range(1, count + 1):
        if end == count or rows[end] != rows[start]:
            prompt, own = rows[start]
            prompt = prompt if isinstance(prompt, str) else tuple(prompt)
            yield Group(Problem(str(start), prompt, own), tuple(samples[start:end]))
            start = end


def _text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    written = [m["content"] for m in completion if m["role"] == "assistant"]
    return (written[-1] if written else None) or ""
