import json
from pathlib import Path

import pytest

from llmalign import checkup
from llmalign.recipe import load_recipe


def quickstart(data: Path) -> list[str]:
    return [f"data.train={{path: {json.dumps(str(data))}}}", "data.eval=null"]


def test_golds_that_cannot_be_scored_are_listed_with_their_reason(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    rows = [{"problem": f"{i}", "answer": "" if i % 30 == 0 else f"{i}"} for i in range(900)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = checkup.golds(load_recipe("quickstart", quickstart(data)))
    assert found["problems"] == {"train": 900}
    assert len(found["bad_golds"]) == 30
    assert found["bad_golds"][1]["id"] == "data-31"
    said = checkup.describe({"machine": checkup.machine(), "recipe": found})
    assert "900 train problems, 30 golds cannot be scored" in said
    assert "gold is ''" in said and "and 10 more" in said and "data.on_bad_gold=drop" in said


def test_every_gold_of_the_quickstart_can_be_scored() -> None:
    found = checkup.golds(load_recipe("quickstart", []))
    assert found["bad_golds"] == []
    assert set(found["problems"]) == {"train", "eval"}


def test_data_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        checkup.golds(load_recipe("quickstart", quickstart(tmp_path / "none.jsonl")))


def test_the_machine_is_described_in_json_values() -> None:
    found = json.loads(json.dumps(checkup.machine()))
    assert found["cores"] >= 1 and found["memory_gib"] > 0
    assert found["versions"]["torch"] and found["versions"]["llmalign"]
    assert found["sandbox"]["level"] in ("strict", "basic", "none", "unusable")
