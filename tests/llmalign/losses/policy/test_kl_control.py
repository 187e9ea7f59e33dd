import pytest

from llmalign.losses.policy.kl_control import adaptive_kl_coef

OPTIONS = {"kl": 9.0, "target": 6.0, "horizon": 1e4, "num_samples": 100}


@pytest.mark.parametrize(
    ("kl", "wanted"),
    [
        # 0.1 * (1 + clip(kl / 6 - 1, +-0.2) * 0.01)
        pytest.param(6.6, 0.1001, id="a tenth above"),
        pytest.param(9.0, 0.1002, id="far above: a fifth"),
        pytest.param(6.0, 0.1, id="on target"),
        pytest.param(-1.0, 0.0998, id="far below"),
    ],
)
def test_one_update_by_hand(kl: float, wanted: float) -> None:
    assert adaptive_kl_coef(0.1, **(OPTIONS | {"kl": kl})) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"coef": -0.1}, "coef is -0.1, expected >= 0"),
        ({"target": 0.0}, "target is 0.0, expected > 0 nats"),
        ({"num_samples": -1}, "num_samples is -1, expected >= 0"),
        ({"horizon": 20.0}, "horizon is 20.0, expected > num_samples / 5 = 20"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_option_is_named(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adaptive_kl_coef(**({"coef": 0.1} | OPTIONS | option))
