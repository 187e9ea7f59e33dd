"""Attention maps of the policy over its own responses, for token weights that read them.

Shape letters in this file
    B  sequences    T  response tokens    L  prompt + response    H  heads of the layers taken
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llmalign.batch import Row
from llmalign.head import at_least_float32
from llmalign.policy import Policy
from llmalign.token_weights.attention import far_and_near_heads

_NAMES = ("self_attn", "attn", "attention", "self_attention")


@torch.no_grad()
def attention_maps(
    policy: Policy, rows: Sequence[Row], *, num_layers: int = 5, share: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Mean attention of the heads that look nearest and of those that look farthest back.

    The heads of ``num_layers`` layers evenly spaced in the middle third are ranked together by mean
    backward distance, for each response anew; the first and the last ``share`` of them are averaged
    (``far_and_near_heads``). What a response pays to its prompt never enters.

    This is a pass of its own with attention that writes its weights out, one row at a time. It
    holds the weights of one layer, heads * L^2 numbers in the model's precision and in float32, and
    H * T^2 of the layers taken, which their ranking takes to float64. The result has 2 * B * T^2
    numbers in the memory of the CPU, where the advantages are: give it one row, or a few, at once.

    Args:
        policy: read in evaluation mode, without gradient.
        rows: (prompt ids, response ids).
        num_layers: at most; a third of fewer layers gives those it has, >= 1.
        share: of the heads on either side, in (0, 1].
    Returns: local_BTT and global_BTT; [b, t, s] is what response token t pays to s <= t. 0 beyond
        a response. float32, or float64 of a float64 model.
    Raises: ValueError: an option lies outside its range, or the model gives no attention weights.
    Source: arXiv:2510.13554, which takes five layers and 0.3; the ranking response by response, and
        by attention within it, is reconstructed.
    """
    if num_layers < 1:
        raise ValueError(f"num_layers is {num_layers!r}, expected >= 1")
    width = max((len(response) for _, response in rows), default=0)
    dtype = torch.promote_types(policy.model.dtype, torch.float32)
    maps_2BTT = torch.zeros(2, len(rows), width, width, dtype=dtype)
    with _writing_attention(policy) as layers:
        taken = [layers[i] for i in middle_layers(len(layers), num_layers)]
        for b, (prompt, response) in enumerate(rows):
            if not response:
                continue
            map_HTT = _row_maps(policy, taken, prompt, response)
            for side, heads_H in enumerate(far_and_near_heads(map_HTT, share=share)):
                mean_TT = map_HTT[heads_H].mean(0)
                maps_2BTT[side, b, : len(response), : len(response)] = mean_TT
    return maps_2BTT[0], maps_2BTT[1]


def middle_layers(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` layers, evenly spaced from the first to the last of the middle third."""
    first, last = count // 3, max(count // 3, -(-2 * count // 3) - 1)
    return sorted({round(x) for x in torch.linspace(first, last, wanted).tolist()})


def _row_maps(
    policy: Policy, taken: Sequence[nn.Module], prompt: Sequence[int], response: Sequence[int]
) -> Tensor:
    """map_HTT of one response: the attention of all heads of the layers taken."""
    ids_1L = torch.tensor([[*prompt, *response]], device=policy.device)
    start, length = len(prompt), ids_1L.shape[1]
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        for found in outputs:
            if isinstance(found, Tensor) and found.shape[2:] == (length, length):
                maps.append(at_least_float32(found[0, :, start:, start:]))
                return

    hooks = [module.register_forward_hook(keep) for module in taken]
    try:
        with policy.autocast():
            policy._decoder(ids_1L, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    if len(maps) < len(taken):
        raise _no_weights(policy)
    return torch.cat(maps)


@contextlib.contextmanager
def _writing_attention(policy: Policy) -> Iterator[list[nn.Module]]:
    """The attention of each layer, which writes its weights out within the block; after it, or an
    error in it, the model is as it was."""
    model = policy.model
    base = model.get_base_model() if policy.has_adapter else model
    layers = getattr(policy._decoder, "layers", None) or getattr(policy._decoder, "h", None) or []
    found = [_attention(layer) for layer in layers]
    modules = [module for module in found if module is not None]
    if not modules or len(modules) < len(found):
        raise _no_weights(policy)
    before, was_training = base.config._attn_implementation, model.training
    try:
        model.eval()  # in training, dropout would make holes in the weights
        base.set_attn_implementation("eager")
        yield modules
    finally:
        base.set_attn_implementation(before)
        model.train(was_training)


def _attention(layer: nn.Module) -> nn.Module | None:
    return next((child for name, child in layer.named_children() if name in _NAMES), None)


def _no_weights(policy: Policy) -> ValueError:
    return ValueError(
        f"model type {policy.model.config.model_type!r} gives no attention weights in its middle "
        "layers, expected softmax attention that can write them out; take token weights that "
        "need none"
    )
