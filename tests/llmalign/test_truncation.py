import math

import pytest
import torch
from torch import Tensor

from llmalign.rollout import SamplingParams
from llmalign.rollout.hf import sample_tokens
from llmalign.truncation import (
    keep_top,
    kept_ids,
    pad_kept,
    renormalised_entropy,
    renormalised_logprobs,
    truncates,
)

NAN, INF = float("nan"), float("inf")
ALL = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
SETTINGS = [
    pytest.param({}, id="all"),
    pytest.param({"top_k": 3}, id="top-k"),
    pytest.param({"top_k": 50}, id="top-k above the vocabulary"),
    pytest.param({"top_p": 0.7}, id="top-p"),
    pytest.param({"top_p": 1e-9}, id="the most likely alone"),
    pytest.param({"min_p": 0.3}, id="min-p"),
    pytest.param({"top_k": 4, "top_p": 0.8, "min_p": 0.4}, id="all three"),
]


def logits(seed: int = 0, rows: int = 6, words: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    found = 1.5 * torch.randn(rows, words, generator=generator, dtype=torch.float64)
    found[0, :4] = 1.0  # ties
    found[1, 2] = -INF  # forbidden
    return found


def oracle(values: list[float], temperature: float, top_k: int, top_p: float, min_p: float):
    """Kept ids of one row, and the probability of each among them; ties in order of the id."""
    weights = {i: math.exp(v / temperature) for i, v in enumerate(values) if v > -INF}
    ranked = sorted(weights, key=lambda i: -weights[i])
    if top_k:
        kth = weights[ranked[min(top_k, len(ranked)) - 1]]
        ranked = [i for i in ranked if weights[i] >= kth]
    mass, before, nucleus = sum(weights[i] for i in ranked), 0.0, []
    for i in ranked:
        if top_p == 1 or before / mass < top_p:
            nucleus.append(i)
        before += weights[i]
    kept = sorted(i for i in nucleus if weights[i] >= min_p * weights[ranked[0]])
    mass = sum(weights[i] for i in kept)
    return kept, {i: weights[i] / mass for i in kept}


@pytest.mark.parametrize("options", SETTINGS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_kept_sets_agree_with_plain_python(options: dict, temperature: float) -> None:
    logits_CV, options = logits(), ALL | options
    ids_CK, counts_C = kept_ids(logits_CV, temperature=temperature, max_kept=9, **options)
    assert ids_CK.dtype == torch.int32 and ids_CK.shape[1] == counts_C.max()
    for values, ids, count in zip(logits_CV.tolist(), ids_CK, counts_C, strict=True):
        kept, probability = oracle(values, temperature, **options)
        if len(set(values[:4])) > 1 or options["top_p"] == 1:  # which of equals top-p keeps is open
            assert ids[:count].tolist() == kept
        assert len(kept) == count and (ids[count:] == 0).all()
        assert sum(probability.values()) == pytest.approx(1)


@pytest.mark.parametrize("options", SETTINGS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_agree_with_plain_python(options: dict, temperature: float) -> None:
    logits_CV, new_CV, options = logits(), logits(1), ALL | options
    ids_CK, counts_C = kept_ids(logits_CV, temperature=temperature, max_kept=9, **options)
    for place in range(ids_CK.shape[1]):
        rows = (place < counts_C).nonzero()[:, 0]
        target_C = ids_CK[rows, place].long()
        found = renormalised_logprobs(
            new_CV[rows], target_C, ids_CK[rows], counts_C[rows], temperature=temperature
        )
        for row, target, logp in zip(rows.tolist(), target_C.tolist(), found, strict=True):
            kept = ids_CK[row, : counts_C[row]].tolist()
            mass = sum(math.exp(new_CV[row, i].item() / temperature) for i in kept)
            wanted = new_CV[row, target].item() / temperature - math.log(mass)
            assert logp.item() == pytest.approx(wanted, rel=1e-12, abs=1e-12)


def test_two_of_three_tokens_by_hand() -> None:
    # weights 4, 2, 2; top-p 0.7 keeps the first two of them, 4/6 and 2/6
    logits_CV = torch.tensor([[4.0, 2.0, 2.0]]).log().requires_grad_()
    ids_CK, counts_C = torch.tensor([[0, 1, 0]], dtype=torch.int32), torch.tensor([2])
    logp = renormalised_logprobs(logits_CV, torch.tensor([1]), ids_CK, counts_C, temperature=1.0)
    logp.sum().backward()
    assert logp.item() == pytest.approx(math.log(1 / 3))
    # d logp / d l = indicator - probability on the kept, 0 outside: no pull on the third token
    assert logits_CV.grad.flatten().tolist() == pytest.approx([-2 / 3, 2 / 3, 0.0])


@pytest.mark.parametrize("options", [s for s in SETTINGS if "min_p" not in s.values[0]])
def test_it_is_the_log_probability_that_sampling_reports(options: dict) -> None:
    logits_BV = logits(2, rows=64, words=20)
    uniform_B = torch.rand(64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    params = SamplingParams(max_new_tokens=1, temperature=0.7, **options)
    token_B, logp_B = sample_tokens(logits_BV, uniform_B, params)
    sets = kept_ids(logits_BV, temperature=0.7, max_kept=20, **(ALL | options))
    found_B = renormalised_logprobs(logits_BV, token_B, *sets, temperature=0.7)
    torch.testing.assert_close(found_B, logp_B, rtol=0, atol=1e-12)


def test_the_whole_vocabulary_is_the_plain_log_softmax() -> None:
    logits_CV = logits()
    sets = kept_ids(logits_CV, temperature=0.8, max_kept=9, **ALL)
    target_C = torch.tensor([0, 1, 2, 3, 4, 5])
    found_C = renormalised_logprobs(logits_CV, target_C, *sets, temperature=0.8)
    wanted_CV = torch.log_softmax(logits_CV / 0.8, 1)
    torch.testing.assert_close(found_C, wanted_CV.gather(1, target_C[:, None])[:, 0])


@pytest.mark.parametrize("poison", [NAN, INF, -INF])
def test_nothing_outside_the_kept_set_is_read(poison: float) -> None:
    logits_CV = logits()
    ids_CK, counts_C = kept_ids(logits_CV, temperature=1.0, max_kept=9, **(ALL | {"top_p": 0.8}))
    inside_CV = torch.zeros_like(logits_CV, dtype=torch.bool)
    for row, count in enumerate(counts_C):
        inside_CV[row, ids_CK[row, :count].long()] = True
    target_C, found = ids_CK[:, 0].long(), []
    behind_CK = torch.arange(ids_CK.shape[1])[None, :] >= counts_C[:, None]
    for outside, padding in ((0.0, 0), (poison, 10**9)):
        leaf = torch.where(inside_CV, logits_CV, outside).requires_grad_()
        ids = torch.where(behind_CK, padding, ids_CK)
        logp_C = renormalised_logprobs(leaf, target_C, ids, counts_C, temperature=1.0)
        logp_C.sum().backward()
        found.append((logp_C, leaf.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert (found[1][1][~inside_CV] == 0).all() and (found[1][1][inside_CV] != 0).any()


def test_the_gradient_is_that_of_finite_differences() -> None:
    logits_CV = logits(4).nan_to_num(neginf=-2.0).requires_grad_()
    ids_CK, counts_C = kept_ids(logits_CV, temperature=0.7, max_kept=9, **(ALL | {"top_p": 0.9}))
    target_C = ids_CK.gather(1, (counts_C - 1).long()[:, None])[:, 0].long()

    def logp(values_CV: Tensor) -> Tensor:
        return renormalised_logprobs(values_CV, target_C, ids_CK, counts_C, temperature=0.7)

    assert torch.autograd.gradcheck(logp, (logits_CV,))


def test_chunks_of_other_widths_are_the_whole() -> None:
    logits_CV, target_C = logits(5), torch.full((6,), 3)
    logits_CV[:, 3] = 9.0
    options = ALL | {"top_p": 0.999}
    whole = kept_ids(logits_CV, temperature=2.0, max_kept=9, **options)
    wanted_C = renormalised_logprobs(logits_CV, target_C, *whole, temperature=2.0)
    for row in range(6):
        one = slice(row, row + 1)
        sets = kept_ids(logits_CV[one], temperature=2.0, max_kept=9, **options)
        assert sets[0].tolist() == whole[0][one, : whole[1][row]].tolist()
        found = renormalised_logprobs(logits_CV[one], target_C[one], *sets, temperature=2.0)
        torch.testing.assert_close(found, wanted_C[one], rtol=0, atol=1e-14)


def test_recorded_sets_are_padded() -> None:
    id_N, counts_C = torch.tensor([7, 1, 2, 5, 0, 9]), torch.tensor([1, 3, 2])
    ids_CK = pad_kept(id_N, counts_C)
    assert ids_CK.tolist() == [[7, 0, 0], [1, 2, 5], [0, 9, 0]] and ids_CK.dtype == torch.int32
    assert pad_kept(id_N[:0], counts_C[:0]).shape == (0, 0)
    with pytest.raises(ValueError, match="counts_C add up to 6, expected 5 ids"):
        pad_kept(id_N[1:], counts_C)


@pytest.mark.parametrize("options", SETTINGS)
def test_the_entropy_agrees_with_plain_python(options: dict) -> None:
    logits_CV, options = logits(6), ALL | options
    logits_CV[1, 2] = -3.0
    ids_CK, counts_C = kept_ids(logits_CV, temperature=0.7, max_kept=9, **options)
    behind_CK = torch.arange(ids_CK.shape[1])[None, :] >= counts_C[:, None]
    ids = torch.where(behind_CK, 10**9, ids_CK)  # padding is not read
    leaf = logits_CV.clone().requires_grad_()
    entropy_C = renormalised_entropy(leaf, ids, counts_C, temperature=0.7)
    for values, found in zip(logits_CV.tolist(), entropy_C, strict=True):
        _, probability = oracle(values, 0.7, **options)
        wanted = -sum(p * math.log(p) for p in probability.values())
        assert found.item() == pytest.approx(wanted, abs=1e-12)
    entropy_C.sum().backward()
    assert leaf.grad.isfinite().all()

    def entropy(values_CV: Tensor) -> Tensor:
        return renormalised_entropy(values_CV, ids_CK, counts_C, temperature=0.7)

    assert torch.autograd.gradcheck(entropy, (leaf,))


def test_no_tokens_are_no_error() -> None:
    none_CV = torch.zeros(0, 9)
    sets = kept_ids(none_CV, temperature=1.0, max_kept=9, **ALL)
    found = renormalised_logprobs(none_CV, torch.zeros(0).long(), *sets, temperature=1.0)
    assert found.shape == (0,)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, False), ({"top_k": 5}, True), ({"top_p": 0.99}, True), ({"min_p": 0.01}, True)],
)
def test_what_truncates(options: dict, expected: bool) -> None:
    assert truncates(**(ALL | options)) is expected


def test_min_p_counts_from_the_most_likely_token_that_is_left() -> None:
    kept_BV = keep_top(torch.tensor([[0.5, 0.25, 0.2, 0.05]]).log(), top_k=0, top_p=1.0, min_p=0.5)
    assert kept_BV.isfinite().tolist() == [[True, True, False, False]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0, expected > 0; at 0 there is one token"),
        ({"temperature": NAN}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1, expected >= 0"),
        ({"top_p": 0.0}, r"top_p is 0.0, expected a number in \(0, 1\]"),
        ({"min_p": 1.5}, r"min_p is 1.5, expected a number in \[0, 1\]"),
        ({"max_kept": 0}, "max_kept is 0, expected > 0"),
        (
            {"max_kept": 3},
            "9 tokens are kept at one position, expected at most max_kept = 3; set top_k",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_option_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kept_ids(logits(), **({"temperature": 1.0, "max_kept": 9} | ALL | options))


def test_a_wrong_tensor_is_named() -> None:
    logits_CV, target_C = logits(), torch.zeros(6, dtype=torch.int64)
    ids_CK, counts_C = kept_ids(logits_CV, temperature=1.0, max_kept=9, **ALL)
    for tensors, message in (
        ((target_C[:5], ids_CK, counts_C), r"target_C has shape \(5,\), expected \(6,\)"),
        ((target_C, ids_CK, counts_C[:5]), r"counts_C has shape \(5,\)"),
        ((target_C, ids_CK[:5], counts_C), r"ids_CK has shape \(5, 9\), expected \(6, K\)"),
        ((target_C, ids_CK[:, 1:], counts_C - 1), "token 0 at position 0 is not in its kept set"),
        ((target_C, ids_CK, counts_C * 0), "not in its kept set of 0, .* record the sets while"),
    ):
        with pytest.raises(ValueError, match=message):
            renormalised_logprobs(logits_CV, *tensors, temperature=1.0)
    with pytest.raises(ValueError, match="temperature is -1"):
        renormalised_logprobs(logits_CV, target_C, ids_CK, counts_C, temperature=-1)
    with pytest.raises(ValueError, match="a row without a finite value"):
        kept_ids(torch.full((2, 3), NAN), temperature=1.0, max_kept=9, **ALL)
