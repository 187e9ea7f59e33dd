"""``llmalign data``: training data made with rewards."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

data_app = typer.Typer(help="Make training data with rewards.", no_args_is_help=True)

OutputOption = Annotated[Path, typer.Option(help="the .jsonl file to write")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="replace the output")]
ModelOption = Annotated[
    str | None, typer.Option(help="a model's folder or hub name, which answers first")
]
LengthOption = Annotated[
    int | None, typer.Option(help="with --model: tokens of an answer; the recipe's, or 512")
]
UrlOption = Annotated[
    str, typer.Option(help="address of its chat-completions API, up to and with /v1")
]
VetoOption = Annotated[
    bool, typer.Option(help="whether a hard rule that is not met makes the whole 0")
]
CanaryOption = Annotated[bool, typer.Option(help="first try the judge on answers that say nothing")]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object, nothing else")]


@data_app.command()
def hard(
    reward: Annotated[str, typer.Argument(help="a reward's name, a YAML tree, or a recipe")],
    file: Annotated[str, typer.Argument(help="JSONL of problems, with answers or for --model")],
    output: OutputOption,
    count: Annotated[int | None, typer.Option(help="how many of the lowest to keep")] = None,
    low: Annotated[float | None, typer.Option(help="keep no score (pass rate) below")] = None,
    high: Annotated[float | None, typer.Option(help="keep no score (pass rate) above")] = None,
    model: ModelOption = None,
    samples: Annotated[int, typer.Option(help="with --model: answers per problem")] = 1,
    temperature: Annotated[float, typer.Option(help="with --model: 0 is greedy")] = 0.0,
    max_new_tokens: LengthOption = None,
    batch_size: Annotated[int, typer.Option(help="with --model: answers at once")] = 64,
    seed: Annotated[int, typer.Option(help="with --model: of the sampling")] = 0,
    keep_scores: Annotated[
        bool, typer.Option("--keep-scores", help="add the columns score and num_answers")
    ] = False,
    overwrite: OverwriteOption = False,
    workers: Annotated[int, typer.Option(help="verifier processes")] = 2,
    timeout: Annotated[float, typer.Option(help="seconds one judgement may take")] = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Keep the problems on which a model scores lowest, or within a band of pass rates.

    Rows without a score are listed in OUT.left_out.json. With --model, a killed run goes on from
    OUT.progress.jsonl.
    """
    from llmalign import tables
    from llmalign.curation import files
    from llmalign.curation.hard import Answering, select_hard

    files.check_output(output, file, overwrite=overwrite)
    progress = files.progress_path(output)
    answering = None
    if model is not None:
        answering = Answering(
            model=model,
            samples=samples,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
    with tables.audit_progress(shown=not as_json) as tell:
        found = select_hard(
            reward,
            file,
            count=count,
            low=low,
            high=high,
            answering=answering,
            keep_scores=keep_scores,
            workers=workers,
            timeout_s=timeout,
            tell=tell,
        )
    files.write_rows(output, found.rows, found.left_out)
    if answering is not None:
        progress.unlink(missing_ok=True)
    _show(found.summary(), found.left_out, output, as_json)


@data_app.command()
def rubrics(
    file: Annotated[str, typer.Argument(help="JSONL of preferences: prompt, chosen, rejected")],
    output: OutputOption,
    judge_model: Annotated[str, typer.Option(help="the judge's name, as its server knows it")],
    judge_url: UrlOption = "https://api.openai.com/v1",
    judge_key: Annotated[
        str, typer.Option(help="environment variable that holds the key")
    ] = "OPENAI_API_KEY",
    judge_cache: Annotated[str, typer.Option(help="folder of remembered answers")] = "",
    concurrency: Annotated[int, typer.Option(help="requests at once")] = 16,
    retries: Annotated[int, typer.Option(help="further attempts at a request")] = 5,
    timeout: Annotated[float, typer.Option(help="seconds one request may take")] = 60.0,
    max_tokens: Annotated[int, typer.Option(help="length of an answer of the judge")] = 1024,
    tries: Annotated[int, typer.Option(help="rubrics to try for a pair")] = 3,
    margin: Annotated[float, typer.Option(help="by how much the chosen answer must lead")] = 0.0,
    veto: VetoOption = True,
    column: Annotated[str, typer.Option(help="the column that the rubric goes to")] = "rubrics",
    canary: CanaryOption = True,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a rubric for each preference pair, and keep those that prefer the chosen answer.

    The others are listed in OUT.left_out.json. A killed run goes on from OUT.progress.jsonl.
    """
    from llmalign import tables
    from llmalign.curation import files
    from llmalign.curation.rubrics import contrast_rubrics
    from llmalign.rewards.judge import OpenAIJudge

    files.check_output(output, file, overwrite=overwrite)
    judge = OpenAIJudge(
        model=judge_model,
        base_url=judge_url,
        api_key_env=judge_key,
        cache_dir=judge_cache,
        concurrency=concurrency,
        retries=retries,
        timeout_s=timeout,
        max_tokens=max_tokens,
    )
    with contextlib.closing(judge), tables.audit_progress(shown=not as_json) as tell:
        found = contrast_rubrics(
            file,
            judge,
            tries=tries,
            margin=margin,
            veto=veto,
            column=column,
            options={"canary": canary},
            progress=files.progress_path(output),
            tell=tell,
        )
        stats = judge.stats()
    files.write_rows(output, found.rows, found.left_out)
    files.progress_path(output).unlink(missing_ok=True)
    asked = {name: getattr(stats, name) for name in ("asked", "cached", "failed")}
    tokens = {"tokens": stats.prompt_tokens + stats.completion_tokens}
    _show({**found.summary(), "judge": asked | tokens}, found.left_out, output, as_json)


def _show(
    summary: Mapping[str, Any], left_out: list[dict[str, Any]], output: Path, as_json: bool
) -> None:
    from llmalign.curation.files import left_out_path

    if as_json:
        print(json.dumps({**summary, "output": str(output)}))
        return
    from llmalign.curation.show import print_summary

    print_summary(summary, left_out)
    print(f"rows {output} · left out {left_out_path(output)}")
