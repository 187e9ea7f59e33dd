"""What training costs on one GPU: the head, the layouts of a batch, and whole steps beside TRL.

    bash benchmarks/gpu.sh [--device cuda] [--wheels wheels/] [--tiny] [--rounds 3]

The model has the shape of Qwen2.5-0.5B with fresh weights: float32, computing in bfloat16 by
autocast. Three parts:

- head: forward and backward of log-probs and entropies of one micro-batch at vocabulary 151,936;
  naive, ours, and ours with a known loss at several sizes of a chunk.
- layouts: forward and backward of the rows of a step with long-tailed lengths, padded, packed, and
  each prompt once, under each attention that is there; and the padded one compiled.
- trl: ``vs_trl.py`` on this model, training and end to end.

``mfu`` is 6 * parameters * tokens + 6 * layers * hidden * sum(length^2) floating-point operations
(attention is causal) over seconds and over the dense bfloat16 peak of the device; tokens are those
of prompts and completions, padding does not count. Null where the peak is not known. One JSON
object goes to ``--output``; what does not fit into memory, or is not installed, is in it by name.
"""

import argparse
import datetime
import importlib.util
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from models import build_model
from transformers.utils import is_flash_attn_2_available
from vs_trl import Workload, compare, completions, finish, problems

from llmalign.batch import PackedBatch, Row, SharedBatch, TokenBatch
from llmalign.forward import Forward
from llmalign.head import head_logprobs, head_loss
from llmalign.policy import Policy
from llmalign.schema import Schedule

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bfloat16, by name
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Sizes:
    """Of everything that is measured."""

    model: str = "0.5b"
    vocabulary: int = 151_936
    hidden: int = 896
    head_tokens: int = 8_192
    chunks: tuple[int, ...] = (1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29)
    prompts: int = 8
    samples: int = 8
    prompt_tokens: int = 256
    response_tokens: int = 1_024
    workloads: tuple[Workload, ...] = (
        Workload("0.5b-uniform", "0.5b", tokens=512, rows=16, steps=4),
        Workload("0.5b-realistic", "0.5b", 8, 8, 1024, 0.25, 0.5, steps=4, rows=16),
    )


TINY = Sizes(
    model="1m",
    vocabulary=512,
    hidden=32,
    head_tokens=64,
    chunks=(1 << 12, 1 << 14),
    prompts=2,
    samples=2,
    prompt_tokens=8,
    response_tokens=16,
    workloads=(Workload("tiny", "1m", problems=2, samples=2, tokens=8, steps=2, rows=2),),
)


def measured(call: Callable[[], object], device: torch.device, rounds: int) -> dict[str, Any]:
    """Median seconds of a call after one to warm up, and its peak memory above what was there."""
    seconds, peak = [], None
    try:
        call()
        finish()
        if device.type == "cuda":
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        for _ in range(rounds):
            began = time.perf_counter()
            call()
            finish()
            seconds.append(time.perf_counter() - began)
        if device.type == "cuda":
            peak = round((torch.cuda.max_memory_allocated() - before) / 2**20)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"error": "out of memory"}
    return {"seconds": statistics.median(seconds), "peak_mb": peak}


def autocast(device: torch.device) -> torch.autocast:
    """As a policy computes: bfloat16 on a GPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


# -- the head -------------------------------------------------------------------------------------


def heads(sizes: Sizes, device: torch.device, rounds: int) -> dict[str, Any]:
    """Every way to log-probs and their gradient."""
    generator = torch.Generator().manual_seed(0)
    shape = (sizes.head_tokens, sizes.vocabulary)
    hidden_ND = torch.randn(shape[0], sizes.hidden, generator=generator).to(device).requires_grad_()
    weight_VD = torch.randn(shape[1], sizes.hidden, generator=generator).mul_(0.02).to(device)
    weight_VD.requires_grad_()
    target_N = torch.randint(shape[1], shape[:1], generator=generator).to(device)
    weight_N = torch.linspace(-1, 1, shape[0], device=device)
    inputs = (hidden_ND, weight_VD, target_N)
    options: dict[str, Any] = {"temperature": 1.0, "entropy_gradient": False}

    def naive() -> torch.Tensor:
        logp_NV = torch.log_softmax((hidden_ND @ weight_VD.T).float(), -1)
        with torch.no_grad():
            torch.special.entr(logp_NV.exp()).sum(-1)
        return (logp_NV.gather(1, target_N[:, None])[:, 0] * weight_N).sum()

    def ours() -> torch.Tensor:
        return (head_logprobs(*inputs, **options)[0] * weight_N).sum()

    def fused(chunk_logits: int | None = None) -> torch.Tensor:
        return head_loss(
            *inputs,
            lambda logp_C, _, chunk: (logp_C * weight_N[chunk]).sum(),
            **options,
            chunk_logits=chunk_logits,
        )[0]

    def both_ways(forward: Callable[[], torch.Tensor]) -> None:
        hidden_ND.grad = weight_VD.grad = None
        with autocast(device):
            loss = forward()
        loss.backward()

    sides: dict[str, Callable[[], torch.Tensor]] = {"naive": naive, "ours": ours, "fused": fused}
    for size in sizes.chunks:
        sides[f"fused, chunks of {size} logits"] = lambda size=size: fused(size)  # type: ignore[misc]
    return {name: measured(lambda f=f: both_ways(f), device, rounds) for name, f in sides.items()}  # type: ignore[misc]


# -- layouts --------------------------------------------------------------------------------------


def step_rows(sizes: Sizes) -> list[Row]:
    """Rows of one step; responses have long-tailed lengths, their mean a quarter of the limit."""
    rng = random.Random(0)
    limit = sizes.response_tokens
    rows: list[Row] = []
    for _ in range(sizes.prompts):
        prompt = rng.choices(range(3, 250), k=sizes.prompt_tokens)
        for _ in range(sizes.samples):
            length = min(limit, 1 + int(rng.expovariate(4 / limit)))
            rows.append((prompt, rng.choices(range(3, 250), k=length)))
    return rows


def layouts(sizes: Sizes, device: torch.device, rounds: int) -> Iterator[dict[str, Any]]:
    """Each layout under each attention; what the model does not do that way says which it did."""
    rows = step_rows(sizes)
    attentions = ["sdpa"] + ["flash_attention_2"] * is_flash_attn_2_available()
    wanted: dict[Any, dict[str, Any]] = {
        TokenBatch: {"packing": "never", "share_prompts": "never"},
        PackedBatch: {"packing": "always", "share_prompts": "never"},
        SharedBatch: {"packing": "never", "share_prompts": "always"},
    }
    for attention in attentions:
        model, tokenizer = build_model(sizes.model)
        model.set_attn_implementation(attention)
        policy = Policy(model, tokenizer, device)
        for layout, changes in wanted.items():
            schedule = Schedule(**changes)
            found = forward_backward(policy, Forward(policy, schedule), rows, rounds)
            yield {"attention": attention, "layout": layout.__name__, **found}
        if device.type == "cuda":
            policy._decoder = torch.compile(policy._decoder, dynamic=True)
            schedule = Schedule(**wanted[TokenBatch])
            found = forward_backward(policy, Forward(policy, schedule), rows, rounds)
            yield {"attention": attention, "layout": "TokenBatch, compiled", **found}


def forward_backward(
    policy: Policy, forward: Forward, rows: Sequence[Row], rounds: int
) -> dict[str, Any]:
    """The gradient of all rows, measured."""
    batches = [batch for _, batch in forward.batches(rows, range(len(rows)))]

    def call() -> None:
        policy.model.zero_grad()
        for batch in batches:
            policy.loss_over_tokens(batch, lambda logp_C, *_: logp_C.sum(), temperature=1.0)[
                0
            ].backward()

    found = measured(call, policy.device, rounds)
    lengths = [len(prompt) + len(response) for prompt, response in rows]
    if "seconds" in found:
        found |= efficiency(policy.model, lengths, found["seconds"], policy.device)
    return {"used": type(batches[0]).__name__, "passes": len(batches), **found}


def efficiency(
    model: Any, lengths: Sequence[int], seconds: float, device: torch.device
) -> dict[str, Any]:
    """Tokens per second, and the share of the device's peak that they need."""
    config, tokens = model.config, sum(lengths)
    operations = 6 * sum(p.numel() for p in model.parameters()) * tokens
    attended = sum(length**2 for length in lengths)
    operations += 6 * config.num_hidden_layers * config.hidden_size * attended
    name = torch.cuda.get_device_name() if device.type == "cuda" else ""
    peak = next((flops for known, flops in PEAK_FLOPS.items() if known in name), None)
    mfu = round(operations / seconds / peak, 4) if peak else None
    return {"tokens_per_second": round(tokens / seconds), "mfu": mfu}


# -- beside TRL -----------------------------------------------------------------------------------


def beside_trl(sizes: Sizes, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """``vs_trl.compare`` of each workload; tokens per second and MFU where all tokens learn."""
    found = []
    for workload in sizes.workloads:
        result = compare(workload, rounds)
        if not workload.degenerate_share:
            model, tokenizer = build_model(workload.model)
            row = problems(workload)[:: workload.steps]  # as many as there are in one step
            lengths = [
                len(tokenizer(r["problem"])["input_ids"]) + len(text)
                for r in row
                for text in completions(workload, r)
            ]
            for side in ("ours", "trl"):
                result[side] = efficiency(model, lengths, result[f"{side}_s"], device)
        found.append(result)
    return found


def main() -> None:
    """Measures everything, prints and writes one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that it runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/gpu-….json")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is 'cuda', expected a machine with a GPU; or --device cpu --tiny")
    if args.device == "cpu" and torch.cuda.is_available():
        parser.error("--device is 'cpu' beside a GPU; set CUDA_VISIBLE_DEVICES= before it")
    device, sizes = torch.device(args.device), TINY if args.tiny else Sizes()
    name = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    today = datetime.date.today().isoformat()
    found: dict[str, Any] = {
        "device": name,
        "date": today,
        "tiny": args.tiny,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "head": heads(sizes, device, args.rounds),
        "layouts": list(layouts(sizes, device, args.rounds)),
    }
    if importlib.util.find_spec("trl") is None:
        found["trl"] = "not installed; give a folder of wheels with --wheels"
    else:
        found["trl"] = beside_trl(sizes, device, args.rounds)
    slug = "-".join(name.lower().split())
    output = args.output or RESULTS / f"gpu-{slug}-{today}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
