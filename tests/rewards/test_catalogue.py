"""What a user sees of the rewards: examples, help, the editor's schema, the page, the errors."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml

from llmalign import cli
from llmalign.catalogue import (
    argument_help,
    full_row,
    main,
    reward_need,
    reward_range,
    shipped_rewards,
    type_schema,
    with_sections,
)
from llmalign.recipe import json_schema, list_recipes, read_recipe
from llmalign.rewards import REWARDS, Problem, build_reward
from llmalign.rewards.base import Need
from llmalign.rewards.shape import Clip
from llmalign.verifiers import GoldError
from llmalign.verifiers.registry import Entry, coerce

PAGE = Path(__file__).parents[2] / "docs" / "rewards.md"
MINIMAL = {"algorithm": "grpo", "model": {"path": "x"}, "data": {"train": {"path": "x"}}}
NAN, INF = float("nan"), float("inf")
every_reward = pytest.mark.parametrize("entry", shipped_rewards(), ids=lambda entry: entry.name)


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    found = json.loads(json.dumps(json_schema()))
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.fixture
def own_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``my_pkg.my_mod:f``, which examples may name."""
    (tmp_path / "my_pkg").mkdir()
    (tmp_path / "my_pkg" / "my_mod.py").write_text("def f(completions):\n    return [0.0]\n")
    monkeypatch.syspath_prepend(tmp_path)


def example(entry: Entry) -> Any:
    assert "example" in entry.traits, (
        f"reward {entry.name!r} has no example; add one to its registration: "
        'traits={"example": <what a recipe says after `reward:`>}'
    )
    return entry.traits["example"]


@every_reward
def test_every_reward_has_an_example_that_builds_and_that_an_editor_accepts(
    entry: Entry, schema: jsonschema.Draft202012Validator, own_function: None
) -> None:
    spec = example(entry)
    assert entry.name in re.findall(r"\w+", json.dumps(spec)) or entry.name == "call"
    build_reward(spec)
    assert [e.message for e in schema.iter_errors({**MINIMAL, "reward": spec})] == []


@every_reward
def test_every_option_of_a_reward_has_its_help(entry: Entry) -> None:
    told = full_row(entry)
    assert [o["name"] for o in told["options"] if not o["help"]] == []
    assert told["range"] and told["need"] and json.dumps(told)


def test_need_is_the_rewards_own_or_says_where_it_comes_from() -> None:
    needs = {
        name: reward_need(REWARDS.get(name, ""))
        for name in ("bleu", "majority", "sum", "gdpo", "er_length", "sql_partial")
    }
    assert needs == {
        "bleu": "pointwise",
        "majority": "groupwise",
        "sum": "of its children",
        "gdpo": "of its children, all groups of a step at once",
        "er_length": "of its children, at least groupwise",
        "sql_partial": "by its options; pointwise in the example",
    }


def test_range_is_the_first_sentence_and_keeps_decimal_points() -> None:
    assert reward_range(REWARDS.get("bleu", "")) == "[0, 1]"
    assert reward_range(REWARDS.get("evol", "")).startswith("[-1, -0.5] and [0.5, 1]; 0 or 1")
    assert reward_range(REWARDS.get("clip", "")) == "[low, high]"


def test_help_of_an_argument_spans_lines_names_and_base_classes() -> None:
    helps = argument_help(Clip)
    assert helps["low"] == helps["high"] == "bounds; null for none."
    assert helps["of"].startswith("the children, each a reward")
    markers = argument_help(REWARDS.get("math", "").thing)["markers"]
    assert markers.startswith("how the answer is found") and markers.endswith("``last_number``.")


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_passes_the_schema(
    name: str, schema: jsonschema.Draft202012Validator
) -> None:
    faults = [(list(e.absolute_path), e.message) for e in schema.iter_errors(read_recipe(name))]
    assert faults == []


GOOD = [
    "math",
    {"math": None},
    {"format": "a+"},
    {"sum": "math"},
    {"sum": ["math", {"length": {"max_tokens": 9, "weight": 0, "name": "brief"}}]},
    {"if_undecided": {"of": {"min": ["math", {"format": "a"}]}, "then": "zero"}},
    {"clip": {"of": ["math"], "low": None, "high": 1}},
    {"rubric": {"criteria_for_all": ["is short", {"criterion": "is kind", "weight": -2}]}},
    {"json_schema": {"schema": {"type": "object"}}},
    "my_pkg.my_mod:f",
    {"call": "my_pkg.my_mod:f"},
    {"sum": [{"my_pkg.my_mod:f": {"name": "mine", "weight": 2.0}}]},
]


@pytest.mark.parametrize("spec", GOOD, ids=repr)
def test_what_builds_passes_the_schema(
    spec: Any, schema: jsonschema.Draft202012Validator, own_function: None
) -> None:
    build_reward(spec)
    assert schema.is_valid({**MINIMAL, "reward": spec})


# Faults that a schema can see: what the loader says of each, with place and way out.
SEEN = [
    ("mth", "reward: unknown reward 'mth'; did you mean 'math'?"),
    ({"gate": ["math", "frmat"]}, "reward.gate[1]: unknown reward 'frmat'; did you mean 'format'?"),
    ({"math": {"colum": "a"}}, "reward.math: unknown option 'colum'; did you mean 'column'?"),
    (
        {"centred": {"of": "math", "curve": "sigmod"}},
        "reward.centred.curve is 'sigmod', expected one of 'sigmoid', 'tanh'",
    ),
    (
        {"math": {"markers": ["box"]}},
        "reward.math.markers is ['box'], expected a list, each one of 'boxed', 'hashes'",
    ),
    ({"math": {"right": "1"}}, "reward.math.right is '1', expected a number"),
    ({"math": {"weight": 1}}, "reward.math.weight is 1, expected none; only a reward below"),
    ({"sum": [{"math": {"weigth": 1}}]}, "unknown option 'weigth'"),
    ({"sum": []}, "reward.sum: of is empty, expected at least one reward"),
    ({"sum": None}, "reward.sum.of is None, expected a reward or a list of rewards"),
    ({"gate": {"thresholds": [0.5]}}, "reward.gate.of is None, expected a reward or a list"),
    ({"sum": 3}, "reward.sum.of is 3, expected a reward or a list of rewards"),
    ({"sum": {"math": {}}}, "reward.sum: 'math' is a reward, expected an option; put a dash"),
    ({"noise": "math"}, "reward.noise: noise needs option 'rate'"),
    ({"sum": ["format"]}, "reward.sum[0].format: format needs option 'pattern'"),
    ({"clip": ["math", "bleu"]}, "reward.clip: of lists 2 rewards, expected one"),
    ({"math": ["boxed"]}, "reward.math is ['boxed'], expected a mapping of options"),
    (["math"], "reward is ['math'], expected a reward's name or a mapping"),
    (["math", "bleu"], "put several rewards below a node, such as {sum: [NAME, NAME]}"),
    ({"math": {}, "bleu": {}}, "put several rewards below a node, such as {sum: [NAME, NAME]}"),
    ({"sum": [{"math": {}, "weight": 2}]}, "reward.sum[0] is {'math': {}, 'weight': 2}, expected"),
    ({"sum": [{"math": {}, "weight": 2}]}, "indent weight below the name, with the other options"),
    ({"sum": [None]}, "reward.sum[0] is None, expected a reward's name"),
    ({}, "reward is {}, expected a reward's name or a mapping from one name to its options; say"),
    ("", "reward is '', expected a reward's name"),
    (3, "reward is 3, expected a reward's name"),
]
# Faults that only the loader sees.
UNSEEN = [
    ({"gate": ["math"]}, "reward.gate: of lists one reward, expected two or more"),
    ({"sum": [{"math": {"weight": NAN}}]}, "reward.sum[0].math.weight is nan, expected a finite"),
    ({"math": {"right": NAN}}, "reward.math.right is nan, expected a finite number"),
    ({"scale": {"of": "math", "factor": INF}}, "reward.scale.factor is inf, expected a finite"),
    (
        {"gate": {"of": ["math", "bleu"], "thresholds": [NAN]}},
        "reward.gate.thresholds[0] is nan, expected a finite number",
    ),
    (
        {"rubric": {"criteria_for_all": [{"criterion": "a", "weight": NAN}]}},
        "reward.rubric.criteria_for_all[0].weight is nan, expected a finite number",
    ),
    ({"rubric": {"criteria_for_all": []}}, "reward.rubric: criteria_for_all is [], expected a"),
    ({"format": ""}, "reward.format: pattern is '', expected a regex; an empty one pays empty"),
    ({"math": {"name": ""}}, "reward.math.name is '', expected what the reward is called"),
    (
        {"bottom_line": {"bottom": [{"math": {"weight": 2}}], "of": "bleu"}},
        "reward.bottom_line: bottom: 'math' has weight 2.0, expected none",
    ),
    ("no_such_pkg:f", "function is 'no_such_pkg:f', but: No module named 'no_such_pkg'"),
]


@pytest.mark.parametrize(("spec", "message"), SEEN + UNSEEN, ids=lambda given: repr(given)[:60])
def test_a_fault_of_a_tree_is_one_line_with_place_value_and_way_out(
    spec: Any, message: str
) -> None:
    with pytest.raises(ValueError) as raised:
        build_reward(spec)
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("spec", [spec for spec, _ in SEEN], ids=repr)
def test_an_editor_marks_what_the_loader_refuses(
    spec: Any, schema: jsonschema.Draft202012Validator
) -> None:
    assert not schema.is_valid({**MINIMAL, "reward": spec})


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (float, 1),
        (float | None, None),
        (tuple[str, ...], ["a"]),
        (dict[str, Any] | None, {"a": 1}),
        (list[Any], [1, "a"]),
        (Any, "anything"),
    ],
    ids=repr,
)
def test_a_type_hint_lets_the_same_through_as_schema_and_in_the_loader(
    annotation: Any, value: Any
) -> None:
    coerce(value, annotation, "here")
    jsonschema.validate(value, type_schema(annotation))
    if annotation is not Any:
        with pytest.raises(ValueError, match="here is "):
            coerce(object(), annotation, "here")
        assert not jsonschema.Draft202012Validator(type_schema(annotation)).is_valid("text")


def test_the_page_is_what_the_registry_says() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_sections(page) == page, "run: python -m llmalign.catalogue docs/rewards.md"
    assert [need for need in get_args(Need) if f"`{need}`" not in page] == []
    weighted = [e.name for e in shipped_rewards() if e.traits.get("weighted")]
    sentence = page.partition("* `weight` stands")[2].partition(". ")[0]
    assert [name for name in weighted if f"`{name}`" not in sentence] == []


def test_every_tree_on_the_page_builds(
    schema: jsonschema.Draft202012Validator, own_function: None
) -> None:
    trees = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(trees) > 60
    for tree in map(yaml.safe_load, trees):
        build_reward(tree["reward"])
        assert schema.is_valid({**MINIMAL, **tree})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("mth", "page: unknown reward 'mth'; did you mean 'math'?"),
        ("math math", "page: reward 'math' stands 2 times, expected 1"),
        ("math", "have no section; add the names to one of the lines"),
    ],
)
def test_a_page_with_a_wrong_set_of_names_says_which(names: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        with_sections(f"<!-- rewards: {names} -->\n<!-- end -->\n")


def test_the_command_rewrites_stale_sections_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    names = " ".join(entry.name for entry in shipped_rewards())
    page.write_text(f"before\n<!-- rewards: {names} -->\nstale\n<!-- end -->\nafter\n")
    main([str(page)])
    made = page.read_text()
    assert made.startswith("before\n<!--") and made.endswith("<!-- end -->\nafter\n")
    assert "stale" not in made and "reward: {bleu: {column: references}}" in made
    assert with_sections(made) == made


ROWS = [
    {"problem_id": "a", "prompt": "p", "completion": "c", "answer": "2", "references": "x " * 9},
    {"problem_id": "b", "prompt": "p", "completion": "c", "answer": None},
]


def run_main(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("sys.argv", ["llmalign", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("mth", "reward: unknown reward 'mth'; did you mean 'math'?"),
        ("", "reward is None, expected a reward's name"),
        ("reward: null", "reward is None, expected a reward's name"),
        ("reward: [math, bleu]", "put several rewards below a node"),
        ("math: {right: .nan}", "reward.math.right is nan, expected a finite number"),
        ("gate: [math]", "reward.gate: of lists one reward"),
        ("sum: [", "is no YAML"),
        ("bleu", "1 problems cannot be scored; the first: problem 'b': column 'references' is"),
        ("math", "1 problems cannot be scored; the first: problem 'b': gold is None, expected"),
        ("rubric", "reward 'rubric' needs judge, which this host was not given"),
        ("entropy", "reward 'entropy' needs policy_logprobs, which this host was not given"),
    ],
)
def test_score_says_what_is_wrong_on_one_line(
    tree: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "tree.yaml").write_text(tree)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    arguments = ["score", str(tmp_path / "tree.yaml"), str(tmp_path / "rows.jsonl")]
    assert run_main(arguments, monkeypatch) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ") and said.count("\n") == 1 and "Traceback" not in said


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("mth", "reward: unknown reward 'mth'; did you mean 'math'?"),
        ("null", "reward is missing; say for example `reward: math`"),
        ("{}", "reward is {}, expected a reward's name"),
        ("[math]", "reward is ['math'], expected a reward's name"),
        ("{sum: []}", "reward.sum: of is empty"),
        ("{sum: [{math: {weight: .nan}}]}", "reward.sum[0].math.weight is nan, expected a finite"),
        ("{rubric: {criteria_for_all: []}}", "reward.rubric: criteria_for_all is []"),
        ("{math: {colum: a}}", "reward.math: unknown option 'colum'; did you mean 'column'?"),
    ],
)
def test_train_refuses_a_wrong_reward_before_anything_is_made(
    value: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["train", "quickstart", "--output", str(tmp_path / "runs")]
    assert run_main([*arguments, "--set", f"reward={value}"], monkeypatch) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ") and said.count("\n") == 1 and "Traceback" not in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("reward", "columns", "message"),
    [
        ("rubric", {}, "problem '7': column 'rubrics' is missing, expected it among: none"),
        ("rubric", {"rubrics": []}, "problem '7': column 'rubrics' is [], expected"),
        ("rouge", {"references": NAN}, "problem '7': column 'references' is nan, expected a text"),
        ("rouge", {"references": ["a", None]}, "column 'references' is ['a', None], expected"),
    ],
)
def test_a_row_without_what_a_reward_reads_is_named(
    reward: str, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(GoldError) as raised:
        build_reward(reward).check(Problem("7", "q", columns))
    assert message in str(raised.value)
