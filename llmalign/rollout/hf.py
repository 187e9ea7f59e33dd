"""Sampling with the policy's own Hugging Face model: no second copy of the weights, no sync.

Shape letters in this file
    B  rows of a batch    U  distinct prompts among them    L  prompt, left-padded
    T  tokens to sample   V  vocabulary
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from llmalign.policy import Policy
from llmalign.rewards import Sample
from llmalign.rollout.engine import Request, SamplingParams
from llmalign.truncation import keep_top, kept_ids, truncates

_STOP_WINDOW = 16  # tokens decoded to look for a stop string, beyond its own characters


class HfEngine:
    """Batched sampling; each row draws from its own stream, so neighbours change nothing."""

    def __init__(self, policy: Policy, *, batch_size: int) -> None:
        self._policy = policy
        self._batch_size = batch_size

    @property
    def weights_version(self) -> int:
        """The policy's own: the weights are shared."""
        return self._policy.version

    def sync(self, version: int) -> None:
        """Nothing to copy."""
        self._policy.version = version

    @torch.no_grad()
    def generate(
        self, requests: Sequence[Request], params: SamplingParams
    ) -> Iterator[tuple[int, Sample]]:
        """See ``Engine.generate``. Longest prompts first, so that memory fails early or never."""
        self._check(requests, params)
        self._policy.model.eval()
        order = sorted(
            range(len(requests)), key=lambda i: len(requests[i].prompt_ids), reverse=True
        )
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            with self._policy.autocast():
                yield from self._generate_batch([(i, requests[i]) for i in batch], params)

    def _check(self, requests: Sequence[Request], params: SamplingParams) -> None:
        longest = max((len(r.prompt_ids) for r in requests), default=0)
        if longest >= self._policy.context_length:
            raise ValueError(
                f"a prompt has {longest} tokens, expected fewer than the model's context of "
                f"{self._policy.context_length}; lower data.max_prompt_tokens"
            )
        least = min((r.limit(params) for r in requests), default=1)
        if least < 1:
            raise ValueError(f"max_new_tokens is {least}, expected > 0; ask for no such completion")

    def _generate_batch(
        self, batch: list[tuple[int, Request]], params: SamplingParams
    ) -> Iterator[tuple[int, Sample]]:
        state = _Rows(self._policy, [r for _, r in batch], params)
        for token in range(state.max_steps):
            finished = state.step(token)
            for row in finished:
                yield batch[row][0], state.sample(row)
            if not state.active:
                return


class _Rows:
    """The rows of one batch while they grow."""

    def __init__(self, policy: Policy, requests: list[Request], params: SamplingParams) -> None:
        self._policy, self._requests, self._params = policy, requests, params
        device = policy.device
        limits = [min(r.limit(params), policy.context_length - len(r.prompt_ids)) for r in requests]
        self.max_steps = max(limits)
        self._limits = limits
        self._uniform_BT = _uniforms([r.seed for r in requests], self.max_steps, device)
        self._tokens: list[list[int]] = [[] for _ in requests]
        self._logprobs: list[list[float]] = [[] for _ in requests]
        self._kept_ids = [bytearray() for _ in requests]
        self._kept_counts = [bytearray() for _ in requests]
        self._reasons: dict[int, str] = {}
        self._texts: dict[int, str] = {}
        self.active = list(range(len(requests)))
        self._prefill(device)

    def _prefill(self, device: torch.device) -> None:
        # The prompt of a group is computed once; its cache rows are then repeated.
        distinct = list(dict.fromkeys(r.prompt_ids for r in self._requests))
        width = max(len(p) for p in distinct)
        ids_UL = torch.full((len(distinct), width), self._policy.pad_id, dtype=torch.long)
        seen_UL = torch.zeros((len(distinct), width), dtype=torch.long)
        for u, prompt in enumerate(distinct):
            ids_UL[u, width - len(prompt) :] = torch.tensor(prompt)
            seen_UL[u, width - len(prompt) :] = 1
        row_of = {prompt: u for u, prompt in enumerate(distinct)}
        index_B = torch.tensor([row_of[r.prompt_ids] for r in self._requests], device=device)
        seen_UL = seen_UL.to(device)
        position_UL = (seen_UL.cumsum(1) - 1).clamp(min=0)
        self._cache: Any = DynamicCache(config=self._policy.model.config)
        logits_UV = self._forward(ids_UL.to(device), seen_UL, position_UL)
        if len(distinct) < len(self._requests):
            self._cache.batch_select_indices(index_B)
            logits_UV, seen_UL, position_UL = (
                logits_UV[index_B],
                seen_UL[index_B],
                position_UL[index_B],
            )
        self._logits_BV, self._seen_BL = logits_UV, seen_UL
        self._position_B = position_UL[:, -1]

    def _forward(self, ids: Tensor, seen: Tensor, position: Tensor) -> Tensor:
        out = self._policy.model(
            input_ids=ids,
            attention_mask=seen,
            position_ids=position,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = out.logits[:, -1].float()
        return logits

    def step(self, token: int) -> list[int]:
        """Samples one token for every active row; returns the rows that are finished with it."""
        if token:
            self._feed(token)
        uniform_B = self._uniform_BT[self.active, token]
        token_B, logprob_B = sample_tokens(self._logits_BV, uniform_B, self._params)
        if self._records:
            self._record()
        finished, kept = [], []
        for slot, (row, new, logp) in enumerate(
            zip(self.active, token_B.tolist(), logprob_B.tolist(), strict=True)
        ):
            self._tokens[row].append(new)
            self._logprobs[row].append(logp)
            reason = self._reason(row)
            if reason is None:
                kept.append(slot)
            else:
                self._reasons[row] = reason
                finished.append(row)
        self._last_B = token_B
        if finished:
            self._keep(kept)
        return finished

    @property
    def _records(self) -> bool:
        p = self._params
        cut = truncates(top_k=p.top_k, top_p=p.top_p, min_p=p.min_p)
        return p.max_kept > 0 and p.temperature > 0 and cut

    def _record(self) -> None:
        """Keeps, per active row, what its next token is drawn from."""
        p = self._params
        ids_BK, count_B = kept_ids(
            self._logits_BV,
            temperature=p.temperature,
            top_k=p.top_k,
            top_p=p.top_p,
            min_p=p.min_p,
            max_kept=p.max_kept,
        )
        for row, ids_K, count in zip(
            self.active, ids_BK.cpu().numpy(), count_B.tolist(), strict=True
        ):
            self._kept_ids[row] += ids_K[:count].tobytes()
            self._kept_counts[row] += np.int32(count).tobytes()

    def _feed(self, token: int) -> None:
        ones_B1 = torch.ones_like(self._seen_BL[:, :1])
        self._seen_BL = torch.cat([self._seen_BL, ones_B1], dim=1)
        self._position_B = self._position_B + 1
        self._logits_BV = self._forward(
            self._last_B[:, None], self._seen_BL, self._position_B[:, None]
        )

    def _keep(self, slots: list[int]) -> None:
        self.active = [self.active[s] for s in slots]
        if not slots:
            return
        index = torch.tensor(slots, device=self._seen_BL.device)
        self._cache.batch_select_indices(index)
        self._seen_BL, self._position_B = self._seen_BL[index], self._position_B[index]
        self._last_B = self._last_B[index]

    def _reason(self, row: int) -> str | None:
        tokens = self._tokens[row]
        if tokens[-1] in self._policy.eos_ids:
            return "eos"
        if self._params.stop and self._hits_stop(row):
            return "stop"
        return "length" if len(tokens) >= self._limits[row] else None

    def _hits_stop(self, row: int) -> bool:
        window = max(len(s) for s in self._params.stop) + _STOP_WINDOW
        tail = self._policy.tokenizer.decode(self._tokens[row][-window:], skip_special_tokens=True)
        if not any(s in tail for s in self._params.stop):
            return False
        text = self._decode(row)
        cut = min((text.find(s) for s in self._params.stop if s in text), default=len(text))
        self._texts[row] = text[:cut]
        return True

    def _decode(self, row: int) -> str:
        text: str = self._policy.tokenizer.decode(self._tokens[row], skip_special_tokens=True)
        return text

    def sample(self, row: int) -> Sample:
        """The finished sample of ``row``."""
        return Sample(
            text=self._texts.get(row) if row in self._texts else self._decode(row),  # type: ignore[arg-type]
            token_ids=tuple(self._tokens[row]),
            logprobs=tuple(self._logprobs[row]),
            finish_reason=self._reasons[row],  # type: ignore[arg-type]
            weights_version=self._policy.version,
            seed=self._requests[row].seed,
            kept_ids=bytes(self._kept_ids[row]),
            kept_counts=bytes(self._kept_counts[row]),
        )


def _uniforms(seeds: Sequence[int], width: int, device: torch.device) -> Tensor:
    """One stream of uniform numbers in [0, 1) per row, from a counter-based generator."""
    rows = [np.random.Generator(np.random.Philox(key=seed)).random(width) for seed in seeds]
    return torch.from_numpy(np.stack(rows)).to(device)


def sample_tokens(
    logits_BV: Tensor, uniform_B: Tensor, params: SamplingParams
) -> tuple[Tensor, Tensor]:
    """Draws one token per row by inverting the distribution function at ``uniform_B``.

    Args:
        logits_BV: float logits.
        uniform_B: float64 in [0, 1), one draw per row; it alone decides what is drawn.
        params: temperature, top-k, top-p, min-p.
    Returns:
        token_B and logprob_B: the log-probability in nats of the token under the distribution it
        was drawn from, that is after temperature, top-k, top-p and min-p, renormalised.
    """
    if params.temperature == 0:
        token_B = logits_BV.argmax(-1)
        return token_B, torch.zeros_like(uniform_B)
    scaled_BV = keep_top(
        logits_BV / params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
    )
    logp_BV = torch.log_softmax(scaled_BV, dim=-1)
    cumulative_BV = logp_BV.double().exp().cumsum(-1)
    # Scaled by the total, so that rounding of the sum never leaves the last token's mass short.
    target_B1 = (uniform_B * cumulative_BV[:, -1])[:, None]
    token_B = torch.searchsorted(cumulative_BV, target_B1, right=True)[:, 0]
    return token_B, logp_BV.gather(1, token_B[:, None])[:, 0]
