"""The recipes for real models, on a randomly initialised model of that family: same code path."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

import llmalign.head
from llmalign.batch import TokenBatch
from llmalign.policy import Policy
from llmalign.recipe import load_recipe
from llmalign.training import train

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def chat_tokenizer():
    """Bytes and Qwen's three special tokens, with a chat template of the same form."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({t: i for i, t in enumerate(SPECIAL + alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen(folder, **sizes):
    """A Qwen2.5-type model (biased attention, grouped heads, tied embeddings) in a folder."""
    tokenizer = chat_tokenizer()
    config = Qwen2Config(
        vocab_size=sizes.pop("vocab_size", len(tokenizer)),
        tie_word_embeddings=True,
        rope_theta=1e6,
        max_position_embeddings=1024,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **sizes,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize("recipe", ["gsm8k_grpo", "gsm8k_dapo", "gsm8k_ppo", "gsm8k_treepo"])
@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
def test_the_recipe_runs_as_shipped_on_a_random_model_of_the_family(tmp_path, recipe, lora):
    qwen(tmp_path / "model", **SMALL)
    rows = [{"question": f"What is {i}+{i}?", "answer": f"It is.\n#### {2 * i}"} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    changes = [
        f"model.path={tmp_path / 'model'}",
        f"data.train.path={tmp_path / 'rows.jsonl'}",
        f"output={tmp_path}",
        "data.holdout=4",
        "schedule.steps=2",
        "schedule.updates_per_batch=2",
        "sampling.problems_per_step=2",
        "rollout.max_new_tokens=12",
    ]
    changes += {
        "gsm8k_dapo": ["sampling.dynamic.max_batches=2"],
        "gsm8k_ppo": ["critic.warmup_steps=1", "schedule.steps=3", "sampling.problems_per_step=8"],
        "gsm8k_treepo": ["sampling.tree.width=4", "sampling.tree.segment_tokens=3"],
    }.get(recipe, [])
    changes += ["model.lora.rank=4"] if lora else []
    summary = train(load_recipe(recipe, changes))
    assert summary["finished"] and summary["bad_updates"] == 0 and summary["undecided"] == 0
    run = tmp_path / recipe
    prompt = json.loads(next((run / "samples").iterdir()).read_text().splitlines()[0])["prompt"]
    assert prompt.startswith("<|im_start|>user\nWhat is") and prompt.endswith("assistant\n")
    assert (run / "final" / ("adapter_config.json" if lora else "config.json")).is_file()


@pytest.mark.slow
def test_logits_of_the_real_vocabulary_are_never_held_whole(tmp_path, monkeypatch):
    # real width and vocabulary of Qwen2.5-0.5B, two of its 24 layers
    real = {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 2,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
    }  # fmt: skip
    qwen(tmp_path, **real)
    model = Qwen2ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    policy = Policy(model, chat_tokenizer(), torch.device("cpu"))
    seen = []
    original = llmalign.head._logits
    monkeypatch.setattr(
        llmalign.head, "_logits", lambda h, *more: seen.append(len(h)) or original(h, *more)
    )
    batch = TokenBatch.from_rows(
        [([1, 5, 6], list(range(3, 253)))] * 2, pad_id=0, device=policy.device
    )
    logp_BT, _ = policy.logprobs(batch, temperature=1.0)
    logp_BT.sum().backward()
    chunk = llmalign.head.CHUNK_LOGITS // 151936
    assert max(seen) <= chunk < 500 == int(batch.mask_BT.sum())
    assert policy.model.lm_head.weight.grad is not None


@pytest.mark.slow
def test_the_real_rows_and_a_real_pretrained_model_run_clean_and_say_there_is_nothing_to_learn(
    tmp_path,
):
    model, rows = DATA / "tiny_lm" / "stories260K", DATA / "gsm8k" / "train.jsonl"
    if not model.is_dir() or not rows.is_file():
        pytest.skip(f"{model} or {rows} is absent")
    changes = [f"model.path={model}", f"data.train.path={rows}", f"output={tmp_path}"]
    changes += ["schedule.steps=1", "sampling.problems_per_step=4", "data.holdout=8"]
    summary = train(load_recipe("gsm8k_grpo", changes))
    assert summary["after"]["pass@1"] <= 0.05
    assert summary["degenerate_groups"] == summary["groups"] == 4
    assert any("nothing could be learnt from the reward" in note for note in summary["notes"])
    left_out = json.loads((tmp_path / "gsm8k_grpo" / "left_out.json").read_text())
    assert left_out and all("more than 511" in row["why"] for row in left_out)
