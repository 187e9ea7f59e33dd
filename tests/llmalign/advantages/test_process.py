import math
import statistics

import pytest
import torch

from llmalign.advantages import process_min, process_sum, pure, soft_min_credit
from llmalign.advantages.process import pure_token_rewards

NAN = math.nan
STEPS = [[0.9, 0.8, 0.2], [0.7, 0.6], [0.4], [0.5, 0.5]]
GROUPS = torch.tensor([0, 0, 1, 1])
END = torch.tensor([[1, 2, 4], [0, 3, -1], [4, -1, -1], [1, 2, -1]])
REWARD = torch.tensor([row + [NAN] * (3 - len(row)) for row in STEPS], dtype=torch.float64)
MASK = torch.arange(5) < torch.tensor([5, 4, 5, 4])[:, None]
NONE = torch.zeros(4, 5, dtype=torch.float64)


def test_one_group_by_hand() -> None:
    # steps 1, 0 | 0.5: mean 0.5, std (ddof 1) 0.5; normalised 1, -1 | 0; sums to the end 0, -1 | 0
    reward_BK, end_BK = torch.tensor([[1.0, 0.0], [0.5, NAN]]), torch.tensor([[0, 1], [1, -1]])
    inputs = reward_BK, end_BK, torch.tensor([0, 0]), torch.ones(2, 2, dtype=torch.bool)
    adv_BT = process_sum(*inputs, eps=1e-12, ddof=1)
    assert adv_BT.tolist() == [pytest.approx([0.0, -1.0], abs=1e-9), [0.0, 0.0]]


def test_the_sum_form_agrees_with_plain_python() -> None:
    adv_BT = process_sum(REWARD, END, GROUPS, MASK, eps=1e-6, ddof=1)
    for b, row in enumerate(STEPS):
        members = [r for c, other in enumerate(STEPS) for r in other if GROUPS[c] == GROUPS[b]]
        mean, std = statistics.mean(members), statistics.stdev(members)
        for t in range(5):
            later = [r for r, end in zip(row, END[b].tolist(), strict=False) if end >= t]
            expected = sum((r - mean) / (std + 1e-6) for r in later) if MASK[b, t] else 0.0
            assert float(adv_BT[b, t]) == pytest.approx(expected, abs=1e-12)


def test_equal_step_rewards_have_advantage_exactly_zero() -> None:
    same_BK = torch.where(END >= 0, 0.1, NAN)
    assert process_sum(same_BK, END, GROUPS, MASK, eps=1e-12, ddof=0).abs().max() == 0


def test_a_step_without_a_score_counts_for_nothing() -> None:
    reward_BK = REWARD.clone()
    reward_BK[0, 1] = NAN
    adv_BT = process_sum(reward_BK, END, GROUPS, MASK, eps=1e-6, ddof=1)
    without = torch.tensor([[1, 4, -1], [0, 3, -1], [4, -1, -1], [1, 2, -1]])
    shorter_BK = torch.tensor([[0.9, 0.2], [0.7, 0.6], [0.4, NAN], [0.5, 0.5]], dtype=torch.float64)
    expected_BT = process_sum(shorter_BK, without[:, :2], GROUPS, MASK, eps=1e-6, ddof=1)
    assert torch.allclose(adv_BT, expected_BT, rtol=1e-12)


def test_the_strict_min_form_agrees_with_plain_python() -> None:
    reward_BK = REWARD.clone()
    reward_BK[0, 2] = NAN  # the last step of row 0: nothing stands at or after its tokens
    adv_BT = process_min(reward_BK, END, GROUPS, MASK)
    values = []
    for b in range(4):
        known = [
            (float(r), int(end)) for r, end in zip(reward_BK[b], END[b], strict=True) if r == r
        ]
        later = [[r for r, end in known if end >= t] for t in range(5)]
        values.append([min(rs) if rs and MASK[b, t] else None for t, rs in enumerate(later)])
    for b, other in ((0, 1), (1, 0), (2, 3), (3, 2)):
        base = statistics.mean(v for v in values[other] if v is not None)
        expected = [0.0 if v is None else v - base for v in values[b]]
        assert adv_BT[b].tolist() == pytest.approx(expected)
    alone_BT = process_min(reward_BK[:1], END[:1], GROUPS[:1], MASK[:1])
    assert alone_BT.abs().max() == 0


def test_the_worst_step_is_what_a_response_is_worth() -> None:
    credit_BK = soft_min_credit(REWARD, END, temperature=0.01)
    assert credit_BK.sum(1).tolist() == pytest.approx([0.2, 0.6, 0.4, 0.5], abs=1e-3)
    for row, found in zip(STEPS, soft_min_credit(REWARD, END, temperature=0.5), strict=True):
        weights = [math.exp(-r / 0.5) for r in row]
        expected = [w / sum(weights) * r for w, r in zip(weights, row, strict=True)]
        assert found[: len(row)].tolist() == pytest.approx(expected)
        assert (found[len(row) :] == 0).all()
    mean_BK = soft_min_credit(REWARD, END, temperature=None)
    assert mean_BK.sum(1).tolist() == pytest.approx([statistics.mean(row) for row in STEPS])


def test_a_response_without_steps_has_no_credit_and_leaves_the_baseline() -> None:
    end_BK = END.clone()
    end_BK[1] = -1
    credit_BK = soft_min_credit(REWARD, end_BK, temperature=0.1)
    assert credit_BK[1].tolist() == [0.0, 0.0, 0.0]
    for baseline in ("token", "step"):
        token_BT = pure_token_rewards(
            torch.zeros(4), GROUPS, MASK, credit_BK, end_BK, baseline=baseline, outcome_coef=1.0
        )
        assert (token_BT[:2] == 0).all()  # row 0 has nobody left to be compared with
        assert (token_BT[2:] != 0).any()


@pytest.mark.parametrize("baseline", ["token", "step"])
def test_the_min_form_agrees_with_plain_python(baseline: str) -> None:
    reward_B = torch.tensor([1.0, 0.0, 0.5, NAN], dtype=torch.float64)
    credit_BK = soft_min_credit(REWARD, END, temperature=0.1)
    found_BT = pure_token_rewards(
        reward_B, GROUPS, MASK, credit_BK, END, baseline=baseline, outcome_coef=2.0
    )
    expected_BT = torch.zeros(4, 5, dtype=torch.float64)
    for b, other in ((0, 1), (1, 0), (2, 3), (3, 2)):
        ends = [e for e in END[b].tolist() if e >= 0]
        others = [e for e in END[other].tolist() if e >= 0]
        total = float(credit_BK[other].sum())
        for k, end in enumerate(ends):
            tokens = end - (ends[k - 1] if k else -1)
            base = total * tokens / (others[-1] + 1) if baseline == "token" else total / len(others)
            expected_BT[b, end] += float(credit_BK[b, k]) - base
        if b < 2:
            expected_BT[b, int(MASK[b].sum()) - 1] += 2.0 * float(reward_B[b] - reward_B[other])
    assert torch.allclose(found_BT, expected_BT, rtol=1e-12)


def test_returns_run_to_the_end_and_are_whitened() -> None:
    reward_B = torch.tensor([1.0, 0.0, 0.5, 0.25])
    options = {"temperature": 0.1, "baseline": "token", "outcome_coef": 1.0, "gamma": 1.0}
    inputs = reward_B, GROUPS, MASK, torch.where(MASK, NONE, NAN), REWARD, END
    raw_BT = pure(*inputs, **options, whiten=False, eps=1e-8)
    credit_BK = soft_min_credit(REWARD, END, temperature=0.1)
    token_BT = pure_token_rewards(
        reward_B, GROUPS, MASK, credit_BK, END, baseline="token", outcome_coef=1.0
    )
    sums_BT = torch.where(MASK, token_BT.flip(1).cumsum(1).flip(1), 0.0)
    assert torch.allclose(raw_BT, sums_BT, rtol=1e-12, atol=1e-15)
    white_BT = pure(*inputs, **options, whiten=True, eps=1e-8)
    assert float(white_BT[MASK].mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(white_BT[MASK].std()) == pytest.approx(1.0, abs=1e-6)
    assert (white_BT[~MASK] == 0).all()


def test_a_sample_that_nobody_scored_counts_for_nothing() -> None:
    options = {"temperature": 0.1, "baseline": "token", "outcome_coef": 1.0, "gamma": 0.9}
    reward_B = torch.tensor([1.0, 0.0, 0.5, 0.25])
    inputs = [reward_B, GROUPS, MASK, NONE + 0.1, REWARD, END]
    alone_BT = pure(*inputs, **options, whiten=True, eps=1e-8)
    nobody = [torch.tensor([NAN]), GROUPS[:1], MASK[:1], NONE[:1] + 9, REWARD[:1] * NAN, END[:1]]
    more = [torch.cat(pair) for pair in zip(inputs, nobody, strict=True)]
    found_BT = pure(*more, **options, whiten=True, eps=1e-8)
    assert torch.equal(found_BT[:4], alone_BT) and (found_BT[4] == 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: process_sum(REWARD, END, GROUPS, MASK, eps=0.0, ddof=1), "eps is 0.0"),
        (lambda: process_sum(REWARD, END, GROUPS, MASK, eps=1e-6, ddof=3), "ddof is 3"),
        (
            lambda: process_sum(REWARD[:, :2], END, GROUPS, MASK, eps=1e-6, ddof=1),
            r"step_reward_BK has shape \(4, 2\), expected \(4, 3\)",
        ),
        (
            lambda: process_sum(REWARD, END, GROUPS[:2], MASK, eps=1e-6, ddof=1),
            r"group_B is torch.int64 of shape \(2,\)",
        ),
        (lambda: soft_min_credit(REWARD, END, temperature=0.0), "temperature is 0.0"),
        (
            lambda: pure_token_rewards(
                torch.zeros(4), GROUPS, MASK, REWARD, END, baseline="mean", outcome_coef=1.0
            ),
            "baseline is 'mean', expected 'token' or 'step'",
        ),
    ],
)
def test_a_wrong_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
