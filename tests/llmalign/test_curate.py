"""Problems that are hard for a model, the files of the data commands, and the recipe for them."""

import json

import pytest

from llmalign.curate import Answering, select_hard
from llmalign.curation.files import Progress, check_output, write_rows
from llmalign.recipe import load_recipe
from llmalign.tiny import build_tiny
from llmalign.training import train

REFERENCE = "the quick brown fox jumps over the lazy dog at noon"
REWARDS = '''
def by_text(prompts, completions, **columns):
    """Each completion is its own reward; none where it is no number."""
    return [float(c) if c.replace(".", "").isdigit() else None for c in completions]
'''


@pytest.fixture
def by_text(tmp_path, monkeypatch):
    (tmp_path / "curate_rewards.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "curate_rewards:by_text"


def answered(*texts, **columns):
    return [{"prompt": f"p{i}", "completion": text, **columns} for i, text in enumerate(texts)]


def prompts(found):
    return [row["prompt"] for row in found.rows]


# -- hard problems --------------------------------------------------------------------------------


def test_the_lowest_are_kept_highest_first_and_ties_in_the_order_of_the_rows(by_text):
    found = select_hard(by_text, answered("3", "1", "5", "3", "1", "3"), count=4)
    assert prompts(found) == ["p0", "p3", "p1", "p4"]
    assert found.scores == [3, 3, 1, 1] and found.pool == [3, 1, 5, 3, 1, 3]


def test_bleu_of_one_answer_each_is_what_orders_instructions():
    words = REFERENCE.split()
    texts = [" ".join(words[:n]) for n in (11, 7, 9, 8)]
    found = select_hard("bleu", answered(*texts, references=[REFERENCE]), count=2)
    assert prompts(found) == ["p3", "p1"]
    assert found.scores[0] == pytest.approx(2.718281828 ** (1 - 11 / 8))  # only brevity costs
    assert max(found.pool) == 1.0


def test_a_band_of_pass_rates_takes_the_mean_over_the_rows_of_a_problem():
    rights = {"always": "1111", "half": "1100", "once": "1000", "never": "0000"}
    rows = [
        {"prompt": name, "answer": "7", "completion": rf"\boxed{{{7 if one == '1' else 8}}}"}
        for name, ones in rights.items()
        for one in ones
    ]
    found = select_hard("math", rows, low=0.01, high=0.5, keep_scores=True, workers=1)
    assert found.rows == [
        {"prompt": "half", "answer": "7", "score": 0.5, "num_answers": 4},
        {"prompt": "once", "answer": "7", "score": 0.25, "num_answers": 4},
    ]
    assert found.summary()["problems"] == 4 and found.summary()["dropped"] == 2


def test_equal_prompts_with_other_references_are_two_problems():
    rows = [
        {"prompt": "go on", "references": text, "completion": REFERENCE}
        for text in (REFERENCE, "nothing here that anyone has said in the other one")
    ]
    assert len(select_hard("bleu", rows, count=9).rows) == 2
    same = [{**row, "problem_id": "a"} for row in rows]  # an id of one's own has the last word
    assert len(select_hard("bleu", same, count=9).rows) == 1


def test_equal_prompts_with_other_golds_are_two_problems(by_text):
    rows = [{"prompt": "x?", "answer": gold, "completion": gold} for gold in "12"]
    assert select_hard(by_text, rows, count=2).scores == [2.0, 1.0]


def test_rows_without_a_score_are_listed_with_the_reason_and_the_others_kept(by_text):
    reward = {"sum": ["bleu", by_text]}
    rows = [
        {"id": "ok", "prompt": "a", "references": REFERENCE, "completion": "1"},
        {"id": "short", "prompt": "b", "references": "Paris", "completion": "1"},
        {"id": "silent", "prompt": "c", "references": REFERENCE},
        {"id": "null", "prompt": "d", "references": REFERENCE, "completion": None},
        {"id": "odd", "prompt": "e", "references": REFERENCE, "completion": "what"},
    ]
    found = select_hard(reward, rows, count=5)
    assert [row["id"] for row in found.rows] == ["ok"]
    assert [(one["row"], one["id"]) for one in found.left_out] == [
        (2, "short"), (3, "silent"), (4, "null"), (5, "odd"),
    ]  # fmt: skip
    why = [one["why"] for one in found.left_out]
    assert "1 tokens, expected 8" in why[0]
    assert why[1] == why[2] and why[1].startswith("no text under completion, response, prediction")
    assert why[3]


def test_an_unscorable_answer_does_not_count_as_zero(by_text):
    rows = [{"prompt": "a", "completion": text} for text in ("4", "none", "2")]
    found = select_hard(by_text, rows, count=1, keep_scores=True)
    assert found.rows == [{"prompt": "a", "score": 3.0, "num_answers": 2}]
    assert [one["row"] for one in found.left_out] == [2]


def test_only_data_columns_are_written():
    of_a_run = {"aspects": {"bleu": 1}, "reward": 1, "verdict": None, "note": "", "tokens": 3}
    rows = answered("quick", references=REFERENCE, note="mine") + [
        {"prompt": "run", "response": REFERENCE, "references": REFERENCE, **of_a_run}
    ]
    assert select_hard("chrf", rows, count=2).rows == [
        {"prompt": "run", "references": REFERENCE},
        {"prompt": "p0", "references": REFERENCE, "note": "mine"},
    ]


def test_an_answer_may_be_a_message_of_the_assistant():
    row = {"prompt": [{"role": "user", "content": "go on"}], "references": REFERENCE}
    said = [{"role": "assistant", "content": REFERENCE}]
    found = select_hard("bleu", [{**row, "completion": said}], count=1)
    assert found.scores == [1.0] and found.rows == [row]


def test_the_columns_of_a_recipe_are_read_as_in_training(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "algorithm: grpo\nmodel: {build: tiny}\nreward: bleu\n"
        "data: {train: {path: absent.jsonl}, columns: {references: gold, problem: ask}}\n"
    )
    rows = [{"ask": "a", "gold": REFERENCE, "completion": REFERENCE}]
    found = select_hard(path, rows, count=1)
    assert found.scores == [1.0] and found.rows == [{"ask": "a", "gold": REFERENCE}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "count, low and high are all missing"),
        ({"count": 0}, "count is 0, expected >= 1"),
        ({"low": 0.6, "high": 0.4}, "low is 0.6 and high is 0.4"),
        ({"low": 7}, r"no problem scores within \[7, inf\].* 2 problems lie between 0 and 1"),
        ({"count": 1, "keep_scores": True}, "the rows have a column 'score'"),
    ],
)
def test_a_selection_that_means_nothing_is_refused(options, message):
    rows = answered("", REFERENCE, references=REFERENCE, score=1)
    with pytest.raises(ValueError, match=message):
        select_hard("bleu", rows, **options)


def test_rows_that_all_lack_an_answer_say_that_a_model_may_give_it():
    with pytest.raises(ValueError, match="none of 1 rows has a score.*or a model to answer"):
        select_hard("bleu", [{"prompt": "a", "references": REFERENCE}], count=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 4}, "samples is 4 at temperature 0, where all are equal"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0, expected >= 1"),
    ],
)
def test_answering_refuses_what_makes_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        Answering(model="m", **options)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    sizes = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 48}
    for part in build_tiny(sizes, seed=3):
        part.save_pretrained(folder)
    return str(folder)


def test_a_model_answers_greedily_and_equal_problems_once(tiny_model):
    rows = [{"prompt": text, "references": REFERENCE} for text in ("one", "two", "one", "l" * 600)]
    one = Answering(model=tiny_model, max_new_tokens=16, batch_size=1)
    found = select_hard("chrf", rows, count=9, keep_scores=True, answering=one)
    assert sorted(row["prompt"] for row in found.rows) == ["one", "two"]
    assert all(row["num_answers"] == 1 for row in found.rows)
    assert [(one["row"], one["why"]) for one in found.left_out] == [
        (4, "prompt has 601 tokens, more than 511")
    ]
    many = Answering(model=tiny_model, max_new_tokens=16, seed=1)  # greedy: no seed matters
    assert select_hard("chrf", rows, count=9, keep_scores=True, answering=many) == found


def test_answers_of_a_killed_run_are_used_and_not_asked_for_again(tiny_model, tmp_path):
    rows = [{"prompt": f"say {i}", "references": REFERENCE} for i in range(6)]
    kept = tmp_path / "out.progress.jsonl"
    whole = {"model": tiny_model, "samples": 2, "temperature": 1.0, "max_new_tokens": 12}
    asked = Answering(**whole, batch_size=1, progress=kept)
    found = select_hard("chrf", rows, count=6, keep_scores=True, answering=asked)
    lines = kept.read_text().splitlines(keepends=True)
    assert len(lines) == 13
    kept.write_text("".join(lines[:6]) + lines[6][:9])  # a kill in the middle of a line
    told = []
    again = select_hard(
        "chrf", rows, count=6, keep_scores=True, answering=asked, tell=lambda *n: told.append(n)
    )
    assert again == found
    assert told == [("answers", 9, 12), ("answers", 12, 12)]  # five were there
    other = Answering(**whole | {"temperature": 0.5}, progress=kept)
    with pytest.raises(ValueError, match="holds results of other rows, another model"):
        select_hard("chrf", rows, count=6, answering=other)


# -- files ----------------------------------------------------------------------------------------


def test_an_output_that_would_destroy_something_is_refused_before_any_work(tmp_path):
    out, source = tmp_path / "out.jsonl", tmp_path / "in.jsonl"
    check_output(out, str(source), overwrite=False)
    write_rows(out, [{"a": "é"}], [{"row": 1, "why": "x"}])
    assert out.read_text() == '{"a": "é"}\n'
    assert json.loads((tmp_path / "out.left_out.json").read_text()) == [{"row": 1, "why": "x"}]
    for path, overwrite, message in (
        (out, False, "exists; name another --output, or allow it with --overwrite"),
        (source, True, "the input itself"),
        (tmp_path / "out.json", True, "ends in .jsonl"),
    ):
        with pytest.raises(ValueError, match=message):
            check_output(path, str(source), overwrite=overwrite)
    check_output(out, str(source), overwrite=True)


def test_a_progress_file_with_a_broken_line_is_named_and_not_guessed_at(tmp_path):
    path = tmp_path / "p.jsonl"
    Progress(path, "a").add({"x": 1})
    path.write_text(path.read_text() + "{oops}\n")
    with pytest.raises(ValueError, match=r"p.jsonl line 3 is b'{oops}'.*delete the file"):
        Progress(path, "a")


def test_a_progress_file_torn_in_its_first_line_begins_again(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"of": "12')
    Progress(path, "a").add({"x": [1.5, "\udc80"]})
    assert Progress(path, "a").found == {"x": [1.5, "\udc80"]}


# -- the recipe -----------------------------------------------------------------------------------


def test_the_recipe_trains_on_what_the_command_selects_for_it(tiny_model, tmp_path):
    raw = [{"prompt": f"Tell {i}", "references": [REFERENCE]} for i in range(8)]
    found = select_hard(
        "bleu_instructions", raw, count=5, answering=Answering(model=tiny_model, max_new_tokens=8)
    )
    assert len(found.rows) == 5 and all(row in raw for row in found.rows)
    write_rows(tmp_path / "hard.jsonl", found.rows, found.left_out)
    changes = [
        f"model.path={tiny_model}",
        f"data.train.path={tmp_path / 'hard.jsonl'}",
        f"output={tmp_path}",
        "schedule.steps=2",
        "sampling.problems_per_step=2",
        "rollout.max_new_tokens=12",
    ]
    summary = train(load_recipe("bleu_instructions", changes))
    assert summary["finished"] and summary["bad_updates"] == 0
    assert (tmp_path / "bleu_instructions" / "final" / "config.json").is_file()


def test_the_recipe_holds_the_settings_of_the_paper():
    recipe = load_recipe("bleu_instructions")
    assert recipe.rollout.samples_per_problem == 8 and recipe.rollout.temperature == 0.9
    assert recipe.rollout.max_new_tokens == recipe.data.max_prompt_tokens == 512
    assert recipe.optimizer.lr == 1e-6 and recipe.optimizer.max_grad_norm == 0.2
    completions = recipe.sampling.problems_per_step * recipe.rollout.samples_per_problem
    assert completions == 8 * 4  # per device 8, accumulated 4 times
    assert recipe.schedule.steps * recipe.sampling.problems_per_step == 5000  # one epoch
