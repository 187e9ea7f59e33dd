"""Seconds per GRPO step: llmalign beside TRL, same model, same prompts, same sizes, one run.

    python benchmarks/vs_trl.py [--steps 12] [--problems 8] [--samples 8] [--tokens 64]

Both train the embedded tiny model from the same weights on the same arithmetic prompts with the
same reward function (a digit count, so that neither pays for a verifier), AdamW, temperature 1 and
no KL. Completions are cut at the token limit in both. The first steps of each are left out as
warm-up; the two run one after the other in turns, and the median over the rest is compared.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from llmalign.generate import generate_rows
from llmalign.online import open_online
from llmalign.policy import load_policy
from llmalign.recipe import build_recipe
from llmalign.run import RunFolder

WARM_UP = 2


def digits(prompts: Any, completions: list[str], **_: Any) -> list[float]:
    """Share of digits in a completion: cheap, and differs between samples."""
    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in completions]


def llmalign_steps(args: argparse.Namespace) -> list[float]:
    """Seconds of every step of our loop."""
    raw = {
        "name": "bench",
        "algorithm": "grpo",
        "model": {"build": "tiny"},
        "data": {"train": {"generate": "arithmetic", "count": 512}},
        "reward": {"call": {"function": f"{__name__}:digits", "in_process": True}},
        "rollout": {"samples_per_problem": args.samples, "max_new_tokens": args.tokens},
        "sampling": {"problems_per_step": args.problems},
        "kl": {"coef": 0.0},
        "optimizer": {"lr": 1e-4},
        "schedule": {"steps": args.steps},
    }
    with tempfile.TemporaryDirectory() as folder:
        recipe = build_recipe(raw | {"output": folder})
        run = RunFolder(Path(folder) / "bench")
        run.open(recipe, resume=False, overwrite=False)
        with open_online(recipe, run, load_policy(recipe.model, seed=0)) as loop:
            return [loop.step(step)["seconds"] for step in range(args.steps)]


def trl_steps(args: argparse.Namespace) -> list[float]:
    """Seconds between the ends of TRL's steps."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    policy = load_policy(build_recipe_model(), seed=0)
    rows = generate_rows("arithmetic", 512, seed=0, split="train", options={})
    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not ends:
                ends.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=args.problems * args.samples,
            num_generations=args.samples,
            max_completion_length=args.tokens,
            max_steps=args.steps,
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            loss_type="grpo",
            beta=0.0,
            temperature=1.0,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            seed=0,
        )
        GRPOTrainer(
            model=policy.model,
            processing_class=policy.tokenizer,
            reward_funcs=digits,
            args=config,
            train_dataset=Dataset.from_list([{"prompt": row["problem"]} for row in rows]),
            callbacks=[Clock()],
        ).train()
    return [b - a for a, b in zip(ends, ends[1:], strict=False)]


def build_recipe_model() -> Any:
    """The recipe block of the embedded model."""
    from llmalign.schema import Model

    return Model(build="tiny")


def main() -> None:
    """Runs both in turns and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    seconds: dict[str, list[float]] = {"llmalign": [], "trl": []}
    for _ in range(args.rounds):
        for name, run in (("llmalign", llmalign_steps), ("trl", trl_steps)):
            seconds[name] += run(args)[WARM_UP:]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        json.dumps(
            {
                "median_seconds_per_step": medians,
                "ratio_llmalign_to_trl": medians["llmalign"] / medians["trl"],
                "spread": {n: [min(v), max(v)] for n, v in seconds.items()},
                "steps_counted": {n: len(v) for n, v in seconds.items()},
                "setting": vars(args),
                "threads": torch.get_num_threads(),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
