import pytest

from llmalign.control import Controls


def test_without_a_target_nothing_moves(small) -> None:
    controls = Controls(small(kl={"coef": 0.1}, entropy={"bonus": 0.02}))
    assert controls.after_step(kl=9.0, entropy=9.0, num_samples=100) == {}
    assert (controls.kl_coef, controls.entropy_bonus) == (0.1, 0.02)


def test_the_kl_coefficient_follows_the_measured_kl(small) -> None:
    # A039: 0.1 * (1 + clip(9 / 6 - 1, -0.2, 0.2) * 256 / 10000) = 0.100512
    controls = Controls(small(kl={"coef": 0.1, "target": 6.0, "horizon": 10_000}))
    assert controls.after_step(kl=9.0, entropy=None, num_samples=256) == {"kl_coef": 0.1}
    assert controls.kl_coef == pytest.approx(0.100512)
    controls.after_step(kl=None, entropy=None, num_samples=256)  # not measured: stays
    assert controls.kl_coef == pytest.approx(0.100512)


def test_the_entropy_bonus_acts_below_its_target_and_is_carried_on_above(small) -> None:
    # C006: [applied, next] by step; a step is decided by the entropy of the one before
    controls = Controls(small(entropy={"bonus": 0.01, "adaptive": {}}))
    applied, carried = [], []
    for entropy in (0.15, 0.18, 0.25, 0.3, 0.35, 0.4):
        controls.after_step(kl=None, entropy=entropy, num_samples=1)
        applied.append(controls.entropy_bonus)
        carried.append(controls.state_dict()["carried"])
    assert applied == pytest.approx([0.01, 0.015, 0, 0, 0, 0])
    assert carried == pytest.approx([0.015, 0.02, 0.015, 0.01, 0.005, 0])


def test_another_goes_on_from_its_state(small) -> None:
    recipe = small(kl={"coef": 0.1, "target": 0.1}, entropy={"bonus": 0.01, "adaptive": {}})
    one, two = Controls(recipe), Controls(recipe)
    one.after_step(kl=1.0, entropy=0.1, num_samples=8)
    two.load_state_dict(one.state_dict())
    assert vars(one) == vars(two)
