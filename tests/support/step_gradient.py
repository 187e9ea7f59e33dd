"""The gradient of one optimizer step in float64, of samples whose old log-probs are made up so that
ratios are not 1 and bounds act; and, run as a program, the sum of several processes' shares of it.

    python step_gradient.py RENDEZVOUS RANK PROCESSES RECIPE.yaml ...

prints, from rank 0, one JSON object: recipe name -> largest difference between the sum of the
shares and the whole, over the largest entry of the whole.
"""

import json
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from llmalign.forward import Forward
from llmalign.learn import settled
from llmalign.online import open_online
from llmalign.policy import load_policy
from llmalign.recipe import load_recipe
from llmalign.run import RunFolder

WHOLE = {"tokens_per_microbatch": 1 << 20, "share_prompts": "never", "packing": "never"}


def norm_in_float64(self, hidden):
    """The library computes this norm in float32 whatever the model is, round-off included."""
    scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    return self.weight * hidden * scale


@contextmanager
def opened(recipe, path: Path):
    """An online loop in float64 and the experience of its first step."""
    folder = RunFolder(path)
    folder.path.mkdir()
    with open_online(recipe, folder, load_policy(recipe.model, seed=recipe.seed)) as loop:
        loop.policy.model.double()
        if loop.reference is not None:
            loop.reference.policy.model.double()
        experience = loop.preparer.experience(loop.collector.collect(0).groups)
        # The untrained model never ends: let some samples count for less than all their tokens.
        kept_B1 = 10 - torch.arange(len(experience.reward_B))[:, None] % 5
        experience.mask_BT &= torch.arange(experience.mask_BT.shape[1]) < kept_B1
        noise = torch.randn(experience.mask_BT.shape, generator=torch.Generator().manual_seed(0))
        experience.logp_old_BT = experience.logp_old_BT + 0.3 * noise
        loop.preparer.advantages(experience, step=0, kl_coef=recipe.kl.coef)
        assert (experience.adv_BT != 0).any()
        yield loop, experience


def gradient(loop, experience, *, rows=None, active=None, **layout):
    """Of one optimizer step, without taking it; ``rows`` are summed up, weighed as of all."""
    everything = list(range(len(experience.reward_B)))
    schedule = loop.recipe.schedule.model_copy(update={**WHOLE, **layout})
    loop.learner.forward = Forward(loop.policy, schedule)
    active = loop.learner.active(experience, everything) if active is None else active
    kept = [b for b in active if rows is None or b in rows]
    loop.policy.model.zero_grad()
    stats = {}
    for loss in loop.learner.losses(experience, everything, kept, stats):
        loss.backward()
    found = [
        torch.zeros_like(p) if p.grad is None else p.grad for p in loop.policy.trainable.values()
    ]
    return torch.cat([g.flatten().clone() for g in found]), settled(stats)


def main() -> None:
    rendezvous, rank, processes, *recipes = sys.argv[1:]
    rank, processes = int(rank), int(processes)
    torch.set_num_threads(1)
    Qwen3RMSNorm.forward = norm_in_float64
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=processes
    )
    found = {}
    for path in recipes:
        recipe = load_recipe(path)
        with tempfile.TemporaryDirectory() as scratch:
            with opened(recipe, Path(scratch) / "run") as (loop, experience):
                mine = {
                    b for b, g in enumerate(experience.group_B.tolist()) if g % processes == rank
                }
                share, _ = gradient(loop, experience, rows=mine, tokens_per_microbatch=60)
                torch.distributed.all_reduce(share)
                whole, _ = gradient(loop, experience)
                found[recipe.name] = float((share - whole).abs().max() / whole.abs().max())
    if rank == 0:
        print(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
