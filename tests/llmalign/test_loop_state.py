"""Whatever a loop remembers between steps is in its state: another one goes on as it would have."""

import copy
import json

import pytest
import torch

from llmalign.scale.checkpoint import rng_state, set_rng_state

CHOICES = {
    "a critic of its own": {"advantage": {"kind": "gae"}, "critic": {"warmup_steps": 1}},
    "a value head": {"advantage": {"kind": "gae"}, "critic": {"kind": "head"}},
    "a reference that follows": {"kl": {"coef": 0.1, "reference": "ema", "every": 2}},
    "an adapter's reference that follows": {
        "model": {"lora": {"rank": 2}},
        "kl": {"coef": 0.1, "reference": "copy", "every": 1},
    },
    "coefficients under control": {
        "kl": {"coef": 0.1, "target": 0.01, "horizon": 100},
        "entropy": {"bonus": 0.01, "adaptive": {"target": 6}},
    },
    "groups kept for replay": {"sampling": {"problems_per_step": 4, "replay": {"share": 0.5}}},
    "replay under truncated sampling": {
        "sampling": {"problems_per_step": 4, "replay": {"share": 0.5}},
        "rollout": {"top_k": 6},
    },
    "what is known of problems": {
        "data": {"train": {"count": 8}, "eval": None},
        "sampling": {"curriculum": {"metric": "spread", "low": 0.3, "high": 0.6}},
    },
    "trees": {
        "sampling": {"tree": {"kind": "treerl", "trees": 2, "per_point": 1}},
        "advantage": {"kind": "treerl"},
    },
}


def timeless(metrics):
    clocked = ("seconds", "tokens_per_second", "slowest")
    return {k: v for k, v in metrics.items() if not k.startswith(clocked)}


@pytest.mark.parametrize("changes", CHOICES.values(), ids=CHOICES)
def test_a_loop_goes_on_from_the_state_of_another(small, loop_of, changes):
    recipe = small(**changes)
    one, two = loop_of(recipe), loop_of(recipe)
    for step in range(3):
        one.step(step)
    two.updater.load_state_dict(copy.deepcopy(one.updater.state_dict()))
    two.load_tensors(copy.deepcopy(one.tensors()))
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    two.policy.version = one.policy.version
    state = rng_state()
    expected = [timeless(one.step(step)) for step in (3, 4)]
    set_rng_state(state)
    assert [timeless(two.step(step)) for step in (3, 4)] == expected
    for name, value in one.policy.trainable.items():
        assert torch.equal(value, two.policy.trainable[name]), name
