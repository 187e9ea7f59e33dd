"""Attention of rows that lie one behind the other, none of which may look at another.

The library's flash attention takes the bounds of the rows as they are. For its ``sdpa`` it would
make a mask over all pairs of tokens, L^2 of them; here each row is attended to by itself: on a GPU
in half precision by one kernel for all (torch >= 2.10), elsewhere row by row with the library's own
function, so that the numbers are those of the rows alone.

Shape letters in this file
    L  tokens of all rows    R  rows    H  heads    D  head size
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from llmalign.batch import PackedBatch

_SDPA = ALL_ATTENTION_FUNCTIONS["sdpa"]


def why_not_packed(config: Any) -> str | None:
    """What in a model's config keeps its rows from being packed; None: nothing that shows there."""
    attention = getattr(config, "_attn_implementation", None) or "eager"
    flash = attention.startswith("flash_attention")
    if attention != "sdpa" and not flash:
        return f"its attention is {attention!r}, expected sdpa or flash attention"
    allowed = {"full_attention", "sliding_attention"} if flash else {"full_attention"}
    odd = set(getattr(config, "layer_types", None) or ()) - allowed
    if odd:
        return f"it has layers of type {sorted(odd)[0]!r}"
    if not flash and not hasattr(config, "layer_types") and getattr(config, "sliding_window", None):
        return "its attention slides over a window"
    return None


def packed_arguments(config: Any, batch: PackedBatch) -> dict[str, Any]:
    """What a decoder is given beside ids and positions, so that rows do not look at each other."""
    bounds = torch.tensor([0, *batch.length_R]).cumsum(0).int().to(batch.input_ids_1L.device)
    if config._attn_implementation != "sdpa":
        longest = max(batch.length_R)
        return {
            "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds,
            "max_length_q": longest,
            "max_length_k": longest,
        }
    AttentionInterface.register("sdpa", _packed_or_not)
    # A mask of four dimensions is handed through as it is: none is made over all pairs of tokens.
    anything = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=bounds.device)
    return {"attention_mask": anything, "packed_rows": (batch.length_R, bounds)}


def _packed_or_not(
    module: Any,
    query_1HLD: Tensor,
    key_1HLD: Tensor,
    value_1HLD: Tensor,
    attention_mask: Tensor | None,
    *args: Any,
    packed_rows: tuple[tuple[int, ...], Tensor] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The library's ``sdpa``, or that of each of ``packed_rows``; the result is [1, L, H, D]."""
    qkv = (query_1HLD, key_1HLD, value_1HLD)
    if packed_rows is None:
        found: tuple[Tensor, None] = _SDPA(module, *qkv, attention_mask, *args, **kwargs)
        return found
    length_R, bounds = packed_rows
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else qkv[0].dtype
    if query_1HLD.is_cuda and dtype in (torch.bfloat16, torch.float16):
        return _one_kernel(qkv, dtype, bounds, max(length_R), kwargs.get("scaling")), None
    parts = [
        _SDPA(module, *row, None, *args, **kwargs)[0]
        for row in zip(*(each.split(length_R, dim=2) for each in qkv), strict=True)
    ]
    return torch.cat(parts, dim=1), None


def _one_kernel(
    qkv: tuple[Tensor, Tensor, Tensor],
    dtype: torch.dtype,
    bounds: Tensor,
    longest: int,
    scale: float | None,
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    varlen: Callable[..., Any] = varlen_attn
    query, key, value = (each[0].transpose(0, 1).to(dtype).contiguous() for each in qkv)
    out_LHD: Tensor = varlen(
        query,
        key,
        value,
        bounds,
        bounds,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0),  # causal
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out_LHD[None]
