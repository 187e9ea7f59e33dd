"""Under truncated sampling the trained gradient is that of the reward expected when so sampling.

A policy small enough to write out: vocabulary 5, at most three tokens, token 4 ends a sequence. All
sequences are enumerated, so expectations are sums and every statement holds to rounding. What the
common convention does instead, log-probs over the whole vocabulary, must fail each of them.

Shape letters in this file
    B  all sequences    T  tokens    S  prefixes (states)    V  vocabulary
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from llmalign.losses import clipped, reinforce
from llmalign.losses.mismatch import mismatch_weights
from llmalign.truncation import kept_ids, renormalised_logprobs

V, LONGEST, END, TEMPERATURE = 5, 3, 4, 0.8
EXACT, BIASED = 1e-10, 1e-2  # greatest, and least, distance of a gradient from the true one
Kept = tuple[Tensor, Tensor]
each_truncation = pytest.mark.parametrize(
    "truncation",
    [
        pytest.param({"top_k": 3, "top_p": 1.0, "min_p": 0.0}, id="top-k"),
        pytest.param({"top_k": 0, "top_p": 0.8, "min_p": 0.0}, id="top-p"),
        pytest.param({"top_k": 0, "top_p": 1.0, "min_p": 0.3}, id="min-p"),
        pytest.param({"top_k": 4, "top_p": 0.9, "min_p": 0.1}, id="all three"),
    ],
)


def enumerate_sequences() -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for length in range(1, LONGEST + 1):
        for sequence in itertools.product(range(V), repeat=length):
            ends = sequence[-1] == END or length == LONGEST
            if END not in sequence[:-1] and ends:
                found.append(sequence)
    return found


SEQUENCES = enumerate_sequences()
PREFIXES = sorted({s[:t] for s in SEQUENCES for t in range(len(s))}, key=lambda p: (len(p), p))
STATE_BT = torch.zeros(len(SEQUENCES), LONGEST, dtype=torch.int64)
TOKEN_BT = torch.zeros(len(SEQUENCES), LONGEST, dtype=torch.int64)
MASK_BT = torch.zeros(len(SEQUENCES), LONGEST, dtype=torch.bool)
for row, tokens in enumerate(SEQUENCES):
    for t, token in enumerate(tokens):
        STATE_BT[row, t] = PREFIXES.index(tokens[:t])
        TOKEN_BT[row, t], MASK_BT[row, t] = token, True
_generator = torch.Generator().manual_seed(1)
FEATURES = torch.randn(len(PREFIXES), 6, generator=_generator, dtype=torch.float64)
REWARD_B = torch.randn(len(SEQUENCES), generator=_generator, dtype=torch.float64)
START = torch.randn(6, V, generator=_generator, dtype=torch.float64)


def moved(step: float, seed: int) -> Tensor:
    """Weights some way off the start, as updates or an engine's precision make them."""
    noise = torch.randn(START.shape, generator=torch.Generator().manual_seed(seed))
    return START + step * noise.double()


def kept_sets(weights: Tensor, truncation: dict) -> Kept:
    """Kept set of every prefix."""
    return kept_ids(FEATURES @ weights, temperature=TEMPERATURE, max_kept=V, **truncation)


def renormalised(weights: Tensor, kept: Kept, drawn_BT: Tensor) -> Tensor:
    """logp_BT over the kept sets; 0 where ``drawn_BT`` is False."""
    states = STATE_BT[drawn_BT]
    logp_N = renormalised_logprobs(
        (FEATURES @ weights)[states],
        TOKEN_BT[drawn_BT],
        kept[0][states],
        kept[1][states],
        temperature=TEMPERATURE,
    )
    return torch.zeros(MASK_BT.shape, dtype=torch.float64).masked_scatter(drawn_BT, logp_N)


def untruncated(weights: Tensor, _: Kept, drawn_BT: Tensor) -> Tensor:
    """logp_BT over the whole vocabulary, as TRL and verl compute it (huggingface/trl#6789)."""
    logp_SV = torch.log_softmax(FEATURES @ weights / TEMPERATURE, 1)
    return torch.where(drawn_BT, logp_SV[STATE_BT, TOKEN_BT], 0.0)


LogProbs = Callable[[Tensor, Kept, Tensor], Tensor]


@dataclass(frozen=True)
class Draw:
    """All that truncated sampling can draw: which sequences, how likely, with which log-probs."""

    kept: Kept
    drawn_B: Tensor
    drawn_BT: Tensor
    logp_BT: Tensor
    probability_B: Tensor


def draw(weights: Tensor, truncation: dict) -> Draw:
    kept = kept_sets(weights, truncation)
    inside = {
        (state, token)
        for state in range(len(PREFIXES))
        for token in kept[0][state, : kept[1][state]].tolist()
    }
    drawn_B = torch.tensor(
        [
            all((PREFIXES.index(s[:t]), token) in inside for t, token in enumerate(s))
            for s in SEQUENCES
        ]
    )
    drawn_BT = MASK_BT & drawn_B[:, None]
    logp_BT = renormalised(weights, kept, drawn_BT)
    return Draw(kept, drawn_B, drawn_BT, logp_BT, logp_BT.sum(1).exp() * drawn_B)


def true_gradient(weights: Tensor, kept: Kept) -> tuple[float, Tensor]:
    """Expected reward when sampling from the kept sets, written out, and its gradient."""
    inside_SV = torch.zeros(len(PREFIXES), V, dtype=torch.bool)
    for state, count in enumerate(kept[1].tolist()):
        inside_SV[state, kept[0][state, :count].long()] = True
    leaf = weights.clone().requires_grad_()
    mass_SV = torch.where(inside_SV, (FEATURES @ leaf / TEMPERATURE).exp(), 0.0)
    p_BT = torch.where(MASK_BT, (mass_SV / mass_SV.sum(1, keepdim=True))[STATE_BT, TOKEN_BT], 1.0)
    expected = (p_BT.prod(1) * REWARD_B).sum()
    return expected.item(), torch.autograd.grad(expected, leaf)[0]


def distance(found: Tensor, true: Tensor) -> float:
    return ((found - true).norm() / true.norm()).item()


def loss_gradient(
    weights: Tensor, sample: Draw, logprobs: LogProbs, loss: Callable, factor_BT: Tensor | None
) -> Tensor:
    """Gradient of the expected loss over what is drawn, with the reward as advantage."""
    leaf = weights.clone().requires_grad_()
    logp_BT = logprobs(leaf, sample.kept, sample.drawn_BT)
    adv_BT = REWARD_B[:, None].expand(MASK_BT.shape)
    loss_BT, _ = loss(logp_BT, logp_BT.detach(), adv_BT, sample.drawn_BT)
    if factor_BT is not None:
        loss_BT = loss_BT * factor_BT
    expected = (sample.probability_B * loss_BT.sum(1)).sum()
    return -torch.autograd.grad(expected, leaf)[0]


def ppo(*tensors: Tensor):
    return clipped(*tensors, clip_low=0.2, clip_high=0.2, dual_clip=None)


@each_truncation
def test_what_is_drawn_is_a_distribution_on_fewer_sequences(truncation: dict) -> None:
    sample = draw(START, truncation)
    assert sample.probability_B.sum().item() == pytest.approx(1, abs=1e-12)
    assert 1 < sample.drawn_B.sum() < len(SEQUENCES)
    assert len(SEQUENCES) == 1 + 4 + 16 * 5


@each_truncation
@pytest.mark.parametrize("loss", [reinforce, ppo], ids=["reinforce", "clipped"])
def test_on_policy_the_gradient_is_exact(truncation: dict, loss: Callable) -> None:
    sample = draw(START, truncation)
    _, true = true_gradient(START, sample.kept)
    assert distance(loss_gradient(START, sample, renormalised, loss, None), true) < EXACT


@each_truncation
@pytest.mark.parametrize("loss", [reinforce, ppo], ids=["reinforce", "clipped"])
def test_on_policy_the_whole_vocabulary_is_biased(truncation: dict, loss: Callable) -> None:
    """Both ways: as it is, and weighted by pi / pi_S = Z per token, as TRL corrects it."""
    sample = draw(START, truncation)
    _, true = true_gradient(START, sample.kept)
    plain = loss_gradient(START, sample, untruncated, loss, None)
    assert distance(plain, true) > BIASED
    full_BT = untruncated(START, sample.kept, sample.drawn_BT)
    factor_BT, stats = mismatch_weights(
        full_BT, sample.logp_BT, sample.drawn_BT, kind="truncated", low=0, high=2, level="token"
    )
    assert stats.ratio_max < 1  # the engine seems off at every token, and is at none
    assert distance(loss_gradient(START, sample, untruncated, loss, factor_BT), true) > BIASED
    factor_BT, stats = mismatch_weights(
        renormalised(START, sample.kept, sample.drawn_BT), sample.logp_BT, sample.drawn_BT,
        kind="truncated", low=0, high=2, level="token",
    )  # fmt: skip
    assert (factor_BT == sample.drawn_BT).all() and stats.kl_engine_nats == 0


@each_truncation
def test_the_bias_is_the_gradient_of_the_kept_mass(truncation: dict) -> None:
    # log pi_S = log pi - log Z, so the whole vocabulary has sum_t R grad log Z_t too much
    sample, leaf = draw(START, truncation), START.clone().requires_grad_()
    log_z_BT = untruncated(leaf, sample.kept, sample.drawn_BT) - renormalised(
        leaf, sample.kept, sample.drawn_BT
    )
    expected = (sample.probability_B * REWARD_B * log_z_BT.sum(1)).sum()
    excess = torch.autograd.grad(expected, leaf)[0]
    _, true = true_gradient(START, sample.kept)
    found = loss_gradient(START, sample, untruncated, reinforce, None)
    assert distance(found, true + excess) < EXACT


@each_truncation
def test_a_constant_reward_has_no_gradient(truncation: dict) -> None:
    sample = draw(START, truncation)

    def norm(logprobs: LogProbs) -> float:
        leaf = START.clone().requires_grad_()
        logp_B = logprobs(leaf, sample.kept, sample.drawn_BT).sum(1)
        return torch.autograd.grad((sample.probability_B * logp_B).sum(), leaf)[0].norm().item()

    assert norm(renormalised) < EXACT
    assert norm(untruncated) > BIASED  # mass moves into the kept sets with nothing asking for it


def off_policy(
    weights: Tensor, sample: Draw, new: LogProbs, old_BT: Tensor, factor_B: Tensor | float = 1.0
) -> tuple[float, Tensor]:
    """Expectation over what was drawn of ratio * reward, with the ratio of whole sequences."""
    leaf = weights.clone().requires_grad_()
    rho_B = (new(leaf, sample.kept, sample.drawn_BT) - old_BT).sum(1).exp()
    expected = (sample.probability_B * factor_B * rho_B * REWARD_B).sum()
    return expected.item(), torch.autograd.grad(expected, leaf)[0]


@each_truncation
def test_several_updates_on_one_batch_stay_exact(truncation: dict) -> None:
    sample, weights, biased = draw(START, truncation), START.clone(), []
    full_BT = untruncated(START, sample.kept, sample.drawn_BT)
    for _ in range(4):
        value, true = true_gradient(weights, sample.kept)
        found, gradient = off_policy(weights, sample, renormalised, sample.logp_BT)
        assert found == pytest.approx(value, rel=EXACT)
        assert distance(gradient, true) < EXACT
        for old_BT in (sample.logp_BT, full_BT):  # the engine's, and the trainer's own
            found, gradient = off_policy(weights, sample, untruncated, old_BT)
            assert distance(gradient, true) > BIASED
            biased.append(abs(found / value - 1))
        weights = weights + 0.5 * true
    assert (weights - START).norm() > 0.1 and max(biased) > BIASED


@each_truncation
def test_the_ratio_of_a_token_has_expectation_one(truncation: dict) -> None:
    sample, new = draw(START, truncation), moved(0.3, seed=2)
    rho_BT = (renormalised(new, sample.kept, sample.drawn_BT) - sample.logp_BT).exp()
    wrong_BT = (untruncated(new, sample.kept, sample.drawn_BT) - sample.logp_BT).exp()
    p_BT = sample.logp_BT.exp()

    def mean(ratio_BT: Tensor, state: int) -> float:
        at = {
            int(TOKEN_BT[b, t]): (p_BT[b, t] * ratio_BT[b, t]).item()
            for b, t in ((STATE_BT == state) & sample.drawn_BT).nonzero().tolist()
        }
        return sum(at.values())

    reached = STATE_BT[sample.drawn_BT].unique().tolist()
    assert [mean(rho_BT, s) for s in reached] == pytest.approx([1.0] * len(reached), abs=EXACT)
    assert max(1 - mean(wrong_BT, s) for s in reached) > BIASED  # 1 - Z, the mass left out


@each_truncation
def test_an_engine_with_other_weights_is_corrected_exactly(truncation: dict) -> None:
    """The engine's kept sets, three policies: what drew, the trainer's old one, and the new."""
    sample, new = draw(moved(0.1, seed=3), truncation), moved(0.3, seed=4)
    value, true = true_gradient(new, sample.kept)
    old_BT = renormalised(START, sample.kept, sample.drawn_BT)
    options = {"kind": "truncated", "low": 0.0, "level": "sequence"}
    weight_BT, stats = mismatch_weights(
        old_BT, sample.logp_BT, sample.drawn_BT, high=math.inf, **options
    )
    found, gradient = off_policy(new, sample, renormalised, old_BT, weight_BT[:, 0])
    assert found == pytest.approx(value, rel=EXACT) and distance(gradient, true) < EXACT
    assert stats.kl_engine_nats > 0
    _, gradient = off_policy(new, sample, renormalised, old_BT)
    assert distance(gradient, true) > BIASED  # without the weights
    bounded_BT, _ = mismatch_weights(old_BT, sample.logp_BT, sample.drawn_BT, high=1.0, **options)
    _, gradient = off_policy(new, sample, renormalised, old_BT, bounded_BT[:, 0])
    assert distance(gradient, true) > EXACT  # a bound trades bias for variance


@each_truncation
def test_fixed_sets_have_the_gradient_of_sets_that_follow_the_weights(truncation: dict) -> None:
    _, true = true_gradient(START, kept_sets(START, truncation))
    direction, step = moved(1.0, seed=5) - START, 1e-5
    ahead, behind = (
        true_gradient(w, kept_sets(w, truncation))[0]
        for w in (START + step * direction, START - step * direction)
    )
    slope = (true * direction).sum().item()
    assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-8)


@each_truncation
def test_leaving_out_the_renormalisation_is_noticed(
    truncation: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks above have teeth: they fail once the sum runs over the whole vocabulary."""

    def mutated(logits_CV: Tensor, target_C: Tensor, *_: Tensor, temperature: float) -> Tensor:
        return torch.log_softmax(logits_CV / temperature, 1).gather(1, target_C[:, None])[:, 0]

    sample = draw(START, truncation)
    monkeypatch.setitem(globals(), "renormalised_logprobs", mutated)
    _, true = true_gradient(START, sample.kept)
    assert distance(loss_gradient(START, sample, renormalised, reinforce, None), true) > BIASED
    with pytest.raises(AssertionError):
        test_on_policy_the_gradient_is_exact(truncation, reinforce)
    with pytest.raises(AssertionError):
        test_several_updates_on_one_batch_stay_exact(truncation)
