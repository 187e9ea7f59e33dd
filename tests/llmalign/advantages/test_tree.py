import math
import statistics

import pytest
import torch

from llmalign.advantages import treepo, treepo_segments, treerl
from llmalign.advantages.tree import segment_values

NAN = math.nan
# Two groups; in the first, leaves 0 and 1 share a branch, leaf 2 ends after one.
PATHS = [[0, 0], [0, 1], [1, -1], [0, 0], [1, 0]]
REWARDS = [1.0, 0.0, 0.5, 1.0, 0.25]
GROUPS = [0, 0, 0, 1, 1]
ENDS = [[1, 3], [1, 2], [2, -1], [0, 3], [1, 3]]
REWARD, GROUP = torch.tensor(REWARDS, dtype=torch.float64), torch.tensor(GROUPS)
PATH, END = torch.tensor(PATHS), torch.tensor(ENDS)
MASK = torch.arange(4) <= END.amax(1, keepdim=True)
NONE = torch.where(MASK, 0.0, NAN)


def sharing(b: int, depth: int) -> list[int]:
    """Leaves below the node that leaf b passes at ``depth``."""
    return [c for c in range(5) if GROUPS[c] == GROUPS[b] and PATHS[c][:depth] == PATHS[b][:depth]]


def test_one_shared_prefix_by_hand() -> None:
    # depth 0: 1 - 0.5, 0 - 0.5, 0.5 - 0.5; depth 1: 1 - 0.5, 0 - 0.5, alone
    # average: 0.5, -0.5, 0; with tokens 1, 1, 1 that is mean 0, std 0.5
    mask_BT = torch.ones(3, 1, dtype=torch.bool)
    inputs = REWARD[:3], GROUP[:3], mask_BT, torch.zeros(3, 1)
    adv_BT = treepo(*inputs, PATH[:3], mix="average", skip_equal=False, eps=1e-12)
    assert adv_BT[:, 0].tolist() == pytest.approx([1.0, -1.0, 0.0], abs=1e-9)


@pytest.mark.parametrize("mix", ["average", "group_size"])
@pytest.mark.parametrize("skip_equal", [True, False])
def test_the_depths_agree_with_plain_python(mix: str, skip_equal: bool) -> None:
    rewards = [1.0, 1.0, 0.5, 1.0, 0.25]
    adv_BT = treepo(
        torch.tensor(rewards, dtype=torch.float64), GROUP, MASK, NONE, PATH,
        mix=mix, skip_equal=skip_equal, eps=1e-8,
    )  # fmt: skip
    raw = []
    for b in range(5):
        terms = []
        for depth in range(3):
            members = sharing(b, depth)
            if -1 in PATHS[b][:depth] or (depth and len(members) < 2):
                continue
            values = [rewards[c] for c in members]
            if depth and skip_equal and len(set(values)) == 1:
                continue
            weight = len(members) if mix == "group_size" else 1
            terms.append((weight, rewards[b] - statistics.mean(values)))
        raw.append(sum(w * a for w, a in terms) / sum(w for w, _ in terms))
    tokens = [raw[b] for b in range(5) for _ in range(int(MASK[b].sum()))]
    mean, std = statistics.mean(tokens), math.sqrt(statistics.variance(tokens) + 1e-8)
    for b in range(5):
        expected = [(raw[b] - mean) / std if on else 0.0 for on in MASK[b].tolist()]
        assert adv_BT[b].tolist() == pytest.approx(expected, abs=1e-12)


def test_leaves_without_branches_are_compared_as_a_group() -> None:
    inputs = REWARD[:3], GROUP[:3], torch.ones(3, 1, dtype=torch.bool), torch.zeros(3, 1)
    flat_BD = torch.zeros(3, 0, dtype=torch.int64)
    adv_BT = treepo(*inputs, flat_BD, mix="average", skip_equal=False, eps=1e-12)
    assert adv_BT[:, 0].tolist() == pytest.approx([1.0, -1.0, 0.0], abs=1e-9)


def test_an_unscored_leaf_counts_for_nothing() -> None:
    reward_B = torch.cat([REWARD, torch.tensor([NAN])])
    more = [torch.cat([x, x[:1]]) for x in (GROUP, MASK, NONE, PATH, END)]
    group_B, mask_BT, none_BT, path_BD, end_BD = more
    options = {"weighting": "sqrt", "centre": True, "state_value": True, "fill": False}
    found = treerl(reward_B, group_B, mask_BT, path_BD, end_BD, **options)
    expected = treerl(REWARD, GROUP, MASK, PATH, END, **options)
    assert torch.allclose(found[:5], expected, rtol=1e-12) and (found[5] == 0).all()
    options = {"mix": "average", "skip_equal": False, "eps": 1e-8}
    found = treepo(reward_B, group_B, mask_BT, none_BT, path_BD, **options)
    expected = treepo(REWARD, GROUP, MASK, NONE, PATH, **options)
    assert torch.allclose(found[:5], expected, rtol=1e-12) and (found[5] == 0).all()


def test_segments_are_child_minus_parent() -> None:
    value_BD = segment_values(REWARD, GROUP, PATH, siblings=False, eps=1e-8, lone="zero")
    # group 0: V(0) = 0.5, V(1) = 0.5; its leaves 1 and 0. group 1: V = 1 and 0.25 all the way.
    assert value_BD.tolist() == [[0.5, 0.5], [0.5, -0.5], [0.5, 0.0], [1.0, 0.0], [0.25, 0.0]]
    adv_BT = treepo_segments(REWARD, GROUP, MASK, PATH, END, siblings=False, eps=1e-8, lone="zero")
    assert adv_BT.tolist() == [
        [0.5, 0.5, 0.5, 0.5], [0.5, 0.5, -0.5, 0.0], [0.5, 0.5, 0.5, 0.0],
        [1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.0, 0.0],
    ]  # fmt: skip


@pytest.mark.parametrize(("lone", "only"), [("zero", 0.0), ("keep", 1.0)])
def test_siblings_are_normalised_as_nodes_not_as_leaves(lone: str, only: float) -> None:
    # Branch 0 holds two leaves worth 1, branch 1 one worth 0: two siblings, z = 1 and -1.
    rewards, path_BD = [1.0, 1.0, 0.0], torch.tensor([[0, 0], [0, 1], [1, 0]])
    value_BD = segment_values(
        torch.tensor(rewards), torch.zeros(3, dtype=torch.int64), path_BD,
        siblings=True, eps=1e-12, lone=lone,
    )  # fmt: skip
    assert value_BD[:, 0].tolist() == pytest.approx([1.0, 1.0, -1.0])
    # Leaves 0 and 1 are equal siblings, z = 0; leaf 2 is an only child worth 0.
    assert value_BD[:, 1].tolist() == pytest.approx([-1.0, -1.0, 1.0])
    alone_BD = segment_values(
        torch.tensor([1.0]), torch.tensor([0]), torch.tensor([[0]]),
        siblings=True, eps=1e-12, lone=lone,
    )  # fmt: skip
    assert alone_BD.tolist() == [[only]]


@pytest.mark.parametrize("weighting", ["mean", "sqrt"])
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("state_value", [True, False])
def test_the_tree_agrees_with_plain_python(weighting: str, centre: bool, state_value: bool) -> None:
    adv_BT = treerl(
        REWARD, GROUP, MASK, PATH, END,
        weighting=weighting, centre=centre, state_value=state_value, fill=False,
    )  # fmt: skip
    leaf = []
    for b in range(5):
        others = [REWARDS[c] for c in sharing(b, 0) if c != b]
        leaf.append(REWARDS[b] - statistics.mean(others))
    power = 1.5 if weighting == "sqrt" else 1.0

    def tokens(b: int, depth: int) -> int:
        return ENDS[b][depth - 1] - (ENDS[b][depth - 2] if depth > 1 else -1)

    def mu(group: int) -> float:
        nodes = {}
        for b in range(5):
            for depth in (1, 2):
                if GROUPS[b] == group and PATHS[b][depth - 1] >= 0:
                    nodes[tuple(sharing(b, depth)), depth] = tokens(b, depth)
        above = sum(sum(leaf[c] for c in node) * n for (node, _), n in nodes.items())
        return above / sum(len(node) * n for (node, _), n in nodes.items())

    def value(b: int, depth: int) -> float:
        members = sharing(b, depth)
        total = sum(leaf[c] for c in members)
        return (total - (mu(GROUPS[b]) * len(members) if centre else 0)) / len(members) ** power

    for b in range(5):
        for depth in (1, 2):
            if PATHS[b][depth - 1] < 0:
                continue
            expected = value(b, depth) - value(b, depth - 1)
            expected += value(b, depth) if state_value else 0.0
            assert float(adv_BT[b, ENDS[b][depth - 1]]) == pytest.approx(expected, abs=1e-12)
    assert (adv_BT[~MASK] == 0).all()


def test_filling_gives_a_step_without_change_the_value_before_it() -> None:
    # R' = 1, -0.5, -0.5: V(root) = 0, V(0) = 1 = its only leaf, V(1) = -0.5 = both of its leaves
    reward_B, path_BD = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([[0, 0], [1, 0], [1, 1]])
    end_BD, mask_BT = torch.tensor([[0, 1]] * 3), torch.ones(3, 2, dtype=torch.bool)
    options = {"weighting": "mean", "centre": False, "state_value": False}
    inputs = reward_B, torch.zeros(3, dtype=torch.int64), mask_BT, path_BD, end_BD
    assert treerl(*inputs, **options, fill=False).tolist() == [[1, 0], [-0.5, 0], [-0.5, 0]]
    assert treerl(*inputs, **options, fill=True).tolist() == [[1, 1], [-0.5, -0.5], [-0.5, -0.5]]


@pytest.mark.parametrize("value", [0.1, 1 / 3])
def test_equal_rewards_have_advantage_exactly_zero(value: float) -> None:
    same_B = torch.full((5,), value, dtype=torch.float64)
    adv_BT = treerl(
        same_B, GROUP, MASK, PATH, END,
        weighting="sqrt", centre=True, state_value=True, fill=True,
    )  # fmt: skip
    assert adv_BT.abs().max() == 0
    adv_BT = treepo(same_B, GROUP, MASK, NONE, PATH, mix="average", skip_equal=False, eps=1e-30)
    assert adv_BT.abs().max() == 0


TREEPO = {"mix": "average", "skip_equal": False, "eps": 1e-8}
SEGMENTS = {"siblings": False, "eps": 1e-8, "lone": "zero"}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: treepo(REWARD, GROUP, MASK, NONE, PATH[:2], **TREEPO), ValueError, r"\(2, 2\)"),
        (
            lambda: treepo(REWARD, GROUP, MASK, NONE, PATH.flip(1), **TREEPO),
            ValueError,
            "path_BD goes on behind a -1",
        ),
        (
            lambda: treepo(REWARD, GROUP, MASK, NONE, PATH.double(), **TREEPO),
            TypeError,
            "path_BD has dtype torch.float64",
        ),
        (
            lambda: treepo(REWARD, GROUP, MASK, NONE, PATH, **{**TREEPO, "mix": "sum"}),
            ValueError,
            "mix is 'sum', expected 'group_size' or 'average'",
        ),
        (
            lambda: treepo_segments(REWARD, GROUP, MASK, PATH, END[:, :1], **SEGMENTS),
            ValueError,
            r"step_end_BD has shape \(5, 1\), expected \(5, 2\) like path_BD",
        ),
        (
            lambda: segment_values(REWARD, GROUP, PATH, **{**SEGMENTS, "lone": "drop"}),
            ValueError,
            "lone is 'drop'",
        ),
        (
            lambda: treerl(
                REWARD, GROUP, MASK, PATH, END,
                weighting="log", centre=True, state_value=False, fill=False,
            ),
            ValueError,
            "weighting is 'log', expected 'mean' or 'sqrt'",
        ),
    ],
)  # fmt: skip
def test_a_wrong_input_is_named(call, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
