"""Models that benchmarks measure on: real shapes, fresh weights."""

from typing import Any

# Hidden size, layers, heads, key-value heads, intermediate size, vocabulary.
SHAPES = {
    "25m": (384, 7, 6, 3, 1024, 32_000),
    "0.5b": (896, 24, 14, 2, 4864, 151_936),  # Qwen2.5-0.5B
    "wide": (128, 4, 4, 2, 384, 0),  # the embedded model with another vocabulary
}


def build_model(name: str, vocabulary: int = 0) -> tuple[Any, Any]:
    """A freshly initialised model and its tokenizer, one token per byte.

    ``1m``: the embedded model of 0.8M parameters, unless ``vocabulary`` says how many words it has;
    others: of ``SHAPES``.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    from llmalign.tiny import build_tiny

    model, tokenizer = build_tiny({}, seed=0)
    if name == "1m" and not vocabulary:
        return model, tokenizer
    hidden, layers, heads, kv_heads, intermediate, words = SHAPES["wide" if name == "1m" else name]
    shape = {
        "vocab_size": vocabulary or words,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    torch.manual_seed(0)
    if name == "0.5b":
        return Qwen2ForCausalLM(Qwen2Config(**shape)), tokenizer
    return Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=hidden // heads)), tokenizer
