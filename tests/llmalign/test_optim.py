import math

import pytest
import torch

from llmalign.optim import Updater, learning_rate
from llmalign.policy import load_policy
from llmalign.schema import Model, Optimizer

SMALL = Model(
    build="tiny", build_options={"hidden_size": 32, "num_layers": 1, "intermediate_size": 32}
)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1]),
        ("linear", [1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25]),
        (
            "cosine",
            [1 / 3, 2 / 3, 1] + [0.5 * (1 + math.cos(math.pi * x)) for x in (0.25, 0.5, 0.75)],
        ),
    ],
)
def test_the_rate_warms_up_and_decays_without_ever_being_zero(decay, expected):
    config = Optimizer(lr=1.0, warmup_steps=2, decay=decay)
    rates = [learning_rate(config, step=s, total_steps=6) for s in range(6)]
    assert rates == pytest.approx(expected)


def updater():
    policy = load_policy(SMALL, seed=0)
    return policy, Updater(policy, Optimizer(lr=0.1), total_steps=10)


def test_a_nan_loss_changes_nothing_and_is_counted():
    policy, up = updater()
    before = {n: p.detach().clone() for n, p in policy.trainable.items()}

    def losses(factor):
        yield sum((p**2).sum() for p in policy.trainable.values()) * factor

    result = up.update(losses(math.nan), step=0)
    assert not result.applied and up.bad_in_a_row == 1 and policy.version == 0
    assert all(torch.equal(before[n], p) for n, p in policy.trainable.items())
    assert up.update(losses(1.0), step=1).applied
    assert up.bad_in_a_row == 0 and policy.version == 1
    assert not all(torch.equal(before[n], p) for n, p in policy.trainable.items())


def test_a_checkpoint_of_another_model_is_refused():
    _, up = updater()
    state = up.state_dict()
    state["model"]["stranger"] = torch.zeros(1)
    with pytest.raises(ValueError, match="different parameters, for example \\['stranger'\\]"):
        up.load_state_dict(state)
