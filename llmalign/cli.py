"""The command line: one verb per thing a user comes to do, each a thin layer over a function."""

import difflib
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from llmalign.curation.commands import data_app

app = typer.Typer(
    name="llmalign",
    help="Post-train language models with verifiable rewards, preferences, or no labels at all.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
recipe_app = typer.Typer(help="Show, compare and describe recipes.", no_args_is_help=True)
app.add_typer(recipe_app, name="recipe")
app.add_typer(data_app, name="data")

RecipeArgument = Annotated[str, typer.Argument(help="a shipped recipe's name or a .yaml file")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="override one key: key.path=value; may be repeated"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object, nothing else")]


@app.command()
def train(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    name: Annotated[str | None, typer.Option(help="name of the run folder")] = None,
    output: Annotated[str | None, typer.Option(help="folder that run folders lie in")] = None,
    resume: Annotated[
        str | None, typer.Option(help="'auto', or the path of a checkpoint folder")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option(help="delete the run that the run folder holds")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe: reinforcement learning, preferences or supervised fine-tuning alike.

    Stops cleanly on Ctrl-C or SIGTERM: the step in flight is finished and saved, and
    `--resume auto` goes on from there.
    """
    from llmalign.recipe import load_recipe
    from llmalign.training import train as run

    extra = [f"name={name}"] if name else []
    extra += [f"output={output}"] if output else []
    loaded = load_recipe(recipe, [*(overrides or []), *extra])
    if as_json:
        with _stdout_to_stderr():
            summary = run(loaded, resume=resume, overwrite=overwrite)
        print(json.dumps(summary))
        return
    summary = run(loaded, resume=resume, overwrite=overwrite)
    folder = Path(loaded.output) / loaded.name
    if summary.get("finished"):
        print(f"model {folder / 'final'} · report {folder / 'report.html'}")
        print(f"summary {folder / 'summary.json'} · training took {summary['train_seconds']:.0f} s")


@app.command()
def eval(  # noqa: A001 (the verb's name)
    model: Annotated[str, typer.Argument(help="a model's folder or hub name")],
    recipe: Annotated[str, typer.Option(help="recipe whose data, reward and sampling to use")],
    overrides: SetOption = None,
    samples: Annotated[int | None, typer.Option(help="samples per problem")] = None,
    output: Annotated[
        Path | None, typer.Option(help="JSON file for the summary and every sample")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """pass@1, pass@k and maj@k of a model on a recipe's held-out problems, with intervals."""
    from llmalign.evaluation.run import evaluate
    from llmalign.recipe import load_recipe
    from llmalign.training import describe

    settings = [f"model={json.dumps({'path': model})}", "warm_start=null"]
    settings += [f"evaluate.samples={samples}"] if samples else []
    loaded = load_recipe(recipe, [*settings, *(overrides or [])])
    summary = evaluate(loaded, output=output)
    print(json.dumps(summary) if as_json else describe(model, summary))


@app.command()
def verify(
    kind: Annotated[
        str, typer.Argument(help="a verifier, your own pkg.mod:function, or a peer (see --against)")
    ],
    file: Annotated[Path, typer.Argument(help="JSONL: gold, prediction, label, …")],
    against: Annotated[
        str | None, typer.Option(help="audit too: math-verify, trl, prm800k:PATH, or any KIND")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="key=value for the verifier; may be repeated"),
    ] = None,
    workers: Annotated[int, typer.Option(help="processes; 1 measures times best")] = 1,
    timeout: Annotated[float, typer.Option(help="seconds one judgement may take")] = 5.0,
    min_accuracy: Annotated[
        float | None, typer.Option(help="exit code 1 below this fraction")
    ] = None,
    max_false_accept: Annotated[
        float | None, typer.Option(help="exit code 1 above this fraction of the unequal rows")
    ] = None,
    disagreements: Annotated[int, typer.Option(help="how many wrong decisions to list")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Audit a verifier on labelled rows: accuracy, false accepts and rejects, undecided, time.

    Exit code 1 where a bound is missed.
    """
    from llmalign import tables
    from llmalign.verifiers.audit import verify as run

    given = _options(option or [])
    with tables.audit_progress(shown=not as_json) as progress:
        found = run(
            kind,
            file,
            workers=workers,
            timeout_s=timeout,
            against=against,
            options=given,
            progress=progress,
        )
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        tables.print_audit(found, disagreements)
    missed = found.missed(min_accuracy=min_accuracy, max_false_accept=max_false_accept)
    for line in missed:
        print(f"error: {line}", file=sys.stderr)
    raise typer.Exit(1 if missed else 0)


@app.command()
def score(
    reward: Annotated[Path, typer.Argument(help="YAML: a reward tree, or a recipe")],
    file: Annotated[Path, typer.Argument(help="JSONL of samples, such as RUN/samples/*.jsonl")],
    attack: Annotated[
        bool, typer.Option("--attack", help="score answers that deserve nothing instead")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="write every row to this JSONL file")] = None,
    workers: Annotated[int, typer.Option(help="verifier processes")] = 2,
    timeout: Annotated[float, typer.Option(help="seconds one judgement may take")] = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Run a reward tree over saved samples, every node shown; or attack it."""
    from llmalign import saved, tables

    run = saved.attack if attack else saved.score
    found = run(reward, file, workers=workers, timeout_s=timeout)
    if output is not None:
        output.write_text("".join(json.dumps(row) + "\n" for row in found.rows))
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        tables.print_scored(found, attack=attack)


@app.command()
def doctor(
    recipe: Annotated[
        str | None, typer.Argument(help="also check this recipe: its data and its golds")
    ] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Before training: versions, cores, memory, sandbox; with a recipe, whether its golds can be
    scored. Exit code 1 where they cannot."""
    from llmalign import checkup

    found: dict[str, Any] = {"machine": checkup.machine()}
    if recipe is not None:
        from llmalign.recipe import load_recipe

        found["recipe"] = checkup.golds(load_recipe(recipe, overrides or []))
    print(json.dumps(found) if as_json else checkup.describe(found))
    raise typer.Exit(1 if found.get("recipe", {}).get("bad_golds") else 0)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="a run folder")]) -> None:
    """Write RUN/report.html: curves and a sample browser in one file that needs no network."""
    from llmalign.observe import write_report

    if not (run / "recipe.yaml").is_file():
        raise FileNotFoundError(f"run is {str(run)!r}, expected a folder with recipe.yaml")
    print(write_report(run))


@app.command("list")
def list_things(
    kind: Annotated[
        str,
        typer.Argument(
            help="recipes, algorithms, rewards, verifiers, advantages, losses or generators"
        ),
    ],
    name: Annotated[str | None, typer.Argument(help="show this one in full")] = None,
    as_json: JsonOption = False,
) -> None:
    """What there is of a kind: name, one line, paper and options; of one thing, all there is."""
    rows = _listing(kind, name)
    if as_json:
        print(json.dumps(rows if name is None else rows[0], default=str))
        return
    if name is not None:
        from llmalign.catalogue import in_lines

        print("\n".join(in_lines(rows[0])))
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['name']:<{width}}  {row['summary']}")
        for line in _details(row):
            print(f"{'':<{width}}  {line}")


@recipe_app.command("show")
def recipe_show(recipe: RecipeArgument, overrides: SetOption = None) -> None:
    """Print the fully resolved recipe."""
    from llmalign.recipe import load_recipe

    print(load_recipe(recipe, overrides or []).to_yaml(), end="")


@recipe_app.command("schema")
def recipe_schema() -> None:
    """Print the JSON schema of a recipe file, for editors."""
    from llmalign.recipe import json_schema

    print(json.dumps(json_schema(), indent=2))


@recipe_app.command("diff")
def recipe_diff(left: RecipeArgument, right: RecipeArgument) -> None:
    """Print what differs between two recipes once both are resolved; exit code 1 if anything."""
    from llmalign.recipe import load_recipe

    one, other = (load_recipe(name).to_yaml().splitlines() for name in (left, right))
    lines = list(difflib.unified_diff(one, other, left, right, lineterm="", n=1))
    print("\n".join(lines))
    raise typer.Exit(1 if lines else 0)


def _options(given: list[str]) -> dict[str, Any]:
    """``key=value`` as options: a value is JSON where it reads as such, else a string."""
    found: dict[str, Any] = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not key or not equals:
            raise ValueError(f"--option is {one!r}, expected key=value")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _details(row: dict[str, Any]) -> list[str]:
    """What stands below the name and the summary of one row of a list."""
    facts = [row[key] for key in ("signature", "paper", "options") if row.get(key)]
    if "need" in row:
        names = ", ".join(option["name"] for option in row["options"])
        facts = [f"need: {row['need']}", f"range: {row['range']}"]
        return [line for line in (row["paper"], " · ".join(facts), names) if line]
    return [" · ".join(facts)] if facts else []


def _listing(kind: str, name: str | None = None) -> list[dict[str, Any]]:
    """A row for each thing of a kind; with ``name`` the full row of that one."""
    from llmalign.verifiers.registry import unknown

    if name is not None and kind == "recipes":
        raise ValueError(
            f"name is {name!r}, expected none after {kind}; see `llmalign recipe show RECIPE`"
        )
    if kind == "recipes":
        from llmalign.recipe import list_recipes

        return [{"name": name, "summary": line} for name, line in list_recipes().items()]
    if kind == "algorithms":
        return _algorithms(name)
    if kind not in _REGISTRIES:
        raise ValueError(unknown("kind", kind, [*_REGISTRIES, "recipes", "algorithms"]))
    from llmalign.catalogue import full_row, row

    home, found = _REGISTRIES[kind]
    registry = getattr(import_module(home), found)
    if name is not None:
        return [full_row(registry.get(name, f"list {kind}"))]
    return [full_row(e) if kind == "rewards" else row(e) for e in registry.entries()]


def _algorithms(name: str | None) -> list[dict[str, Any]]:
    import yaml

    from llmalign.family import in_one_line
    from llmalign.presets import PRESETS
    from llmalign.verifiers.registry import unknown

    if name is None:
        return [
            {"name": n, "summary": preset.about, "options": in_one_line(preset.choices)}
            for n, preset in sorted(PRESETS.items())
        ]
    if name not in PRESETS:
        raise ValueError(f"list algorithms: {unknown('algorithm', name, PRESETS)}")
    preset = PRESETS[name]
    choices = yaml.safe_dump(dict(preset.choices), sort_keys=False)
    doc = f"{preset.about}\n\n{choices.rstrip()}"
    return [{"name": name, "summary": preset.about, "doc": doc, "options": []}]


# Where each registry lives; only the one asked for is imported, as some bring torch along.
_REGISTRIES = {
    "rewards": ("llmalign.rewards", "REWARDS"),
    "verifiers": ("llmalign.verifiers", "VERIFIERS"),
    "advantages": ("llmalign.advantages", "ADVANTAGES"),
    "token_weights": ("llmalign.token_weights", "TOKEN_WEIGHTS"),
    "losses": ("llmalign.losses", "LOSSES"),
    "generators": ("llmalign.generate", "GENERATORS"),
}


class _stdout_to_stderr:
    """Keeps stdout for the one JSON object."""

    def __enter__(self) -> None:
        self._stdout, sys.stdout = sys.stdout, sys.stderr

    def __exit__(self, *_: object) -> None:
        sys.stdout = self._stdout


def main() -> None:
    """Entry point: a fault of the input is one clear line and exit code 1, never a traceback."""
    sys.path.append(os.getcwd())  # where one's own reward or verifier usually lies
    try:
        app()
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        if os.environ.get("LLMALIGN_DEBUG"):
            raise
        for line in str(error).splitlines() or [repr(error)]:
            print(f"error: {line}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
