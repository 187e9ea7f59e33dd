"""The policy that training is held close to: frozen as it started.

Shape letters in this file
    B  sequences    T  response tokens    N  response tokens of all sequences
"""

import contextlib
import copy
from typing import Any

import torch
from torch import Tensor

from llmalign.batch import SharedBatch, TokenBatch
from llmalign.policy import Policy


class Reference:
    """The frozen start policy: the base under an adapter, or a copy of the model."""

    def __init__(self, policy: Policy, *, keep: bool = True) -> None:
        """``keep=False`` borrows the policy itself: right only before its first update."""
        self._policy = policy
        if keep and not policy.has_adapter:
            frozen = copy.deepcopy(policy.model).requires_grad_(False).eval()
            self._policy = Policy(frozen, policy.tokenizer, policy.device)

    @property
    def policy(self) -> Policy:
        """The frozen model; under an adapter the policy itself, to be used with it switched off."""
        return self._policy

    @torch.no_grad()
    def logprobs(
        self,
        batch: TokenBatch | SharedBatch,
        *,
        temperature: float,
        kept: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """logp_BT of the response under the reference, in nats; see ``Policy.logprobs``."""
        with self._adapter_off():
            return self._policy.logprobs(batch, temperature=temperature, kept=kept)[0]

    def token_scores(
        self, batch: TokenBatch, *, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See ``Policy.token_scores``."""
        with self._adapter_off():
            return self._policy.token_scores(batch, temperature=temperature)

    def _adapter_off(self) -> contextlib.AbstractContextManager[Any]:
        if self._policy.has_adapter:
            return self._policy.model.disable_adapter()
        return contextlib.nullcontext()
