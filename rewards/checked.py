"""Pays answers that one of the smaller verifiers accepts: one line of a recipe each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from llmalign.rewards.base import Group, Problem, Score
from llmalign.rewards.tree import REWARDS
from llmalign.rewards.verified import Verified, column
from llmalign.verifiers import Judgement, Verdict, ifeval
from llmalign.verifiers.ifeval import Mode as Strictness
from llmalign.verifiers.text import Mode


@REWARDS.register("choice", paper="", traits={"example": {"choice": {"options_column": "options"}}})
@dataclass(kw_only=True)
class Choice(Verified):
    """``right`` for the right option of a multiple choice, else ``wrong``.

    Range: {wrong, right}; None where undecided.

    Args:
        column: the column with the letter or letters: ``B``, ``A,C``.
        options_column: the column with the options, a list of texts or a mapping from letters to
            texts, so that an option's full text counts as its letter; empty: not given.
    """

    verifier: ClassVar[str] = "choice"

    column: str = "answer"
    options_column: str = ""

    def gold(self, problem: Problem) -> Any:
        """The letter, with its options where there are some."""
        letter = column(problem, self.column)
        if not self.options_column:
            return letter
        return {"letter": letter, "options": column(problem, self.options_column)}


@REWARDS.register(
    "text", paper="Rajpurkar et al. 2016, arXiv:1606.05250", traits={"example": "text"}
)
@dataclass(kw_only=True)
class Text(Verified):
    """``right`` for the right short answer in words, else ``wrong``.

    Range: {wrong, right}; None where undecided.

    Args:
        column: the column with the answer, or a list of answers of which any will do.
        mode: ``exact``: equal after normalisation; ``contains`` and ``f1`` pay for guesses strung
            together, see the verifier.
        threshold: of ``f1``, in (0, 1].
    """

    verifier: ClassVar[str] = "text"

    column: str = "answer"
    mode: Mode = "exact"
    threshold: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}, expected a number in (0, 1]")

    def gold(self, problem: Problem) -> Any:
        """The answer or answers."""
        return column(problem, self.column)

    def verifier_options(self) -> dict[str, Any]:
        """How answers are compared."""
        return {"mode": self.mode, "threshold": self.threshold}


@REWARDS.register(
    "sql",
    paper="Zhong et al. 2020, arXiv:2010.02840",
    traits={"example": {"sql": {"root": "data/spider/database"}}},
)
@dataclass(kw_only=True)
class Sql(Verified):
    """``right`` for a query that gives the rows of the gold query on SQLite, else ``wrong``.

    Range: {wrong, right}; None where undecided. A query that runs out of time is wrong.

    Args:
        query_column: the column with the gold query.
        database_column: the column with the path of an SQLite file, or a list of such paths: the
            rows must agree on each.
        script_column: the column with SQL statements that build the database, read in place of
            ``database_column``; empty: not given.
        root: the folder that paths of databases start from; empty: the working directory.
        ordered: whether the order of rows matters; null: as the gold query's ORDER BY says.
        timeout_s: what the model's query may take, in seconds, > 0.
    """

    verifier: ClassVar[str] = "sql"

    query_column: str = "query"
    database_column: str = "database"
    script_column: str = ""
    root: str = ""
    ordered: bool | None = None
    timeout_s: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s is {self.timeout_s}, expected > 0")

    def gold(self, problem: Problem) -> Any:
        """The query and its database."""
        gold: dict[str, Any] = {"query": column(problem, self.query_column)}
        if self.script_column:
            gold["script"] = column(problem, self.script_column)
        else:
            gold["database"] = _below(self.root, column(problem, self.database_column))
        return gold if self.ordered is None else gold | {"ordered": self.ordered}

    def verifier_options(self) -> dict[str, Any]:
        """The time limit."""
        return {"timeout_s": self.timeout_s}


def _below(root: str, paths: Any) -> Any:
    """Relative paths as they are from ``root``; what is no path is left for the verifier."""
    if not root:
        return paths
    if isinstance(paths, list | tuple):
        return [_below(root, path) for path in paths]
    return str(Path(root).expanduser() / paths) if isinstance(paths, str) else paths


@REWARDS.register(
    "toolcall",
    paper="Patil et al. 2025, Berkeley Function Calling Leaderboard, ICML",
    traits={"example": "toolcall"},
)
@dataclass(kw_only=True)
class ToolCall(Verified):
    """``right`` for just the tool calls asked for, in any order, else ``wrong``.

    Range: {wrong, right}; None where undecided. For pay in parts, see ``toolrl``.

    Args:
        functions_column: the column with the functions, each ``{name, parameters}``.
        column: the column with the calls asked for, each ``{name: {argument: [accepted]}}``; an
            empty list asks for no call.
    """

    verifier: ClassVar[str] = "toolcall"

    functions_column: str = "functions"
    column: str = "ground_truth"

    def gold(self, problem: Problem) -> Any:
        """The functions and the calls asked for."""
        functions = column(problem, self.functions_column)
        return {"functions": functions, "ground_truth": column(problem, self.column)}


@REWARDS.register(
    "json_schema",
    paper="JSON Schema, draft 2020-12",
    traits={"example": {"json_schema": {"column": "schema"}}},
)
@dataclass(kw_only=True)
class JsonSchema(Verified):
    """``right`` for a response whose JSON satisfies a schema, else ``wrong``.

    Range: {wrong, right}; None where undecided.

    Args:
        column: the column with the schema; not read where ``schema`` is given.
        schema: one schema for all problems; null: each has its own.
    """

    verifier: ClassVar[str] = "json_schema"

    column: str = "schema"
    schema: dict[str, Any] | None = None

    def gold(self, problem: Problem) -> Any:
        """The schema."""
        return column(problem, self.column) if self.schema is None else self.schema


@REWARDS.register("quantity", paper="", traits={"example": {"quantity": {"rel_tol": 0.01}}})
@dataclass(kw_only=True)
class Quantity(Verified):
    """``right`` for the right quantity in any unit of its dimension, else ``wrong``.

    Range: {wrong, right}; None where undecided.

    Args:
        column: the column with the number and its unit, ``9.8 m/s^2``.
        unit_column: the column with the unit, where it stands apart; empty: not given.
        rel_tol: relative tolerance, >= 0; 0: half a unit in the gold's last decimal place.
        unit: ``required``: an answer without unit is wrong where the gold has one; ``optional``:
            it is taken to be in the gold's unit.
    """

    verifier: ClassVar[str] = "quantity"

    column: str = "answer"
    unit_column: str = ""
    rel_tol: float = 0.0
    unit: Literal["required", "optional"] = "required"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rel_tol < 0:
            raise ValueError(f"rel_tol is {self.rel_tol}, expected >= 0")

    def gold(self, problem: Problem) -> Any:
        """The number with its unit."""
        value = column(problem, self.column)
        return f"{value} {column(problem, self.unit_column)}" if self.unit_column else value

    def verifier_options(self) -> dict[str, Any]:
        """How quantities are compared."""
        return {"rel_tol": self.rel_tol, "unit": self.unit}


@REWARDS.register(
    "ifeval", paper="IFEval, arXiv:2311.07911", traits={"example": {"ifeval": {"pay": "fraction"}}}
)
@dataclass(kw_only=True)
class IfEval(Verified):
    """Pays verifiable instructions that are followed: all of them, or each its share.

    Range: {wrong, right} with ``pay: all``, [wrong, right] with ``pay: fraction``; None where one
    instruction is undecided.

    Args:
        ids_column: the column with the list of instruction ids.
        kwargs_column: the column with the list of their arguments.
        pay: ``all``: ``right`` if every instruction is followed; ``fraction``: from ``wrong`` to
            ``right`` by the share that is.
        mode: ``strict``, or ``loose`` (section 3 of the paper).
    """

    verifier: ClassVar[str] = "ifeval"

    ids_column: str = "instruction_id_list"
    kwargs_column: str = "kwargs"
    pay: Literal["all", "fraction"] = "all"
    mode: Strictness = "strict"

    def gold(self, problem: Problem) -> Any:
        """The instructions with their arguments."""
        ids, kwargs = column(problem, self.ids_column), column(problem, self.kwargs_column)
        return {"instruction_id_list": ids, "kwargs": kwargs}

    def verifier_options(self) -> dict[str, Any]:
        """Strict or loose."""
        return {"mode": self.mode}

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Judges all instructions of all samples at once, each apart where each is paid."""
        if self.pay == "all":
            return super().score(groups)
        if self._services is None:
            raise RuntimeError(f"reward {self.name!r} is not bound; score through a RewardHost")
        golds = [ifeval.one_by_one(self.gold(group.problem)) for group in groups]
        pairs = [
            (sample.text, gold)
            for group, group_golds in zip(groups, golds, strict=True)
            for sample in group.samples
            for gold in group_golds
        ]
        judgements = iter(self._services.verify(self.verifier, pairs, self.verifier_options()))
        return [
            [self._share([next(judgements) for _ in group_golds]) for _ in group.samples]
            for group, group_golds in zip(groups, golds, strict=True)
        ]

    def _share(self, judgements: Sequence[Judgement]) -> Score:
        """One score of the judgements on each instruction."""
        undecided = [j for j in judgements if j.verdict is Verdict.UNDECIDED]
        if undecided:
            return self._score(undecided[0])
        followed = sum(j.verdict is Verdict.RIGHT for j in judgements)
        faults = [j for j in judgements if j.verdict is not Verdict.RIGHT]
        worst = faults[0] if faults else judgements[0]
        why = f"{followed} of {len(judgements)} followed"
        seconds = sum(j.seconds for j in judgements)
        whole = replace(worst, why="; ".join([why, *(j.why for j in faults)]), seconds=seconds)
        value = self.wrong + (self.right - self.wrong) * followed / len(judgements)
        return replace(self._score(whole), value=value, aspects={self.name: value})
