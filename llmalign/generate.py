"""Problems from a seeded generator: nothing is fetched, and train and eval never share one.

A problem's split is decided by a hash of its text, so the splits are disjoint by construction,
whatever the seeds and counts.
"""

import hashlib
import random
from fractions import Fraction
from typing import Any

from llmalign.verifiers.registry import Registry

GENERATORS = Registry("generator")
MAX_MISSES = 2000  # draws without a new problem before the space counts as used up


def generate_rows(
    kind: str, count: int, *, seed: int, split: str, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """``count`` rows of generator ``kind``; the same rows for the same arguments everywhere.

    Args:
        kind: a registered generator.
        count: rows, > 0.
        seed: of the draws.
        split: ``eval`` (a tenth of the space) or ``train`` (the rest).
        options: of the generator.
    Raises:
        ValueError: an unknown generator or option, or a value out of its range.
    """
    entry = GENERATORS.get(kind, "data.generate")
    if split not in {"train", "eval"}:
        raise ValueError(f"split is {split!r}, expected 'train' or 'eval'")
    resolved = entry.resolve(options, f"data.generate.{kind}")
    rows: list[dict[str, Any]] = entry.thing(
        count, random.Random(f"{kind}-{split}-{seed}"), split, **resolved
    )
    return [{"id": f"{kind}-{split}-{seed}-{i}", **row} for i, row in enumerate(rows)]


@GENERATORS.register("arithmetic", paper="")
def arithmetic(
    count: int,
    rng: random.Random,
    split: str,
    *,
    terms: int = 3,
    max_operand: int = 9,
    operators: str = "+-*",
    max_products: int | None = None,
    wrong_share: float = 0.0,
    padding: float = 0.0,
    routes: bool = False,
) -> list[dict[str, Any]]:
    """Chains of + − × with worked solutions, a fixed share of them wrong.

    Harder with more ``terms``, a larger ``max_operand``, and more products (``max_products`` of
    them in a chain; null: any number): chains of products reach numbers that few others show.
    Products are worked first, from left to right, then the rest. ``wrong_share`` of the solutions
    (exactly, rounded) hold one wrong step that is carried on to a wrong end; ``answer`` is always
    right. ``padding`` is the chance that a step is followed by a line that adds nothing, as 7+0=7,
    that line by another, and so on: working of the same end in many lengths. ``routes``: sums are
    worked in any order and either operand may stand first, so that an end is reached in several
    ways; ``wrong_share`` is then the chance of a wrong step. Problems repeat only when nearly all
    of the split have been drawn.

    Returns: rows with ``problem``, ``answer``, ``solution``, ``solution_is_right``.
    Raises: ValueError: an option out of its range.
    """
    _check(terms >= 2, "terms", terms, "an integer >= 2")
    _check(max_operand >= 1, "max_operand", max_operand, "an integer >= 1")
    _check(bool(operators) and set(operators) <= set("+-*"), "operators", operators, "some of +-*")
    _check(max_products is None or max_products >= 0, "max_products", max_products, "null or >= 0")
    if max_products is not None and set(operators) == {"*"} and max_products < terms - 1:
        raise ValueError(
            f"max_products is {max_products} and operators is '*', which leaves no chain of "
            f"{terms} terms; add an operator"
        )
    _check(0 <= wrong_share <= 1, "wrong_share", wrong_share, "a share in [0, 1]")
    _check(not (routes and "-" in operators), "operators", operators, "no - with routes")
    _check(not (routes and padding), "padding", padding, "0 with routes")
    _check(0 <= padding < 1, "padding", padding, "a chance in [0, 1)")

    def draw() -> str:
        text = str(rng.randint(0, max_operand))
        for _ in range(terms - 1):
            full = max_products is not None and text.count("*") >= max_products
            operator = rng.choice(operators.replace("*", "") if full else operators)
            text += operator + str(rng.randint(0, max_operand))
        return text

    problems = _distinct(draw, count, split)
    if routes:
        ways = random.Random(0)  # of its own: the problems are those without routes
        return [_routed(problem, ways, wrong=ways.random() < wrong_share) for problem in problems]
    wrong = set(rng.sample(range(count), round(count * wrong_share)))
    rows = [_worked(problem, rng, is_right=i not in wrong) for i, problem in enumerate(problems)]
    if padding:  # without it no coin is thrown: the rows stay what they are
        rows = [{**row, "solution": _padded(row["solution"], padding, rng)} for row in rows]
    return rows


def _worked(problem: str, rng: random.Random, *, is_right: bool) -> dict[str, Any]:
    answer, solution = _work(problem, None, 0)
    if not is_right:
        steps = sum(map(problem.count, "+-*"))
        error = rng.choice([-3, -2, -1, 1, 2, 3])
        end, solution = _work(problem, rng.randrange(steps), error)
        if end == answer:  # a later * 0 made good for the error; one in the last step stands
            _, solution = _work(problem, steps - 1, error)
    return {
        "problem": problem,
        "answer": str(answer),
        "solution": solution,
        "solution_is_right": is_right,
    }


def _work(problem: str, wrong_step: int | None, error: int) -> tuple[int, str]:
    """The final value and the written steps, with ``error`` added to the result of one step."""
    values, operators = _parse(problem)
    lines: list[str] = []
    while operators:
        at = operators.index("*") if "*" in operators else 0
        a, b, op = values[at], values[at + 1], operators.pop(at)
        value = {"+": a + b, "-": a - b, "*": a * b}[op]
        if wrong_step == len(lines):
            # A negative product would have to be written as in 2+-1.
            value += abs(error) if op == "*" and value + error < 0 else error
        lines.append(f"{a}{op}{b}={value}")
        values[at : at + 2] = [value]
    return values[0], "\n".join([*lines, f"#### {values[0]}"])


def _routed(problem: str, rng: random.Random, *, wrong: bool) -> dict[str, Any]:
    """One of the ways to work the problem, with a wrong step where it shall be ``wrong``."""
    values, operators = _parse(problem)
    answer, _ = _work(problem, None, 0)
    bad = rng.randrange(len(operators)) if wrong else None
    lines: list[str] = []
    while operators:  # products first, else any order
        free = [i for i, op in enumerate(operators) if op == "*" or "*" not in operators]
        i = rng.choice(free)
        a, b, op = values[i], values[i + 1], operators.pop(i)
        value = a * b if op == "*" else a + b
        value += rng.choice([-3, -2, -1, 1, 2, 3]) if len(lines) == bad else 0
        if i and value < 0:  # would have to be written as in 2+-1
            return _routed(problem, rng, wrong=wrong)
        a, b = (b, a) if rng.random() < 0.5 else (a, b)
        lines.append(f"{a}{op}{b}={value}")
        values[i : i + 2] = [value]
    solution = "\n".join([*lines, f"#### {values[0]}"])
    return {
        "problem": problem,
        "answer": str(answer),
        "solution": solution,
        "solution_is_right": values[0] == answer,
    }


def _padded(solution: str, padding: float, rng: random.Random) -> str:
    *steps, end = solution.splitlines()
    lines: list[str] = []
    for step in steps:
        lines.append(step)
        value = step.partition("=")[2]
        while rng.random() < padding:
            lines.append(f"{value}+0={value}")
    return "\n".join([*lines, end])


def _parse(problem: str) -> tuple[list[int], list[str]]:
    values, operators, number = [], [], ""
    for character in problem:
        if character.isdigit():
            number += character
        else:
            values.append(int(number))
            operators.append(character)
            number = ""
    return [*values, int(number)], operators


@GENERATORS.register("countdown", paper="task of TinyZero, github.com/Jiayi-Pan/TinyZero")
def countdown(
    count: int,
    rng: random.Random,
    split: str,
    *,
    min_numbers: int = 3,
    max_numbers: int = 4,
    max_number: int = 99,
    min_target: int = 10,
    max_target: int = 99,
) -> list[dict[str, Any]]:
    """Reach a target from given numbers, each used exactly once, with + − × ÷; always solvable.

    Returns: rows with ``nums``, ``target``, ``solution`` (one expression that reaches it).
    Raises: ValueError: an option out of its range.
    """
    _check(min_numbers >= 2, "min_numbers", min_numbers, "an integer >= 2")
    _check(max_numbers >= min_numbers, "max_numbers", max_numbers, f"at least {min_numbers}")
    _check(max_number >= 2, "max_number", max_number, "an integer >= 2")
    _check(max_target >= min_target, "max_target", max_target, f"at least {min_target}")
    solutions: dict[str, dict[str, Any]] = {}

    def draw() -> str:
        for _ in range(MAX_MISSES):
            size = rng.randint(min_numbers, max_numbers)
            nums = [rng.randint(1, max_number) for _ in range(size)]
            value, expression = _random_expression(nums, rng)
            if value.denominator == 1 and min_target <= value <= max_target:
                row = {"nums": nums, "target": int(value), "solution": expression}
                key = f"{sorted(nums)} {row['target']}"
                solutions.setdefault(key, row)
                return key
        raise ValueError(
            f"no numbers up to {max_number} reached a target from {min_target} to {max_target} in "
            f"{MAX_MISSES} draws; widen the targets"
        )

    return [solutions[key] for key in _distinct(draw, count, split)]


def _random_expression(nums: list[int], rng: random.Random) -> tuple[Fraction, str]:
    parts = [(Fraction(n), str(n)) for n in nums]
    while len(parts) > 1:
        (a, left), (b, right) = (parts.pop(rng.randrange(len(parts))) for _ in range(2))
        op = rng.choice("+-*/" if b else "+-*")
        value = {"+": a + b, "-": a - b, "*": a * b}[op] if op != "/" else a / b
        parts.append((value, f"({left} {op} {right})"))
    return parts[0]


def _distinct(draw: Any, count: int, split: str) -> list[str]:
    """``count`` drawn texts of the split, distinct until the space seems used up."""
    seen: set[str] = set()
    found: list[str] = []
    misses = 0  # draws in a row that gave nothing new
    while len(found) < count:
        text = draw()
        mine = (_hash(text) % 10 == 0) == (split == "eval")
        if not mine or (text in seen and misses < MAX_MISSES):
            misses += 1
            if not found and misses > 10 * MAX_MISSES:
                raise ValueError(
                    f"split {split!r} of this generator holds no problem; make its space larger"
                )
            continue
        misses = misses if text in seen else 0
        found.append(text)
        seen.add(text)
    return found


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _check(ok: bool, name: str, value: Any, expected: str) -> None:
    if not ok:
        raise ValueError(f"{name} is {value!r:.80}, expected {expected}")
