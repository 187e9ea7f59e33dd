"""Models of the hub as rewards hold them: one copy, exact padding, and no untrained head."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from llmalign.rewards import Group, Problem, RewardHost, Sample, build_reward, classifier
from llmalign.tiny import build_tokenizer

SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
CHAT = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}<eos>{% endfor %}"
TEXTS = ["7", "a much longer answer, of many more tokens", "", "seven", "it is 7"]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def classifier_in(folder: Path, pad_token_id: int | None = None) -> str:
    """A randomly initialised classifier with a byte tokenizer."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = CHAT
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=pad_token_id, **SIZE)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def retold(folder: Path, **changes: Any) -> str:
    """Changes what a saved tokenizer says of its special tokens."""
    file = folder / "tokenizer_config.json"
    told = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in told.items() if v is not None}))
    return str(folder)


def spec(model: str, **options: Any) -> dict[str, Any]:
    return {"reward_model": {"model": model, **options}}


def values_of(spec: Any, *texts: str, prompt: Any = "What is 3 + 4?") -> list[float | None]:
    host = RewardHost(build_reward(spec))
    samples = tuple(Sample(text, (), (), "eos") for text in texts)
    try:
        return [score.value for score in host.score([Group(Problem("p", prompt), samples)])[0]]
    finally:
        host.close()


def test_half_precision_keeps_a_linear_head_exact(shelf: Path) -> None:
    model = classifier_in(shelf / "half")
    texts = [f"answer {i}" for i in range(40)]
    values = values_of(spec(model, dtype="bfloat16"), *texts)
    rounded = [torch.tensor(v, dtype=torch.bfloat16).item() for v in values]  # of a bfloat16 head
    assert sum(v != r for v, r in zip(values, rounded, strict=True)) > 30


def test_a_missing_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="model is './nowhere', expected a folder or a hub name"):
        values_of(spec("./nowhere"), "7")


def test_a_language_model_is_no_reward_model(shelf: Path) -> None:
    tokenizer = build_tokenizer()
    folder = shelf / "language"
    config = LlamaConfig(vocab_size=len(tokenizer), **SIZE)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="is a LlamaForCausalLM, expected a sequence classifier"):
        RewardHost(build_reward(spec(str(folder))))


def test_a_head_without_trained_weights_stops_the_run(shelf: Path) -> None:
    folder = Path(classifier_in(shelf / "headless"))
    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match="lacks trained weights of score.weight"):
        values_of(spec(str(folder)), "7")


def test_padding_that_the_head_would_read_is_refused_with_a_way_out(shelf: Path) -> None:
    bare = retold(Path(classifier_in(shelf / "no-pad")), pad_token=None)
    with pytest.raises(ValueError, match="and its tokenizer have no pad token.*set pad_token"):
        values_of(spec(bare), "7")
    alone = [values_of(spec(bare, pad_token="<pad>"), text)[0] for text in TEXTS]
    assert values_of(spec(bare, pad_token="<pad>"), *TEXTS) == pytest.approx(alone, abs=1e-5)
    end = retold(Path(classifier_in(shelf / "end-pad")), pad_token="<eos>")
    with pytest.raises(ValueError, match="pads with the end token '<eos>'.*set pad_token"):
        values_of(spec(end), "7")
    with pytest.raises(ValueError, match="pad_token is '<none>', expected a token of"):
        values_of(spec(end, pad_token="<none>"), "7")


def test_the_padding_of_the_configuration_wins_because_the_head_was_trained_with_it(
    shelf: Path,
) -> None:
    tokenizer = build_tokenizer()
    model = classifier_in(shelf / "trained-pad", pad_token_id=tokenizer.eos_token_id)
    chat = ({"role": "user", "content": "3+4?"},)
    ids = tokenizer("[user]3+4?<eos>[assistant]7<eos>")["input_ids"]
    with torch.no_grad():  # read before the end token, as the model was trained
        expected = LlamaForSequenceClassification.from_pretrained(model)(torch.tensor([ids]))
    assert values_of(spec(model), "7", "seventy", prompt=chat)[0] == pytest.approx(
        expected.logits.item()
    )


def test_threads_and_rewards_share_one_model(shelf: Path) -> None:
    model = classifier_in(shelf / "shared")
    first, second = build_reward(spec(model)), build_reward(spec(model, name="other"))
    group = Group(Problem("p", "q"), tuple(Sample(t, (), (), "eos") for t in TEXTS))
    first.bind(None)  # type: ignore[arg-type]
    (expected,) = first.score([group])
    (Path(model) / "model.safetensors").unlink()  # a second load would fail
    found: list[list[Any]] = []
    threads = [
        threading.Thread(target=lambda r=r: found.append(r.score([group])[0]))
        for r in (first, second) * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all([s.value for s in row] == [s.value for s in expected] for row in found)


def test_batches_hold_rows_of_about_equal_length_within_their_budget() -> None:
    lengths = [9, 1, 30, 2, 8, 1]
    parts = list(classifier.portions(lengths, 18))
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    assert all(len(p) == 1 or max(lengths[i] for i in p) * len(p) <= 18 for p in parts)
    assert [2] in parts  # too long for the budget, so alone


def test_importing_the_reward_loads_no_torch() -> None:
    code = "import sys, llmalign.rewards.reward_model, llmalign.rewards.prm; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "transformers"} & set(loaded.stdout.split())
