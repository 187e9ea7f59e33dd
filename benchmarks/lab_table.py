"""Markdown table of finished runs: the mean over seeds, and each seed's value in brackets.

    python benchmarks/lab_table.py LABEL=FOLDER[,FOLDER...] ...  [--at STEP[,STEP...]]

Each label is a recipe, its folders are its runs, one per seed. Rows: the held-out evaluation before
the run, in the middle (the recipe's ``evaluate.every`` decides which there are; ``--at`` names
others) and after it. Everything but the entropy is of the held-out samples: answers are the unlike
ones among the samples of a problem, solutions the unlike texts, right solutions the unlike texts
that the verifier accepts, length is in tokens. The entropy is nats per token of the samples trained
on, the mean of the three steps nearest; a run without KL and entropy bonus measures it only on the
samples that it learns from.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

KS = (1, 4, 16)
WINDOW = 3  # steps whose entropy is averaged
ABSENT = "–"
COUNTS = ("answers", "solutions", "right solutions")

Row = dict[str, float | None]


def evaluations(folder: Path) -> dict[int, Path]:
    """Steps taken before each evaluation of the run, and its file."""
    found = {0: folder / "eval" / "before.json"}
    for path in sorted((folder / "eval").glob("step-*.json")):
        found[int(path.stem.removeprefix("step-"))] = path
    steps = json.loads((folder / "summary.json").read_text())["steps"]
    found[steps] = folder / "eval" / "after.json"
    return found


def figures(folder: Path, step: int, path: Path) -> Row:
    """One evaluation of one run."""
    stored = json.loads(path.read_text())
    summary = stored["summary"]
    groups = [problem["samples"] for problem in stored["problems"]]
    row: Row = {f"pass@{k}": summary["pass@k"].get(str(k)) for k in KS}
    row["pass@1"] = summary["pass@1"]
    row["maj@16"] = summary["maj@k"].get("16")
    row["entropy"] = entropy_near(folder, step)
    row["answers"] = mean(unlike(group, "extracted") for group in groups)
    row["solutions"] = mean(unlike(group, "completion") for group in groups)
    judged = any(sample["verdict"] for group in groups for sample in group)
    row["right solutions"] = mean(map(unlike_right, groups)) if judged else None
    row["length"] = summary["tokens_mean"]
    return row


def unlike(samples: Sequence[dict[str, Any]], key: str) -> int:
    """How many unlike values the samples of a problem hold; a missing answer is none."""
    return len({sample[key] for sample in samples} - {None})


def unlike_right(samples: Sequence[dict[str, Any]]) -> int:
    """How many unlike texts of a problem's samples the verifier accepts."""
    return unlike([sample for sample in samples if sample["verdict"] == "right"], "completion")


def entropy_near(folder: Path, step: int) -> float | None:
    """Mean entropy of the training samples of the steps around ``step``; None where none say."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    by_step = {line["step"]: line.get("entropy") for line in map(json.loads, lines)}
    nearest = sorted(by_step, key=lambda other: abs(other - step))[:WINDOW]
    known = [by_step[s] for s in nearest if by_step[s] is not None]
    return mean(known) if known else None


def chosen_steps(runs: Sequence[dict[int, Path]], wanted: Sequence[int]) -> list[int]:
    """First, wanted (by default the one nearest the middle) and last step that all runs share.

    Raises: ValueError: the runs share no such step.
    """
    shared = sorted(set.intersection(*(set(run) for run in runs)))
    last = {max(run) for run in runs}
    if len(last) > 1:
        raise ValueError(f"runs of one label end after {sorted(last)} steps, expected one length")
    if missing := set(wanted) - set(shared):
        raise ValueError(f"no evaluation after steps {sorted(missing)}, there are {shared}")
    end = max(shared)
    between = list(wanted) or sorted(shared[1:-1], key=lambda step: abs(step - end / 2))[:1]
    return sorted({0, *between, end})


def cell(values: Sequence[float | None], digits: int) -> str:
    """Mean and each value; a dash where a run lacks the figure."""
    if any(value is None for value in values):
        return ABSENT
    known = [value for value in values if value is not None]
    shown = f"{mean(known):.{digits}f}"
    if len(known) == 1:
        return shown
    return f"{shown} ({' '.join(f'{value:.{digits}f}' for value in known)})"


def table(runs_of: dict[str, list[Path]], wanted: Sequence[int]) -> list[str]:
    """The lines of the table."""
    lines: list[str] = []
    for label, folders in runs_of.items():
        found = [evaluations(folder) for folder in folders]
        for step in chosen_steps(found, wanted):
            rows = [figures(f, step, run[step]) for f, run in zip(folders, found, strict=True)]
            if not lines:
                lines = [
                    "| | step | " + " | ".join(rows[0]) + " |",
                    "|" + "---|" * (len(rows[0]) + 2),
                ]
            cells = [
                cell(
                    [row[key] for row in rows], 1 if key == "length" else 2 if key in COUNTS else 3
                )
                for key in rows[0]
            ]
            lines.append(f"| {label} | {step} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Prints the table."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="LABEL=FOLDER[,FOLDER...]")
    parser.add_argument("--at", default="", metavar="STEP[,STEP...]", help="steps in between")
    args = parser.parse_args()
    runs_of: dict[str, list[Path]] = {}
    for given in args.runs:
        label, named, folders = given.rpartition("=")
        paths = [Path(folder) for folder in folders.split(",")]
        runs_of[label if named else paths[0].name] = paths
    try:
        print("\n".join(table(runs_of, [int(step) for step in args.at.split(",") if step])))
    except (OSError, ValueError) as error:
        sys.exit(f"lab_table: {error}")


if __name__ == "__main__":
    main()
