"""Every preset that samples, on one task and from one start: what is learnt from equal samples.

    python benchmarks/lab_presets.py run [--seeds 0 1 2] [--budget 4096] [--only grpo gspo]
        [--set schedule.updates_per_batch=4 --output runs/other]
    python benchmarks/lab_presets.py table
    python benchmarks/lab_presets.py plot [--to docs/img/lab_presets.svg]

``run`` trains one start model per seed (the warm start of ``lab/presets_arithmetic``), then each
preset from it until ``--budget`` samples have been generated, those that dynamic sampling throws
away included. Held-out problems are evaluated before, after each quarter of the budget and at the
end, with the same random streams for every preset of a seed. A finished run is not run again, and a
broken one starts afresh. ``table`` and ``plot`` (which needs matplotlib) read what is finished.

``grpo-again`` is GRPO with the same problems in another order: how far two runs of one algorithm
lie apart. A difference between algorithms that is no larger says nothing.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

RECIPE = "lab/presets_arithmetic"
BASELINE = "grpo"
CONTROL = {"grpo-again": ["algorithm=grpo", "data.shuffle=false"]}
SIXTY_FOUR = ["rollout.samples_per_problem=64", "sampling.problems_per_step=2"]
SETTINGS = {  # what a preset needs on this task beside its own settings
    "t1": SIXTY_FOUR,  # so many samples of a problem are the method: 128 a step, as for the others
    "pods": SIXTY_FOUR,
}
# Left out unless --only names them: they need demonstrations (amft) or a reward of steps or pairs;
# the samples of a tree share their beginnings, so that equal samples are not equal work.
ELSEWHERE = {"amft", "grpo_process", "pure", "brpo", "pairwise", "treerl", "treepo"}
QUARTERS = 4
RESULT = "curve.json"


@dataclass(frozen=True)
class Point:
    """A held-out evaluation after so many generated ``samples``: share of right ones by problem,
    their mean length, and nats per token, estimated by the mean of -log p of the tokens drawn."""

    samples: int
    right: dict[str, float]
    tokens: float
    entropy: float


@dataclass(frozen=True)
class Curve:
    """One finished run; ``seconds``: processor time of its steps, evaluation left out."""

    label: str
    seed: int
    budget: int
    steps: int
    updates: int
    seconds: float
    points: list[Point]

    @property
    def samples(self) -> list[int]:
        """Where the run was evaluated."""
        return [point.samples for point in self.points]

    def in_words(self) -> str:
        """One line for a log."""
        shown = " ".join(f"{self.right_at(n).mean():.3f}" for n in self.samples)
        return f"pass@1 {shown}, {self.samples[-1]} samples in {self.steps} steps"

    def right_at(self, samples: float) -> np.ndarray:
        """Share of right samples of each problem, on straight lines between evaluations: (P,)."""
        problems = sorted(self.points[0].right)
        right_PX = [[point.right[name] for point in self.points] for name in problems]
        return np.array([np.interp(samples, self.samples, right_X) for right_X in right_PX])

    def area(self) -> np.ndarray:
        """Mean of ``right_at`` from 0 samples to the budget, by the trapezoid rule: (P,)."""
        knots = [0, *(n for n in self.samples if 0 < n < self.budget), self.budget]
        right_XP = [self.right_at(n) for n in knots]
        return np.trapezoid(right_XP, knots, axis=0) / self.budget


# -- running --------------------------------------------------------------------------------------


class Overheard:
    """Counts what an engine samples from now on, and how probable the tokens were."""

    def __init__(self, engine: Any) -> None:
        self._generate, engine.generate = engine.generate, self.generate
        self.start()

    def start(self) -> None:
        """Counts from nothing."""
        self.samples, self.tokens, self.logp_nats = 0, 0, 0.0

    def generate(self, requests: Sequence[Any], params: Any) -> Iterator[tuple[int, Any]]:
        """As the engine's own."""
        for index, sample in self._generate(requests, params):
            self.samples += 1
            self.tokens += len(sample.token_ids)
            self.logp_nats += sum(sample.logprobs)
            yield index, sample


def labels(only: Sequence[str]) -> dict[str, list[str]]:
    """Runs by label, as overrides of the recipe: every preset that samples, and the control."""
    from llmalign.presets import PRESETS

    every = {name: [f"algorithm={name}", *SETTINGS.get(name, [])] for name in PRESETS} | CONTROL
    if unknown := set(only) - set(every):
        raise ValueError(f"--only has {sorted(unknown)}, expected names out of {sorted(every)}")
    chosen = only or [name for name in every if name not in ELSEWHERE]
    return {name: every[name] for name in chosen if samples(every[name])}


def samples(overrides: Sequence[str]) -> bool:
    """Whether an algorithm samples; what cannot be built says why when it is run."""
    from llmalign.recipe import load_recipe

    try:
        return load_recipe(RECIPE, ["warm_start=null", *overrides]).stage == "policy"
    except ValueError:
        return True


def start_model(output: Path, seed: int) -> Path:
    """The model that all runs of a seed start from; made once."""
    from llmalign.recipe import build_recipe, read_recipe
    from llmalign.training import train

    folder = output / f"start-{seed}"
    if not (folder / "final").is_dir():
        raw = read_recipe(RECIPE)
        own = {"name": folder.name, "output": str(output), "algorithm": "sft", "seed": seed}
        train(build_recipe(own | {"model": raw["model"]} | raw["warm_start"]), resume="auto")
    return folder / "final"


def run_one(label: str, overrides: Sequence[str], seed: int, budget: int, output: Path) -> Curve:
    """One run, from its start model to the end of the budget; its curve is in ``RESULT``."""
    from llmalign.observe import RunLog
    from llmalign.online import open_online
    from llmalign.policy import load_policy
    from llmalign.recipe import load_recipe
    from llmalign.run import RunFolder
    from llmalign.scale.checkpoint import seed_everything

    start = json.dumps({"path": str(start_model(output, seed))})
    common = [f"model={start}", "warm_start=null", f"seed={seed}", f"output={output}"]
    quiet = ["observe.samples_every=1000000", f"name={label}-{seed}"]
    recipe = load_recipe(RECIPE, [*common, *quiet, *overrides])
    folder = RunFolder(output / recipe.name)
    folder.open(recipe, resume=False, overwrite=True)
    seed_everything(seed)
    policy = load_policy(recipe.model, seed=seed)
    with open_online(recipe, folder, policy) as loop, RunLog(folder.path, resume_step=None) as log:
        heard = Overheard(loop.engine)
        points = [evaluated(loop, heard, 0)]
        steps, generated, seconds = 0, 0, 0.0
        while generated < budget:
            heard.start()
            began = time.process_time()
            log.log({"step": steps, **loop.step(steps)})
            seconds += time.process_time() - began
            quarter = generated * QUARTERS // budget
            steps, generated = steps + 1, generated + heard.samples
            if generated * QUARTERS // budget > quarter:
                points.append(evaluated(loop, heard, generated))
        curve = Curve(label, seed, budget, steps, policy.version, seconds, points)
    (folder.path / RESULT).write_text(json.dumps(asdict(curve)))
    return curve


def evaluated(loop: Any, heard: Overheard, generated: int) -> Point:
    """The held-out evaluation of a run as it stands."""
    heard.start()
    summary = loop.evaluate(label := f"samples-{generated:08d}")
    stored = json.loads((loop.folder.path / "eval" / f"{label}.json").read_text())
    right = {
        problem["problem_id"]: statistics.fmean(s["verdict"] == "right" for s in problem["samples"])
        for problem in stored["problems"]
    }
    return Point(generated, right, summary["tokens_mean"], -heard.logp_nats / heard.tokens)


def is_finished(result: Path, budget: int) -> bool:
    """Whether a run came to its end; one of another budget is not overwritten."""
    done = json.loads(result.read_text())["budget"] if result.is_file() else None
    if done not in (None, budget):
        raise ValueError(f"{result} is of budget {done}, expected {budget}; use another --output")
    return done is not None


def run(args: argparse.Namespace) -> int:
    """Runs what is not finished, one line per run; how many failed."""
    failed = 0
    for seed in args.seeds:
        for label, overrides in labels(args.only).items():
            if is_finished(args.output / f"{label}-{seed}" / RESULT, args.budget):
                continue
            try:
                chosen = [*overrides, *args.set]
                line = run_one(label, chosen, seed, args.budget, args.output).in_words()
            except (ValueError, RuntimeError) as error:
                failed, line = failed + 1, f"failed: {error}"
            print(f"{label} seed {seed}: {line}", flush=True)
    return failed


# -- table and plot -------------------------------------------------------------------------------


def finished(output: Path) -> dict[str, dict[int, Curve]]:
    """Finished runs: label -> seed -> curve."""
    found: dict[str, dict[int, Curve]] = {BASELINE: {}}
    for path in sorted(output.glob(f"*/{RESULT}")):
        raw = json.loads(path.read_text())
        curve = Curve(**raw | {"points": [Point(**point) for point in raw["points"]]})
        found.setdefault(curve.label, {})[curve.seed] = curve
    if not found[BASELINE]:
        raise ValueError(f"{output} holds no finished run of {BASELINE}, expected at least one")
    return found


@dataclass(frozen=True)
class Comparison:
    """A preset less the baseline: by seed, the mean over problems; of the mean over seeds, the 95 %
    bootstrap interval over problems."""

    by_seed: list[float]
    interval: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.mean:+.3f} [{low:+.3f}, {high:+.3f}]"

    @property
    def mean(self) -> float:
        """Over problems and seeds."""
        return statistics.fmean(self.by_seed)

    def verdict(self, luck: float) -> str:
        """In words. Resampling problems knows nothing of the luck of a run, so all seeds must agree
        and the difference must be larger than ``luck``."""
        low, high = self.interval
        agree = len(self.by_seed) > 1 and max(self.by_seed) * min(self.by_seed) > 0
        if low <= 0 <= high or not agree:
            return "not distinguishable"
        word = "faster" if low > 0 else "slower"
        return word if abs(self.mean) > luck else f"{word}, within luck"


def compare(one_SP: np.ndarray, other_SP: np.ndarray) -> Comparison:
    """``one - other``, paired: (S, P) figures of the same seeds and problems."""
    from llmalign.evaluation import bootstrap_interval

    less_SP = one_SP - other_SP
    interval = bootstrap_interval(less_SP.mean(axis=0), seed=0)
    return Comparison(less_SP.mean(axis=1).tolist(), interval)


def ranked(output: Path) -> list[tuple[list[Curve], list[Curve]]]:
    """(runs, baseline's runs of the same seeds) of every label, largest area first."""
    found, pairs = finished(output), []
    for runs in found.values():
        if shared := sorted(set(runs) & set(found[BASELINE])):
            pairs.append(([runs[s] for s in shared], [found[BASELINE][s] for s in shared]))
    return sorted(pairs, key=lambda pair: -areas(pair[0]).mean())


def luck_of(pairs: Sequence[tuple[list[Curve], list[Curve]]]) -> float:
    """Largest difference of the control in a seed; 0 where it was not run."""
    again = [compare(areas(runs), areas(base)) for runs, base in pairs if runs[0].label in CONTROL]
    return max((abs(value) for one in again for value in one.by_seed), default=0.0)


def areas(curves: Sequence[Curve]) -> np.ndarray:
    """Area of every run and problem: (S, P)."""
    return np.stack([curve.area() for curve in curves])


def heights(curves: Sequence[Curve], share: float) -> np.ndarray:
    """Share of right samples of every run and problem when ``share`` of the budget is spent."""
    return np.stack([curve.right_at(share * curve.budget) for curve in curves])


def each(value_SP: np.ndarray) -> str:
    """Mean and, in brackets, the value of every seed."""
    listed = " ".join(f"{value:.3f}" for value in value_SP.mean(axis=1))
    return f"{value_SP.mean():.3f} ({listed})"


def row(runs: list[Curve], base: list[Curve], luck: float) -> dict[str, str]:
    """One preset's line of the table."""
    learning = compare(areas(runs), areas(base))
    at_end = compare(heights(runs, 1.0), heights(base, 1.0))
    other = runs[0].label != BASELINE
    return {
        "preset": runs[0].label,
        "half-way": each(heights(runs, 0.5)),
        "end": each(heights(runs, 1.0)),
        "area": each(areas(runs)),
        "area less grpo's": str(learning) if other else "",
        "by seed": " ".join(f"{value:+.3f}" for value in learning.by_seed) if other else "",
        "end less grpo's": str(at_end) if other else "",
        "verdict": learning.verdict(luck) if runs[0].label not in {BASELINE, *CONTROL} else "",
        "tokens": f"{statistics.fmean(c.points[-1].tokens for c in runs):.1f}",
        "entropy": f"{statistics.fmean(c.points[-1].entropy for c in runs):.3f}",
        "steps": f"{statistics.fmean(c.steps for c in runs):.0f}",
        "updates": f"{statistics.fmean(c.updates for c in runs):.0f}",
        "CPU s/step": f"{statistics.fmean(c.seconds / c.steps for c in runs):.2f}",
    }


def table(args: argparse.Namespace) -> None:
    """Prints the table in Markdown."""
    pairs = ranked(args.output)
    print(f"Before: pass@1 {each(heights(max((base for _, base in pairs), key=len), 0.0))}.\n")
    rows = [row(runs, base, luck_of(pairs)) for runs, base in pairs]
    print("| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|")
    print("\n".join("| " + " | ".join(cells.values()) + " |" for cells in rows))


INK, OTHER_INK, BASE_INK = {"faster": "#1b6ca8", "slower": "#c0392b"}, "#444444", "#9a9a9a"
ACROSS = 7


def plot(args: argparse.Namespace) -> None:
    """Small multiples, one per preset, each over the baseline in grey."""
    import matplotlib.pyplot as plt

    plt.rc("svg", fonttype="none", hashsalt="lab")
    plt.rc("font", size=8)
    plt.rc("axes", titlesize=7)
    pairs = [pair for pair in ranked(args.output) if pair[0][0].label != BASELINE]
    luck = luck_of(pairs)
    down = -(-len(pairs) // ACROSS)
    size = (1.6 * ACROSS, 1.6 * down + 0.4)
    figure, axes = plt.subplots(down, ACROSS, sharex=True, sharey=True, squeeze=False, figsize=size)
    figure.set_layout_engine("constrained")
    for axis in axes.flat[len(pairs) :]:
        axis.set_visible(False)
    for axis, (runs, base) in zip(axes.flat, pairs, strict=False):
        learning = compare(areas(runs), areas(base))
        ink = INK.get(learning.verdict(luck), OTHER_INK)
        draw(axis, base, BASE_INK, seeds=False)
        draw(axis, runs, ink, seeds=True)
        axis.set_title(f"{runs[0].label} {learning.mean:+.3f}", color=ink)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("generated samples, thousands")
    figure.supylabel("held-out pass@1")
    args.to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.to, metadata={"Date": None})


def draw(axis: Any, curves: Sequence[Curve], ink: str, *, seeds: bool) -> None:
    """Mean over seeds with its 95 % bootstrap interval over problems; thinly, each of ``seeds``."""
    from llmalign.evaluation import bootstrap_interval

    shares = np.linspace(0, 1, QUARTERS + 1)
    right_XSP = [heights(curves, share) for share in shares]
    low, high = zip(*(bootstrap_interval(v.mean(axis=0), seed=0) for v in right_XSP), strict=True)
    at = shares * curves[0].budget / 1000
    axis.fill_between(at, low, high, color=ink, alpha=0.18, linewidth=0)
    axis.plot(at, [v.mean() for v in right_XSP], color=ink, linewidth=1.4)
    if seeds:
        axis.plot(at, [v.mean(axis=1) for v in right_XSP], color=ink, linewidth=0.5, alpha=0.6)


def main() -> None:
    """The command line."""
    verbs = {"run": run, "table": table, "plot": plot}
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("verb", choices=verbs)
    parser.add_argument("--output", type=Path, default=Path("runs/lab_presets"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", type=int, default=4096, help="generated samples of a run")
    parser.add_argument("--only", nargs="+", default=[], metavar="PRESET")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="for all runs")
    parser.add_argument("--to", type=Path, default=Path("docs/img/lab_presets.svg"))
    args = parser.parse_args()
    try:
        sys.exit(verbs[args.verb](args))
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"lab_presets: {error}")


if __name__ == "__main__":
    main()
