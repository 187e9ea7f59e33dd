import pytest
import torch

from llmalign.advantages import ADVANTAGES, degenerate_groups, kept_groups

NAN = float("nan")
FOUR = ("reward_B", "group_B", "mask_BT", "penalty_BT")
PLAIN = [entry for entry in ADVANTAGES.entries() if entry.inputs == FOUR]


@pytest.mark.parametrize(
    ("rewards", "degenerate", "kept"),
    [
        pytest.param([1.0, 1.0, 1.0], True, False, id="all right"),
        pytest.param([0.1, 0.1, 0.1], True, False, id="a value whose float mean is not itself"),
        pytest.param([0.0, 1.0, 0.0], False, True, id="one differs"),
        pytest.param([NAN, 1.0, 0.0], False, True, id="two scored ones differ"),
        pytest.param([NAN, 1.0, 1.0], True, False, id="the scored ones are equal"),
        pytest.param([NAN, NAN, 1.0], True, False, id="one of three scored"),
        pytest.param([NAN, NAN], True, False, id="none scored"),
        pytest.param([0.5], True, True, id="sampled alone"),
        pytest.param([NAN], True, False, id="sampled alone and not scored"),
        pytest.param([1e-300, 2e-300], False, True, id="a difference whose square underflows"),
    ],
)
def test_groups_are_compared_by_value(rewards: list[float], degenerate: bool, kept: bool) -> None:
    # A second group that differs, so that nothing here holds by there being one group only.
    reward_B = torch.tensor([*rewards, 0.0, 1.0], dtype=torch.float64)
    group_B = torch.tensor([0] * len(rewards) + [1, 1])
    assert degenerate_groups(reward_B, group_B).tolist() == [degenerate, False]
    assert kept_groups(reward_B, group_B).tolist() == [kept, True]


def test_an_index_without_samples_is_degenerate_and_not_kept() -> None:
    reward_B, group_B = torch.tensor([0.0, 1.0]), torch.tensor([1, 1])
    assert degenerate_groups(reward_B, group_B).tolist() == [True, False]
    assert kept_groups(reward_B, group_B).tolist() == [False, True]


def test_no_samples_are_no_groups() -> None:
    nothing = torch.tensor([]), torch.tensor([], dtype=torch.int64)
    assert degenerate_groups(*nothing).tolist() == kept_groups(*nothing).tolist() == []


GOOD = {
    "reward_B": torch.tensor([0.0, 1.0]),
    "group_B": torch.tensor([0, 0]),
    "mask_BT": torch.ones(2, 3, dtype=torch.bool),
    "penalty_BT": torch.zeros(2, 3),
}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"reward_B": torch.zeros(2, 1)},
            ValueError,
            r"reward_B is torch.float32 of shape \(2, 1\)",
        ),
        ({"reward_B": torch.tensor([0, 1])}, ValueError, "reward_B is torch.int64 of shape"),
        ({"reward_B": torch.tensor([0.0, float("inf")])}, ValueError, "reward_B holds inf"),
        ({"group_B": torch.tensor([0])}, ValueError, r"group_B has shape \(1,\), expected \(2,\)"),
        ({"group_B": torch.tensor([0.0, 0.0])}, TypeError, "group_B has dtype torch.float32"),
        ({"group_B": torch.tensor([0, -1])}, ValueError, "group_B holds -1, expected >= 0"),
        ({"mask_BT": torch.ones(2, 3)}, TypeError, "mask_BT has dtype torch.float32"),
        (
            {"mask_BT": torch.ones(3, 3, dtype=torch.bool)},
            ValueError,
            r"mask_BT has shape \(3, 3\), expected \(2, T\)",
        ),
        (
            {"penalty_BT": torch.zeros(2, 2)},
            ValueError,
            r"penalty_BT has shape \(2, 2\), expected \(2, 3\) like mask_BT",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
@pytest.mark.parametrize("entry", PLAIN, ids=lambda entry: entry.name)
def test_every_advantage_names_the_wrong_input(entry, change, error, message) -> None:
    with pytest.raises(error, match=message):
        entry.thing(*{**GOOD, **change}.values(), **entry.resolve({}, "advantage"))


@pytest.mark.parametrize("entry", PLAIN, ids=lambda entry: entry.name)
class TestEveryAdvantage:
    """What holds for all of them; each is called with its registered defaults."""

    def test_reads_nothing_under_the_mask_and_writes_zeros_there(self, entry) -> None:
        mask_BT = torch.tensor([[True, True, False], [True, False, True], [True, True, True]])
        clean_BT = torch.tensor([[0.1, 0.2, 0.0], [0.3, 0.0, -0.1], [0.0, 0.5, 0.2]]).double()
        dirty_BT = torch.where(mask_BT, clean_BT, NAN)
        inputs = torch.tensor([1.0, 0.0, 0.25]), torch.tensor([0, 0, 0]), mask_BT
        options = entry.resolve({}, "advantage")
        clean, dirty = (entry.thing(*inputs, p, **options) for p in (clean_BT, dirty_BT))
        assert torch.equal(clean, dirty)
        assert (dirty[~mask_BT] == 0).all()
        assert (dirty[mask_BT] != 0).any()
        assert dirty.dtype == torch.float64

    def test_an_unscored_sample_counts_for_nothing(self, entry) -> None:
        mask_BT = torch.ones(3, 2, dtype=torch.bool)
        penalty_BT = torch.tensor([[0.0, 0.1], [9.0, 9.0], [0.2, 0.0]]).double()
        reward_B, group_B = torch.tensor([1.0, NAN, 0.0]), torch.tensor([0, 0, 0])
        options = entry.resolve({}, "advantage")
        adv_BT = entry.thing(reward_B, group_B, mask_BT, penalty_BT, **options)
        rest = torch.tensor([0, 2])
        alone_BT = entry.thing(
            reward_B[rest], group_B[rest], mask_BT[rest], penalty_BT[rest], **options
        )
        assert torch.equal(adv_BT[rest], alone_BT)
        assert (adv_BT[1] == 0).all()

    def test_the_order_of_samples_does_not_matter(self, entry) -> None:
        reward_B = torch.tensor([1.0, 0.0, 0.5, 0.25, 0.25, 1.0])
        group_B, order = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([4, 0, 5, 2, 1, 3])
        mask_BT = torch.arange(4)[None, :] < torch.tensor([4, 2, 1, 3, 3, 2])[:, None]
        penalty_BT = torch.zeros(6, 4)
        options = entry.resolve({}, "advantage")
        adv_BT = entry.thing(reward_B, group_B, mask_BT, penalty_BT, **options)
        shuffled_BT = entry.thing(
            reward_B[order], group_B[order], mask_BT[order], penalty_BT, **options
        )
        torch.testing.assert_close(shuffled_BT, adv_BT[order], rtol=1e-12, atol=1e-12)
