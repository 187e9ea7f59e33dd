import math

import pytest
import torch

from llmalign.advantages import turning_point_rewards, turning_points

NAN = math.nan
SCRIPT = {
    "eta": 1.0, "main": "step", "bonus": "remaining",
    "replace": True, "consistent": True, "first": True,
}  # fmt: skip


def paid(values: list[float], final: float, **options) -> list[float]:
    given = torch.tensor([values], dtype=torch.float64), torch.tensor([final]).double()
    return turning_point_rewards(*given, **{**SCRIPT, **options})[0].tolist()


def test_a_fall_and_a_rise_by_hand() -> None:
    # steps -0.2, 0.4; the second turns towards 0.9 and is paid 0.9 - 0.3
    assert paid([0.5, 0.3, 0.7], 0.9) == pytest.approx([-0.2, 0.6])
    # the same, for a response that falls: 0.4, -0.2 to 0.1
    assert paid([0.5, 0.9, 0.7], 0.1) == pytest.approx([0.4, -0.8])


@pytest.mark.parametrize("consistent", [True, False])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("main", ["step", "total"])
@pytest.mark.parametrize("bonus", ["step", "total", "remaining"])
@pytest.mark.parametrize("replace", [True, False])
def test_agrees_with_plain_python(
    consistent: bool, first: bool, main: str, bonus: str, replace: bool
) -> None:
    values, final = [0.3, 0.4, 0.2, 0.6, 0.5, 0.5, 0.75], 0.7
    delta, expected = final - values[0], []
    sign = [math.copysign(1, b - a) if b != a else 0 for a, b in zip(values, values[1:])]  # noqa: B905
    for t, (before, after) in enumerate(zip(values, values[1:])):  # noqa: B905
        ahead = sign[t] * (final - after) > 0
        turn = ahead if t == 0 else sign[t - 1] < 0 < sign[t] and (ahead or not consistent)
        turn = turn and (t > 0 or first)
        parts = {"step": after - before, "total": delta, "remaining": final - before}
        extra = 0.5 * parts[bonus]
        expected.append(parts[main] if not turn else extra if replace else parts[main] + extra)
    found = paid(
        values, final,
        eta=0.5, main=main, bonus=bonus, replace=replace, consistent=consistent, first=first,
    )  # fmt: skip
    assert found == pytest.approx(expected)


def test_a_response_that_ends_where_it_began_has_no_turn() -> None:
    assert paid([0.5, 0.25, 0.5], 0.5) == [-0.25, 0.25]


def test_there_is_no_step_behind_the_last() -> None:
    found = paid([0.5, 0.3, 0.7, NAN], 0.9)
    assert found[:2] == pytest.approx([-0.2, 0.6]) and math.isnan(found[2])


def test_a_response_without_a_step_has_none() -> None:
    assert paid([0.5], 0.9) == []


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"eta": -1.0}, "eta is -1.0, expected >= 0"),
        ({"main": "remaining"}, "main is 'remaining', expected 'step' or 'total'"),
        ({"bonus": "all"}, "bonus is 'all', expected 'step', 'total' or 'remaining'"),
    ],
)
def test_a_wrong_option_is_named(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paid([0.5, 0.3], 0.9, **option)


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"value_BS has shape \(3,\) and final_B \(1,\)"):
        turning_points(torch.zeros(3), torch.zeros(1), consistent=True, first=True)
