"""The outer form of a response: tags, fences, JSON, length. Linear in the length of the text.

The readers here (``tagged``, ``fenced``, ``marked_answer``, ``read_json``) also serve the
verifiers that look for an answer inside such a form.
"""

import json
import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Literal

from llmalign.verifiers import VERIFIERS
from llmalign.verifiers.extract import after_thinking, extract
from llmalign.verifiers.verdict import Judgement, Verdict

Shape = Literal["think_answer", "tags", "boxed_once", "fenced", "json"]

MAX_JSON = 100_000  # characters
MAX_JSON_DEPTH = 64  # of brackets
_MAX_ANSWER = 2_000  # characters of a normal form before it is cut

_MARKERS = ("boxed", "hashes", "answer_is")
_LANGUAGE = re.compile(r"[ \t]*([\w+#.-]*)[ \t]*\n")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_TAG_NAME = re.compile(r"[A-Za-z_][\w.-]*")
# Whatever is left open runs to the end of the text, as a reader of the text would take it.
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
_JSON_START = re.compile(r'\{(?=\s{0,99}["}])|\[')


class NotJson(ValueError):
    """The text is no JSON value, or one that has no single meaning."""


def tagged(text: str, name: str) -> list[str]:
    """What stands in each ``<name>…</name>``, in order; a tag opened twice counts from the last."""
    found = []
    for part in text.split(f"</{name}>")[:-1]:
        before, opening, inside = part.rpartition(f"<{name}>")
        if opening:
            found.append(inside)
    return found


def fenced(text: str) -> list[tuple[str, str]]:
    """(language, content) of each code block between triple backticks, in order.

    The language is lower case, "" where none is named. A last block that is never closed counts,
    as far as it goes.
    """
    blocks = []
    for part in text.split("```")[1::2]:
        named = _LANGUAGE.match(part)
        language, content = (named[1], part[named.end() :]) if named else ("", part)
        blocks.append((language.lower(), content))
    return blocks


def marked_answer(text: str) -> str | None:
    r"""The answer of a response where it is marked as such, as written.

    Only what follows the thinking is read: the last non-empty ``<answer>…</answer>``, else the
    whole. There the last ``\boxed{}``, ``#### x`` or "answer is x"; a tag without one is itself
    the answer.
    """
    text = after_thinking(text)
    inside = [part.strip() for part in tagged(text, "answer") if part.strip()]
    if inside:
        return extract(inside[-1], _MARKERS) or inside[-1]
    return extract(text, _MARKERS)


def read_json(text: str) -> Any:
    """The value of a JSON text (RFC 8259), strictly.

    Raises:
        NotJson: it is none, or names a key twice, holds NaN or Infinity or a number beyond a
            float, is longer than ``MAX_JSON`` or deeper than ``MAX_JSON_DEPTH``.
    """
    if len(text) > MAX_JSON:
        raise NotJson(f"longer than {MAX_JSON:,} characters")
    if _depth(text) > MAX_JSON_DEPTH:
        raise NotJson(f"nested deeper than {MAX_JSON_DEPTH}")
    try:
        return json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite
        )
    except NotJson:
        raise
    except ValueError as error:  # among them an integer of more than 4,300 digits
        raise NotJson(str(error)) from None


def json_parts(text: str) -> list[str]:
    """Each outermost JSON object or array of a text, as written, in order; prose in between goes.

    Only the last ``2 * MAX_JSON`` characters are read. Brackets that are no JSON are passed over;
    after some ten thousand of them, all the rest.
    """
    text = text[-2 * MAX_JSON :]
    decoder, at = json.JSONDecoder(), 0
    found: list[str] = []
    budget = 10 * MAX_JSON  # a start that leads nowhere is read again from its inner brackets
    while budget > 0 and (start := _JSON_START.search(text, at)):
        begin, at = start.start(), start.end()
        try:
            _, at = decoder.raw_decode(text, begin)
            found.append(text[begin:at])
        except json.JSONDecodeError as error:
            budget -= error.pos - begin + 100
        except (RecursionError, ValueError):  # nested too deep, or an integer too long
            budget -= MAX_JSON
    return found


def shortened(normal_form: str) -> str:
    """A normal form of at most some 2,000 characters: a long one ends in a digest of the whole."""
    if len(normal_form) <= _MAX_ANSWER:
        return normal_form
    digest = blake2b(normal_form.encode(errors="backslashreplace"), digest_size=16).hexdigest()
    return f"{normal_form[:200]}… {digest}"


def _depth(text: str) -> int:
    depth = deepest = 0
    for token in _JSON_TOKEN.finditer(text):
        if token[0] in ("[", "{"):
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in ("]", "}"):
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise NotJson(f"key {name[:40]!r} stands twice in an object")
        members[name] = value
    return members


def _refuse(constant: str) -> Any:
    raise NotJson(f"{constant} is no JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise NotJson(f"{digits[:40]} is beyond a float")
    return value


def check_gold(gold: Any) -> None:
    """Any gold will do: a form needs none."""


def prepare(
    *,
    shapes: tuple[Shape, ...] = (),
    tags: tuple[str, ...] = (),
    min_chars: int = 0,
    max_chars: int | None = None,
    min_words: int = 0,
    max_words: int | None = None,
) -> None:
    """Raises ValueError where the options ask for nothing, or for what cannot be."""
    if not shapes and not min_chars and not min_words and (max_chars, max_words) == (None, None):
        raise ValueError("format has no condition; give shapes or a length")
    if ("tags" in shapes) != bool(tags):
        raise ValueError(f"tags is {tags!r} and shapes is {shapes!r}; tags go with shape 'tags'")
    for tag in tags:
        if not _TAG_NAME.fullmatch(tag):
            raise ValueError(f"tags holds {tag[:80]!r}, expected a name such as 'answer'")
    for name, low, high in (("chars", min_chars, max_chars), ("words", min_words, max_words)):
        if high is not None and high < low:
            raise ValueError(f"max_{name} is {high}, expected >= min_{name} = {low}")


@VERIFIERS.register(
    "format",
    paper="DeepSeek-R1, arXiv:2501.12948, section 2.2.2",
    traits={
        "signature": "format|v1",
        "check_gold": check_gold,
        "preload": (),
        "prepare": prepare,
    },
)
def judge(
    text: str,
    gold: Any = None,
    *,
    shapes: tuple[Shape, ...] = (),
    tags: tuple[str, ...] = (),
    min_chars: int = 0,
    max_chars: int | None = None,
    min_words: int = 0,
    max_words: int | None = None,
) -> Judgement:
    r"""Whether a response has every form asked for; no regular expression of yours, no time limit.

    Args:
        text: the whole response.
        gold: not read.
        shapes: ``think_answer``: ``<think>…</think>`` then ``<answer>…</answer>``, each once, and
            nothing but whitespace around them; ``tags``: the same with the names in ``tags``;
            ``boxed_once``: one non-empty ``\boxed{…}`` after the thinking; ``fenced``: at least
            one code block, all closed; ``json``: the whole response is one JSON value, bare or in
            one fence.
        tags: names of the blocks, in order, for shape ``tags``.
        min_chars, max_chars: bounds of the length in characters, outer whitespace not counted.
        min_words, max_words: bounds of the length in words, parted by whitespace.
    Raises:
        ValueError: the options ask for nothing or contradict each other.
    """
    prepare(
        shapes=shapes,
        tags=tags,
        min_chars=min_chars,
        max_chars=max_chars,
        min_words=min_words,
        max_words=max_words,
    )
    text = text.strip()
    faults = [_fault(text, shape, tags) for shape in shapes]
    faults.append(_length_fault(len(text), min_chars, max_chars, "characters"))
    faults.append(_length_fault(len(text.split()), min_words, max_words, "words"))
    why = "; ".join(fault for fault in faults if fault)
    if why:
        return Judgement(Verdict.WRONG, None, why)
    return Judgement(Verdict.RIGHT, None, "has the form")


def _fault(text: str, shape: Shape, tags: Sequence[str]) -> str:
    match shape:
        case "think_answer":
            return _tags_fault(text, ("think", "answer"))
        case "tags":
            return _tags_fault(text, tags)
        case "boxed_once":
            return _boxes_fault(text)
        case "fenced":
            fences = text.count("```")
            return "" if fences and fences % 2 == 0 else "no code block, or one without end"
        case "json":
            return _json_fault(text)


def _tags_fault(text: str, names: Sequence[str]) -> str:
    at = 0
    for name in names:
        opening, closing = f"<{name}>", f"</{name}>"
        if text.count(opening) != 1 or text.count(closing) != 1:
            return f"{opening} and {closing} do not stand there once each"
        start, end = text.index(opening), text.index(closing)
        if start < at or end < start or text[at:start].strip():
            return f"{opening} is out of place"
        at = end + len(closing)
    return "text after the last tag" if text[at:].strip() else ""


def _boxes_fault(text: str) -> str:
    boxes = len(_BOX.findall(after_thinking(text)))
    if boxes != 1:
        return f"{boxes} boxes, not one"
    return "" if extract(text, ("boxed",)) else "the box is empty or never closed"


def _json_fault(text: str) -> str:
    blocks = fenced(text)
    if len(blocks) == 1 and text.startswith("```") and text.endswith("```"):
        text = blocks[0][1]
    try:
        read_json(text)
    except NotJson as error:
        return f"no JSON: {error}"
    return ""


def _length_fault(length: int, low: int, high: int | None, unit: str) -> str:
    if length < low:
        return f"{length:,} {unit}, fewer than {low:,}"
    if high is not None and length > high:
        return f"{length:,} {unit}, more than {high:,}"
    return ""
