"""Rows to problems, prompts and completions to tokens, and the cursor that deals them out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmalign.data import (
    ProblemSampler,
    _read_hub,
    check_golds,
    drop_long_prompts,
    encode_prompt,
    read_rows,
    split_holdout,
    to_problems,
)
from llmalign.examples import encode_completion
from llmalign.rewards import Problem

DATA = Path(os.environ.get("LLMALIGN_DATA", Path(__file__).parents[3] / "shared" / "data"))
PLAIN = {"source": "rows", "columns": {}, "template": None, "system": None, "chat": False}
CHAT = {**PLAIN, "chat": True}
TURN = "{{ '<bos>' }}{% for m in messages %}{{ m.role + ':' + m.content + '<eos>' }}{% endfor %}"
TEMPLATE = TURN + "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"


def real(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is absent; set LLMALIGN_DATA to a folder that holds {name}")
    return str(path)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def problems(*prompts):
    return [Problem(f"p{i}", prompt) for i, prompt in enumerate(prompts)]


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(path, limit=None):
    return read_rows(str(path), subset=None, split="train", limit=limit)


@pytest.fixture(scope="module")
def tokenizer():
    """One token a byte, ``<bos>`` in front and ``<eos>`` behind, and a chat template."""
    special = ["<pad>", "<bos>", "<eos>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(special + alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        chat_template=TEMPLATE,
    )


# -- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"problem": "é", "answer": "1"}\n\n{"problem": "b", "answer": "2"}\n'),
        ("a.json", '[{"problem": "é", "answer": "1"}, {"problem": "b", "answer": "2"}]'),
        ("a.csv", 'problem,answer\né,"1"\nb,"2"\n'),
    ],
    ids=["jsonl-with-a-blank-line", "json", "csv"],
)
def test_a_local_file_is_read(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    rows = read(tmp_path / name)
    assert [(r["problem"], str(r["answer"])) for r in rows] == [("é", "1"), ("b", "2")]


def test_a_parquet_file_is_read(tmp_path):
    import pyarrow
    from pyarrow import parquet

    row = {"problem": "a", "nested": [{"role": "user", "content": "x"}]}
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[0]["nested"] == row["nested"]


def test_the_files_of_a_folder_are_read_by_name_and_other_files_are_left_alone(tmp_path):
    write(tmp_path / "2.jsonl", {"problem": "c"})
    write(tmp_path / "1.jsonl", {"problem": "a"}, {"problem": "b"})
    (tmp_path / "README.md").write_text("not rows")
    assert [r["problem"] for r in read(tmp_path)] == ["a", "b", "c"]


def test_only_the_first_rows_are_read_under_a_limit(tmp_path):
    path = write(tmp_path / "a.jsonl", {"problem": "a"}, {"problem": "b"}, {"problem": "c"})
    assert [r["problem"] for r in read(path, limit=2)] == ["a", "b"]


@pytest.mark.parametrize("path", ["./no.jsonl", "/no/where", "~/no-such-folder", "no.parquet"])
def test_a_local_path_that_does_not_exist_is_named(path):
    with pytest.raises(FileNotFoundError, match=f"'{path}' does not exist, expected a file"):
        read(path)


@pytest.mark.parametrize("broken", ["{", "[1]"], ids=["not-json", "not-an-object"])
def test_a_broken_line_is_named_by_file_and_number(tmp_path, broken):
    path = tmp_path / "a.jsonl"
    path.write_text('{"problem": "a"}\n\n' + broken + "\n")
    with pytest.raises(ValueError, match=r"a\.jsonl line 3 is"):
        read(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json"])
def test_a_file_without_rows_is_an_error(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match="has no rows"):
        read(tmp_path / name)


def test_a_folder_without_data_files_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no file of .jsonl"):
        read(tmp_path)


def test_the_hub_reader_returns_the_rows_of_the_library(tmp_path):
    write(tmp_path / "train.jsonl", {"problem": "a"}, {"problem": "b"})
    assert _read_hub(str(tmp_path), None, "train") == [{"problem": "a"}, {"problem": "b"}]


def test_a_hub_name_that_cannot_be_loaded_offers_a_local_path():
    call = "read_rows('no-one/nothing', subset=None, split='train', limit=None)"
    code = f"from llmalign.data import read_rows; {call}"
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: data set 'no-one/nothing'")
    assert "cannot be loaded" in last and "give a local path" in last


# -- problems -------------------------------------------------------------------------------------


def test_named_columns_go_before_recognised_ones():
    row = {"problem": "not this", "question": "q", "final": "7", "answer": "not this"}
    made = to_problems([row], **{**PLAIN, "columns": {"problem": "question", "answer": "final"}})
    assert made[0].prompt == "q"
    assert made[0].columns["answer"] == "7"
    assert made[0].columns["final"] == "7"


def test_all_other_columns_are_kept_and_no_marks_of_our_own(tmp_path):
    rows = read(write(tmp_path / "a.jsonl", {"problem": "q", "answer": "1", "level": 3}))
    assert to_problems(rows, **PLAIN)[0].columns == {"problem": "q", "answer": "1", "level": 3}


@pytest.mark.parametrize(
    ("columns", "row", "wanted"),
    [({}, {"text": "x", "other": 1}, "problem"), ({"problem": "body"}, {"other": 1}, "body")],
    ids=["not-recognised", "named-but-absent"],
)
def test_a_missing_column_says_where_what_there_is_and_the_way_out(columns, row, wanted):
    with pytest.raises(ValueError) as caught:
        to_problems([{"problem": "q", "body": "q"}, row], **{**PLAIN, "columns": columns})
    message = str(caught.value)
    assert f"rows row 2 has no column {wanted!r}" in message
    assert "other" in message and "data.columns" in message


def test_a_template_sees_every_column_and_keeps_doubled_braces():
    row = {"problem": "1+1", "answer": "2", "level": 5}
    made = to_problems([row], **{**PLAIN, "template": "{problem} ({level}) \\boxed{{}}"})
    assert made[0].prompt == "1+1 (5) \\boxed{}"


@pytest.mark.parametrize("template", ["{probelm}", "{problem} \\boxed{}"])
def test_a_template_with_an_unknown_name_is_an_error(template):
    with pytest.raises(ValueError, match=r"data\.template asks for \{(probelm)?\}.*known: problem"):
        to_problems([{"problem": "q"}], **{**PLAIN, "template": template})


@pytest.mark.parametrize(
    ("chat", "system", "prompt"),
    [
        (False, None, "q"),
        (False, "be brief", "be brief\n\nq"),
        (True, None, (user("q"),)),
        (True, "be brief", ({"role": "system", "content": "be brief"}, user("q"))),
    ],
    ids=["plain", "plain-with-system", "chat", "chat-with-system"],
)
def test_a_problem_becomes_a_chat_or_a_text(chat, system, prompt):
    made = to_problems([{"problem": "q"}], **{**PLAIN, "chat": chat, "system": system})
    assert made[0].prompt == prompt


def test_a_conversation_stays_one():
    turns = [user("a"), assistant("b"), user("c")]
    assert to_problems([{"prompt": turns, "answer": "1"}], **CHAT)[0].prompt == tuple(turns)


def test_ids_are_the_rows_own_or_made_and_never_the_same():
    rows = [{"problem": "q", "id": i} for i in ("x", "x", None, "x")]
    made = to_problems(rows, **{**PLAIN, "source": "some/train.jsonl"})
    assert made[0].id == "x" and made[2].id == "train-3"
    assert len({p.id for p in made}) == 4


def test_real_files_become_problems_with_their_golds():
    for name in ("gsm8k/train.jsonl", "math/train.jsonl", "countdown/train.jsonl"):
        rows = read(real(name), limit=300)
        made = to_problems(rows, **PLAIN)
        assert [p.id for p in made] == [r["id"] for r in rows]
        assert all(p.prompt and p.columns["answer"] is not None for p in made)


def bad_ones(*ids):
    return lambda asked: [(p, f"why {p.id}") for p in asked if p.id in ids]


def test_bad_golds_are_listed_up_to_ten_with_the_count_and_the_way_out():
    asked = problems(*map(str, range(20)))
    with pytest.raises(ValueError) as caught:
        check_golds(asked, bad_ones(*(f"p{i}" for i in range(12))), policy="error", source="s")
    message = str(caught.value)
    assert "s: 12 of 20 golds" in message and "data.on_bad_gold=drop" in message
    assert "p9: why p9" in message and "p10: why p10" not in message and "2 more" in message


def test_bad_golds_can_be_left_out_and_are_returned():
    kept, bad = check_golds(problems("a", "b", "c"), bad_ones("p1"), policy="drop", source="s")
    assert [p.id for p in kept] == ["p0", "p2"]
    assert [(b.id, b.why) for b in bad] == [("p1", "why p1")]


def test_no_usable_gold_at_all_is_an_error_whatever_the_policy():
    with pytest.raises(ValueError, match="none of 2 golds"):
        check_golds(problems("a", "b"), bad_ones("p0", "p1"), policy="drop", source="s")


def test_equal_prompts_land_on_the_same_side_for_every_seed():
    asked = problems(*(f"q{i % 15}" for i in range(40)))
    sides = set()
    for seed in range(10):
        train, held_out = split_holdout(asked, 5, seed)
        assert not {p.prompt for p in train} & {p.prompt for p in held_out}
        assert sorted(p.id for p in train + held_out) == sorted(p.id for p in asked)
        assert len({p.prompt for p in held_out}) == 5
        sides.add(frozenset(p.id for p in held_out))
    assert len(sides) > 1


def test_the_holdout_does_not_depend_on_the_order_of_rows():
    asked = problems(*map(str, range(30)))
    one, other = split_holdout(asked, 7, 1), split_holdout(asked[::-1], 7, 1)
    assert {p.id for p in one[1]} == {p.id for p in other[1]}


def test_a_holdout_that_leaves_nothing_to_train_on_is_an_error():
    with pytest.raises(ValueError, match="data.holdout is 2, expected fewer than the 2 distinct"):
        split_holdout(problems("a", "b", "a"), 2, 0)


# -- tokens ---------------------------------------------------------------------------------------


def test_a_plain_prompt_keeps_the_start_token_and_loses_the_end_token(tokenizer):
    assert tokenizer("ab")["input_ids"][-1] == tokenizer.eos_token_id
    ids = encode_prompt("ab", tokenizer)
    assert ids == [1, *tokenizer("ab", add_special_tokens=False)["input_ids"]]


def test_a_chat_goes_through_the_template_with_one_start_token(tokenizer):
    ids = encode_prompt((user("hi"),), tokenizer)
    assert tokenizer.decode(ids) == "<bos>user:hi<eos>assistant:"
    assert ids.count(1) == 1


def test_an_empty_prompt_still_has_a_token_to_start_from(tokenizer):
    assert encode_prompt("", tokenizer) == [1]


def test_a_plain_completion_ends_with_the_end_token(tokenizer):
    prompt_ids, completion_ids = encode_completion("ab", "cd", tokenizer)
    assert tokenizer.decode(prompt_ids + completion_ids) == "<bos>abcd<eos>"
    assert completion_ids.count(2) == 1


def test_a_chat_completion_is_what_the_template_adds(tokenizer):
    prompt_ids, completion_ids = encode_completion((user("hi"),), "yo", tokenizer)
    assert prompt_ids == encode_prompt((user("hi"),), tokenizer)
    assert tokenizer.decode(completion_ids) == "yo<eos>"


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer):
    rewriting = TEMPLATE.replace("'<bos>'", "'<bos>' + (messages | length | string)")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="<eos>", chat_template=rewriting
    )
    with pytest.raises(ValueError, match="renders the prompt differently.*data.chat=never"):
        encode_completion((user("hi"),), "yo", tokenizer)


def test_a_prompt_that_just_fits_stays_and_none_is_cut(tokenizer):
    kept, dropped = drop_long_prompts(problems("abc", "abcd"), tokenizer, 4, "drop")
    assert [(p.id, ids) for p, ids in kept] == [("p0", tuple(encode_prompt("abc", tokenizer)))]
    assert [d.id for d in dropped] == ["p1"] and "5 tokens" in dropped[0].why


@pytest.mark.parametrize(("policy", "limit"), [("error", 4), ("drop", 2)])
def test_long_prompts_are_an_error_where_not_allowed_or_where_none_fits(tokenizer, policy, limit):
    with pytest.raises(ValueError, match="of 2 prompts have more than .* tokens .longest 5"):
        drop_long_prompts(problems("abc", "abcd"), tokenizer, limit, policy)


def test_the_real_tokenizer_gives_back_prompt_and_completion():
    real_tokenizer = AutoTokenizer.from_pretrained(real("tiny_lm/stories260K"))
    prompt_ids, completion_ids = encode_completion("Once upon", "a time", real_tokenizer)
    assert prompt_ids == encode_prompt("Once upon", real_tokenizer)
    assert prompt_ids[-1] != real_tokenizer.eos_token_id
    assert completion_ids[-1] == real_tokenizer.eos_token_id
    text = real_tokenizer.decode(prompt_ids + completion_ids, skip_special_tokens=True)
    assert text.replace(" ", "") == "Onceuponatime"


# -- the cursor -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_epoch_deals_each_problem_once(shuffle):
    dealt = ProblemSampler(7, seed=1, shuffle=shuffle).next(21)
    for epoch in range(3):
        assert sorted(i for i, e in dealt if e == epoch) == list(range(7))
    assert [e for _, e in dealt] == [0] * 7 + [1] * 7 + [2] * 7


def test_the_order_is_seeded_differs_by_epoch_and_can_be_off():
    def order(seed, shuffle=True):
        return [i for i, _ in ProblemSampler(50, seed=seed, shuffle=shuffle).next(100)]

    assert order(1) == order(1) != order(2)
    assert order(1)[:50] != order(1)[50:]
    assert order(1, shuffle=False) == [*range(50), *range(50)]


@pytest.mark.parametrize("dealt", [0, 3, 10, 27], ids=["start", "middle", "border", "third-epoch"])
def test_a_restored_cursor_goes_on_as_the_unbroken_one(dealt):
    unbroken, restored = (ProblemSampler(10, seed=4, shuffle=True) for _ in range(2))
    unbroken.next(dealt)
    restored.load_state_dict(json.loads(json.dumps(unbroken.state_dict())))
    assert restored.next(25) == unbroken.next(25)


@pytest.mark.parametrize(
    ("num", "seed", "name"), [(9, 4, "num_problems"), (10, 5, "seed")], ids=["num", "seed"]
)
def test_the_cursor_of_other_data_is_refused(num, seed, name):
    state = ProblemSampler(10, seed=4, shuffle=True).state_dict()
    with pytest.raises(ValueError, match=f"the saved cursor has {name}"):
        ProblemSampler(num, seed=seed, shuffle=True).load_state_dict(state)


def test_a_sampler_of_nothing_is_refused():
    with pytest.raises(ValueError, match="num_problems is 0, expected at least 1"):
        ProblemSampler(0, seed=0, shuffle=True)


def test_no_problem_comes_twice_in_one_call_even_across_epochs():
    sampler = ProblemSampler(10, seed=0, shuffle=True)
    for _ in range(200):
        drawn = [index for index, _ in sampler.next(7)]
        assert len(set(drawn)) == 7


def test_the_cursor_goes_on_the_same_after_a_call_across_epochs():
    one, other = (ProblemSampler(10, seed=0, shuffle=True) for _ in range(2))
    one.next(7), one.next(7)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert [one.next(3) for _ in range(5)] == [other.next(3) for _ in range(5)]


def test_a_folder_gives_only_the_files_of_the_split(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"problem": split, "answer": "1"}))
    rows = read_rows(str(tmp_path), subset=None, split="train", limit=None)
    assert [row["problem"] for row in rows] == ["train"]


def test_a_template_goes_around_the_last_message_of_a_conversation():
    rows = [{"prompt": [user("hi"), user("1+1")], "answer": "2"}]
    problem = to_problems(rows, **{**CHAT, "template": "Q: {problem}"})[0]
    assert [m["content"] for m in problem.prompt] == ["hi", "Q: 1+1"]


def test_a_second_system_message_is_refused():
    rows = [{"prompt": [{"role": "system", "content": "x"}, user("1+1")], "answer": "2"}]
    with pytest.raises(ValueError, match="data.system is set, but rows brings system messages"):
        to_problems(rows, **{**CHAT, "system": "y"})


def test_a_stray_brace_in_the_template_is_named():
    with pytest.raises(ValueError, match="data.template is .* write {{ and }} for braces"):
        to_problems([{"problem": "1", "answer": "1"}], **{**PLAIN, "template": "{problem}}"})
