import threading

import pytest
import torch
from support.comparing import Server

from llmalign.advantages import gae

STEPS = '''
def halves(prompts, completions, **columns):
    """A good first half and a bad second one; its value is the share of even characters."""
    found = []
    for text in completions:
        middle = len(text) // 2
        steps = [(0, middle, 1.0), (middle, len(text), -1.0 - len(set(text)))]
        even = sum(ord(c) % 2 == 0 for c in text) / max(1, len(text))
        found.append({"value": even, "steps": steps})
    return found
'''


def prepared(loop, step=0):
    experience = loop.preparer.experience(loop.collector.collect(step).groups)
    loop.preparer.advantages(experience, step=step, kl_coef=loop.recipe.kl.coef)
    return experience


def test_only_the_fifth_of_the_tokens_with_most_entropy_is_in_the_loss(small, loop_of):
    loop = loop_of(small(token_weights={"kind": "high_entropy", "share": 0.2}))
    experience = prepared(loop)
    kept_BT, tokens = experience.loss_mask_BT, int(experience.mask_BT.sum())
    assert int(kept_BT.sum()) == pytest.approx(0.2 * tokens, abs=1)
    inside, outside = (
        experience.entropy_BT[kept_BT],
        experience.entropy_BT[experience.mask_BT & ~kept_BT],
    )
    assert inside.min() >= outside.max()
    assert (experience.adv_BT[~kept_BT] == 0).all()
    # the mean is over what is left: the weights of the tokens in the loss add up to 1
    rows = range(len(experience.reward_B))
    stats = {}
    assert sum(1 for _ in loop.learner.losses(experience, rows, list(rows), stats)) >= 1
    assert stats["tokens"] == int(kept_BT.sum())


@pytest.mark.parametrize("kind", ["attention", "attention_coupled"])
def test_attention_credits_good_samples_only_and_keeps_every_token(small, loop_of, kind):
    plain = prepared(loop_of(small()))
    loop = loop_of(small(token_weights={"kind": kind, "boost": 3.0, "near": 1, "far": 5}))
    experience = prepared(loop)
    good_B = plain.adv_B > 0
    assert torch.equal(experience.adv_BT[~good_B], plain.adv_BT[~good_B])
    ratio_BT = experience.adv_BT[good_B] / plain.adv_BT[good_B]
    ratio_N = ratio_BT[experience.mask_BT[good_B]]
    assert ratio_N.min() >= 1 and ratio_N.max() > 1.5
    assert torch.equal(experience.loss_mask_BT, experience.mask_BT)


def test_the_critic_says_what_it_expects_and_gae_reads_it(small, loop_of):
    loop = loop_of(small(advantage={"kind": "gae", "whiten": False, "lam": 0.9}, critic={}))
    with torch.no_grad():
        loop.critic.model["head"].bias.fill_(0.25)
    experience = prepared(loop)
    mask_BT = experience.mask_BT
    assert experience.value_BT[mask_BT].tolist() == pytest.approx([0.25] * int(mask_BT.sum()))
    inputs = (experience.reward_B, experience.group_B, mask_BT, torch.zeros(mask_BT.shape))
    expected_BT = gae(*inputs, experience.value_BT, gamma=1.0, lam=0.9, whiten=False, eps=1e-8)
    assert torch.equal(experience.adv_BT, expected_BT)
    difference_BT = (experience.return_BT - experience.value_BT - expected_BT)[mask_BT]
    assert difference_BT.abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["process_sum", "process_min", "pure"])
def test_step_scores_of_a_reward_reach_the_tokens_of_their_steps(small, loop_of, tmp_path, kind):
    (tmp_path / "plug" / "llmalign_step_rewards.py").write_text(STEPS)
    loop = loop_of(small(advantage={"kind": kind}, reward="llmalign_step_rewards:halves"))
    experience = prepared(loop)
    for b in range(len(experience.reward_B)):
        tokens = int(experience.mask_BT[b].sum())
        values = experience.adv_BT[b, :tokens]
        # constant within a step, and it changes once
        assert (values[1:] - values[:-1]).abs().gt(1e-9).sum() <= (1 if kind != "pure" else tokens)
    assert (experience.adv_BT != 0).any()


def test_without_step_scores_the_run_says_what_it_lacks(small, loop_of):
    loop = loop_of(small(advantage={"kind": "process_sum"}))
    with pytest.raises(ValueError, match="no sample has step scores, which 'process_sum' needs"):
        loop.step(0)


def test_leaves_of_a_tree_are_credited_where_they_part(small, loop_of):
    tree = {"kind": "treerl", "trees": 2, "branches": 1, "per_point": 2}
    loop = loop_of(small(sampling={"tree": tree}, advantage={"kind": "treerl"}))
    experience = prepared(loop)
    start = 0
    for g in experience.groups:
        for i, leaf in enumerate(g.tree.leaves):
            values = experience.adv_BT[start + i]
            begin = 0
            for end in leaf.ends:  # one value per node
                assert (values[begin : end + 1] == values[begin]).all()
                begin = end + 1
        start += len(g.tree.leaves)


def test_a_token_of_a_tree_may_count_once(small, loop_of):
    tree = {"kind": "treepo", "width": 4, "segment_tokens": 3, "first": [1, 1]}
    changes = {"sampling": {"tree": tree}, "advantage": {"kind": "treepo"}}
    plain = prepared(loop_of(small(**changes)))
    once = prepared(loop_of(small(**changes, token_weights={"kind": "shared_prefix"})))
    assert torch.allclose(once.adv_BT[:, 0], plain.adv_BT[:, 0] / 4)  # the root is in all leaves
    assert torch.equal(once.loss_mask_BT, once.mask_BT)


@pytest.fixture
def comparing():
    """The address of a judge that prefers the response with more even characters."""
    server = Server()
    server.rule = lambda a, b, asked: said(even(a) - even(b))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def even(text):
    return sum(ord(c) % 2 == 0 for c in text)


def said(difference):
    return "tie" if difference == 0 else "AB"[difference < 0]


@pytest.mark.parametrize(("kind", "against"), [("brpo", "reference"), ("pairwise_wins", "all")])
def test_whom_a_judge_prefers_has_the_larger_advantage(small, loop_of, comparing, kind, against):
    recipe = small(
        reward={"sum": [{"pairwise": against}]},
        judge={"model": "m", "base_url": comparing},
        advantage={"kind": kind},
    )
    loop = loop_of(recipe)
    experience = prepared(loop)
    adv_B, reward_B = experience.adv_B.tolist(), experience.reward_B.tolist()
    assert len(set(reward_B)) > 2  # the judge was asked, and it told samples apart
    for first in (0, 4, 8):
        ours = sorted(range(first, first + 4), key=lambda b: reward_B[b])
        if kind == "pairwise_wins":
            assert sorted(ours, key=lambda b: (adv_B[b], reward_B[b])) == ours
    if kind == "brpo":
        assert {-1.0, 0.0, 1.0} >= set(adv_B)
    assert loop.step(1)["bad_updates"] == 0


def test_a_draw_of_an_advantage_differs_from_step_to_step(small, loop_of):
    loop = loop_of(small(advantage={"kind": "pass_at_k_bootstrap", "k": 2, "draws": 3}))
    experience = loop.preparer.experience(loop.collector.collect(0).groups)
    found = []
    for step in (0, 0, 1, 2, 3):
        loop.preparer.advantages(experience, step=step, kl_coef=0.0)
        found.append(experience.adv_BT)
    assert torch.equal(found[0], found[1])
    assert any(not torch.equal(found[0], other) for other in found[2:])


def test_a_value_of_a_reward_node_is_an_input_of_an_advantage(small, loop_of):
    inputs = {"delta_B": "spread", "gap_B": "math"}
    loop = loop_of(small(advantage={"kind": "grpo_s", "inputs": inputs}))
    plain = prepared(loop_of(small(advantage={"kind": "group", "eps": 1e-6})))
    weighed = prepared(loop)
    ratio_B = weighed.adv_B / plain.adv_B
    delta_B = torch.tensor([s.aspects["spread"] for g in weighed.groups for s in g.scores])
    expected_B = delta_B.double().sigmoid() / delta_B.double().mean().sigmoid()  # equal gaps
    assert ratio_B[plain.adv_B != 0].tolist() == pytest.approx(
        expected_B[plain.adv_B != 0].tolist(), rel=1e-6
    )
