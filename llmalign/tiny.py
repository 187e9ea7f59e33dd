"""The embedded model: Qwen3 architecture, about a million parameters, one token per byte.

Nothing is fetched: the model is built from a config and the tokenizer from 256 bytes, so that the
whole trainer runs on any machine with the same code as a model from a hub.
"""

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SPECIAL = ["<pad>", "<bos>", "<eos>"]
DEFAULTS: dict[str, Any] = {
    "hidden_size": 128,
    "num_layers": 4,
    "num_heads": 4,
    "num_kv_heads": 2,
    "intermediate_size": 384,
    "max_positions": 512,
    "tied": True,
}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per UTF-8 byte, ``<bos>`` in front, never ``<eos>`` behind; decoding is exact."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(SPECIAL + alphabet)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        clean_up_tokenization_spaces=False,
    )


def build_tiny(
    options: dict[str, Any], *, seed: int
) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """A freshly initialised model in float32 and its tokenizer; the same weights for the same seed.

    Raises:
        ValueError: ``options`` holds a name that is not in ``DEFAULTS``.
    """
    for name in options:
        if name not in DEFAULTS:
            raise ValueError(
                f"model.build_options: unknown option {name!r}; known: {', '.join(DEFAULTS)}"
            )
    size = DEFAULTS | options
    tokenizer = build_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=size["hidden_size"],
        num_hidden_layers=size["num_layers"],
        num_attention_heads=size["num_heads"],
        num_key_value_heads=size["num_kv_heads"],
        head_dim=size["hidden_size"] // size["num_heads"],
        intermediate_size=size["intermediate_size"],
        max_position_embeddings=size["max_positions"],
        tie_word_embeddings=size["tied"],
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    return model, tokenizer
