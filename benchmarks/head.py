"""The log-prob head at a real vocabulary: ours, fused and not, beside the naive one.

    python benchmarks/head.py [--tokens 2048] [--vocabulary 151936] [--hidden 896] [--rounds 3]

Forward and backward of the log-probability and the entropy (no entropy gradient) of every token.
``ours`` does not know the loss before its backward pass, ``fused`` does. The naive head holds all
logits in float32 and takes ``log_softmax`` of them. Each side runs in a process of its own, in
turns. Prints one JSON object: seconds and, for busy machines, seconds of the processor (medians),
peak memory in MiB above what weights, their gradient and hidden states take, and ratios.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

SIDES = ("ours", "fused", "naive")


def resident_mb() -> float:
    """Largest resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(side: str, tokens: int, vocabulary: int, hidden: int) -> None:
    """One forward and backward pass, measured; prints one JSON object."""
    import torch

    from llmalign.head import head_logprobs, head_loss

    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(tokens, hidden, generator=generator).requires_grad_()
    weight_VD = torch.randn(vocabulary, hidden, generator=generator).mul_(0.02).requires_grad_()
    target_N = torch.randint(vocabulary, (tokens,), generator=generator)
    weight_VD.clone()  # the room that its gradient takes on both sides
    weight_N = torch.linspace(-1, 1, tokens)
    inputs = (hidden_ND, weight_VD, target_N)
    before = resident_mb()
    began, began_cpu = time.perf_counter(), time.process_time()
    if side == "fused":
        loss, _, _ = head_loss(
            *inputs,
            lambda logp_C, _, chunk: (logp_C * weight_N[chunk]).sum(),
            temperature=1.0,
            entropy_gradient=False,
        )
    elif side == "ours":
        logp_N, _ = head_logprobs(*inputs, temperature=1.0, entropy_gradient=False)
        loss = (logp_N * weight_N).sum()
    else:
        logp_NV = torch.log_softmax(hidden_ND @ weight_VD.T, -1)
        with torch.no_grad():
            torch.special.entr(logp_NV.exp()).sum(-1)
        loss = (logp_NV.gather(1, target_N[:, None])[:, 0] * weight_N).sum()
    loss.backward()
    seconds, seconds_cpu = time.perf_counter() - began, time.process_time() - began_cpu
    peak_mb = resident_mb() - before
    print(json.dumps({"seconds": seconds, "seconds_cpu": seconds_cpu, "peak_mb": peak_mb}))


def main() -> None:
    """Runs the sides in turns."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.tokens, args.vocabulary, args.hidden)
        return
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side in SIDES:
            sizes = [f"--{n}={getattr(args, n)}" for n in ("tokens", "vocabulary", "hidden")]
            command = [sys.executable, __file__, "--child", side, *sizes]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs[side].append(json.loads(done.stdout))
    seconds = {side: statistics.median(r["seconds"] for r in runs[side]) for side in SIDES}
    cpu = {side: statistics.median(r["seconds_cpu"] for r in runs[side]) for side in SIDES}
    peak = {side: max(r["peak_mb"] for r in runs[side]) for side in SIDES}
    found = {
        "setting": {n: getattr(args, n) for n in ("tokens", "vocabulary", "hidden", "rounds")},
        "seconds": seconds,
        "seconds_cpu": cpu,
        "peak_mb": peak,
        "ratio_seconds_naive_to_ours": seconds["naive"] / seconds["ours"],
        "ratio_seconds_naive_to_fused": seconds["naive"] / seconds["fused"],
        "ratio_seconds_cpu_naive_to_fused": cpu["naive"] / cpu["fused"],
        "ratio_memory_ours_to_naive": peak["ours"] / peak["naive"],
        "ratio_memory_fused_to_naive": peak["fused"] / peak["naive"],
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
