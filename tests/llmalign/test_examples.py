"""Preference pairs and demonstrations from rows of every known layout."""

import os
from pathlib import Path

import pytest

from llmalign.data import read_rows
from llmalign.examples import to_demonstrations, to_pairs

DATA = Path(os.environ.get("LLMALIGN_DATA", Path(__file__).parents[3] / "shared" / "data"))
PLAIN = {"source": "rows", "columns": {}, "template": None, "system": None, "chat": False}
CHAT = {**PLAIN, "chat": True}


def real_rows(name, limit=None):
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is absent; set LLMALIGN_DATA to a folder that holds {name}")
    return read_rows(str(path), subset=None, split="train", limit=limit)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("row", "prompt", "chosen", "rejected"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "q", "a", "b"),
        (
            {
                "chosen": "\n\nHuman: hi\n\nAssistant: yes sir",
                "rejected": "\n\nHuman: hi\n\nAssistant: yes madam",
            },
            "\n\nHuman: hi\n\nAssistant:",
            " yes sir",
            " yes madam",
        ),
        ({"chosen": "one two", "rejected": "one ten"}, "one ", "two", "ten"),
    ],
    ids=["explicit", "hh-turn", "strings-cut-at-a-word"],
)
def test_pairs_of_strings_are_split(row, prompt, chosen, rejected):
    pair = to_pairs([row], **PLAIN, policy="error")[0][0]
    assert (pair.prompt, pair.chosen, pair.rejected) == (prompt, chosen, rejected)


@pytest.mark.parametrize("prompt", [{"prompt": [user("q")]}, {}], ids=["explicit", "implicit"])
def test_pairs_of_conversations_are_split(prompt):
    before = [] if prompt else [user("q")]
    row = {**prompt, "chosen": [*before, assistant("a")], "rejected": [*before, assistant("b")]}
    pair = to_pairs([row], **CHAT, policy="error")[0][0]
    assert (pair.prompt, pair.chosen, pair.rejected) == ((user("q"),), "a", "b")


@pytest.mark.parametrize("sides", [("a", "a"), ("", "a"), ("a", " ")])
def test_a_pair_that_prefers_nothing_is_listed_or_an_error(sides):
    good = {"prompt": "q", "chosen": "a", "rejected": "b"}
    rows = [good, {"prompt": "q", "chosen": sides[0], "rejected": sides[1]}]
    pairs, bad = to_pairs(rows, **PLAIN, policy="drop")
    assert [p.id for p in pairs] == ["rows-1"] and [b.id for b in bad] == ["rows-2"]
    with pytest.raises(ValueError, match="1 of 2 pairs cannot be used.*data.on_bad_row=drop"):
        to_pairs(rows, **PLAIN, policy="error")


def test_a_pair_without_a_side_names_the_column():
    with pytest.raises(ValueError, match="has no column 'rejected'"):
        to_pairs([{"prompt": "q", "chosen": "a"}], **PLAIN, policy="drop")


@pytest.mark.parametrize(
    "name", ["hh_rlhf/harmless-base_test.jsonl", "dpo_demo/train.jsonl"], ids=["hh", "dpo-demo"]
)
def test_real_pairs_are_read(name):
    rows = real_rows(name)
    pairs, bad = to_pairs(rows, **PLAIN, policy="error")
    assert not bad
    assert [(p.prompt, p.chosen) for p in pairs] == [(r["prompt"], r["chosen"]) for r in rows]


def test_real_hh_prompts_are_found_again_in_whole_dialogues():
    rows = real_rows("hh_rlhf/harmless-base_test.jsonl", limit=300)
    whole = [{side: r["prompt"] + r[side] for side in ("chosen", "rejected")} for r in rows]
    pairs, _ = to_pairs(whole, **PLAIN, policy="error")
    assert [p.prompt for p in pairs] == [r["prompt"] for r in rows]


@pytest.mark.parametrize(
    ("row", "prompt", "completion"),
    [
        ({"prompt": "q", "completion": "c"}, (user("q"),), "c"),
        ({"prompt": [user("q")], "completion": [assistant("c")]}, (user("q"),), "c"),
        ({"messages": [user("q"), assistant("c")]}, (user("q"),), "c"),
        (
            {"messages": [user("q"), assistant("c"), user("r"), assistant("d")]},
            (user("q"), assistant("c"), user("r")),
            "d",
        ),
        ({"problem": "q", "solution": "c", "answer": "1"}, (user("q"),), "c"),
    ],
    ids=["strings", "conversational", "messages", "last-turn-of-messages", "worked-solution"],
)
def test_demonstrations_are_found_by_layout(row, prompt, completion):
    made = to_demonstrations([row], **CHAT)[0]
    assert (made.prompt, made.completion) == (prompt, completion)


def test_a_plain_text_is_a_demonstration_without_prompt():
    made = to_demonstrations([{"text": "story"}], **{**PLAIN, "template": "Q: {problem}"})[0]
    assert (made.prompt, made.completion) == ("", "story")


def test_a_template_is_put_around_the_problem_of_a_demonstration():
    row = {"problem": "q", "solution": "c"}
    assert to_demonstrations([row], **{**PLAIN, "template": "{problem}\n"})[0].prompt == "q\n"


def test_a_row_with_nothing_to_learn_is_an_error():
    with pytest.raises(ValueError, match="rows row 1 has no column 'completion'"):
        to_demonstrations([{"problem": "q", "solution": None}], **PLAIN)
