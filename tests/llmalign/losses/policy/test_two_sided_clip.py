import math

import pytest
import torch

from llmalign.losses.policy.clipped import clipped


@pytest.mark.parametrize("delta", [1.5, 4.0])
def test_a_bound_delta_on_the_ratio_itself_is_the_dual_clip(delta: float) -> None:
    """INTELLECT-2's two-sided clip, -min(min(rho, delta) * A, clip(rho) * A), needs no loss."""
    generator = torch.Generator().manual_seed(0)
    logp, old, adv = 2 * torch.randn(3, 6, 5, generator=generator, dtype=torch.float64)
    found, _ = clipped(
        logp, old, adv, torch.ones(6, 5).bool(), clip_low=0.2, clip_high=0.2, dual_clip=delta
    )
    for b in range(6):
        for t in range(5):
            a, rho = adv[b, t].item(), math.exp(logp[b, t].item() - old[b, t].item())
            wanted = -min(min(rho, delta) * a, min(max(rho, 0.8), 1.2) * a)
            assert found[b, t].item() == pytest.approx(wanted, rel=1e-12)
