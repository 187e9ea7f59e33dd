"""Process reward models: where steps lie, where the model is read, and what is made of it."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, normalizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    Qwen2Config,
    Qwen2ForTokenClassification,
)

from llmalign.rewards import Group, Problem, RewardHost, Sample, build_reward
from llmalign.rewards.prm import aggregated, good_probability, shaped, step_spans
from llmalign.tiny import build_tokenizer
from llmalign.verifiers import GoldError, Verdict

SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
ANSWER = "First, 3 + 4.\n\nThat is 7.\n\nSo: 7"
FORMS: dict[str, Any] = {"llama": LlamaForTokenClassification, "causal": LlamaForCausalLM}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def tokenizer_with_template() -> Any:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = CHAT
    return tokenizer


def model_in(folder: Path, form: str, **changes: Any) -> str:
    """A randomly initialised process reward model with a byte tokenizer."""
    tokenizer = tokenizer_with_template()
    torch.manual_seed(1)
    given = {"vocab_size": len(tokenizer), "pad_token_id": None, **SIZE, **changes}
    if form == "qwen2":
        model: Any = Qwen2ForTokenClassification(Qwen2Config(**given))
    else:
        model = FORMS[form](LlamaConfig(**given))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def token_model(shelf: Path) -> str:
    return model_in(shelf / "token", "llama")


@pytest.fixture(scope="module")
def causal_model(shelf: Path) -> str:
    return model_in(shelf / "causal", "causal")


def spec(model: str, **options: Any) -> dict[str, Any]:
    return {"prm": {"model": model, **options}}


def scores_of(spec: Any, *texts: str, prompt: Any = "3 + 4?", **columns: Any) -> list[Any]:
    host = RewardHost(build_reward(spec))
    samples = tuple(Sample(text, (), (), "eos") for text in texts)
    try:
        return host.score([Group(Problem("p", prompt, columns), samples)])[0]
    finally:
        host.close()


def values(score: Any) -> list[float]:
    return [step.value for step in score.steps]


def softmax(logits: Any, index: int) -> float:
    return float(torch.softmax(torch.as_tensor(logits), -1)[index])


def plain_ids(text: str) -> list[int]:
    return list(build_tokenizer()(text, add_special_tokens=False)["input_ids"])


# -- where the model is read ----------------------------------------------------------------------


def test_a_token_classifier_is_read_at_the_tag_after_each_step(token_model: str) -> None:
    tokenizer = build_tokenizer()
    ids, places = [tokenizer.bos_token_id, *plain_ids("3 + 4?")], []
    for step in ("First, 3 + 4.", "That is 7.", "So: 7"):
        ids += [*plain_ids(step), *plain_ids("\n")]
        places.append(len(ids) - 1)
    model = LlamaForTokenClassification.from_pretrained(token_model).eval()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    (score,) = scores_of(spec(token_model), ANSWER)
    expected = [softmax(logits[place], 1) for place in places]
    assert values(score) == pytest.approx(expected, abs=1e-5)
    assert score.value == pytest.approx(min(expected), abs=1e-5)
    (worse,) = scores_of(spec(token_model, good_label="LABEL_0", aggregate="last"), ANSWER)
    assert worse.value == pytest.approx(1 - expected[-1], abs=1e-5)
    assert {k: round(v, 4) for k, v in score.aspects.items() if v is not None} == {
        "prm": round(min(expected), 4),
        "prm_min": round(min(expected), 4),
        "prm_mean": round(sum(expected) / 3, 4),
        "prm_num_steps": 3.0,
    }


def test_a_language_model_is_asked_at_each_tag_for_one_of_two_tokens(causal_model: str) -> None:
    text = "3 + 4? First, 3 + 4. ки\nThat is 7. ки\nSo: 7 ки"
    found = build_tokenizer()(text)["input_ids"]
    tag = plain_ids("ки")
    ends = [i for i in range(len(found)) if found[i + 1 - len(tag) : i + 1] == tag]
    good, bad = plain_ids("+")[0], plain_ids("-")[0]
    model = LlamaForCausalLM.from_pretrained(causal_model)
    with torch.no_grad():
        logits = model(torch.tensor([found])).logits[0][ends][:, [good, bad]]
    expected = [softmax(row, 0) for row in logits]
    (score,) = scores_of(spec(causal_model, form="causal"), ANSWER)
    assert len(ends) == 3
    assert values(score) == pytest.approx(expected, abs=1e-5)


def test_a_tag_that_the_policy_writes_itself_is_not_read(causal_model: str) -> None:
    # A search for the tag in the tokens would find three, and read the policy's own.
    (score,) = scores_of(spec(causal_model, form="causal"), "Good ки step.\n\nSo: 7")
    assert [(step.start, step.end) for step in score.steps] == [(0, 13), (15, 20)]


@pytest.mark.parametrize("form", ["llama", "qwen2", "causal"])
def test_neither_padding_nor_batches_change_a_value(shelf: Path, form: str) -> None:
    model = model_in(shelf / f"padding-{form}", form)
    options = {"form": "causal"} if form == "causal" else {}
    texts = [ANSWER, "7", "one\ntwo\nthree\nfour and a long fifth", "\n\nSo: 7\n\n"]
    alone = [values(scores_of(spec(model, **options), text)[0]) for text in texts]
    for more in ({}, {"batch_tokens": 70}):
        together = scores_of(spec(model, **options, **more), *texts)
        for score, expected in zip(together, alone, strict=True):
            assert values(score) == pytest.approx(expected, abs=1e-5)


def test_chats_are_plain_questions_or_go_through_the_template(token_model: str) -> None:
    chat = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "3 + 4?"})
    assert scores_of(spec(token_model), "7", prompt=chat) == scores_of(spec(token_model), "7")
    (score,) = scores_of(spec(token_model, template="chat"), "7", prompt=chat)
    text = "[system]be brief[user]3 + 4?[assistant]7\n"
    ids = [build_tokenizer().bos_token_id, *plain_ids(text)]
    model = LlamaForTokenClassification.from_pretrained(token_model).eval()
    with torch.no_grad():
        expected = softmax(model(torch.tensor([ids])).logits[0, -1], 1)
    assert score.value == pytest.approx(expected, abs=1e-5)


def test_the_question_may_stand_in_a_column(token_model: str) -> None:
    given = {"prompt": "3 + 4? Box the answer.", "asked": "3 + 4?"}
    (score,) = scores_of(spec(token_model, question="asked"), "7", **given)
    assert score == scores_of(spec(token_model), "7")[0]
    reward = build_reward(spec(token_model, question="asked"))
    with pytest.raises(GoldError, match="problem 'p': column 'asked' is missing"):
        reward.check(Problem("p", "q"))
    with pytest.raises(GoldError, match="column 'asked' is 7, expected the question as text"):
        reward.check(Problem("p", "q", {"asked": 7}))


# -- steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fallback", "steps"),
    [
        pytest.param("a\n\nb\n\nc", True, ["a", "b", "c"], id="separated"),
        pytest.param("a\n\n\n\n  b c \n\n", True, ["a", "b c"], id="empty steps are dropped"),
        pytest.param("a\nb\n\nc", True, ["a\nb", "c"], id="the separator goes before lines"),
        pytest.param("a\nb\nc", True, ["a", "b", "c"], id="lines where there is no separator"),
        pytest.param("a\nb\n\n", True, ["a", "b"], id="a separator at the end parts nothing"),
        pytest.param("a\nb\nc", False, ["a\nb\nc"], id="one step without the fallback"),
        pytest.param("  7 ", True, ["7"], id="one word"),
        pytest.param(" \n\n \n", True, [], id="white space"),
        pytest.param("", True, [], id="nothing"),
    ],
)
def test_steps_are_spans_without_white_space(text: str, fallback: bool, steps: list[str]) -> None:
    assert [text[start:end] for start, end in step_spans(text, "\n\n", fallback)] == steps


def test_step_scores_lie_on_the_characters_of_their_steps(token_model: str) -> None:
    (score,) = scores_of(spec(token_model), ANSWER)
    found = [ANSWER[step.start : step.end] for step in score.steps]
    assert found == ["First, 3 + 4.", "That is 7.", "So: 7"]


def test_an_answer_without_a_step_has_no_value(token_model: str) -> None:
    empty, other = scores_of(spec(token_model), " \n", "7")
    assert empty.value is None and other.value is not None
    assert empty.note == "prm: the answer has no step"
    assert empty.judgement is not None and empty.judgement.verdict is Verdict.NO_ANSWER


def test_a_long_text_is_undecided_and_a_cut_never_reaches_a_step_end(token_model: str) -> None:
    (lost,) = scores_of(spec(token_model, max_tokens=20), ANSWER)
    assert lost.value is None and lost.judgement.verdict is Verdict.UNDECIDED
    assert "more than max_tokens, 20" in lost.note
    prompt = "x" * 60
    cut = spec(token_model, max_tokens=50, on_long="cut_left")
    (score,) = scores_of(cut, ANSWER, prompt=prompt)
    assert len(score.steps) == 3 and score.note == "prm: the first 42 tokens were cut"
    (shorter,) = scores_of(spec(token_model), ANSWER, prompt="x" * 18)
    assert values(score) == pytest.approx(values(shorter), abs=1e-5)
    (gone,) = scores_of(spec(token_model, max_tokens=15, on_long="cut_left"), ANSWER)
    assert gone.value is None and gone.judgement.verdict is Verdict.UNDECIDED


def test_a_model_that_says_nan_is_undecided(shelf: Path) -> None:
    model = model_in(shelf / "nan", "llama")
    weights = load_file(Path(model) / "model.safetensors")
    weights["score.weight"][:] = math.nan
    save_file(weights, Path(model) / "model.safetensors", metadata={"format": "pt"})
    (score,) = scores_of(spec(model), ANSWER)
    assert score.value is None and score.judgement.verdict is Verdict.UNDECIDED
    assert score.steps == ()


# -- what is made of the steps --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "expected"),
    [("min", 0.5), ("max", 0.8), ("mean", 0.65), ("product", 0.4), ("last", 0.5)],
)
def test_aggregates_leave_out_steps_without_value(how: Any, expected: float) -> None:
    assert aggregated([None, 0.8, None, 0.5, None], how) == pytest.approx(expected)
    assert aggregated([None], how) is None
    assert aggregated([], how) is None


def test_shaping_by_hand() -> None:
    steps = [0.9, 0.6, 0.8]
    assert shaped(steps, "none", 0.0, 1.0) == steps
    # min(p - 0.7, 0), halved
    assert shaped(steps, "clip", 0.7, 0.5) == pytest.approx([0.0, -0.05, 0.0])
    # 0.9 - 0.6, then the last but one stays, then 0
    assert shaped(steps, "delta", 0.0, 1.0) == pytest.approx([0.3, 0.6, 0.0])
    assert shaped(steps, "clip_delta", 0.7, 1.0) == pytest.approx([0.1, -0.1, 0.0])
    assert shaped([0.9, 0.6], "delta", 0.0, 1.0) == pytest.approx([0.9, 0.0])
    assert shaped([0.9], "delta", 0.0, 1.0) == [0.0]


def test_repeating_a_good_step_does_not_pay_after_delta() -> None:
    once, often = [0.9, 0.4], [0.9] * 20 + [0.4]
    assert sum(shaped(often, "delta", 0.0, 1.0)) == pytest.approx(sum(shaped(once, "delta", 0, 1)))
    assert sum(often) > sum(once) + 10


def test_shaped_steps_are_what_the_leaf_pays(token_model: str) -> None:
    (raw,) = scores_of(spec(token_model), ANSWER)
    (score,) = scores_of(spec(token_model, shaping="clip", eta=0.6, alpha=0.5), ANSWER)
    expected = [0.5 * min(value - 0.6, 0.0) for value in values(raw)]
    assert values(score) == pytest.approx(expected)
    assert score.value == pytest.approx(sum(expected))
    assert score.aspects["prm_min"] == raw.aspects["prm_min"]  # before shaping


def test_the_probability_of_a_good_step_bears_large_logits() -> None:
    assert good_probability([1000.0, 0.0], 0) == 1.0
    assert good_probability([0.0, 1000.0], 0) == 0.0
    assert good_probability([1.0, 1.0], 1) == 0.5


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separator": ""}, "separator is empty"),
        ({"step_tag": ""}, "step_tag is empty"),
        ({"shaping": "delta", "aggregate": "min"}, "expected only one; shaped steps are added up"),
        ({"shaping": "clip"}, "eta is None, expected it in .0, 1. for 'clip'"),
        ({"shaping": "clip_delta", "eta": 1.5}, "eta is 1.5"),
        ({"shaping": "delta", "eta": 0.5}, "eta is 0.5, expected null"),
        ({"shaping": "delta", "alpha": 0.0}, "alpha is 0.0, expected > 0"),
        ({"alpha": 0.5}, "alpha is 0.5, expected 1 without shaping"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_reward(spec("m", **options))


def test_a_model_of_another_kind_is_refused(shelf: Path, causal_model: str) -> None:
    with pytest.raises(ValueError, match="is a LlamaForCausalLM, expected a token classifier"):
        RewardHost(build_reward(spec(causal_model)))
    folder = shelf / "sequence"
    config = LlamaConfig(vocab_size=len(build_tokenizer()), num_labels=1, **SIZE)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    with pytest.raises(ValueError, match="LlamaForSequenceClassification, expected a token"):
        RewardHost(build_reward(spec(str(folder))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"good_label": 2}, "good_label is 2, expected one of the labels .*: LABEL_0, LABEL_1"),
        ({"good_label": "good"}, "good_label is 'good'"),
    ],
)
def test_a_label_the_model_lacks_is_refused(
    token_model: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RewardHost(build_reward(spec(token_model, **options)))


def test_good_and_bad_must_be_one_token_each(causal_model: str) -> None:
    with pytest.raises(ValueError, match="good_token is 'good', which is 4 tokens .*expected one"):
        RewardHost(build_reward(spec(causal_model, form="causal", good_token="good")))
    RewardHost(build_reward(spec(causal_model, form="causal", bad_token="<eos>"))).close()


def test_a_tag_that_is_a_token_of_its_own_is_read_there(shelf: Path) -> None:
    tokenizer = tokenizer_with_template()
    tokenizer.add_tokens([AddedToken("<step>", special=True)])
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZE))
    folder = shelf / "tagged"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ids = torch.tensor([tokenizer("3 + 4? 7<step>")["input_ids"]])
    good, bad = plain_ids("+")[0], plain_ids("-")[0]
    with torch.no_grad():
        expected = softmax(model(ids).logits[0, -1, [good, bad]], 0)
    options = {"form": "causal", "step_tag": "<step>"}
    assert scores_of(spec(str(folder), **options), "7")[0].value == pytest.approx(
        expected, abs=1e-5
    )


def test_a_tag_that_the_tokenizer_swallows_or_joins_is_refused(shelf: Path) -> None:
    deaf = Path(model_in(shelf / "deaf", "llama"))
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\n", "")
    tokenizer.save_pretrained(deaf)
    with pytest.raises(ValueError, match="step_tag is '.n', of which .* sees no token"):
        RewardHost(build_reward(spec(str(deaf))))
    joining = Path(model_in(shelf / "joining", "causal"))
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["!\n"])  # one token of the tag and what follows
    tokenizer.save_pretrained(joining)
    with pytest.raises(ValueError, match="step_tag is '!', which the tokenizer of .* joins"):
        RewardHost(build_reward(spec(str(joining), form="causal", step_tag="!")))
