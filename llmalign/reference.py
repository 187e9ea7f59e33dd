"""The policy that training is held close to: frozen as it started, or following at a distance.

Shape letters in this file
    B  sequences    T  response tokens    N  response tokens of all sequences
    D  hidden size  V  vocabulary
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from llmalign.batch import AnyBatch, TokenBatch
from llmalign.losses.policy.anchor import moved_anchor
from llmalign.policy import Policy

ReferenceKind = Literal["start", "ema", "copy"]


class Reference:
    """The frozen start policy: the base under an adapter, or a copy of the model.

    Memory: nothing under an adapter, else one more model: 4 bytes a parameter in float32.
    """

    def __init__(self, policy: Policy, *, keep: bool = True) -> None:
        """``keep=False`` borrows the policy itself: right only before its first update."""
        self._policy = policy
        self._owns_model = keep and not policy.has_adapter
        if self._owns_model:
            frozen = copy.deepcopy(policy.model).requires_grad_(False).eval()
            self._policy = Policy(frozen, policy.tokenizer, policy.device)
        # A frozen base has a parameter that learns in its head only where an adapter sits there.
        head = self._policy.model.get_output_embeddings()
        self._head_adapted = policy.has_adapter and any(p.requires_grad for p in head.parameters())

    @property
    def policy(self) -> Policy:
        """The frozen model; under an adapter the policy itself, which ``loaded`` makes the
        reference."""
        return self._policy

    @contextlib.contextmanager
    def loaded(self) -> Iterator[Policy]:
        """Within the block the policy it gives is the reference, in evaluation mode; after it, or
        an error in it, the model that both may share is the policy again as it was."""
        if self._owns_model:
            yield self._policy
            return
        model = self._policy.model
        was_training = model.training
        model.eval()
        try:
            with self._adapter_of_reference():
                yield self._policy
        finally:
            model.train(was_training)

    @torch.no_grad()
    def logprobs(
        self,
        batch: AnyBatch,
        *,
        temperature: float,
        kept: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """logp_BT of the response under the reference, in nats; see ``Policy.logprobs``."""
        with self.loaded() as policy:
            return policy.logprobs(batch, temperature=temperature, kept=kept)[0]

    def token_scores(
        self, batch: TokenBatch, *, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See ``Policy.token_scores``."""
        with self.loaded() as policy:
            return policy.token_scores(batch, temperature=temperature)

    @torch.no_grad()
    def predicting(self, batch: AnyBatch) -> Tensor:
        """hidden_ND that predicts each response token under the reference, in row order."""
        with self.loaded() as policy, policy.autocast():
            return policy.hidden(batch)[0]

    @torch.no_grad()
    def next_logits(self, hidden_ND: Tensor) -> Tensor:
        """Logits [N, V] of the reference from its hidden states; see ``Policy.next_logits``."""
        # A head without adapter is the same in both, and switching a large model takes its time.
        loaded = self.loaded() if self._head_adapted else contextlib.nullcontext(self._policy)
        with loaded as policy:
            return policy.next_logits(hidden_ND)

    def after_update(self, version: int) -> bool:
        """To be called after each optimizer step with the policy's version. True if it moved."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: nothing, the start policy can be built again."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what ``state_dict`` returned.

        Raises:
            ValueError: the checkpoint is of another kind of reference, or of another model.
        """
        if state:
            raise ValueError(
                "the checkpoint has weights of a reference that moves, expected none; "
                "kl.reference is 'start' now and was not when it was written"
            )

    def _adapter_of_reference(self) -> contextlib.AbstractContextManager[Any]:
        if self._policy.has_adapter:
            return self._policy.model.disable_adapter()
        return contextlib.nullcontext()


class MovingReference(Reference):
    """A reference that follows the policy: after every ``every`` optimizer steps

        reference' = rate * policy + (1 - rate) * reference        (``moved_anchor``)

    over the weights that learn; rate 1 is a hard copy. Weights that never learn are the same in
    both; buffers are copied, as a mean of counters or of tables means nothing.

    Memory: without an adapter one more model, as ``Reference``; under an adapter one more set of
    its weights (rank * (inputs + outputs) a layer, about 1 % of the base at rank 16), which takes
    the place of the policy's own while the reference is ``loaded``: no weight is copied for that.

    Args:
        policy: what it follows, and starts from.
        rate: share of the policy in each move, in (0, 1].
        every: optimizer steps between moves, >= 1.
    Raises: ValueError: ``rate`` or ``every`` lies outside its range.
    Source: T1 2025, arXiv:2501.11651 (the idea, no rate); Gorbatovski et al. 2024 (TR-DPO),
        arXiv:2404.09656: rate 0.6 every 512 steps.
    """

    def __init__(self, policy: Policy, *, rate: float, every: int) -> None:
        if not 0 < rate <= 1:
            raise ValueError(
                f"rate is {rate!r}, expected a number in (0, 1]; a reference that never moves is "
                "reference 'start'"
            )
        if every < 1:
            raise ValueError(f"every is {every!r}, expected >= 1 optimizer steps")
        super().__init__(policy)
        self._followed, self._rate, self._every = policy, rate, every
        self._seen = policy.version
        if self._owns_model:
            own = dict(self._policy.model.named_parameters())  # tied weights once, as in trainable
            self._weights: dict[str, Tensor] = {name: own[name] for name in policy.trainable}
        else:
            self._weights = {name: p.detach().clone() for name, p in policy.trainable.items()}

    @torch.no_grad()
    def after_update(self, version: int) -> bool:
        """Moves where ``version`` has reached or passed a multiple of ``every`` since the last
        call; an update that was refused does not count, as it leaves the version as it is."""
        due = version // self._every > self._seen // self._every
        self._seen = version
        if due:
            self._move()
        return due

    def state_dict(self) -> dict[str, Any]:
        """The weights that move, and the version of the policy last seen."""
        weights = {name: weight.detach() for name, weight in self._weights.items()}
        return {"seen": self._seen, "weights": weights}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``Reference.load_state_dict``."""
        found = state.get("weights", {})
        if found.keys() != self._weights.keys():
            odd = sorted(found.keys() ^ self._weights.keys())[:3]
            raise ValueError(
                f"checkpoint and reference have different weights, for example {odd}; expected a "
                "checkpoint of this model with a reference that moves"
            )
        self._seen = state["seen"]
        for name, weight in self._weights.items():
            weight.copy_(found[name])

    def _move(self) -> None:
        for name, p in self._followed.trainable.items():
            # One weight at a time: the moved ones of a whole model would be a third model.
            moved = moved_anchor({name: self._weights[name]}, {name: p}, rate=self._rate)
            self._weights[name].copy_(moved[name])
        if self._owns_model:
            theirs = dict(self._followed.model.named_buffers())
            for name, buffer in self._policy.model.named_buffers():
                buffer.copy_(theirs[name])

    @contextlib.contextmanager
    def _adapter_of_reference(self) -> Iterator[None]:
        own = {name: p.data for name, p in self._policy.trainable.items()}
        try:
            for name, p in self._policy.trainable.items():
                p.data = self._weights[name].to(p)
            yield
        finally:
            for name, p in self._policy.trainable.items():
                p.data = own[name]


def open_reference(policy: Policy, *, kind: ReferenceKind, rate: float, every: int) -> Reference:
    """The reference a recipe's ``kl`` block describes; to be opened before the first update.

    Args:
        policy: what it starts from.
        kind: ``start`` stays there; ``ema`` follows by ``rate`` every ``every`` optimizer steps;
            ``copy`` is the policy itself as of the last multiple of ``every``.
        rate: see ``MovingReference``; read by ``ema`` alone.
        every: see ``MovingReference``; not read by ``start``.
    """
    if kind == "start":
        return Reference(policy)
    return MovingReference(policy, rate=rate if kind == "ema" else 1.0, every=every)
