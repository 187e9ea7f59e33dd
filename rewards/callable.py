"""Functions as rewards and rewards as functions, in the calling convention of TRL.

``f(prompts=…, completions=…, completion_ids=…, **columns) -> list[float | None]``: all lists of
one entry per sample; a chat's completion is ``[{"role": "assistant", "content": text}]``.
"""

import inspect
import itertools
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
    StepScore,
)
from llmalign.rewards.outside import KIND, import_function, values_of
from llmalign.rewards.tree import REWARDS
from llmalign.verifiers import GoldError, Judgement, Verdict

_CALLS = itertools.count()


@REWARDS.register("call", paper="", traits={"short": "function", "example": "my_pkg.my_mod:f"})
@dataclass(kw_only=True)
class Call:
    """A function of your own, in the calling convention of TRL, as a reward.

    Range: the function's. It is called once per group, in a process of its own that is killed when
    the call takes longer than ``reward_host.timeout_s``. A call that hangs, crashes or raises
    leaves its samples undecided, and the note says why; None, NaN and infinity are not scorable.
    For a sample it may also return ``{"value": 0.5, "steps": [[0, 12, 1.0], ...]}``: scores of its
    steps too, from one character to another, for advantages and token weights that read them.
    What it prints there goes nowhere.

    Args:
        function: ``my_pkg.my_mod:f``, importable from where the run starts.
        per_sample: one call per sample, so that a sample the function hangs on costs only itself;
            for functions that look at one completion at a time.
        in_process: call it here, one call at a time, instead of in a worker: for functions that
            hold a model, keep state between calls, or read columns that are no JSON values. Such a
            call has no time limit.
    """

    need: ClassVar[Need] = "groupwise"

    name: str
    function: str
    per_sample: bool = False
    in_process: bool = False

    def __post_init__(self) -> None:
        if self.function.startswith("__main__:") and not self.in_process:
            raise ValueError(
                f"function is {self.function!r:.80}, which a worker cannot import; "
                "put it into a module of its own, or set in_process: true"
            )
        self._accepted = _accepted(import_function(self.function))
        self._lock = threading.Lock()
        self._services: Services | None = None

    def bind(self, services: Services) -> None:
        """Takes the host's worker processes."""
        self._services = services

    def check(self, problem: Problem) -> None:
        """Raises GoldError where a column cannot be sent to a worker."""
        if self.in_process:
            return
        for name, value in problem.columns.items():
            try:
                if self._accepted is None or name in self._accepted:
                    json.dumps(value)
            except (TypeError, ValueError):
                raise GoldError(
                    f"problem {problem.id!r}: column {name!r} is {repr(value)[:80]}, expected a "
                    f"JSON value for {self.function}; leave the column out in data, or set "
                    "in_process: true"
                ) from None

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Calls the function once per group, or per sample."""
        if self.per_sample:
            calls = [replace(g, samples=(sample,)) for g in groups for sample in g.samples]
        else:
            calls = list(groups)
        arguments = [self._arguments(call) for call in calls]
        judgements = (self._here if self.in_process else self._outside)(arguments)
        made = (
            score
            for call, judgement in zip(calls, judgements, strict=True)
            for score in self._scores(judgement, len(call.samples))
        )
        return [[next(made) for _ in group.samples] for group in groups]

    def _arguments(self, group: Group) -> dict[str, Any]:
        arguments = _arguments([group])
        if self._accepted is None:
            return arguments
        return {name: arguments[name] for name in self._accepted if name in arguments}

    def _outside(self, arguments: Sequence[dict[str, Any]]) -> list[Judgement]:
        if self._services is None:
            raise RuntimeError(f"reward {self.name!r} is not bound; score through a RewardHost")
        # The number keeps calls apart: a pool remembers judgements, a function may be random.
        pairs = [("", {"arguments": one, "call": next(_CALLS)}) for one in arguments]
        return self._services.verify(KIND, pairs, {"function": self.function})

    def _here(self, arguments: Sequence[dict[str, Any]]) -> list[Judgement]:
        with self._lock:
            return [self._judged(one) for one in arguments]

    def _judged(self, arguments: dict[str, Any]) -> Judgement:
        began = time.perf_counter()
        verdict, answer, why = Verdict.RIGHT, None, ""
        try:
            answer = json.dumps(values_of(self.function, arguments))
        except Exception as error:  # noqa: BLE001  (undecided, and it says why)
            verdict, why = Verdict.UNDECIDED, f"raised {type(error).__name__}: {str(error)[:200]}"
        return Judgement(verdict, answer, why, time.perf_counter() - began)

    def _scores(self, judgement: Judgement, count: int) -> list[Score]:
        if judgement.verdict is Verdict.UNDECIDED or judgement.answer is None:
            note = f"{self.name}: {judgement.why}"
            return [Score(None, {self.name: None}, judgement, note)] * count
        values = json.loads(judgement.answer)
        return [self._score(value, judgement.seconds / count) for value in values]

    def _score(self, found: Any, seconds: float) -> Score:
        steps: tuple[StepScore, ...] = ()
        if isinstance(found, dict):
            steps, found = tuple(StepScore(*step) for step in found["steps"]), found["value"]
        value: float | None = found
        if value is None or not math.isfinite(value):
            note = f"{self.name}: returned {value}"
            return Score(None, {self.name: None}, note=note, seconds=seconds)
        return Score(value, {self.name: value}, steps=steps, seconds=seconds)


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


def as_trl(reward: Reward, **host_options: Any) -> RewardFunction:
    """A reward as a function for TRL's trainers: ``reward_funcs=[as_trl(build_reward("math"))]``.

    Consecutive samples with the same prompt and columns are one group. Worker processes start
    with the first call and end with the interpreter. Arguments that are no list of one entry per
    sample (such as the trainer's state) are not columns.

    Args:
        reward: any reward tree.
        host_options: of ``RewardHost``: ``workers``, ``timeout_s``, a ``judge``, a scorer.
    Raises:
        ValueError: the tree needs a service that ``host_options`` do not give.
    """
    from llmalign.rewards.host import RewardHost

    host = RewardHost(reward, **host_options)

    def reward_function(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        groups = list(_groups(prompts, completions, completion_ids, columns))
        return [score.value for scores in host.score(groups) for score in scores]

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
