"""Seconds and memory of a GRPO step: llmalign beside TRL, same weights, prompts and completions.

    python benchmarks/vs_trl.py [--json] [--rounds 2] [--workloads 1m-uniform 1m-realistic ...]
    python benchmarks/vs_trl.py --growth    ours alone, at three sizes of each axis

Each side runs in a process of its own, in turns (A B A B), with the same model, reward, optimizer
and loss (GRPO, no KL, temperature 1). Two kinds of step are measured:

- training: the completions are fixed in advance, so that a step is everything but generation:
  decoding, reward, advantages, forward, backward, update.
- end to end: completions are sampled for real. An untrained model hardly ends by itself, so these
  all run to the limit; in the realistic workloads half of the groups still earn the same reward.

Uniform workloads have completions of one length and no group without differences. Realistic ones
have long-tailed lengths (geometric, mean a quarter of the limit) and half of the groups degenerate.
``ratio_*`` is TRL's seconds over ours: above 1 we are faster. Memory is the largest resident set of
the process above what it held before the first step.
"""

import argparse
import json
import math
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models import build_model

WARM_UP = 1
DIGITS, LETTERS = "0123456789", "abcdefghij"


@dataclass(frozen=True)
class Workload:
    """Sizes of one step.

    ``mean_share``: mean length over the limit; 1: all at the limit. ``vocabulary``: of the model;
    0: its own. ``rows``: samples of one forward pass of TRL, which pads; 0: all of a step.
    """

    name: str
    model: str
    problems: int = 8
    samples: int = 8
    tokens: int = 128
    mean_share: float = 1.0
    degenerate_share: float = 0.0
    steps: int = 5
    vocabulary: int = 0
    rows: int = 0


WORKLOADS = [
    Workload("1m-uniform", "1m"),
    Workload("1m-realistic", "1m", tokens=256, mean_share=0.25, degenerate_share=0.5),
    Workload("25m-uniform", "25m", problems=4, tokens=96, steps=3),
    Workload(
        "25m-realistic",
        "25m",
        problems=4,
        tokens=256,
        mean_share=0.25,
        degenerate_share=0.5,
        steps=3,
    ),
]
GROWTH = {
    "samples": [Workload(f"samples-{n}", "1m", samples=n) for n in (4, 8, 16)],
    "length": [Workload(f"length-{n}", "1m", tokens=n) for n in (64, 128, 256)],
    "vocabulary": [
        Workload(f"vocabulary-{n}", "1m", problems=4, vocabulary=n) for n in (4_096, 16_384, 65_536)
    ],
}


def problems(workload: Workload) -> list[dict[str, Any]]:
    """Prompts of all steps; ``flat`` ones are those whose samples all earn the same."""
    rng = random.Random(0)
    count = workload.problems * workload.steps
    flat = [i % 2 == 0 and workload.degenerate_share > 0 for i in range(count)]
    asked = [f"{rng.randint(0, 99)} + {rng.randint(0, 99)} - {i} = ?" for i in range(count)]
    return [{"problem": a, "flat": f} for a, f in zip(asked, flat, strict=True)]


def lengths(workload: Workload, rng: random.Random, count: int) -> list[int]:
    """Tokens of each completion: all the limit, or geometric with the mean asked for."""
    if workload.mean_share == 1:
        return [workload.tokens] * count
    mean = workload.tokens * workload.mean_share
    return [min(workload.tokens, 1 + int(rng.expovariate(1 / mean))) for _ in range(count)]


def completions(workload: Workload, row: dict[str, Any]) -> list[str]:
    """One character is one token here. A flat problem gets no digit, so all earn 0."""
    rng = random.Random(row["problem"])
    letters = LETTERS if row["flat"] else LETTERS + DIGITS
    sizes = lengths(workload, rng, workload.samples)
    return ["".join(rng.choices(letters, k=size)) for size in sizes]


def digits(prompts: Any, completions: list[str], flat: list[bool], **_: Any) -> list[float]:
    """Share of digits in a completion: cheap, and differs between samples; 0 for flat problems."""
    return [
        0.0 if f else sum(c.isdigit() for c in text) / max(1, len(text))
        for text, f in zip(completions, flat, strict=True)
    ]


# -- the two sides --------------------------------------------------------------------------------


class FixedEngine:
    """Gives the completions that were fixed in advance."""

    weights_version = 0

    def __init__(self, workload: Workload, tokenizer: Any, rows: Sequence[dict[str, Any]]) -> None:
        self.known: dict[tuple[int, ...], Iterator[tuple[int, ...]]] = {}
        for row in rows:
            ids = [tuple(plain_ids(tokenizer, text)) for text in completions(workload, row)]
            self.known[tuple(tokenizer(row["problem"])["input_ids"])] = iter(ids)
        self._tokenizer = tokenizer

    def generate(self, requests: Sequence[Any], params: Any) -> Iterator[tuple[int, Any]]:
        """One sample per request."""
        from llmalign.rewards import Sample

        for index, request in enumerate(requests):
            ids = next(self.known[request.prompt_ids])
            reason = "length" if len(ids) >= params.max_new_tokens else "stop"
            text = self._tokenizer.decode(ids)
            yield index, Sample(text, ids, (0.0,) * len(ids), reason)  # type: ignore[arg-type]

    def sync(self, version: int) -> None:
        """Has no weights."""


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens without a start token."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def run_ours(
    workload: Workload, fixed: bool, folder: Path, schedule: Mapping[str, Any] | None = None
) -> list[float]:
    """Seconds of every step of our loop, with some of the recipe's ``schedule`` changed."""
    from llmalign.online import open_online
    from llmalign.policy import load_policy
    from llmalign.recipe import build_recipe
    from llmalign.run import RunFolder

    model, tokenizer = build_model(workload.model, workload.vocabulary)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = problems(workload)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = build_recipe(
        {
            "name": "bench",
            "output": str(folder),
            "algorithm": "grpo",
            "model": {"path": str(folder / "model"), "dtype": "float32"},
            "data": {"train": {"path": str(folder / "rows.jsonl")}, "shuffle": False},
            "reward": {"call": {"function": f"{__name__}:digits", "in_process": True}},
            "rollout": {
                "samples_per_problem": workload.samples,
                "max_new_tokens": workload.tokens,
            },
            "sampling": {"problems_per_step": workload.problems},
            "kl": {"coef": 0.0},
            "optimizer": {"lr": 1e-5},
            "schedule": {"steps": workload.steps, **(schedule or {})},
        }
    )
    run = RunFolder(folder / "bench")
    run.open(recipe, resume=False, overwrite=False)
    with open_online(recipe, run, load_policy(recipe.model, seed=0)) as loop:
        if fixed:
            fixed_engine: Any = FixedEngine(workload, loop.policy.tokenizer, rows)
            loop.engine = loop.collector.engine = fixed_engine
        return [timed(lambda s=step: loop.step(s)) for step in range(workload.steps)]


def timed(call: Any) -> float:
    """Wall seconds of a call, with what it left a GPU to do."""
    began = time.perf_counter()
    call()
    finish()
    return time.perf_counter() - began


def finish() -> None:
    """Waits until the GPU, if there is one, has nothing to do."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run_trl(workload: Workload, fixed: bool, folder: Path) -> list[float]:
    """Seconds of every step of TRL's trainer."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    model, tokenizer = build_model(workload.model, workload.vocabulary)
    gpu, count = torch.cuda.is_available(), workload.problems * workload.samples
    seconds: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            seconds.append(-time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            finish()
            seconds[-1] += time.perf_counter()

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        seen: dict[str, int] = {}
        ids = []
        for prompt in prompts:
            number = seen[prompt] = seen.get(prompt, -1) + 1
            row = {"problem": prompt, "flat": flat[prompt]}
            ids.append(plain_ids(tokenizer, completions(workload, row)[number]))
        asked = [tokenizer(prompt)["input_ids"] for prompt in prompts]
        return {"prompt_ids": asked, "completion_ids": ids, "logprobs": None}

    rows = problems(workload)
    flat = {row["problem"]: row["flat"] for row in rows}
    config = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=workload.rows or count,
        gradient_accumulation_steps=count // (workload.rows or count),
        num_generations=workload.samples,
        max_completion_length=workload.tokens,
        max_steps=workload.steps,
        learning_rate=1e-5,
        lr_scheduler_type="constant",
        loss_type="grpo",
        beta=0.0,
        temperature=1.0,
        shuffle_dataset=False,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        use_cpu=not gpu,
        bf16=gpu,
        gradient_checkpointing=False,
        disable_tqdm=True,
        seed=0,
    )
    GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=digits,
        args=config,
        train_dataset=Dataset.from_list(
            [{"prompt": r["problem"], "flat": r["flat"]} for r in rows]
        ),
        callbacks=[Clock()],
        rollout_func=rollout if fixed else None,
    ).train()
    return seconds


# -- measuring ------------------------------------------------------------------------------------


def child(side: str, workload: Workload, fixed: bool) -> None:
    """One side in this process; prints one JSON object."""
    import torch  # before the clock starts: what the import takes is not the step's

    warnings.filterwarnings("ignore")
    build_model(workload.model, workload.vocabulary)
    before = resident_mb()
    with tempfile.TemporaryDirectory() as folder:
        run = run_ours if side == "ours" else run_trl
        seconds = run(workload, fixed, Path(folder))[WARM_UP:]
    peak = {"peak_mb": resident_mb() - before}
    if torch.cuda.is_available():
        peak["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps({"seconds": seconds, **peak}))


def resident_mb() -> float:
    """Largest resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ask(side: str, workload: Workload, fixed: bool) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--child", side, json.dumps(asdict(workload))]
    command += ["--fixed"] if fixed else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{side} on {workload.name} failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(workload: Workload, rounds: int) -> dict[str, Any]:
    """Both sides in turns, training and end to end."""
    made: dict[str, Any] = {"workload": workload.name, "setting": asdict(workload)}
    for kind, fixed in (("training", True), ("end_to_end", False)):
        found: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": []}
        for _ in range(rounds):
            for side, runs in found.items():
                runs.append(ask(side, workload, fixed))
        seconds = {s: [t for run in runs for t in run["seconds"]] for s, runs in found.items()}
        median = {side: statistics.median(values) for side, values in seconds.items()}
        made[f"ratio_{kind}"] = round(median["trl"] / median["ours"], 2)
        made[f"seconds_{kind}"] = {s: [round(t, 3) for t in v] for s, v in seconds.items()}
        if fixed:
            made |= {"ours_s": round(median["ours"], 4), "trl_s": round(median["trl"], 4)}
            for side, runs in found.items():
                for key in ("peak_mb", "peak_gpu_mb"):
                    if key in runs[0]:
                        made[f"{key}_{side}"] = round(max(run[key] for run in runs))
    return made


def grow(axis: str, sizes: Sequence[Workload]) -> dict[str, Any]:
    """Our seconds of a training step and memory at each size, and how both grow: the power of the
    size that explains the last two."""
    runs = {w.name: ask("ours", w, True) for w in sizes}
    seconds = {name: statistics.median(run["seconds"]) for name, run in runs.items()}
    *_, (small, less), (large, more) = [(int(n.rpartition("-")[2]), t) for n, t in seconds.items()]
    return {
        "axis": axis,
        "ours_s": {name: round(t, 4) for name, t in seconds.items()},
        "peak_mb": {name: round(run["peak_mb"]) for name, run in runs.items()},
        "power": round(math.log(more / less) / math.log(large / small), 2),
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    """``grow`` of every axis, as lines of text."""
    lines = [f"{'size':<20}{'seconds':>10}{'MiB':>8}"]
    for found in results:
        for name, seconds in found["ours_s"].items():
            lines.append(f"{name:<20}{seconds:>10.4f}{found['peak_mb'][name]:>8}")
        lines.append(f"  seconds grow with {found['axis']} to the power {found['power']}")
    return "\n".join(lines)


def main() -> None:
    """Prints a line per workload, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workloads", nargs="*", choices=[w.name for w in WORKLOADS])
    parser.add_argument("--growth", action="store_true", help="ours at three sizes each, instead")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--fixed", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], Workload(**json.loads(args.child[1])), args.fixed)
        return
    results = []
    if args.growth:
        for axis, sizes in GROWTH.items():
            results.append(grow(axis, sizes))
        if not args.json:
            print(table(results))
    else:
        for workload in WORKLOADS:
            if not args.workloads or workload.name in args.workloads:
                results.append(compare(workload, args.rounds))
                if not args.json:
                    shown = {k: v for k, v in results[-1].items() if k != "setting"}
                    print(json.dumps(shown), flush=True)
    if args.json:
        print(json.dumps({"results": results}, indent=1))


if __name__ == "__main__":
    main()
