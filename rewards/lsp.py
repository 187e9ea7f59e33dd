"""Pays edits of Python code by the diagnostics they remove, step by step."""

import ast
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmalign.rewards.base import Group, Need, Problem, Score, Services, StepScore
from llmalign.rewards.tree import REWARDS
from llmalign.rewards.verified import column
from llmalign.verifiers import GoldError, Judgement, Verdict

_DIAGNOSE = f"{__name__}:diagnose"
_PYTHON = ("", "python", "py", "python3")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Diagnosis:
    """What a static look at a file says: number of diagnostics, what it defines, statements."""

    diagnostics: int
    definitions: frozenset[str]
    statements: int


@REWARDS.register(
    "lsp",
    paper="Language Server CLI Empowers Language Agents with Process Rewards",
    traits={"example": {"gate": ["code", {"lsp": {"column": "code", "weight": 0.1}}]}},
)
@dataclass(kw_only=True)
class Lsp:
    """Pays each version of a file for the diagnostics it has fewer than the version before.

    The versions are the Python code blocks of a response, in order, each the whole file; the first
    is compared with the file of the problem. A step's value is ``step_reward`` with the
    confidence 1 and a file that can be read and lost nothing as the safe one; the value of the
    response is the sum. Diagnostics are those of pyflakes (unused and undefined names, bad
    formats, …), which reads code and never runs it.

    Range: alpha * [D - any number, D], D the diagnostics of the problem's file, plus ``beta`` per
    safe step. None where a version takes too long to read. A version that cannot be parsed, that
    lacks a function or class of the problem's file, or that keeps less than ``min_kept`` of its
    statements, is no step: 0, and the next is compared with the one before. Deleting code still
    lowers the count within these bounds: put the tests before it (``gate`` or ``sum`` with
    ``code``).

    Args:
        column: the column with the file before.
        alpha: paid for each diagnostic that goes, taken for each that comes, >= 0.
        beta: paid for each safe step, >= 0; above 0 it pays for many steps.
        min_kept: share of the statements of the problem's file that must remain, in [0, 1].

    Source: the paper's abstract and notes on it: r = alpha (D_before - D_after) + beta safe -
    gamma (1 - confidence), the last term reconstructed. Ours: pyflakes as the server, which has no
    confidence, and the two rules against deletion.
    """

    need: ClassVar[Need] = "pointwise"

    name: str
    column: str = "code"
    alpha: float = 1.0
    beta: float = 0.0
    min_kept: float = 0.5

    def __post_init__(self) -> None:
        for option in ("alpha", "beta"):
            if getattr(self, option) < 0:
                raise ValueError(f"{option} is {getattr(self, option)}, expected >= 0")
        if not 0 <= self.min_kept <= 1:
            raise ValueError(f"min_kept is {self.min_kept}, expected a number in [0, 1]")
        self._services: Services | None = None

    def bind(self, services: Services) -> None:
        """Takes the host's services; before ``score``."""
        self._services = services

    def check(self, problem: Problem) -> None:
        """Raises GoldError where the file before is missing or no Python."""
        try:
            given = column(problem, self.column)
            if not isinstance(given, str) or diagnose(given, None).verdict is not Verdict.RIGHT:
                shown = f"column {self.column!r} is {repr(given)[:80]}"
                raise GoldError(f"{shown}, expected Python code that parses; drop the row")
        except GoldError as error:
            raise GoldError(f"problem {problem.id!r}: {error}") from None

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Reads all versions of all samples at once."""
        if self._services is None:
            raise RuntimeError(f"reward {self.name!r} is not bound; score through a RewardHost")
        blocks = [[list(code_blocks(s.text)) for s in group.samples] for group in groups]
        texts = []
        for group, own in zip(groups, blocks, strict=True):
            texts.append(column(group.problem, self.column))
            texts += [text for sample in own for _, _, text in sample]
        judgements = iter(self._services.verify(_DIAGNOSE, [(t, None) for t in texts], {}))
        scores = []
        for own in blocks:
            first = next(judgements)
            scores.append([self._score(first, s, [next(judgements) for _ in s]) for s in own])
        return scores

    def _score(
        self,
        first: Judgement,
        blocks: Sequence[tuple[int, int, str]],
        judgements: Sequence[Judgement],
    ) -> Score:
        if Verdict.UNDECIDED in {j.verdict for j in (first, *judgements)}:
            return Score(None, {self.name: None}, note=f"{self.name}: a version takes too long")
        before = start = _read(first)
        steps = []
        for (begin, end, _), judgement in zip(blocks, judgements, strict=True):
            after = _read(judgement) if judgement.verdict is Verdict.RIGHT else None
            if after is None or not keeps(start, after, self.min_kept):
                continue
            value = step_reward(
                before.diagnostics,
                after.diagnostics,
                safe=True,
                confidence=1.0,
                alpha=self.alpha,
                beta=self.beta,
                gamma=0.0,
            )
            steps.append(StepScore(begin, end, value))
            before = after
        value = sum(step.value for step in steps)
        aspects = {
            self.name: value,
            f"{self.name}.before": float(start.diagnostics),
            f"{self.name}.after": float(before.diagnostics),
            f"{self.name}.refused": float(len(blocks) - len(steps)),
        }
        note = "" if steps else f"{self.name}: no version of the file that counts"
        return Score(value, aspects, note=note, steps=tuple(steps))


def step_reward(
    before: int,
    after: int,
    *,
    safe: bool,
    confidence: float,
    alpha: float,
    beta: float,
    gamma: float,
) -> float:
    """alpha (D_before - D_after) + beta [safe] - gamma (1 - confidence), for one step.

    The first part telescopes: over any steps it sums to alpha (D_first - D_last).

    Args:
        before, after: diagnostics before and after the step.
        safe: whether the step was a safe one.
        confidence: how sure the server is of its diagnostics, in [0, 1].
        alpha, beta, gamma: weights, >= 0.
    """
    return alpha * (before - after) + beta * safe - gamma * (1.0 - confidence)


def keeps(start: Diagnosis, after: Diagnosis, min_kept: float) -> bool:
    """Whether a version still has every definition of the first, and enough statements."""
    return (
        start.definitions <= after.definitions and after.statements >= min_kept * start.statements
    )


def code_blocks(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, code) of each Python block between triple backticks, in order; a block that is
    never closed is none."""
    parts = text.split("```")
    at = 0
    for number, part in enumerate(parts):
        if number % 2 and number + 1 < len(parts):
            language, line_end, code = part.partition("\n")
            if line_end and language.strip().lower() in _PYTHON:
                yield at - 3, at + len(part) + 3, code
        at += len(part) + 3


def _read(judgement: Judgement) -> Diagnosis:
    found = json.loads(judgement.answer or "{}")
    return Diagnosis(found["diagnostics"], frozenset(found["definitions"]), found["statements"])


# -- in a worker, which can be killed -------------------------------------------------------------


def diagnose(text: str, gold: Any) -> Judgement:
    """RIGHT for Python code that parses, with its ``Diagnosis`` as JSON in ``answer``; else WRONG.

    ``gold`` is not read. The code is never run.
    """
    from pyflakes.checker import Checker

    try:
        tree = ast.parse(text)
        diagnostics = len(Checker(tree).messages)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Judgement(Verdict.WRONG, None, f"no Python: {str(error)[:100]}")
    found = {
        "diagnostics": diagnostics,
        "definitions": sorted(_definitions(tree)),
        "statements": sum(isinstance(node, ast.stmt) for node in ast.walk(tree)),
    }
    return Judgement(Verdict.RIGHT, json.dumps(found), f"{diagnostics} diagnostics")


def _definitions(tree: ast.AST, within: str = "") -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        name = f"{within}{node.name}." if isinstance(node, _FUNCTIONS) else within
        if name != within:
            yield name.rstrip(".")
        yield from _definitions(node, name)
