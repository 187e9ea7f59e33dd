import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from llmalign import advantages
from llmalign.batch import TokenBatch
from llmalign.policy import load_policy
from llmalign.rewards import Sample
from llmalign.rollout import Request, SamplingParams
from llmalign.rollout.hf import HfEngine
from llmalign.rollout.tree import (
    Leaf,
    TreeGroup,
    before_words,
    pruned,
    tree_tensors,
    treepo,
    treerl,
)
from llmalign.schema import Model
from llmalign.token_weights import shared_prefix
from llmalign.truncation import keep_top, pad_kept

SMALL = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 48}
ROOTS = [Request((1, 60, 61, 62), 7), Request((1, 80), 8), Request((1, 60, 90, 91, 92, 93), 9)]
MANY = [Request((1, 60), seed) for seed in range(30)]
PUBLISHED = {"trees": 6, "branches": 2, "rounds": 1, "per_point": 2, "tail": 0}
SEGMENTS = {"segment_tokens": 3, "width": 7, "first": (1, 4), "forks": 2}
TWELVE = SamplingParams(12)
METHODS = pytest.mark.parametrize(
    ("method", "options"), [(treerl, PUBLISHED), (treepo, SEGMENTS)], ids=["treerl", "treepo"]
)


@pytest.fixture(scope="module")
def policy():
    return load_policy(Model(build="tiny", build_options=SMALL), seed=0)


@pytest.fixture
def ends_with(policy):
    """A function: the policy with these end tokens, until the test is over."""
    eos = policy.eos_ids

    def change(ids):
        policy.eos_ids = frozenset(ids)
        return policy

    yield change
    policy.eos_ids = eos


@pytest.fixture
def endless(ends_with):
    return ends_with(())


@pytest.fixture
def ending(ends_with):
    """Every eighth token is an end."""
    return ends_with(range(2, 259, 8))


def grown(method, policy, roots, params, batch_size=64, engine=HfEngine, **options):
    def decode(ids):
        return policy.tokenizer.decode(ids, skip_special_tokens=True)

    running = engine(policy, batch_size=batch_size)
    found = dict(method(running, roots, params, decode=decode, **options))
    return [found[i] for i in range(len(roots))]


def nodes(tree):
    """{number of a node: its tokens}; all of its leaves say the same."""
    found = {}
    for leaf in tree.leaves:
        starts = [0, *(end + 1 for end in leaf.ends)]
        assert starts[-1] == len(leaf.sample.token_ids) == len(leaf.sample.logprobs)
        for d, (start, end) in enumerate(itertools.pairwise(starts)):
            this = (leaf.path[:d], leaf.sample.token_ids[start:end])
            assert found.setdefault(leaf.path[d], this) == this and end > start
    return {number: tokens for number, (_, tokens) in found.items()}


def children(tree):
    """{path to a fork: how many branches it has}, in the order of the paths."""
    paths = {leaf.path[:d] for leaf in tree.leaves for d in range(1, len(leaf.path) + 1)}
    return Counter(sorted(path[:-1] for path in paths))


def tensors(trees):
    """group_B, mask_BT, path_BD, step_end_BD of all leaves."""
    group_B = torch.cat([torch.full((len(t.leaves),), p) for p, t in enumerate(trees)])
    path_BD, step_end_BD = tree_tensors(trees)
    last_B1 = step_end_BD.amax(1, keepdim=True)
    return group_B, torch.arange(int(last_B1.max()) + 1) <= last_B1, path_BD, step_end_BD


# -- a request's own limit ----------------------------------------------------------------------


def test_a_request_with_a_limit_of_its_own_is_the_beginning_of_the_one_without(policy):
    engine = HfEngine(policy, batch_size=8)
    asked = [Request((1, 60), 5), Request((1, 60), 5, 3), Request((1, 60), 5, 99)]
    found = dict(engine.generate(asked, SamplingParams(6)))
    assert found[1].token_ids == found[0].token_ids[:3] and found[1].finish_reason == "length"
    assert found[2] == found[0] and len(found[0].token_ids) == 6
    with pytest.raises(ValueError, match="max_new_tokens is 0, expected > 0"):
        list(engine.generate([Request((1,), 0, 0)], SamplingParams(6)))


# -- what every tree is -------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize(
    "params",
    [SamplingParams(9, temperature=0.8), SamplingParams(9, top_k=5, max_kept=8)],
    ids=["plain", "truncated"],
)
def test_the_log_probs_of_a_leaf_are_the_policys_of_its_tokens(ending, method, options, params):
    trees = grown(method, ending, ROOTS, params, **options)
    rows = [(r.prompt_ids, s) for r, tree in zip(ROOTS, trees, strict=True) for s in tree.samples]
    batch = TokenBatch.from_rows(
        [(prompt, s.token_ids) for prompt, s in rows], pad_id=ending.pad_id, device=ending.device
    )
    kept = None
    if params.max_kept:
        recorded = zip(*((s.kept_ids, s.kept_counts) for _, s in rows), strict=True)
        ids_N, counts_N = (
            torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.int32) for parts in recorded
        )
        kept = pad_kept(ids_N, counts_N), counts_N
    with torch.no_grad():
        logp_BT = ending.logprobs(batch, temperature=params.temperature, kept=kept)[0]
    for logp_T, (_, sample) in zip(logp_BT, rows, strict=True):
        found = logp_T[: len(sample.token_ids)].tolist()
        assert found == pytest.approx(sample.logprobs, abs=1e-5)


@METHODS
def test_a_leaf_is_a_whole_response_within_the_limit(ending, method, options):
    roots = [replace(ROOTS[0], max_new_tokens=5), *ROOTS[1:]]
    reasons = Counter()
    trees = grown(method, ending, roots, SamplingParams(9), **options)
    for limit, tree in zip([5, 9, 9], trees, strict=True):
        for sample in tree.samples:
            ids = sample.token_ids
            assert sample.text == ending.tokenizer.decode(ids, skip_special_tokens=True)
            assert not set(ids[:-1]) & ending.eos_ids
            assert (sample.finish_reason == "eos") == (ids[-1] in ending.eos_ids)
            assert sample.finish_reason == "eos" or len(ids) == limit
            reasons[sample.finish_reason] += 1
    assert min(reasons["eos"], reasons["length"]) > 2


@METHODS
def test_tokens_are_counted_once_a_node_and_weights_add_up_to_one(ending, method, options):
    for tree in grown(method, ending, ROOTS, SamplingParams(9), **options):
        in_leaves = sum(len(sample.token_ids) for sample in tree.samples)
        assert tree.tokens_generated == sum(map(len, nodes(tree).values())) < in_leaves
        assert sum(leaf.weight for leaf in tree.leaves) == pytest.approx(1)


class Backwards(HfEngine):
    """Finishes last what was asked first."""

    def generate(self, requests, params):
        return reversed(list(super().generate(requests, params)))


@METHODS
def test_neither_neighbours_nor_any_order_change_a_tree(ending, method, options):
    def trees(roots, **how):
        return [
            [(x.path, x.ends, x.weight, x.sample.token_ids, x.sample.seed) for x in tree.leaves]
            for tree in grown(method, ending, roots, SamplingParams(9), **how, **options)
        ]

    together = trees(ROOTS)
    assert together == trees(ROOTS[::-1], batch_size=3)[::-1]
    assert together == [trees([root])[0] for root in ROOTS]
    assert together == trees(ROOTS, engine=Backwards)
    assert together[0] != trees([replace(ROOTS[0], seed=1)])[0]
    assert all(len({leaf[3] for leaf in tree}) > 4 for tree in together)


@METHODS
def test_when_all_end_at_once_every_leaf_is_one_token(ends_with, method, options):
    size = options["trees" if method is treerl else "width"]
    for tree in grown(method, ends_with(range(259)), ROOTS, SamplingParams(9), **options):
        assert [len(leaf.path) for leaf in tree.leaves] == [1] * size
        assert tree.tokens_generated == size and len({x.path for x in tree.leaves}) == size


@pytest.mark.parametrize(
    ("method", "wrong", "message"),
    [
        (treerl, {"trees": 0}, "trees is 0, expected at least 1"),
        (treerl, {"tail": -1}, "tail is -1, expected at least 0"),
        (treepo, {"width": 0}, "width is 0, expected at least 1"),
        (treepo, {"first": (3, 2)}, r"first is \(3, 2\), expected \(low, high\)"),
        (treepo, {"params": SamplingParams(4, temperature=0)}, "temperature is 0, expected > 0"),
    ],
)
def test_an_option_out_of_range_is_named(policy, method, wrong, message):
    options = (PUBLISHED if method is treerl else SEGMENTS) | {"params": TWELVE} | wrong
    with pytest.raises(ValueError, match=message):
        grown(method, policy, ROOTS, **options)


# -- treerl -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_treerl_tree_has_a_leaf_per_branch_and_forks_nowhere_twice(endless, rounds):
    options = PUBLISHED | {"rounds": rounds}
    for tree in grown(treerl, endless, ROOTS, TWELVE, **options):
        assert len(tree.leaves) == 6 * (1 + rounds * 2 * 2)
        forks = children(tree)
        assert forks.pop(()) == 6 and len(forks) == 6 * 2 * rounds
        assert set(forks.values()) <= {3}  # the sample's own way on, and two others


def test_it_forks_before_the_least_likely_tokens(endless):
    plain = grown(treerl, endless, ROOTS[:1], TWELVE, **PUBLISHED | {"rounds": 0})[0]
    tree = grown(treerl, endless, ROOTS[:1], TWELVE, **PUBLISHED)[0]
    for before, leaf in zip(plain.leaves, tree.leaves, strict=False):
        assert leaf.sample.token_ids == before.sample.token_ids and leaf.weight == 1 / 6
        lowest = sorted(range(1, 12), key=lambda t: leaf.sample.logprobs[t])[:2]
        assert [end + 1 for end in leaf.ends[:-1]] == sorted(lowest)
    assert all(leaf.weight == 0 for leaf in tree.leaves[6:])
    assert [leaf.path[0] for leaf in tree.leaves] == [
        *range(6),
        *[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5] * 2,
    ]


def test_it_forks_neither_near_the_end_nor_where_it_must_not(endless):
    def odd(ids):
        return [t % 2 == 1 for t in range(len(ids))]

    options = PUBLISHED | {"branches": 99, "per_point": 1, "tail": 5, "branchable": odd}
    for tree in grown(treerl, endless, ROOTS, TWELVE, **options):
        assert {leaf.ends[:-1] for leaf in tree.leaves[:6]} == {(0, 2, 4)}
        assert len(tree.leaves) == 6 * (1 + 3)  # fewer points than branches


def test_words_are_found_across_tokens():
    branchable = before_words(("answer",), lambda ids: "".join(map(chr, ids)))
    assert branchable(list(map(ord, "my Answer: 4"))) == [True] * 9 + [False] * 3
    assert branchable(list(map(ord, "none"))) == [True] * 4


# -- treepo -------------------------------------------------------------------------------------


def test_a_treepo_tree_keeps_its_width_and_its_segments(ending):
    for tree in grown(treepo, ending, MANY, SamplingParams(10), **SEGMENTS):
        assert len(tree.leaves) == 7
        assert [leaf.path for leaf in tree.leaves] == sorted(leaf.path for leaf in tree.leaves)
        for leaf in tree.leaves:
            assert [*leaf.ends[:-1]] == [2, 5, 8][: len(leaf.ends) - 1]
            assert leaf.ends[-1] // 3 == len(leaf.ends) - 1


def test_forks_are_dealt_out_evenly_until_there_are_width_leaves(endless):
    # nothing ends early: 2 open, then min(7, 2 * 2), then 7 = 2 + 2 + 2 + 1, then no more
    for tree in grown(treepo, endless, ROOTS, TWELVE, **SEGMENTS | {"first": (2, 2)}):
        forks = children(tree)
        by_depth = [[n for path, n in forks.items() if len(path) == d] for d in range(4)]
        assert by_depth == [[2], [2, 2], [2, 2, 2, 1], [1] * 7]
        assert [leaf.weight for leaf in tree.leaves] == [1 / 8] * 6 + [1 / 4]


def test_where_one_has_ended_the_others_fork_more(ends_with):
    # of 2 first segments one ends: the other has min(7 - 1, 2 * 2) branches
    options = SEGMENTS | {"first": (2, 2), "segment_tokens": 1}
    seen = set()
    for tree in grown(treepo, ends_with(range(0, 259, 2)), MANY, SamplingParams(2), **options):
        weighted = tuple(leaf for leaf in tree.leaves if leaf.weight)
        forks = children(TreeGroup(weighted, 0))
        seen.add(tuple(n for path, n in forks.items() if path))
    assert seen == {(), (4,), (2, 2)}


def test_where_all_have_ended_it_goes_on_from_within_them(ends_with):
    policy, options = ends_with(range(2, 259, 3)), SEGMENTS | {"first": (2, 2)}
    more = []
    for tree in grown(treepo, policy, MANY, SamplingParams(10), **options):
        plain = {leaf.path[:d] for leaf in tree.leaves if leaf.weight for d in range(9)}
        more += [leaf for leaf in tree.leaves if not leaf.weight]
        assert len(tree.leaves) == 7 and not plain & {leaf.path for leaf in more}
        nodes(tree)
    assert {len(leaf.path) for leaf in more} >= {1, 2} and len(more) > 12


def test_the_number_of_first_segments_is_drawn_for_each_problem(endless):
    trees = grown(treepo, endless, MANY, SamplingParams(4), **SEGMENTS | {"first": (2, 5)})
    assert {children(tree)[()] for tree in trees} == {2, 3, 4, 5}


def test_one_leaf_is_a_plain_sample_in_pieces(endless):
    for tree in grown(treepo, endless, ROOTS, SamplingParams(10), **SEGMENTS | {"width": 1}):
        (leaf,) = tree.leaves
        assert leaf.ends == (2, 5, 8, 9) and leaf.weight == 1 and tree.tokens_generated == 10


@pytest.mark.parametrize(("prompt", "own", "left"), [(9, None, 7), (10, 6, 6)])
def test_the_models_context_bounds_a_leaf(prompt, own, left):
    # 7 tokens are two segments and one token; of 6, two full ones, only the root's limit knows
    policy = load_policy(Model(build="tiny", build_options=SMALL | {"max_positions": 16}), seed=0)
    root = Request((1,) + (60,) * (prompt - 1), 3, own)
    tree = grown(treepo, policy, [root], SamplingParams(50), **SEGMENTS)[0]
    assert {len(s.token_ids) for s in tree.samples} == {left} and len(tree.leaves) == 7


# -- leaves as samples --------------------------------------------------------------------------


def exact(policy, prompt_ids, params):
    """{response: its probability} under a policy without end tokens, exactly."""
    found = {(): 1.0}
    for _ in range(params.max_new_tokens):
        longer = {}
        for ids, p in found.items():
            with torch.no_grad():
                logits_1V = policy.model(torch.tensor([[*prompt_ids, *ids]])).logits[:, -1]
            kept_1V = keep_top(logits_1V, top_k=params.top_k, top_p=1.0, min_p=0.0)
            shares = enumerate(kept_1V.double().softmax(-1)[0].tolist())
            longer |= {(*ids, token): p * q for token, q in shares if q > 0}
        found = longer
    return found


def ended(distribution, ends):
    """The same of responses that end at the first of these tokens."""
    found = Counter()
    for ids, p in distribution.items():
        length = next((t + 1 for t, token in enumerate(ids) if token in ends), len(ids))
        found[ids[:length]] += p
    return found


def p_value(counts, expected):
    """Of Pearson's chi-square test, for counts of outcomes and their exact probabilities."""
    n = sum(counts.values())
    assert set(counts) <= set(expected) and min(expected.values()) * n > 5
    statistic = sum((counts[x] - n * p) ** 2 / (n * p) for x, p in expected.items())
    halves = torch.tensor([(len(expected) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(*halves))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (treepo, {"segment_tokens": 1, "width": 5, "first": (1, 2), "forks": 2}),
        (treerl, {"trees": 2, "branches": 1, "rounds": 2, "per_point": 1, "tail": 0}),
    ],
    ids=["treepo", "treerl"],
)
def test_leaves_are_distributed_as_plain_samples_with_their_weights_only(
    ends_with, method, options
):
    root, params = Request((1, 60, 61), 0), SamplingParams(4, top_k=2)
    whole = exact(ends_with(()), root.prompt_ids, params)

    def spread(ends):  # entropy of the length
        share = Counter()
        for ids, p in ended(whole, ends).items():
            share[len(ids)] += p
        return -sum(p * math.log(p) for p in share.values())

    ends = max(itertools.combinations({token for ids in whole for token in ids}, 2), key=spread)
    expected = ended(whole, ends)
    assert len({len(ids) for ids in expected}) > 2 and len(expected) > 4
    roots = [replace(root, seed=seed) for seed in range(1200)]
    trees = grown(method, ends_with(ends), roots, params, batch_size=4096, **options)
    dice = np.random.default_rng(0)
    weighted, alike = Counter(), Counter()
    for tree in trees:  # one leaf of each: leaves of one tree are not independent
        weight_B = np.array([leaf.weight for leaf in tree.leaves])
        weighted[tree.samples[dice.choice(len(weight_B), p=weight_B)].token_ids] += 1
        alike[tree.samples[dice.integers(len(weight_B))].token_ids] += 1
    assert p_value(weighted, expected) > 1e-4
    assert p_value(alike, expected) < 1e-9


@pytest.mark.parametrize(("at", "drawn"), [(2, 6), (4, 6), (5, 9)], ids=["seam", "inside", "late"])
def test_a_stop_string_ends_a_leaf_wherever_it_lies(endless, at, drawn):
    def trees_of(roots, stop=()):
        params = SamplingParams(9, stop=stop)
        return grown(treepo, endless, roots, params, **SEGMENTS | {"width": 1})

    def fits(text):  # one character a token up to there, and the stop string not before
        return text[: at + 2].isascii() and text.find(text[at : at + 2]) == at

    roots = [Request((1, 60), seed) for seed in range(100)]
    pairs = zip(roots, trees_of(roots), strict=True)
    root, whole = next((r, tree.samples[0]) for r, tree in pairs if fits(tree.samples[0].text))
    # the longer one begins before and is never whole
    (tree,) = trees_of([root], stop=(whole.text[at : at + 2], whole.text[at - 1 : at + 4]))
    (leaf,) = tree.leaves
    assert leaf.sample.finish_reason == "stop" and leaf.sample.text == whole.text[:at]
    assert leaf.sample.token_ids == whole.token_ids[: at + 2]
    assert leaf.sample.logprobs == pytest.approx(whole.logprobs[: at + 2], abs=1e-5)
    assert leaf.ends[-1] == at + 1 and tree.tokens_generated == drawn


# -- trees as tensors ---------------------------------------------------------------------------


def made(*leaves):
    """A tree from (path, ends) pairs."""
    found = []
    for path, ends in leaves:
        ids = tuple(range(ends[-1] + 1))
        found.append(Leaf(Sample("", ids, (-1.0,) * len(ids), "eos"), path, ends, 0.0))
    return TreeGroup(tuple(found), 0)


# root -> a (4 tokens), b (3), leaf 5 (6); a -> leaf 1 (2), leaf 2 (3); b -> leaf 3 (5), leaf 4 (2)
PAPER = made(
    ((7, 9), (3, 5)), ((7, 11), (3, 6)), ((8, 12), (2, 7)), ((8, 13), (2, 4)), ((10,), (5,))
)
REWARD = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
TREERL = {"weighting": "mean", "centre": False, "state_value": False, "fill": False}


def test_three_advantages_of_a_small_tree_by_hand():
    group_B, mask_BT, path_BD, step_end_BD = tensors([PAPER])
    assert step_end_BD.tolist() == [[3, 5], [3, 6], [2, 7], [2, 4], [5, -1]]

    def at_ends(adv_BT):
        ends = step_end_BD.tolist()
        return [[adv_BT[b, t].item() for t in row if t >= 0] for b, row in enumerate(ends)]

    # leaves less the mean of the others: 0.75, -0.5, -0.5, -0.5, 0.75; nodes 0.125, -0.5, 0.75
    adv_BT = advantages.treerl(REWARD, group_B, mask_BT, path_BD, step_end_BD, **TREERL)
    expected = [[0.125, 0.625], [0.125, -0.625], [-0.5, 0.0], [-0.5, 0.0], [0.75]]
    assert at_ends(adv_BT) == [pytest.approx(row) for row in expected]
    # means 0.5, 0 and 1 of the nodes; the root counts as 0
    adv_BT = advantages.treepo_segments(
        REWARD, group_B, mask_BT, path_BD, step_end_BD, siblings=False, eps=1e-8, lone="zero"
    )
    assert at_ends(adv_BT) == [[0.5, 0.5], [0.5, -0.5], [0.0, 0.0], [0.0, 0.0], [1.0]]
    # mean of (R - 0.4) and (R - mean of the node): 0.55, -0.45, -0.2, -0.2, and 0.6 alone
    none_BT = torch.zeros(mask_BT.shape, dtype=torch.float64)
    options = {"mix": "average", "skip_equal": False, "eps": 1e-12}
    adv_BT = advantages.treepo(REWARD, group_B, mask_BT, none_BT, path_BD, **options)
    raw = np.array([0.55, -0.45, -0.2, -0.2, 0.6])
    flat = np.repeat(raw, [6, 7, 8, 5, 6])
    assert adv_BT[:, 0].tolist() == pytest.approx(((raw - flat.mean()) / flat.std(ddof=1)).tolist())


@METHODS
def test_the_advantages_of_grown_trees_add_up_to_the_rewards(ending, method, options):
    group_B, mask_BT, path_BD, step_end_BD = tensors(
        grown(method, ending, ROOTS, SamplingParams(9), **options)
    )
    reward_B = torch.arange(len(group_B)) % 5 / 4
    adv_BT = advantages.treepo_segments(
        reward_B, group_B, mask_BT, path_BD, step_end_BD, siblings=False, eps=1e-8, lone="zero"
    )
    at_end_BD = torch.where(step_end_BD < 0, 0.0, adv_BT.gather(1, step_end_BD.clamp(min=0)))
    assert at_end_BD.sum(1).tolist() == pytest.approx(reward_B.tolist())
    assert tree_tensors([])[0].shape == (0, 0)


@METHODS
def test_shared_weights_add_up_to_the_distinct_tokens(ending, method, options):
    trees = grown(method, ending, ROOTS, SamplingParams(9), **options)
    signals = tensors(trees)
    weight_BT = shared_prefix(*signals)
    for p, tree in enumerate(trees):
        total = weight_BT[signals[0] == p].sum().item()
        assert total == pytest.approx(tree.tokens_generated)


def test_shared_weights_by_hand_and_only_leaves_under_the_mask_count():
    one = made(((0, 1), (1, 2)), ((0, 2), (1, 3)), ((3, 1), (0, 2)))
    # the same numbers in another group, or behind other numbers, are other nodes
    group_B, mask_BT, path_BD, step_end_BD = tensors([one, one])
    mask_BT[4] = False
    assert shared_prefix(group_B, mask_BT, path_BD, step_end_BD).tolist() == [
        [0.5, 0.5, 1, 0], [0.5, 0.5, 1, 1], [1, 1, 1, 0],
        [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 0],
    ]  # fmt: skip


# -- fewer leaves than were grown ---------------------------------------------------------------


def test_a_pruned_tree_has_no_node_with_an_only_child():
    tree = pruned(PAPER, [4, 0, 2, 3])
    assert [(leaf.path, leaf.ends) for leaf in tree.leaves] == [
        ((10,), (5,)), ((9,), (5,)), ((8, 12), (2, 7)), ((8, 13), (2, 4)),
    ]  # fmt: skip
    assert pruned(PAPER, range(5)) == PAPER


def test_the_rest_of_a_pruned_sample_still_learns(endless):
    tree = grown(treerl, endless, ROOTS[:1], TWELVE, **PUBLISHED)[0]
    few = pruned(tree, range(16))
    assert len(few.leaves) == 16 and few.tokens_generated == tree.tokens_generated
    assert min(children(few).values()) >= 2
    reward_B = torch.tensor([math.sin(b) for b in range(16)], dtype=torch.float64)
    group_B, mask_BT, path_BD, step_end_BD = tensors([few])
    adv_BT = advantages.treerl(reward_B, group_B, mask_BT, path_BD, step_end_BD, **TREERL)
    assert (adv_BT != 0).all()
