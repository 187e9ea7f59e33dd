"""The smallest recipe that is real: tiny model, generated arithmetic, math verifier."""

import contextlib
import copy
import itertools

import pytest

from llmalign.online import open_online
from llmalign.policy import load_policy
from llmalign.recipe import build_recipe
from llmalign.run import RunFolder

TINY = {
    "build": "tiny",
    "build_options": {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 48},
}
SMALL = {
    "name": "small",
    "algorithm": "grpo",
    "model": TINY,
    "data": {
        "train": {"generate": "arithmetic", "count": 40, "options": {"terms": 2}},
        "eval": {"generate": "arithmetic", "count": 6, "options": {"terms": 2}},
    },
    # every sample is judged for real; spread makes the groups differ, so there is a gradient
    "reward": {"sum": [{"math": {"markers": ["last_number"]}}, "llmalign_loop_rewards:spread"]},
    "rollout": {"samples_per_problem": 4, "max_new_tokens": 10},
    "sampling": {"problems_per_step": 3},
    "kl": {"coef": 0.0},
    "optimizer": {"lr": 1e-3},
    "schedule": {"steps": 6, "checkpoint_every": 2},
    "evaluate": {"samples": 2, "k": [1, 2]},
    "reward_host": {"workers": 1},
}
REWARDS = '''
def spread(prompts, completions, **columns):
    """Differs between samples, and is the same whenever the completion is."""
    return [sum(map(ord, text)) % 7 / 7 for text in completions]

def label(prompts, completions, **columns):
    return [float(value > 0.4) for value in spread(prompts, completions)]

def constant(prompts, completions, **columns):
    return [0.0 for _ in completions]

def one(prompts, completions, **columns):
    return [1.0 for _ in completions]

def never(prompts, completions, **columns):
    return [None for _ in completions]
'''


def merged(below, above):
    out = copy.deepcopy(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A function: recipe of the small run with changes, in a folder of this test."""
    (tmp_path / "plug").mkdir()
    (tmp_path / "plug" / "llmalign_loop_rewards.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(str(tmp_path / "plug"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "plug"))

    def make(**changes):
        return build_recipe(merged(SMALL, {"output": str(tmp_path / "runs"), **changes}))

    return make


@pytest.fixture
def loop_of(tmp_path):
    """A function: the online loop of a recipe, closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count()

        def make(recipe):
            folder = RunFolder(tmp_path / f"loop{next(numbers)}")
            folder.path.mkdir()
            policy = load_policy(recipe.model, seed=recipe.seed)
            return stack.enter_context(open_online(recipe, folder, policy))

        yield make
