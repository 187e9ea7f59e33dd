"""Does the JSON of a response satisfy a JSON schema? Draft 2020-12 unless ``$schema`` says other.

Validation is that of the ``jsonschema`` package. Nothing is fetched: a ``$ref`` must stay inside
the schema, or name a published metaschema. ``format`` is an annotation only, as the draft has it
by default. JSON is read strictly: a key that stands twice, NaN and Infinity are refused. A
``pattern`` of the schema may take exponential time on the model's text, and ``uniqueItems``
quadratic time: judge inside a ``VerifierPool``, which can kill it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

from llmalign.verifiers import VERIFIERS
from llmalign.verifiers.extract import after_thinking
from llmalign.verifiers.format import (
    MAX_JSON,
    NotJson,
    fenced,
    json_parts,
    read_json,
    shortened,
    tagged,
)
from llmalign.verifiers.verdict import GoldError, Judgement, Verdict

_DATA = ("const", "enum", "default", "examples")  # keywords whose values are no schemas

_SCALAR = re.compile(r"-?[0-9.eE+-]{1,99}|true|false|null")
_INSIDE = re.compile(r"\s*,?\s*[\]}]|\s*,\s*\"")


def check_gold(gold: Any) -> None:
    """Raises GoldError unless ``gold`` is a valid schema whose references can be followed."""
    _validator(_spelled(gold))


def _spelled(gold: Any) -> str:
    if not isinstance(gold, Mapping | bool):
        raise GoldError(f"gold is {repr(gold)[:80]}, expected a JSON schema: a mapping")
    try:
        return json.dumps(gold, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise GoldError(f"gold is {repr(gold)[:80]}, expected JSON values: {error}") from None


@lru_cache(maxsize=256)
def _validator(spelled: str) -> Any:
    # Imported late: jsonschema takes a tenth of a second that other verifiers never need.
    import jsonschema
    from jsonschema.validators import validator_for
    from jsonschema_specifications import REGISTRY

    schema = json.loads(spelled)
    kind = validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        place = "/".join(map(str, error.absolute_path)) or "its root"
        raise GoldError(f"the schema is invalid at {place[:80]}: {error.message[:80]}") from None
    except RecursionError:
        raise GoldError("the schema is nested too deep; flatten it") from None
    known = {str(address).rstrip("#") for address in REGISTRY} | _own_addresses(schema)
    for keyword, value in _keywords(schema):
        _check_keyword(keyword, value, known)
    # This registry holds the metaschemas and, unlike the default, never opens a connection.
    validator = kind(schema, registry=REGISTRY)
    _validate(validator, None)  # follows what refers to itself at once
    if not _own_addresses(schema):  # with addresses of its own, only validation can follow all
        _follow(schema)
    return validator


def _follow(schema: Any) -> None:
    """Raises GoldError where a reference inside the schema leads nowhere."""
    from jsonschema_specifications import REGISTRY
    from referencing import Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    resolver = REGISTRY.with_resource("", resource).resolver()
    for keyword, value in _keywords(schema):
        if keyword == "$ref" and isinstance(value, str) and value.startswith("#"):
            try:
                resolver.lookup(value)
            except Unresolvable:
                shown = f"$ref is {value[:80]!r}, which the schema does not hold"
                raise GoldError(f"{shown}; add it") from None


def _keywords(schema: Any) -> Iterator[tuple[str, Any]]:
    """All (keyword, value) pairs of a schema and of the schemas in it, in any order."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield from part.items()
            waiting += [value for key, value in part.items() if key not in _DATA]
        elif isinstance(part, list):
            waiting += part


def _own_addresses(schema: Any) -> set[str]:
    found = (value for key, value in _keywords(schema) if key in ("$id", "id"))
    return {value.rstrip("#") for value in found if isinstance(value, str)}


def _check_keyword(keyword: str, value: Any, known: set[str]) -> None:
    """Raises GoldError for a reference that leads elsewhere, or a pattern that is none."""
    if keyword in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
        address = value.partition("#")[0]
        inside = any(own == address or own.endswith("/" + address.lstrip("./")) for own in known)
        if address and not inside:
            raise GoldError(
                f"{keyword} is {value[:80]!r}, outside of the schema; copy it into $defs"
            )
    patterns = [value] if keyword == "pattern" else value if keyword == "patternProperties" else ()
    for pattern in patterns if isinstance(patterns, list | dict) else ():
        if isinstance(pattern, str):
            try:
                re.compile(pattern)
            except re.error as error:
                raise GoldError(f"pattern is {pattern[:80]!r}, expected a regex: {error}") from None


def find_json(text: str) -> str | None:
    """The JSON of a response, as written, or None.

    What stands in the last ``<answer>`` is read where there is one, else what follows the
    thinking. There: the last code block marked as JSON; else the last balanced object or array;
    else the whole, where it starts like JSON or is a scalar of it.
    """
    text = after_thinking(text)
    answers = [inside for inside in tagged(text, "answer") if inside.strip()]
    text = (answers[-1] if answers else text).strip()
    marked = [content for language, content in fenced(text) if language.startswith("json")]
    if marked and marked[-1].strip():
        return marked[-1].strip()
    parts = json_parts(text)
    if not parts:
        return text if text[:1] in ("{", "[", '"') or _SCALAR.fullmatch(text) else None
    rest = text[text.rindex(parts[-1]) + len(parts[-1]) :]
    # A list that is JSON may stand inside an object that is none: then nothing is.
    return text if _INSIDE.match(rest) else parts[-1]


@VERIFIERS.register(
    "json_schema",
    paper="JSON Schema, draft 2020-12",
    traits={
        "signature": "json_schema|v1",
        "check_gold": check_gold,
        "preload": ("jsonschema", "jsonschema_specifications"),
    },
)
def judge(text: str, gold: Any, *, form: Literal["response", "json"] = "response") -> Judgement:
    """Whether the JSON of a response satisfies a schema.

    Args:
        text: the whole response, or JSON alone; never raises on it.
        gold: the schema, a mapping (or ``true``, which all JSON satisfies).
        form: ``response``: the JSON is found as in ``find_json``; ``json``: the text is JSON.
    Raises:
        GoldError: the schema is invalid, or refers to what is not inside it.
    """
    validator = _validator(_spelled(gold))
    found = text.strip() if form == "json" else find_json(text)
    if not found:
        return Judgement(Verdict.NO_ANSWER, None, "no JSON found")
    if len(found) > MAX_JSON:
        return Judgement(Verdict.UNDECIDED, None, f"the JSON has {len(found):,} characters")
    try:
        value = read_json(found)
    except NotJson as error:
        return Judgement(Verdict.WRONG, None, f"no JSON: {str(error)[:120]}")
    verdict, why = _validate(validator, value)
    return Judgement(verdict, shortened(json.dumps(_plain(value), sort_keys=True)), why)


def _validate(validator: Any, value: Any) -> tuple[Verdict, str]:
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    try:
        error = best_match(validator.iter_errors(value))
    except Unresolvable as missing:
        shown = str(missing)[:80]
        raise GoldError(f"the schema refers to {shown}, which it does not hold; add it") from None
    except RecursionError:
        raise GoldError("the schema refers to itself without end; break the circle") from None
    if error is None:
        return Verdict.RIGHT, "satisfies the schema"
    place = "/".join(map(str, error.absolute_path)) or "the whole"
    return Verdict.WRONG, f"{place[:60]}: {error.message[:140]}"


def _plain(value: Any) -> Any:
    """JSON schema knows one kind of number: 1.0 is 1."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
