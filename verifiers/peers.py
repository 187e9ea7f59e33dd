"""Other people's checkers of mathematical answers, to audit ours against on the same rows.

Each runs in the same pool of processes that can be killed, so its own time limits by SIGALRM are
off: they work in a main thread only and do not stop a long operation in C.
"""

import functools
import importlib
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from llmalign.verifiers.extract import extract
from llmalign.verifiers.registry import unknown, with_traits
from llmalign.verifiers.verdict import GoldError, Judgement, Verdict

Form = Literal["response", "answer"]

NAMES = ("math-verify", "trl", "prm800k")


def peer(name: str) -> tuple[str, dict[str, Any], str]:
    """(kind for a pool, options, signature) of a peer by its name on the command line.

    Args:
        name: ``math-verify``, ``trl``, or ``prm800k:PATH`` with a checkout of openai/prm800k.
    Raises:
        ValueError: the name is unknown, or PATH holds no grader.
    """
    first, _, path = name.partition(":")
    if first not in NAMES:
        raise ValueError(unknown("peer", first, NAMES))
    if first == "prm800k":
        if not _grader(path).is_file():
            raise ValueError(
                f"peer is {name!r}, expected prm800k:PATH with {_grader('PATH')}; "
                "clone github.com/openai/prm800k and name its folder"
            )
        return f"{__name__}:prm800k", {"path": path}, "prm800k grade_answer"
    function = "math_verify" if first == "math-verify" else "trl"
    try:
        signature = f"math-verify {version('math-verify')}, {_SETTINGS[first]}"
    except PackageNotFoundError:
        raise ValueError(
            f"peer {name!r} needs a package that is missing; run: pip install math-verify"
        ) from None
    return f"{__name__}:{function}", {}, signature


_SETTINGS = {
    "math-verify": "default settings, pool time limit",
    "trl": "settings of TRL's accuracy_reward",
}


@with_traits(preload=("math_verify",))
def math_verify(text: str, gold: Any, *, form: Form = "response") -> Judgement:
    r"""Math-Verify with its default settings, as its README calls it.

    A bare answer (``form="answer"``) is handed over in ``\boxed{}``, as is the gold: it reads
    responses.
    """
    from math_verify import parse, verify

    expected = parse(_boxed(gold), parsing_timeout=None)
    found = parse(_boxed(text) if form == "answer" else text, parsing_timeout=None)
    if not found:
        return Judgement(Verdict.NO_ANSWER, None, "nothing parsed")
    return _judgement(verify(expected, found, timeout_seconds=None), found)


@with_traits(preload=("math_verify",))
def trl(text: str, gold: Any, *, form: Form = "response") -> Judgement:
    r"""Math-Verify as TRL 1.16 sets it in ``trl.rewards.accuracy_reward``: LaTeX in the prediction
    only, the box first, units kept apart. A gold that does not parse skips the sample there."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    expected = parse(_boxed(gold), parsing_timeout=None)
    if not expected:
        raise GoldError(f"gold is {repr(gold)[:80]}: Math-Verify parses nothing; TRL skips it")
    latex = LatexExtractionConfig(
        normalization_config=NormalizationConfig(units=True),
        boxed_match_priority=0,
        try_extract_without_anchor=False,
    )
    found = parse(
        _boxed(text) if form == "answer" else text,
        extraction_config=[latex],
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    if not found:
        return Judgement(Verdict.NO_ANSWER, None, "nothing parsed")
    return _judgement(verify(expected, found, timeout_seconds=None), found)


def _prepare_prm800k(*, path: str, form: Form = "response") -> None:
    _prm800k_grader(path)


@with_traits(prepare=_prepare_prm800k)
def prm800k(text: str, gold: Any, *, path: str, form: Form = "response") -> Judgement:
    r"""``grade_answer`` of openai/prm800k; it reads bare answers, so the last box of a response
    is handed over, or all of it where there is none."""
    answer = extract(text, ("boxed",)) or text if form == "response" else text
    right = _prm800k_grader(path).grade_answer(answer, str(gold))
    return Judgement(Verdict.RIGHT if right else Verdict.WRONG, answer[:1000], "graded")


@functools.cache
def _prm800k_grader(path: str) -> Any:
    sys.path.insert(0, str(_grader(path).parents[1]))
    return importlib.import_module("grading.grader")


def _grader(path: str) -> Path:
    return Path(path, "prm800k", "grading", "grader.py")


def _boxed(answer: Any) -> str:
    text = str(answer)
    return text if r"\boxed" in text else rf"\boxed{{{text}}}"


def _judgement(right: bool, found: list[Any]) -> Judgement:
    shown = next((str(one)[:1000] for one in reversed(found) if isinstance(one, str)), None)
    return Judgement(Verdict.RIGHT if right else Verdict.WRONG, shown, "compared by Math-Verify")
