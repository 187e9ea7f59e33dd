import json

import pytest
import yaml

from llmalign.presets import PRESETS
from llmalign.recipe import build_recipe, json_schema, list_recipes, load_recipe

MINIMAL = {
    "name": "t",
    "algorithm": "grpo",
    "model": {"build": "tiny"},
    "data": {"train": {"generate": "arithmetic"}},
    "reward": "math",
}


def raw(**changes):
    return MINIMAL | changes


def test_the_preset_lies_below_what_the_user_wrote():
    recipe = build_recipe(raw(algorithm="dapo", loss={"kind": "clipped", "clip_high": 0.4}))
    assert recipe.loss.options == {"clip_low": 0.2, "clip_high": 0.4, "dual_clip": 10.0}
    assert recipe.sampling.dynamic.max_batches == 10
    assert recipe.aggregate == "token_mean"


def test_another_kind_of_loss_drops_the_presets_options():
    recipe = build_recipe(raw(algorithm="dapo", loss={"kind": "reinforce"}))
    assert "clip_low" not in recipe.loss.options


OFFLINE = {
    "sft": "supervised",
    "dft": "supervised",
    "asft": "supervised",
    "dpo": "preference",
    "ipo": "preference",
}


@pytest.mark.parametrize("algorithm", PRESETS)
def test_every_preset_resolves(algorithm):
    stage = OFFLINE.get(algorithm, "policy")
    changes = {} if stage == "policy" else {"reward": None, "data": {"train": {"path": "x.jsonl"}}}
    if algorithm == "pass_at_k":
        changes["rollout"] = {"samples_per_problem": 8}
    if algorithm == "amft":
        changes["imitation"] = {"data": {"train": {"path": "x.jsonl"}}}
    assert build_recipe(raw(algorithm=algorithm, **changes)).stage == stage


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle": {}}, "unknown key 'modle'; did you mean 'model'"),
        ({"rollout": {"temprature": 1}}, "rollout: unknown key 'temprature'; did you mean 'temper"),
        ({"loss": {"kind": "clipped", "clip_hi": 0.3}}, "loss: unknown option 'clip_hi'; did you"),
        ({"loss": {"kind": "cliped"}}, "loss.kind: unknown loss 'cliped'; did you mean 'clipped'"),
        ({"advantage": {"kind": "grup"}}, "advantage.kind: unknown advantage 'grup'; did you mean"),
        ({"algorithm": "grop"}, "algorithm: unknown algorithm 'grop'; did you mean 'grpo'"),
        ({"reward": {"mth": {}}}, "reward: unknown reward 'mth'; did you mean 'math'"),
        ({"reward": None}, "reward is missing"),
        ({"rollout": {"max_new_tokens": 0}}, "rollout.max_new_tokens is 0"),
        ({"rollout": {"samples_per_problem": 1}}, "samples_per_problem is 1, expected >= 2"),
        ({"sampling": {"train_samples": 1}}, "sampling.train_samples is 1, expected >= 2"),
        ({"rollout": {"min_p": 0.1}}, "min_p 0.1 .* expected a top_k from 1 to rollout.max_kept"),
        (
            {"rollout": {"top_k": 50, "max_kept": 20}},
            "rollout.top_k 50, expected a top_k from 1 to rollout.max_kept, 20",
        ),
        ({"rollout": {"top_p": 0.9}}, "top_p is 0.9, .* importance ratio would be biased"),
        ({"model": {"build": "tiny", "path": "x"}}, "model: path is 'x' and build is 'tiny'"),
        ({"model": {}}, "model: path is None and build is None"),
        ({"schedule": {"steps": "many"}}, "schedule.steps is 'many'"),
        ({"data": {}}, "data.train is missing"),
        ({"kl": {"coef": 0.1, "estimator": "k3+", "place": "reward"}}, "kl.estimator is 'k3\\+'"),
    ],
    ids=lambda v: "" if isinstance(v, str) else json.dumps(v)[:40],
)
def test_a_fault_is_named_with_its_place_and_the_way_out(changes, message):
    with pytest.raises(ValueError, match=message):
        build_recipe(raw(**changes))


def test_overrides_go_through_the_same_check(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    recipe = load_recipe(str(path), ["loss.clip_high=0.3", "schedule.steps=7", "kl.coef=1e-3"])
    assert recipe.loss.options["clip_high"] == 0.3
    assert (recipe.schedule.steps, recipe.kl.coef) == (7, 0.001)
    with pytest.raises(ValueError, match="loss: unknown option 'clip_hgih'"):
        load_recipe(str(path), ["loss.clip_hgih=0.3"])
    with pytest.raises(ValueError, match="expected key.path=value"):
        load_recipe(str(path), ["loss"])


def test_an_override_addresses_list_items(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        yaml.safe_dump(raw(reward={"sum": [{"math": {}}, {"format": {"pattern": "x"}}]}))
    )
    recipe = load_recipe(str(path), ["reward.sum.1.format.pattern=y"])
    assert recipe.reward["sum"][1] == {"format": {"pattern": "y"}}
    with pytest.raises(ValueError, match="reward.sum has 2 items, no item '5'"):
        load_recipe(str(path), ["reward.sum.5.format.pattern=y"])


def test_a_key_that_stands_twice_is_an_error(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("algorithm: grpo\nalgorithm: dapo\n")
    with pytest.raises(ValueError, match="key 'algorithm' stands twice"):
        load_recipe(str(path))


def test_the_resolved_recipe_reads_back_as_itself(tmp_path):
    recipe = build_recipe(raw(algorithm="dapo"))
    path = tmp_path / "again.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(str(path)).hash == recipe.hash


def test_identity_allows_a_longer_run_but_no_other_run():
    recipe = build_recipe(raw())
    longer = build_recipe(raw(schedule={"steps": 1000, "checkpoint_every": 7}, output="elsewhere"))
    assert longer.identity == recipe.identity and longer.hash != recipe.hash
    assert build_recipe(raw(seed=1)).identity != recipe.identity


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(FileNotFoundError, match="did you mean 'quickstart'"):
        load_recipe("quickstrat")


def test_schema_names_the_registered_losses():
    schema = json_schema()
    assert "clipped" in schema["properties"]["loss"]["properties"]["kind"]["enum"]
    assert "grpo" in schema["properties"]["algorithm"]["enum"]


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_builds_and_says_what_it_is(name):
    load_recipe(name)
    assert len(list_recipes()[name]) > 20
