"""Reward models: the number of the model itself, whatever its batch, or a clear refusal."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
)

from llmalign.recipe import build_recipe, load_recipe
from llmalign.rewards import Group, Problem, RewardHost, Sample, build_reward
from llmalign.rewards.combine import brme
from llmalign.rewards.reward_model import activated
from llmalign.tiny import build_tokenizer
from llmalign.training import train
from llmalign.verifiers import GoldError, Verdict

SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
TEXTS = ["7", "a much longer answer, of many more tokens", "", "seven", "it is 7"]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def classifier_in(folder: Path, *, family: Any = "llama", labels: Any = 1, **changes: Any) -> str:
    """A randomly initialised classifier with a byte tokenizer; ``changes`` are of the config."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = CHAT
    names = [f"LABEL_{i}" for i in range(labels)] if isinstance(labels, int) else labels
    given = {
        "vocab_size": len(tokenizer),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        "pad_token_id": None,
        **SIZE,
        **changes,
    }
    torch.manual_seed(len(folder.name))
    if family == "llama":
        model: Any = LlamaForSequenceClassification(LlamaConfig(**given))
    elif family == "qwen2":
        model = Qwen2ForSequenceClassification(Qwen2Config(**given))
    else:
        del given["num_key_value_heads"], given["pad_token_id"]
        model = BertForSequenceClassification(BertConfig(**given))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def retold(folder: Path, **changes: Any) -> str:
    """Changes what a saved tokenizer says of its special tokens."""
    file = folder / "tokenizer_config.json"
    told = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in told.items() if v is not None}))
    return str(folder)


@pytest.fixture(scope="module")
def plain(shelf: Path) -> str:
    """A classifier whose configuration names no pad token: common, and the classic trap."""
    return classifier_in(shelf / "plain")


def scores_of(spec: Any, *texts: str, prompt: Any = "What is 3 + 4?") -> list[Any]:
    reward = build_reward(spec)
    host = RewardHost(reward)
    samples = tuple(Sample(text, (), (), "eos") for text in texts)
    try:
        return host.score([Group(Problem("p", prompt), samples)])[0]
    finally:
        host.close()


def values_of(spec: Any, *texts: str, **more: Any) -> list[float | None]:
    return [score.value for score in scores_of(spec, *texts, **more)]


def spec(model: str, **options: Any) -> dict[str, Any]:
    return {"reward_model": {"model": model, **options}}


def own_logits(
    model: str, ids: list[int], cls: Any = LlamaForSequenceClassification
) -> list[float]:
    """What the model says of one row by itself, without our code and without padding."""
    with torch.no_grad():
        logits: list[float] = cls.from_pretrained(model)(torch.tensor([ids])).logits[0].tolist()
    return logits


# -- the number -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_neither_padding_nor_batches_change_a_value(shelf: Path, family: str) -> None:
    model = classifier_in(shelf / f"padding-{family}", family=family)
    alone = [values_of(spec(model), text)[0] for text in TEXTS]
    assert values_of(spec(model), *TEXTS) == pytest.approx(alone, abs=1e-5)
    assert values_of(spec(model, batch_tokens=40), *TEXTS) == pytest.approx(alone, abs=1e-5)
    assert len({round(value, 4) for value in alone if value is not None}) == len(TEXTS)


def test_the_value_is_what_the_model_says_of_prompt_and_answer(plain: str) -> None:
    ids = build_tokenizer()("What is 3 + 4?\n\nit is 7")["input_ids"]
    assert values_of(spec(plain), "it is 7", *TEXTS)[0] == pytest.approx(own_logits(plain, ids)[0])
    spaced = build_tokenizer()("What is 3 + 4? it is 7")["input_ids"]
    expected = own_logits(plain, spaced)[0]
    assert values_of(spec(plain, separator=" "), "it is 7") == pytest.approx([expected])


def test_a_chat_goes_through_the_models_template_with_one_start_token(plain: str) -> None:
    chat = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "3+4?"})
    text = "[system]be brief<eos>[user]3+4?<eos>[assistant]7<eos>"
    ids = build_tokenizer()(text)["input_ids"]
    assert ids.count(build_tokenizer().bos_token_id) == 1
    expected = own_logits(plain, ids)[0]
    assert values_of(spec(plain), "7", "seventy-seven", prompt=chat)[0] == pytest.approx(expected)
    as_user = own_logits(plain, build_tokenizer()("[user]3+4?<eos>[assistant]7<eos>")["input_ids"])
    assert values_of(spec(plain, template="chat"), "7", prompt="3+4?") == pytest.approx(as_user)


def test_a_pair_tells_the_model_which_text_is_the_answer(shelf: Path) -> None:
    model = classifier_in(shelf / "bert", family="bert")
    names = ["input_ids", "token_type_ids", "attention_mask"]
    retold(Path(model), model_input_names=names)
    found = AutoTokenizer.from_pretrained(model)("3+4?", "7")
    bert = BertForSequenceClassification.from_pretrained(model).eval()
    with torch.no_grad():
        given = {name: torch.tensor([ids]) for name, ids in found.items()}
        expected = bert(**given).logits[0].tolist()
    assert 1 in found["token_type_ids"]
    got = values_of(spec(model, template="pair"), "7", "a longer one", prompt="3+4?")
    assert got[0] == pytest.approx(expected[0], abs=1e-5)
    with pytest.raises(ValueError, match="on_long is 'cut_left' and template is 'pair'"):
        build_reward(spec(model, template="pair", on_long="cut_left"))


def test_heads_weights_and_activations(shelf: Path) -> None:
    model = classifier_in(shelf / "labels", labels=["safe", "helpful", "short"])
    ids = build_tokenizer()("What is 3 + 4?\n\n7")["input_ids"]
    logits = own_logits(model, ids)
    assert values_of(spec(model, head="helpful"), "7") == pytest.approx([logits[1]])
    assert values_of(spec(model, head=2), "7") == pytest.approx([logits[2]])
    chances = [math.exp(z) / sum(map(math.exp, logits)) for z in logits]
    soft = spec(model, head="safe", activation="softmax")
    assert values_of(soft, "7") == pytest.approx([chances[0]])
    weights = {"safe": 0.5, "helpful": 2.0}
    (score,) = scores_of(spec(model, weights=weights, activation="sigmoid"), "7")
    safe, helpful, _ = (1 / (1 + math.exp(-z)) for z in logits)
    assert score.value == pytest.approx(0.5 * safe + 2.0 * helpful)
    assert score.aspects["reward_model_safe"] == pytest.approx(safe)
    assert set(score.aspects) == {"reward_model", "reward_model_safe", "reward_model_helpful"}


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("none", [0.0, 800.0]),
        ("sigmoid", [0.5, 1.0]),
        ("log_sigmoid", [-math.log(2), 0.0]),
        ("softmax", [0.0, 1.0]),
    ],
)
def test_activations_bear_large_logits(activation: Any, expected: list[float]) -> None:
    assert activated([0.0, 800.0], activation) == pytest.approx(expected)


def test_brme_reads_means_then_spreads(shelf: Path) -> None:
    model = classifier_in(shelf / "heads", labels=6)
    logits = own_logits(model, build_tokenizer()("What is 3 + 4?\n\n7")["input_ids"])
    (score,) = scores_of({"brme": {"model": model, "alpha": 0.4}}, "7")
    means, spreads = logits[:3], logits[3:]
    surest = means[spreads.index(min(spreads))]
    assert score.value == pytest.approx(0.4 * surest + 0.6 * min(means), abs=1e-6)
    assert score.value == pytest.approx(brme(means, spreads, 0.4), abs=1e-6)
    assert score.aspects["brme_surest"] == pytest.approx(surest, abs=1e-6)
    odd = classifier_in(shelf / "odd", labels=3)
    with pytest.raises(ValueError, match="has 3 labels, expected an even number"):
        scores_of({"brme": {"model": odd}}, "7")


# -- what has no value ----------------------------------------------------------------------------


def test_a_text_that_is_too_long_is_undecided_unless_it_may_be_cut(plain: str) -> None:
    long = "x" * 200
    fits, lost = scores_of(spec(plain), "7", long)
    assert fits.value is not None and lost.value is None
    assert lost.judgement is not None and lost.judgement.verdict is Verdict.UNDECIDED
    assert "more than max_tokens, 128" in lost.note
    (cut,) = scores_of(spec(plain, on_long="cut_left", max_tokens=10), "it is 7")
    tokenizer = build_tokenizer()
    kept = [tokenizer.bos_token_id, *tokenizer("?\n\nit is 7")["input_ids"][-9:]]
    assert cut.value == pytest.approx(own_logits(plain, kept)[0])
    assert cut.note == "reward_model: the first 14 tokens were cut"


def test_a_model_that_says_nan_is_counted_as_undecided(shelf: Path) -> None:
    model = classifier_in(shelf / "nan")
    file = Path(model) / "model.safetensors"
    weights = load_file(file)
    weights["score.weight"][:] = math.nan
    save_file(weights, file, metadata={"format": "pt"})
    host = RewardHost(build_reward(spec(model)))
    group = Group(Problem("p", "q"), (Sample("a", (), (), "eos"),) * 2)
    assert [score.value for score in host.score([group])[0]] == [None, None]
    assert host.stats().undecided == 2
    host.close()


# -- what is refused at start-up ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "has 3 labels, expected to know which counts"),
        ({"head": "kind"}, "head names 'kind', expected a label of .*: safe, helpful, short"),
        ({"head": 3}, "head names 3"),
        ({"weights": {"kind": 1.0}}, "weights names 'kind'"),
        ({"head": 0, "max_tokens": 129}, "max_tokens is 129, expected <= 128"),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(
    shelf: Path, options: dict[str, Any], message: str
) -> None:
    model = shelf / "three"
    if not model.exists():
        classifier_in(model, labels=["safe", "helpful", "short"])
    with pytest.raises(ValueError, match=message):
        RewardHost(build_reward(spec(str(model), **options)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": " "}, "model is empty"),
        ({"head": 0, "weights": {"a": 1.0}}, "expected only one"),
        ({"weights": {}}, "expected a finite number for each label"),
        ({"weights": {"a": float("inf")}}, "expected a finite number"),
        ({"max_tokens": 0}, "max_tokens is 0, expected >= 2"),
        ({"batch_tokens": 1}, "batch_tokens is 1, expected >= 2"),
    ],
)
def test_options_that_never_fit_are_refused_in_the_recipe(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_reward({"reward_model": {"model": "m", **options}})


def test_the_softmax_of_one_label_is_refused(plain: str) -> None:
    with pytest.raises(ValueError, match="activation is 'softmax' and .* has one label"):
        RewardHost(build_reward(spec(plain, activation="softmax")))


def test_a_chat_without_a_template_is_refused_by_the_check(shelf: Path) -> None:
    folder = Path(classifier_in(shelf / "no-template"))
    (folder / "chat_template.jinja").unlink()
    chat = ({"role": "user", "content": "3+4?"},)
    host = RewardHost(build_reward(spec(str(folder))))
    (bad,) = host.check([Problem("p1", chat), Problem("p2", "3+4?")])
    assert bad[0].id == "p1" and "has no chat template" in bad[1]
    with pytest.raises(GoldError, match="set template of reward 'reward_model'"):
        host.reward.check(Problem("p1", chat))
    joined = values_of(spec(str(folder), template="joined"), "7", prompt=chat)
    ids = build_tokenizer()("3+4?\n\n7")["input_ids"]
    assert joined == pytest.approx(own_logits(str(folder), ids))
    with pytest.raises(ValueError, match="template is 'chat', expected 'joined' or 'pair'"):
        RewardHost(build_reward(spec(str(folder), template="chat")))


# -- in use ---------------------------------------------------------------------------------------


def test_a_trained_model_ranks_answers_it_has_not_seen(shelf: Path) -> None:
    # Trained on pairs to prefer polite answers (Bradley-Terry), asked about other questions.
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_labels=1,
        pad_token_id=0,
        **SIZE | {"initializer_range": 0.05},
    )
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def text(i: int, polite: bool) -> str:
        return f"What is {i}?\n\n" + (f"Please: {i}" if polite else f"Bah, {i}")

    for step in range(60):
        numbers = range(10 + step * 8 % 64, 18 + step * 8 % 64)
        texts = [text(i, polite) for polite in (True, False) for i in numbers]
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        good, bad = model(**batch).logits[:, 0].chunk(2)
        optimizer.zero_grad()
        (-torch.nn.functional.logsigmoid(good - bad).mean()).backward()
        optimizer.step()
    model.save_pretrained(shelf / "polite")
    tokenizer.save_pretrained(shelf / "polite")
    reward = build_reward(spec(str(shelf / "polite")))
    groups = [
        Group(
            Problem(str(i), f"What is {i}?"),
            tuple(Sample(t, (), (), "eos") for t in (f"Please: {i}", f"Bah, {i}")),
        )
        for i in range(80, 100)
    ]
    rows = reward.score(groups)
    assert all(polite.value > rude.value for polite, rude in rows)  # type: ignore[operator]


def test_the_shipped_recipe_runs_on_small_models_of_its_families(
    shelf: Path, tmp_path: Path
) -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = CHAT
    sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **SIZE}
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(**sizes)).save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    rows = [{"prompt": f"Say {i}.", "references": [f"{i}", "no"]} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = classifier_in(shelf / "qwen-reward", family="qwen2")
    changes = [
        f"model.path={tmp_path / 'policy'}",
        f"data.train.path={tmp_path / 'rows.jsonl'}",
        f"output={tmp_path}",
        "data.holdout=2",
        "schedule.steps=2",
        "sampling.problems_per_step=2",
        "rollout.max_new_tokens=8",
        "overlong.filter=false",  # a random model ends no answer
    ]
    raw = ["reward.reward_model.max_tokens=120", f"reward.reward_model.model={model}"]
    summary = train(load_recipe("reward_model_grpo", [*changes, *raw]))
    assert summary["finished"] and summary["undecided"] == 0 and summary["bad_updates"] == 0
    par = {"centred": {"of": spec(model), "reference_answers": "references"}}
    recipe = load_recipe("reward_model_grpo", [*changes, *raw, "name=par"])
    summary = train(build_recipe({**recipe.model_dump(), "reward": par}))
    assert summary["finished"] and summary["undecided"] == 0
    saved = next((tmp_path / "par" / "samples").iterdir()).read_text().splitlines()
    rewards = [json.loads(line)["aspects"]["centred"] for line in saved]
    assert rewards and all(0 < reward < 1 for reward in rewards)
