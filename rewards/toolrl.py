"""Pays tool calls in part: the form, the names, the parameters and their values (ToolRL)."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from llmalign.rewards.base import Group, Need, Problem, Score, Services
from llmalign.rewards.tree import REWARDS
from llmalign.rewards.verified import column
from llmalign.verifiers import GoldError, Verdict, format, toolcall
from llmalign.verifiers.format import NotJson, read_json, tagged

Order = Literal["any", "same"]

MAX_CALLS = 100  # in one response; more of them are no readable calls
_TAGS = ("think", "tool_call", "response")


@dataclass(frozen=True)
class Call:
    """One call a model makes: a tool and the values of its parameters."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class GoldCall:
    """One call asked for.

    ``accepted`` lists the values of each parameter that will do; those in ``optional`` may be
    left out. ``schema`` is the function's, where the values are compared by the rules of the
    Berkeley leaderboard; None compares JSON values as they are.
    """

    name: str
    accepted: Mapping[str, Sequence[Any]]
    optional: frozenset[str] = frozenset()
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Gold:
    """The calls asked for, and the blocks that a response must have."""

    calls: tuple[GoldCall, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Match:
    """How far calls agree: the share of names, the points of aligned calls, and the most there
    could be (one for the names, and for each call one and one per parameter)."""

    names: float
    points: float
    possible: float

    @property
    def share(self) -> float:
        """Agreement in [0, 1]."""
        return (self.names + self.points) / self.possible


@REWARDS.register(
    "toolrl", paper="ToolRL: Reward is All Tool Learning Needs", traits={"example": "toolrl"}
)
@dataclass(kw_only=True)
class ToolRL:
    """Pays the form of a response, and its tool calls in part: names, parameters and values.

        form * [has the form] + low + (high - low) * agreement

    Range: [low, high + form]. Calls that cannot be read, or none where some are asked for, get
    ``low``; where no call is asked for, calls count 0 (but see ``pay_no_call``). The agreement is
    that of ``match_calls``. None is never given: everything here can be told.

    The gold is ToolRL's text (``<think>…</think>``, one JSON call per line in ``<tool_call>``,
    ``<response>``), whose blocks are the form asked for; or, in the Berkeley leaderboard's form, a
    list of ``{name: {argument: [accepted values]}}``, beside a column of functions. An empty list
    asks for ``<response>``.

    Args:
        column: the column with the calls asked for.
        functions_column: the column with the functions' schemas; read for the second form only.
        form: what the form alone pays, >= 0.
        low, high: what calls pay that agree in nothing, and in all.
        order: ``any``: calls may come in any order; ``same``: in that of the gold.
        pay_no_call: where no call is asked for, ``high`` for none and ``low`` for any, not 0.

    Source: "ToolRL: Reward is All Tool Learning Needs", its released code. Different from it:
    calls are aligned for the best sum, not one gold after another; ``true`` is not 1; blocks
    stand there once each and alone, with any whitespace between; a block nobody asked for spoils
    the form.
    """

    need: ClassVar[Need] = "pointwise"

    name: str
    column: str = "ground_truth"
    functions_column: str = "functions"
    form: float = 1.0
    low: float = -3.0
    high: float = 3.0
    order: Order = "any"
    pay_no_call: bool = False

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}, expected < high = {self.high}")
        if self.form < 0:
            raise ValueError(f"form is {self.form}, expected >= 0")

    def bind(self, services: Services) -> None:
        """Needs nothing."""

    def check(self, problem: Problem) -> None:
        """Raises GoldError that names the problem where its calls cannot be read."""
        try:
            self._gold(problem)
        except GoldError as error:
            raise GoldError(f"problem {problem.id!r}: {error}") from None

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Reads and compares the calls of each sample."""
        return [
            [self._score(sample.text, gold) for sample in group.samples]
            for group, gold in ((group, self._gold(group.problem)) for group in groups)
        ]

    def _gold(self, problem: Problem) -> Gold:
        given = column(problem, self.column)
        if isinstance(given, str):
            return gold_from_text(given)
        return gold_from_bfcl(given, column(problem, self.functions_column))

    def _score(self, text: str, gold: Gold) -> Score:
        form = self.form * has_form(text, gold.tags)
        calls, why = read_calls(text)
        if not gold.calls:
            made = calls is None or bool(calls)
            correctness = (self.low if made else self.high) if self.pay_no_call else 0.0
            why = "calls, where none was asked for" if made else ""
        else:
            match = match_calls(gold.calls, calls or (), order=self.order)
            share = match.share if calls else 0.0
            correctness = self.low + (self.high - self.low) * share
            why = why or ("" if share == 1 else f"calls agree to {share:.3f}")
        aspects = {f"{self.name}.form": form, f"{self.name}.correctness": correctness}
        note = f"{self.name}: {why}" if why else ""
        value = form + correctness
        return Score(value, {self.name: value, **aspects}, note=note)


def match_calls(gold: Sequence[GoldCall], said: Sequence[Call], *, order: Order) -> Match:
    """How far the calls made agree with those asked for.

        names    = Jaccard index of the multisets of tool names
        points   = sum over aligned calls of the same tool of
                   Jaccard index of parameter names + number of values accepted
        possible = 1 + sum over calls asked for of (1 + number of parameters)

    A parameter that may be left out counts where it is given, and as given where it is not.

    Args:
        gold, said: the calls asked for, and those made.
        order: ``any``: calls are aligned for the most points; ``same``: without crossing, and of
            the names only a longest common subsequence counts as shared.
    """
    names, others = [call.name for call in gold], [call.name for call in said]
    if order == "same":
        shared = _best_in_order([[float(a == b) for b in others] for a in names])
    else:
        shared = float((Counter(names) & Counter(others)).total())
    union = len(names) + len(others) - shared
    points = [[_points(want, call) for call in said] for want in gold]
    best = _best_in_order(points) if order == "same" else _best_in_any_order(points)
    possible = 1.0 + sum(1.0 + len(call.accepted) for call in gold)
    return Match(shared / union if union else 1.0, best, possible)


def _points(want: GoldCall, call: Call) -> float:
    if want.name != call.name:
        return 0.0
    left_out = want.optional - call.parameters.keys()
    given = call.parameters.keys() | left_out
    union = len(want.accepted.keys() | given)
    names = len(want.accepted.keys() & given) / union if union else 1.0
    right = [key for key in want.accepted if key in left_out or _accepts(want, call, key)]
    return names + len(right)


def _accepts(want: GoldCall, call: Call, key: str) -> bool:
    if key not in call.parameters:
        return False
    if want.schema is None:
        return any(_same(accepted, call.parameters[key]) for accepted in want.accepted[key])
    # The leaderboard's rules for values are the verifier's: it judges a call of this one argument.
    properties = want.schema.get("properties", {})
    gold = {
        "functions": [
            {"name": "f", "parameters": {"properties": {key: properties.get(key, {})}}},
        ],
        "ground_truth": [{"f": {key: want.accepted[key]}}],
    }
    spelled = json.dumps({"name": "f", "arguments": {key: call.parameters[key]}})
    verdict = toolcall.judge(spelled.replace("<", r"\u003c"), gold).verdict
    return verdict is Verdict.RIGHT


def _same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal; numbers by value, but true is not 1."""
    match left, right:
        case (bool(), _) | (_, bool()):
            return left is right
        case (dict(), dict()):
            return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
        case (list(), list()):
            pairs = zip(left, right, strict=False)
            return len(left) == len(right) and all(_same(a, b) for a, b in pairs)
    return bool(left == right)


def _best_in_order(points: Sequence[Sequence[float]]) -> float:
    """Largest sum of an alignment of rows with columns that does not cross."""
    above = [0.0] * (len(points[0]) + 1) if points else [0.0]
    for row in points:
        now = [0.0]
        for j, value in enumerate(row):
            now.append(max(now[j], above[j + 1], above[j] + value))
        above = now
    return above[-1]


def _best_in_any_order(points: Sequence[Sequence[float]]) -> float:
    """Largest sum of an assignment of rows to columns (Hungarian method, by shortest paths)."""
    if not points or not points[0]:
        return 0.0
    if len(points) > len(points[0]):
        points = list(zip(*points, strict=True))
    columns = len(points[0])
    row_price, column_price = [0.0] * len(points), [0.0] * columns
    owner: list[int | None] = [None] * columns
    for row in range(len(points)):
        _augment(row, points, row_price, column_price, owner)
    return sum(points[row][j] for j, row in enumerate(owner) if row is not None)


def _augment(
    row: int,
    points: Sequence[Sequence[float]],
    row_price: list[float],
    column_price: list[float],
    owner: list[int | None],
) -> None:
    """Assigns one more row, moving others where that gives the larger sum.

    Prices keep ``row_price + column_price <= -points``, with equality where assigned.
    """
    free = set(range(len(owner)))
    slack, before = [float("inf")] * len(owner), [-1] * len(owner)
    path = [row]  # rows reached; they own the columns no longer free, save the first
    taken: list[int] = []
    last = -1
    while True:
        at = path[-1]
        for j in free:
            cost = -points[at][j] - row_price[at] - column_price[j]
            if cost < slack[j]:
                slack[j], before[j] = cost, last
        last = min(free, key=lambda j: (slack[j], j))
        step = slack[last]
        for reached in path:
            row_price[reached] += step
        for j in taken:
            column_price[j] -= step
        for j in free:
            slack[j] -= step
        next_row = owner[last]
        if next_row is None:
            break
        free.remove(last)
        taken.append(last)
        path.append(next_row)
    while last >= 0:
        owner[last] = owner[before[last]] if before[last] >= 0 else row
        last = before[last]


def has_form(text: str, tags: Sequence[str]) -> bool:
    """Whether a response has these blocks in order, once each, and no others of ToolRL's."""
    text = text.strip()
    strange = [tag for tag in _TAGS if tag not in tags and f"<{tag}>" in text]
    if strange:
        return False
    found = format.judge(text, shapes=("tags",), tags=tuple(tags))
    return found.verdict is Verdict.RIGHT


def read_calls(text: str) -> tuple[tuple[Call, ...] | None, str]:
    """The calls of a response, and why there are none; None where they cannot be read.

    They stand in its ``<tool_call>`` block: JSON objects with ``name`` and ``parameters`` (or
    ``arguments``), one per line or in one list.
    """
    blocks = tagged(text, "tool_call")
    if not blocks:
        return (None, "a call without end") if "<tool_call>" in text else ((), "makes no call")
    if len(blocks) > 1:
        return None, "more than one block of calls"
    try:
        calls = tuple(_read_call(value) for value in _values(blocks[0].strip()))
    except NotJson as error:
        return None, f"calls that cannot be read: {str(error)[:100]}"
    if len(calls) > MAX_CALLS:
        return None, f"more than {MAX_CALLS} calls"
    return calls, "" if calls else "makes no call"


def _values(block: str) -> list[Any]:
    if block.startswith("["):
        return list(read_json(block))
    return [read_json(line) for line in block.splitlines() if line.strip()]


def _read_call(value: Any) -> Call:
    if not isinstance(value, dict):
        raise NotJson("a call that is no object")
    name, parameters = value.get("name"), value.get("parameters", value.get("arguments"))
    if not isinstance(name, str) or not isinstance(parameters, dict):
        raise NotJson("a call without name or parameters")
    return Call(name, parameters)


def gold_from_text(text: str) -> Gold:
    """The calls and blocks of a gold response in ToolRL's form; GoldError where it has none."""
    tags = tuple(tag for tag in _TAGS if f"<{tag}>" in text)
    calls, why = read_calls(text)
    if not tags or calls is None or ("tool_call" in tags and not calls):
        shown = repr(text)[:80]
        raise GoldError(f"gold is {shown}, expected blocks in ToolRL's form; {why or 'none found'}")
    asked = (GoldCall(c.name, {key: [value] for key, value in c.parameters.items()}) for c in calls)
    return Gold(tuple(asked), tags)


def gold_from_bfcl(calls: Any, functions: Any) -> Gold:
    """The calls of a gold in the Berkeley leaderboard's form; GoldError where it is none."""
    toolcall.check_gold({"functions": functions, "ground_truth": calls})
    schemas = {
        f["name"]: f.get("parameters") or {} for f in (g.get("function", g) for g in functions)
    }
    asked = []
    for (name, answers), *_ in (call.items() for call in calls):
        optional = frozenset(key for key, accepted in answers.items() if "" in accepted)
        asked.append(GoldCall(name, answers, optional, schemas[name]))
    return Gold(tuple(asked), ("think", "tool_call" if asked else "response"))
