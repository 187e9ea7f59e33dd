"""Are these the tool calls that were asked for? Calls are read and compared, never made.

The rules are those of the Berkeley Function Calling Leaderboard for its "AST" categories: each
argument has a list of accepted values, "" among them where it may be left out; strings are
compared without case, spaces and ``,./-_*^``; calls may come in any order. Looser than there: an
integer is accepted for a float at any depth. Stricter: arithmetic, bare names and nested calls
are no values, and positional arguments are refused.
"""

import ast
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from llmalign.verifiers import VERIFIERS
from llmalign.verifiers.extract import after_thinking
from llmalign.verifiers.format import NotJson, fenced, json_parts, read_json, shortened, tagged
from llmalign.verifiers.verdict import GoldError, Judgement, Verdict

Call = tuple[str, dict[str, Any]]
Answers = Mapping[str, Sequence[Any]]  # argument -> its accepted values

MAX_CALL = 10_000  # characters of one call in Python's syntax
MAX_CALLS = 100  # in one response
MAX_DEPTH = 20  # of brackets in Python's syntax

_LARGEST = sys.float_info.max  # an integer beyond it could not even be printed
_IGNORED = re.compile(r"[ ,./\-_*^]")
_PYTHON_START = re.compile(r"^[ \t>*`-]{0,9}(\[\s{0,9})?([A-Za-z_][\w.]*)\(", re.MULTILINE)
_PYTHON_TOKEN = re.compile(r"'(?:[^'\\\n]|\\.)*'?|\"(?:[^\"\\\n]|\\.)*\"?|[()\[\]{}]", re.DOTALL)
_LINE_REST = re.compile(r"[ \t;,.`]*(?:\n|$)")


class _Malformed(Exception):
    """Meant as a call, but no call; the message says why."""


def check_gold(gold: Any) -> None:
    """Raises GoldError unless ``gold`` has readable functions and answers that fit them."""
    functions, expected = _read_gold(gold)
    for name, answers in expected:
        known = functions[name].get("properties", {})
        for argument, accepted in answers.items():
            if not isinstance(accepted, list | tuple) or not accepted:
                shown = f"argument {argument!r} of {name!r} is {repr(accepted)[:80]}"
                raise GoldError(f"{shown}, expected a list of accepted values")
            if argument not in known:
                raise GoldError(f"ground_truth has argument {argument!r}, unknown to {name!r}")


def _read_gold(gold: Any) -> tuple[dict[str, Mapping[str, Any]], list[tuple[str, Answers]]]:
    """The parameters of each function, and the calls expected."""
    keys = {"functions", "ground_truth"}
    if not isinstance(gold, Mapping) or not keys <= gold.keys():
        shown = repr(gold)[:80]
        raise GoldError(f"gold is {shown}, expected a mapping with functions and ground_truth")
    if not all(isinstance(gold[key], list | tuple) for key in keys):
        raise GoldError("functions and ground_truth must be lists, of mappings")
    functions: dict[str, Mapping[str, Any]] = {}
    for function in gold["functions"]:
        name, parameters = _read_function(function)
        functions[name] = parameters
    expected = []
    for call in gold["ground_truth"]:
        if not isinstance(call, Mapping) or len(call) != 1:
            raise GoldError(f"ground_truth holds {repr(call)[:80]}, expected one function each")
        (name, answers), *_ = call.items()
        if name not in functions or not isinstance(answers, Mapping):
            raise GoldError(f"ground_truth holds {repr(call)[:80]}, expected a known function")
        expected.append((name, answers))
    return functions, expected


def _read_function(function: Any) -> tuple[str, Mapping[str, Any]]:
    inner = function.get("function", function) if isinstance(function, Mapping) else None
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(name, str) or not name:
        raise GoldError(f"functions holds {repr(function)[:80]}, expected name and parameters")
    parameters = inner.get("parameters") or {}
    if (
        not isinstance(parameters, Mapping)
        or not isinstance(parameters.get("properties", {}), Mapping)
        or not isinstance(parameters.get("required") or [], list | tuple)
    ):
        raise GoldError(f"parameters of {name!r} are {repr(parameters)[:80]}, expected a schema")
    return name, parameters


def find_calls(text: str, names: Sequence[str] = ()) -> list[Call]:
    """The calls of a response, in order; none where it makes none.

    Only what follows the thinking is read. Where there are ``<tool_call>`` blocks, they are all;
    else the last code block that makes calls; else the whole text. A call is JSON with ``name``
    and ``arguments`` or ``parameters``, alone, in lists, one after another or in OpenAI's
    ``tool_calls``; or Python's ``f(a=1)`` or ``[f(a=1), g.h(b="x")]`` with literal values, on
    lines of its own.

    Args:
        text: the whole response.
        names: functions whose unreadable calls are refused, where others are taken for prose.
    Raises:
        _Malformed: something is meant as a call, but is none.
    """
    text = after_thinking(text)
    blocks = tagged(text, "tool_call")
    if not blocks and "<tool_call>" in text:
        blocks = [text.rpartition("<tool_call>")[2]]  # cut off before its end
    if blocks:
        calls = [call for block in blocks for call in _from_block(block)]
    else:
        parts = [content for _, content in reversed(fenced(text))]
        calls = next((found for part in [*parts, text] if (found := _from_text(part, names))), [])
    if len(calls) > MAX_CALLS:
        raise _Malformed(f"more than {MAX_CALLS} calls")
    return calls


def _from_block(block: str) -> list[Call]:
    """The calls of a text that must hold calls and nothing else."""
    block = block.strip()
    if not block:
        return []
    if block[0] not in "{[" or _PYTHON_START.match(block):
        return _from_python(block)
    parts = json_parts(block)
    rest = block
    for part in parts:
        rest = rest.replace(part, "", 1)
    if not parts or len(parts) > MAX_CALLS or rest.strip(" \t\r\n,"):
        raise _Malformed("a call that is no JSON")
    return [call for part in parts for call in _from_json(part)]


def _from_text(text: str, names: Sequence[str]) -> list[Call]:
    """The calls in a text that may hold anything else as well."""
    calls = [call for part in json_parts(text) if _is_call(part) for call in _from_json(part)]
    return calls or _python_lines(text, names)


def _is_call(part: str) -> bool:
    value = json.loads(part) if len(part) <= MAX_CALL * 10 else None
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, dict):
        return False
    named = "name" in first and ("arguments" in first or "parameters" in first)
    return named or "tool_calls" in first or isinstance(first.get("function"), dict)


def _from_json(part: str) -> list[Call]:
    try:
        return _calls_of(read_json(part))
    except NotJson as error:
        raise _Malformed(f"a call that is no JSON: {error}") from None


def _calls_of(value: Any) -> list[Call]:
    if isinstance(value, list):
        return [call for inner in value for call in _calls_of(inner)]
    if not isinstance(value, dict):
        raise _Malformed("a call that is no JSON object")
    if "tool_calls" in value:
        return _calls_of(value["tool_calls"] or [])
    if isinstance(value.get("function"), dict):
        value = value["function"]
    name = value.get("name")
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):  # OpenAI's way: JSON in a string
        try:
            arguments = read_json(arguments)
        except NotJson as error:
            raise _Malformed(f"arguments that are no JSON: {error}") from None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise _Malformed("a call without name or arguments")
    return [(name, arguments)]


def _python_lines(text: str, names: Sequence[str]) -> list[Call]:
    calls: list[Call] = []
    at = looked = 0
    while (start := _PYTHON_START.search(text, at)) and looked < 2 * MAX_CALLS:
        looked += 1
        begin = start.start(2) if start[1] is None else start.start(1)
        end = _closing(text, begin)
        at = start.end()
        if not _LINE_REST.match(text, end):
            continue  # prose that mentions a function
        try:
            calls += _from_python(text[begin:end])
            at = end
        except _Malformed:
            if start[2] in names:
                raise
    return calls


def _closing(text: str, begin: int) -> int:
    """Where the bracket opened first after ``begin`` is closed; at most ``MAX_CALL`` on."""
    depth = 0
    for token in _PYTHON_TOKEN.finditer(text, begin, begin + MAX_CALL):
        if token[0] in ("(", "[", "{"):
            depth += 1
        elif token[0] in (")", "]", "}"):
            depth -= 1
            if depth == 0:
                return token.end()
    return min(len(text), begin + MAX_CALL)


def _from_python(source: str) -> list[Call]:
    depth = deepest = 0
    for token in _PYTHON_TOKEN.finditer(source):
        depth += (token[0] in ("(", "[", "{")) - (token[0] in (")", "]", "}"))
        deepest = max(deepest, depth)
    if len(source) > MAX_CALL or deepest > MAX_DEPTH:
        raise _Malformed("a call that is too long or nested too deep")
    try:
        tree = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _Malformed("a call that is no Python") from None
    nodes = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
    return [_python_call(node) for node in nodes]


def _python_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call):
        raise _Malformed("something other than a call")
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise _Malformed("an argument without a name")
    arguments = {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords}
    return _dotted(node.func), arguments


def _dotted(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise _Malformed("a call of something without a name")
    return ".".join([node.id, *reversed(parts)])


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=bool() | None | str() as value):
            return value
        case ast.Constant(value=int() | float() as value) if abs(value) <= _LARGEST:
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as operand):
            number = _literal(operand)
            if isinstance(number, int | float) and not isinstance(number, bool):
                return -number
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_literal(element) for element in elements]
        case ast.Dict(keys=keys, values=values):
            if all(isinstance(key, ast.Constant) and isinstance(key.value, str) for key in keys):
                names = [_literal(key) for key in keys if key]
                return dict(zip(names, map(_literal, values), strict=True))
    raise _Malformed("an argument that is no literal value")


@VERIFIERS.register(
    "toolcall",
    paper="Patil et al. 2025, Berkeley Function Calling Leaderboard, ICML",
    traits={"signature": "toolcall|v1", "check_gold": check_gold, "preload": ()},
)
def judge(text: str, gold: Any) -> Judgement:
    """Whether a response makes the tool calls asked for, no more and no fewer.

    Args:
        text: the whole response; its calls are found as in ``find_calls``.
        gold: ``{"functions": [{"name", "parameters"}], "ground_truth": [{name: {argument:
            [accepted values]}}]}``; "" among the values means that the argument may be left out.
            An empty ``ground_truth`` asks for no call.
    Raises:
        GoldError: the gold has another form.
    """
    functions, expected = _read_gold(gold)
    try:
        calls = [(_resolved(n, functions), a) for n, a in find_calls(text, tuple(functions))]
    except _Malformed as error:
        return Judgement(Verdict.WRONG, None, str(error))
    if not calls:
        if expected:
            return Judgement(Verdict.NO_ANSWER, None, "makes no call")
        return Judgement(Verdict.RIGHT, "[]", "makes no call, as asked")
    why = _difference(calls, functions, expected)
    verdict = Verdict.WRONG if why else Verdict.RIGHT
    return Judgement(verdict, _normal_form(calls), why or "the calls asked for")


def _resolved(name: str, functions: Mapping[str, Any]) -> str:
    """The function meant: where dots are not allowed, models write ``a_b`` for ``a.b``."""
    meant = [known for known in functions if known.replace(".", "_") == name]
    return meant[0] if name not in functions and len(meant) == 1 else name


def _difference(
    calls: Sequence[Call],
    functions: Mapping[str, Mapping[str, Any]],
    expected: Sequence[tuple[str, Answers]],
) -> str:
    """In words what is wrong with the calls, "" where nothing is."""
    if len(calls) != len(expected):
        return f"{len(calls)} calls, expected {len(expected) or 'none'}"
    faults = [[_fault(call, want, functions[want[0]]) for want in expected] for call in calls]
    taken: dict[int, int] = {}  # expected call -> call

    def place(call: int, seen: set[int]) -> bool:
        for want, fault in enumerate(faults[call]):
            if not fault and want not in seen:
                seen.add(want)
                if want not in taken or place(taken[want], seen):
                    taken[want] = call
                    return True
        return False

    for call in range(len(calls)):
        if not place(call, set()):
            return min(faults[call], key=lambda fault: fault.startswith("calls"))[:200]
    return ""


def _fault(call: Call, want: tuple[str, Answers], schema: Mapping[str, Any]) -> str:
    (name, arguments), (wanted, answers) = call, want
    properties = schema.get("properties", {})
    if name != wanted:
        return f"calls {name[:60]!r}, expected {wanted!r}"
    for argument in schema.get("required") or []:
        if argument not in arguments:
            return f"lacks required argument {argument!r}"
    for argument, value in arguments.items():
        if argument not in properties or argument not in answers:
            return f"has unexpected argument {argument[:60]!r}"
        if not _accepts(answers[argument], value, properties[argument]):
            return f"argument {argument!r} is {repr(value)[:60]}"
    for argument, accepted in answers.items():
        if argument not in arguments and "" not in accepted:
            return f"lacks argument {argument!r}"
    return ""


def _accepts(accepted: Any, value: Any, schema: Any) -> bool:
    options = accepted if isinstance(accepted, list | tuple) else [accepted]
    return any(_same(option, value, schema) for option in options)


def _same(option: Any, value: Any, schema: Any) -> bool:
    """Whether a value is the accepted one; in a nested object each key has its own list."""
    schema = schema if isinstance(schema, Mapping) else {}
    match option, value:
        case (bool(), _) | (_, bool()) | (None, _) | (_, None):
            return option is value
        case (int() | float(), int() | float()):
            exact = schema.get("type") == "integer" and isinstance(option, int)
            return option == value and not (exact and isinstance(value, float))
        case (str(), str()):
            return _standard(option) == _standard(value)
        case (list() | tuple(), list() | tuple()):
            inner = schema.get("items")
            pairs = zip(option, value, strict=False)
            return len(option) == len(value) and all(_same(o, v, inner) for o, v in pairs)
        case (dict(), dict()):
            inner = schema.get("properties") or {}
            left_out = [option[key] for key in option if key not in value]
            return all(isinstance(o, list) and "" in o for o in left_out) and all(
                key in option and _accepts(option[key], value[key], inner.get(key)) for key in value
            )
    return False


def _standard(text: str) -> str:
    return _IGNORED.sub("", text).lower().replace("'", '"')


def _normal_form(calls: Sequence[Call]) -> str:
    """The calls as JSON, sorted, strings standardised: the order of calls does not matter."""
    shown = [json.dumps([name, _plain(arguments)], sort_keys=True) for name, arguments in calls]
    return shortened(f"[{', '.join(sorted(shown))}]")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return _standard(value) if isinstance(value, str) else value
