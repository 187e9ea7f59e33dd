"""Are instructions followed? The 25 verifiable instructions of IFEval (arXiv:2311.07911).

Only what stands after the last ``</think>`` is judged. ``strict`` reads it as it is; ``loose``
(section 3 of the paper) also without its first line, its last line, both, and each of these four
without ``*``: an instruction is followed where it is in any of the eight.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from llmalign.verifiers import VERIFIERS
from llmalign.verifiers.extract import after_thinking
from llmalign.verifiers.ifeval_checks import CHECKS, LANGUAGES, Relation, language_profiles
from llmalign.verifiers.registry import unknown
from llmalign.verifiers.verdict import GoldError, Judgement, Verdict

Mode = Literal["strict", "loose"]
Instruction = tuple[str, dict[str, Any]]  # id, arguments

MAX_TEXT = 200_000  # characters


def check_gold(gold: Any) -> None:
    """Raises GoldError unless ``gold`` holds known instructions with their arguments."""
    _read_gold(gold)


def _read_gold(gold: Any) -> list[Instruction]:
    keys = ("instruction_id_list", "kwargs")
    if not isinstance(gold, Mapping) or not set(keys) <= gold.keys():
        raise GoldError(f"gold is {repr(gold)[:80]}, expected a mapping with {' and '.join(keys)}")
    ids, kwargs = (gold[key] for key in keys)
    for key, value in zip(keys, (ids, kwargs), strict=True):
        if not isinstance(value, list | tuple):
            raise GoldError(f"{key} is {repr(value)[:80]}, expected a list")
    if not ids or len(ids) != len(kwargs):
        raise GoldError(
            f"gold has {len(ids)} instructions and {len(kwargs)} kwargs, "
            "expected as many of one as of the other, and at least one"
        )
    return [_read_instruction(name, given) for name, given in zip(ids, kwargs, strict=True)]


def _read_instruction(name: Any, given: Any) -> Instruction:
    if not isinstance(name, str) or name not in CHECKS:
        raise GoldError(unknown("instruction", repr(name)[1:81], CHECKS))
    if not isinstance(given, Mapping | None):
        raise GoldError(f"kwargs of {name} is {repr(given)[:80]}, expected a mapping or null")
    # Data sets in columns fill every argument of the others with null.
    given = {key: value for key, value in (given or {}).items() if not _is_null(value)}
    needed = list(inspect.signature(CHECKS[name]).parameters)[1:]
    if strange := sorted(map(str, given.keys() - set(needed))):
        raise GoldError(f"{name}: {unknown('argument', strange[0], needed)}")
    arguments = {}
    for key in needed:
        if key not in given:
            raise GoldError(f"{name}: {key} is missing; add it, or drop the instruction")
        arguments[key] = _read_argument(given[key], key, name)
    if arguments.get("nth_paragraph", 0) > arguments.get("num_paragraphs", math.inf):
        raise GoldError(f"{name}: nth_paragraph is above num_paragraphs; nothing can follow it")
    return name, arguments


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _read_argument(value: Any, key: str, name: str) -> Any:
    fits, expected = _KINDS.get(key, (_is_text, "a text that is not blank"))
    if fits is _is_count and isinstance(value, float) and value.is_integer():
        value = int(value)  # a column with nulls holds its integers as floats
    if not fits(value):
        raise GoldError(f"{name}: {key} is {repr(value)[:80]}, expected {expected}")
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_place(value: Any) -> bool:
    return _is_count(value) and value >= 1


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_text, value))


def _is_letter(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 1


def _is_relation(value: Any) -> bool:
    return value in get_args(Relation)


def _is_language(value: Any) -> bool:
    return isinstance(value, str) and value in LANGUAGES


_COUNT = (_is_count, "an integer >= 0")
_RELATION = (_is_relation, "'less than' or 'at least'")
_TEXTS = (_are_texts, "a list of texts, at least one")
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("relation", "let_relation", "capital_relation"), _RELATION),
    **dict.fromkeys(("frequency", "let_frequency", "capital_frequency"), _COUNT),
    **dict.fromkeys(("num_words", "num_sentences", "num_paragraphs", "num_bullets"), _COUNT),
    **dict.fromkeys(("num_placeholders", "num_highlights", "num_sections"), _COUNT),
    **dict.fromkeys(("keywords", "forbidden_words"), _TEXTS),
    "nth_paragraph": (_is_place, "an integer >= 1"),
    "letter": (_is_letter, "one character"),
    "language": (_is_language, f"a language code, one of {' '.join(sorted(LANGUAGES))}"),
}


def follow(text: str, gold: Any, mode: Mode = "strict") -> list[bool]:
    """Whether each instruction is followed, in the order of the gold; never raises on the text.

    An empty response follows none.

    Raises:
        GoldError: the gold has another form.
    """
    instructions = _read_gold(gold)
    response = after_thinking(text)
    versions = variants(response) if mode == "loose" else [response]
    versions = [version for version in versions if version.strip()]
    return [
        any(CHECKS[name](version, **arguments) for version in versions)
        for name, arguments in instructions
    ]


def fraction_followed(text: str, gold: Any, mode: Mode = "strict") -> float:
    """Fraction of the instructions that are followed, in [0, 1]. Raises as ``follow`` does."""
    followed = follow(text, gold, mode)
    return sum(followed) / len(followed)


def one_by_one(gold: Any) -> list[dict[str, Any]]:
    """A gold of one instruction for each: judged apart, in a pool too, they give the fraction.

    Raises:
        GoldError: the gold has another form.
    """
    return [
        {"instruction_id_list": [name], "kwargs": [arguments]}
        for name, arguments in _read_gold(gold)
    ]


def variants(response: str) -> list[str]:
    """The different ones among the eight texts that loose judging reads, the response first."""
    lines = response.split("\n")
    cut = [response] + ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    return list(dict.fromkeys(cut + [text.replace("*", "") for text in cut]))


def prepare(*, mode: Mode = "strict") -> None:
    """Reads the profiles of languages ahead of the first judgement."""
    language_profiles()


def audit_row(row: Mapping[str, Any]) -> tuple[str, Any, dict[str, Any]]:
    """Text, gold and options of a labelled row: ``response`` or ``prediction``; ``gold``, or
    IFEval's own two columns; ``mode``."""
    texts = [row[key] for key in ("response", "prediction") if isinstance(row.get(key), str)]
    if not texts:
        raise ValueError("a row needs 'response' or 'prediction', a text")
    columns = {key: row.get(key) for key in ("instruction_id_list", "kwargs")}
    return texts[0], row.get("gold", columns), {"mode": row.get("mode", "strict")}


@VERIFIERS.register(
    "ifeval",
    paper="https://arxiv.org/abs/2311.07911",
    traits={
        "signature": "ifeval|v1",
        "check_gold": check_gold,
        "preload": ("langdetect",),
        "prepare": prepare,
        "audit_row": audit_row,
    },
)
def judge(text: str, gold: Any, *, mode: Mode = "strict") -> Judgement:
    """Whether all verifiable instructions of a prompt are followed (IFEval).

    Args:
        text: the whole response; never raises on it. More than 200,000 characters after its
            thinking are undecided.
        gold: ``{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}``, IFEval's own
            columns; null arguments are as good as absent ones.
        mode: ``strict``: the response as it is; ``loose``: in any of eight variants.
    Raises:
        GoldError: the gold has another form.
        RuntimeError: langdetect is not installed and an instruction is about language.
    """
    instructions = _read_gold(gold)
    response = after_thinking(text)
    if not response.strip():
        return Judgement(Verdict.NO_ANSWER, None, "the response is empty")
    if len(response) > MAX_TEXT:
        return Judgement(Verdict.UNDECIDED, None, f"longer than {MAX_TEXT} characters")
    followed = follow(response, gold, mode)
    failed = [name for (name, _), done in zip(instructions, followed, strict=True) if not done]
    why = f"{sum(followed)} of {len(followed)} followed"
    if failed:
        return Judgement(Verdict.WRONG, None, f"{why}; not {', '.join(failed)}")
    return Judgement(Verdict.RIGHT, None, why)
