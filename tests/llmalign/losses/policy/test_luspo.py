import math

import pytest
import torch

from llmalign.losses.aggregate import sequence_weights
from llmalign.losses.policy.luspo import luspo


def test_a_sequence_counts_by_its_length_and_a_token_does_not() -> None:
    # Row 0 has 4 tokens, row 1 has 2; A = 1, all log-ratios ln 1.1, so s = 1.1:
    # loss = -(4 * 1.1 + 2 * 1.1) / 2 = -3.3; each token's gradient is -1.1 / 2 whatever its row.
    logp = torch.full((2, 4), math.log(1.1), dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    zero = torch.zeros(2, 4)
    loss_BT, _ = luspo(logp, zero, zero + 1, mask, clip_low=0.2, clip_high=0.2)
    weight_B = sequence_weights(mask.sum(1), kind="sequence_sum", max_tokens=4, num_sequences=2)
    loss = (weight_B[:, None] * loss_BT).sum()
    loss.backward()
    assert loss.item() == pytest.approx(-3.3)
    assert logp.grad[mask].tolist() == pytest.approx([-0.55] * 6)


def test_a_wrong_bound_is_named() -> None:
    zero = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="clip_low is 2, expected"):
        luspo(zero, zero, zero, zero == 0, clip_low=2, clip_high=0.2)
