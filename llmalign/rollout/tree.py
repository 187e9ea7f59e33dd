"""Branching rollouts: responses to one problem that share their beginnings, over any engine.

A branch is an ordinary request whose prompt is the problem's and the tokens it branches from; what
comes back is joined to them, and nothing is tokenised again. Each tree grows in a generator that
asks for branches and is sent their samples; ``_grow`` lets all trees ask together. A tree numbers
its nodes as it asks for them, and node n draws from ``sample_seed(seed of the root, n)``: neither
the order in which an engine finishes nor the trees beside it change what is drawn.

A token before a fork is part of every leaf behind it, and a loss over leaves counts it once a leaf.
TreeRL damps that by the square root of their number (``weighting: sqrt`` of its advantage), TreePO
lets it be; ``shared_weights`` counts it once.

Shape letters
    B  leaves of all trees    D  nodes on the way from the root to a leaf
"""

import itertools
import math
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from llmalign.rewards import Sample
from llmalign.rollout.engine import Engine, Request, SamplingParams, sample_seed

Decode = Callable[[Sequence[int]], str]
Branchable = Callable[[Sequence[int]], Sequence[bool]]


@dataclass(frozen=True)
class Leaf:
    """A response and its way through the tree; while the tree grows, its beginning as well.

    Attributes:
        sample: all its tokens, from the first of the response on.
        path: numbers of its nodes, from the root; leaves with the same numbers share those nodes.
        ends: index of the last token of each node, growing.
        weight: the probability of reaching it by a fair choice at each fork; 0 if it was begun
            because of how another leaf went on. A sum over a tree so weighted has the expectation
            of a plain sample.
    """

    sample: Sample
    path: tuple[int, ...]
    ends: tuple[int, ...]
    weight: float


@dataclass(frozen=True)
class TreeGroup:
    """The leaves of one problem, and the tokens that were drawn for them, shared ones once."""

    leaves: tuple[Leaf, ...]
    tokens_generated: int

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Those of the leaves, in their order."""
        return tuple(leaf.sample for leaf in self.leaves)


Growth = Generator[list[Request], list[Sample], TreeGroup]
Point = tuple[float, int, int, int]  # log-prob, index of the token, its node, a leaf that has it
_ROOT = Leaf(Sample("", (), (), "length"), (), (), 1.0)


def treerl(
    engine: Engine,
    roots: Sequence[Request],
    params: SamplingParams,
    *,
    decode: Decode,
    trees: int,
    branches: int,
    rounds: int,
    per_point: int,
    tail: int,
    branchable: Branchable | None = None,
) -> Iterator[tuple[int, TreeGroup]]:
    """Plain samples, and others from before their least likely tokens (TreeRL, EPTree).

        leaves <= trees * (1 + rounds * branches * per_point)

    Each of ``trees`` plain samples of a problem begins a tree. In a round every tree forks before
    its ``branches`` tokens of lowest log-prob, which the authors call entropy, and ``per_point``
    responses go on from each. The published 6 trees, 1 round, 2 branches and 2 per point make 30
    leaves; the script trains 16 of them (see ``pruned``).

    Nothing forks before the first token of a node, where nothing is shared or a fork is already;
    the released code forks in a second round where it did in the first. A tree with fewer points
    has fewer leaves. Samples come first, then one branch of every point before the next of any.
    Where a branch begins was chosen by what its sample did there: samples have weight 1 / trees,
    branches 0.

    Args:
        engine: its log-probs are those of the distribution it draws from.
        roots: prompt and seed of each problem, and its own limit, as where the context ends first.
        params: the limit counts from the first token of the response, whatever is branched from.
        decode: text of token ids, without special tokens.
        trees, per_point: > 0. branches, rounds: >= 0.
        tail: tokens at the end of a response before which it does not fork, >= 0.
        branchable: which tokens of a response it may fork before; None: all.
    Yields: (index of the root, its tree), as each is whole.
    Raises: ValueError: an option is out of range, or the temperature is 0.
    Source: Hou et al. 2025 (TreeRL), arXiv:2506.11902, and its released code.
    """
    _check(params, 1, trees=trees, per_point=per_point)
    _check(params, 0, branches=branches, rounds=rounds, tail=tail)

    def growth(root: Request) -> Growth:
        tree = _Tree(root, params, decode)
        leaves = yield from tree.extended(_dealt([_ROOT], trees))
        for _ in range(rounds):
            stems = tree.forked(leaves, _points(leaves, branches, tail, branchable))
            if stems:
                leaves += yield from tree.extended(stems * per_point)
        return TreeGroup(tuple(leaves), tree.tokens_generated)

    return _grow(engine, [growth(root) for root in roots], params)


def treepo(
    engine: Engine,
    roots: Sequence[Request],
    params: SamplingParams,
    *,
    decode: Decode,
    segment_tokens: int,
    width: int,
    first: tuple[int, int],
    forks: int,
) -> Iterator[tuple[int, TreeGroup]]:
    """``width`` responses that grow in segments and fork between them (TreePO).

        first segments    a number drawn from ``first``, both ends included, at most ``width``
        behind a round    min(width - ended, forks * (open + ended in it)) branches, dealt out
                          evenly over the open ones, what is left over to the first of them
        with none open    ``forks`` each behind ended ones, taken at random and cut back to the end
                          of an earlier segment or the root, until there are ``width``

    Leaves come in the order of their paths, of at most limit / ``segment_tokens`` nodes. Published:
    14 of 512, 16 leaves, 2 to 8 first segments, 2 forks. The released code gives what is left over
    to the last open one, and takes ended ones by why they ended.

    No fork looks ahead: leaves with their weights stand for plain samples. Counted alike they do
    not, for a response that ends early is one leaf and one that goes on becomes many. Those cut
    back are there because others ended: weight 0.

    Args: engine, roots, params, decode: as ``treerl``. width: leaves of a problem, > 0.
        segment_tokens: tokens of a node, > 0; the last one may have fewer.
        first: smallest and largest number of first segments, > 0.
        forks: branches of an open one in a round while there is room, > 0.
    Yields, Raises: as ``treerl``.
    Source: Li et al. 2025 (TreePO), arXiv:2508.17445, and its released code.
    """
    _check(params, 1, segment_tokens=segment_tokens, width=width, forks=forks)
    if not 1 <= first[0] <= first[1]:
        raise ValueError(f"first is {first!r}, expected (low, high) with 1 <= low <= high")

    def growth(root: Request) -> Growth:
        tree = _Tree(root, params, decode)
        dice = random.Random(sample_seed(root.seed, "shape"))
        live = _dealt([_ROOT], min(width, dice.randint(*first)))
        leaves: list[Leaf] = []
        while live:
            grown = yield from tree.extended(live, segment_tokens)
            opened = [leaf for leaf in grown if tree.goes_on(leaf, segment_tokens)]
            leaves += [leaf for leaf in grown if not tree.goes_on(leaf, segment_tokens)]
            room = width - len(leaves)
            if opened:
                live = _dealt(opened, min(room, forks * len(grown)))
            else:
                shuffled = dice.sample(leaves, len(leaves))
                stems = [_stem(leaf, dice.randrange(len(leaf.path))) for leaf in shuffled]
                live = [stem for stem in stems for _ in range(forks)][:room]
        leaves.sort(key=lambda leaf: leaf.path)
        return TreeGroup(tuple(leaves), tree.tokens_generated)

    return _grow(engine, [growth(root) for root in roots], params)


def before_words(words: Sequence[str], decode: Decode) -> Branchable:
    """No fork behind the first of ``words``, in TreeRL ``answer`` and ``conclusion``."""

    def branchable(ids: Sequence[int]) -> list[bool]:
        pieces = [decode([token]).lower() for token in ids]
        text = "".join(pieces)
        ends = [text.find(word) + len(word) for word in map(str.lower, words) if word in text]
        starts = itertools.accumulate(map(len, pieces[:-1]), initial=0)
        return [start < min(ends, default=math.inf) for start in starts]

    return branchable


def pruned(tree: TreeGroup, kept: Sequence[int]) -> TreeGroup:
    """The tree with these leaves only, where a node with an only child becomes one with it.

    Such a node has its child's value, so that the child's tokens would have no advantage. Weights
    stay as they are and no longer add up to 1.
    """
    leaves = [tree.leaves[i] for i in kept]
    below = Counter(leaf.path[: d + 1] for leaf in leaves for d in range(len(leaf.path)))

    def merged(leaf: Leaf) -> Leaf:
        path, last = leaf.path, len(leaf.path) - 1
        nodes = [d for d in range(last) if below[path[: d + 1]] > below[path[: d + 2]]] + [last]
        return replace(
            leaf, path=tuple(path[d] for d in nodes), ends=tuple(leaf.ends[d] for d in nodes)
        )

    return replace(tree, leaves=tuple(map(merged, leaves)))


def tree_tensors(trees: Sequence[TreeGroup]) -> tuple[Tensor, Tensor]:
    """path_BD and step_end_BD of the leaves of all trees, in their order, as the advantages take
    them: int64, -1 behind a leaf's last node."""
    leaves = [leaf for tree in trees for leaf in tree.leaves]
    depth = max((len(leaf.path) for leaf in leaves), default=0)
    both_2BD = torch.full((2, len(leaves), depth), -1, dtype=torch.int64)
    for b, leaf in enumerate(leaves):
        both_2BD[:, b, : len(leaf.path)] = torch.tensor([leaf.path, leaf.ends])
    return both_2BD[0], both_2BD[1]


class _Tree:
    """One problem's: numbers the nodes, asks for them, and joins what comes back."""

    def __init__(self, root: Request, params: SamplingParams, decode: Decode) -> None:
        self._root, self._decode, self._stop = root, decode, params.stop
        self._limit = root.limit(params)
        self._numbers = itertools.count()
        self.tokens_generated = 0

    def extended(
        self, stems: Sequence[Leaf], most: int | None = None
    ) -> Generator[list[Request], list[Sample], list[Leaf]]:
        """One new node of at most ``most`` tokens behind each stem."""
        numbers = list(itertools.islice(self._numbers, len(stems)))
        asked = []
        for number, stem in zip(numbers, stems, strict=True):
            written = stem.sample.token_ids
            left = self._limit - len(written)
            seed = sample_seed(self._root.seed, number)
            asked.append(Request(self._root.prompt_ids + written, seed, min(left, most or left)))
        samples = yield asked
        self.tokens_generated += sum(len(sample.token_ids) for sample in samples)
        leaves = []
        for number, stem, rest in zip(numbers, stems, samples, strict=True):
            sample = _joined(stem.sample, rest, self._stop, self._decode)
            end = len(sample.token_ids) - 1
            leaves.append(Leaf(sample, (*stem.path, number), (*stem.ends, end), stem.weight))
        return leaves

    def goes_on(self, leaf: Leaf, segment_tokens: int) -> bool:
        """Whether its last segment is full and the limit not reached."""
        tokens = len(leaf.sample.token_ids)  # no multiple where the model's context ended it
        full = leaf.sample.finish_reason == "length" and tokens % segment_tokens == 0
        return full and tokens < self._limit

    def forked(self, leaves: list[Leaf], points: Sequence[Point]) -> list[Leaf]:
        """Cuts nodes in two at ``points``, in place; returns what lies before each of them."""
        # From behind: what is before a cut keeps its number, so the cuts to come find their node.
        for _, token, node, _ in sorted(points, key=lambda point: -point[1]):
            behind = next(self._numbers)
            for b, leaf in enumerate(leaves):
                if node in leaf.path:
                    d = leaf.path.index(node)
                    path = (*leaf.path[: d + 1], behind, *leaf.path[d + 1 :])
                    ends = (*leaf.ends[:d], token - 1, *leaf.ends[d:])
                    leaves[b] = replace(leaf, path=path, ends=ends)
        return [_stem(leaves[b], leaves[b].ends.index(token - 1) + 1) for _, token, _, b in points]


def _grow(
    engine: Engine, growths: Sequence[Growth], params: SamplingParams
) -> Iterator[tuple[int, TreeGroup]]:
    """Lets the growths ask together, round by round."""
    asked = {i: next(growth) for i, growth in enumerate(growths)}
    while asked:
        places = [(i, n) for i in sorted(asked) for n in range(len(asked[i]))]
        found: dict[int, dict[int, Sample]] = {i: {} for i in asked}
        following: dict[int, list[Request]] = {}
        for index, sample in engine.generate([asked[i][n] for i, n in places], params):
            i, n = places[index]
            found[i][n] = sample
            if len(found[i]) == len(asked[i]):
                try:
                    following[i] = growths[i].send([found[i][k] for k in range(len(asked[i]))])
                except StopIteration as grown:
                    yield i, grown.value
        asked = following


def _stem(leaf: Leaf, depth: int) -> Leaf:
    """The first ``depth`` nodes of a leaf, to branch from because of how it went on."""
    ends = leaf.ends[:depth]
    return Leaf(_head(leaf.sample, (-1, *ends)[-1] + 1), leaf.path[:depth], ends, 0.0)


def _head(sample: Sample, tokens: int) -> Sample:
    """The first ``tokens`` of a sample, without its text."""
    counts = sample.kept_counts[: 4 * tokens]
    return replace(
        sample,
        text="",
        token_ids=sample.token_ids[:tokens],
        logprobs=sample.logprobs[:tokens],
        kept_ids=sample.kept_ids[: 4 * sum(memoryview(counts).cast("i"))],
        kept_counts=counts,
    )


def _joined(stem: Sample, rest: Sample, stop: tuple[str, ...], decode: Decode) -> Sample:
    """``rest`` with the tokens of ``stem`` in front, decoded as a whole.

    A stop string that began in ``stem`` was not the engine's to see: the sample ends with it here,
    and what the engine wrote behind it is dropped.
    """
    if not stem.token_ids:
        return rest
    whole = replace(
        rest,
        token_ids=stem.token_ids + rest.token_ids,
        logprobs=stem.logprobs + rest.logprobs,
        kept_ids=stem.kept_ids + rest.kept_ids,
        kept_counts=stem.kept_counts + rest.kept_counts,
        weights_version=min(stem.weights_version, rest.weights_version),
    )

    def stopped(tokens: int) -> bool:
        return any(s in decode(whole.token_ids[:tokens]) for s in stop)

    total, seam = len(whole.token_ids), len(stem.token_ids)
    length = bisect_left(range(total), True, lo=seam + 1, key=stopped)
    text = decode(whole.token_ids[:length])
    cuts = [text.find(s) for s in stop if s in text]
    if not cuts:
        return replace(whole, text=text)
    return replace(_head(whole, length), text=text[: min(cuts)], finish_reason="stop")


def _points(
    leaves: Sequence[Leaf], branches: int, tail: int, branchable: Branchable | None
) -> list[Point]:
    """Where each tree forks next, its least likely token first."""
    by_tree: dict[int, dict[tuple[int, int], Point]] = {}
    for b, leaf in enumerate(leaves):
        found = by_tree.setdefault(leaf.path[0], {})
        ids, start = leaf.sample.token_ids, 0
        allowed = branchable(ids) if branchable else [True] * len(ids)
        for node, end in zip(leaf.path, leaf.ends, strict=True):
            for token in range(start + 1, min(end + 1, len(ids) - tail)):
                if allowed[token]:
                    found[node, token] = (leaf.sample.logprobs[token], token, node, b)
            start = end + 1
    return [point for found in by_tree.values() for point in sorted(found.values())[:branches]]


def _dealt(opened: Sequence[Leaf], total: int) -> list[Leaf]:
    """Each leaf as often as its share of ``total``, at least once, its weight divided by that."""
    each, rest = divmod(total, len(opened))
    counts = [each + (place < rest) for place in range(len(opened))]
    shares = zip(opened, counts, strict=True)
    return [replace(leaf, weight=leaf.weight / n) for leaf, n in shares for _ in range(n)]


def _check(params: SamplingParams, least: int, **values: int) -> None:
    if params.temperature == 0:
        raise ValueError("temperature is 0, expected > 0; all branches of a fork would be the same")
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} is {value!r}, expected at least {least}")
