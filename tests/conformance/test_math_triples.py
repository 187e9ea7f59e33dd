"""The math verifier on labelled pairs of answers, and every gold of the data sets at hand.

Neither is part of this repository: they lie beside it, or the tests skip.
"""

import json
from pathlib import Path

import pytest

from llmalign.verifiers import GoldError, Verdict
from llmalign.verifiers.audit import verify
from llmalign.verifiers.math import equal, judge

SHARED = Path(__file__).parents[3] / "shared"
TRIPLES = SHARED / "conformance" / "math_triples.jsonl"
SETS = (
    "gsm8k math math500 aime24 aime25 amc23 amc_aimo minerva_math olympiadbench svamp asdiv"
    " gsm_hard dapo_math_17k"
).split()
NO_ANSWER = {"train/number_theory/7115", "train/number_theory/7117", "asdiv-1313"}  # empty, "-"

needs_triples = pytest.mark.skipif(not TRIPLES.is_file(), reason=f"no {TRIPLES.name} beside")


@needs_triples
def test_few_false_verdicts_and_no_exception_on_labelled_pairs() -> None:
    found = verify("math", TRIPLES).to_json()
    assert found["false_accept_rate"] <= 0.002
    assert found["false_reject_rate"] <= 0.015
    assert (found["undecided"], found["exceptions"]) == (0, 0)
    assert found["p99_ms"] < 100


@needs_triples
def test_equality_of_labelled_pairs_does_not_depend_on_their_order() -> None:
    rows = [json.loads(line) for line in TRIPLES.open()]
    pairs = [(row["gold"], row["prediction"]) for row in rows if row["form"] == "answer"]
    assert [p for p in pairs if equal(*p)[0] != equal(*reversed(p))[0]] == []


@pytest.mark.parametrize("name", SETS)
def test_every_gold_of_a_data_set_accepts_itself(name: str) -> None:
    files = [p for p in (SHARED / "data" / name).glob("*.jsonl") if "answer_types" not in p.name]
    if not files:
        pytest.skip(f"no data set {name} beside")
    bad = []
    for path in files:
        for row in map(json.loads, path.open()):
            try:
                verdict = judge(rf"so \boxed{{{row['answer']}}}", row["answer"]).verdict
            except GoldError:
                verdict = None
            if verdict is not Verdict.RIGHT:
                bad.append(row["id"])
    assert set(bad) <= NO_ANSWER
