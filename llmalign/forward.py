"""How the rows of a step go through the policy: cut into micro-batches, each laid out for the least
work that gives the same numbers."""

import warnings
from collections.abc import Callable, Iterator, Sequence

from torch import nn

from llmalign.batch import (
    AnyBatch,
    PackedBatch,
    Row,
    SharedBatch,
    TokenBatch,
    microbatches,
    packed_microbatches,
    padded_size,
    shared_microbatches,
    shared_size,
    whole_units,
)
from llmalign.policy import Policy
from llmalign.schema import Schedule

# What one more forward and backward pass costs, in tokens of a pass that is under way.
PADDING = {"cpu": 256, "cuda": 4096}
SHARED = 0.75  # share of the tokens below which computing each prompt once pays for its second pass
PACKED = 1 / 1.05  # the same for packing: attention is cut up into rows and put together again

Portions = list[list[int]]
Layout = type[TokenBatch] | type[SharedBatch] | type[PackedBatch]


class Forward:
    """Lays rows out for a policy.

    Rows are padded to the longest of their portion; or packed one behind the other, without
    padding; or each prompt is computed once for all its responses. The last two where the schedule
    says ``always`` (sharing before packing), or where they are less work (``auto``). On first use
    each is compared with padded rows, and a model on which it differs goes without, with a warning.

    Args:
        policy: the model; its reference has the same architecture.
        schedule: ``tokens_per_microbatch``, ``share_prompts`` and ``packing``.
    """

    def __init__(self, policy: Policy, schedule: Schedule) -> None:
        self._policy, self.schedule = policy, schedule
        self._proven: dict[Layout, bool] = {}

    def batches(
        self, rows: Sequence[Row], indices: Sequence[int], units: Sequence[int] | None = None
    ) -> Iterator[tuple[list[int], AnyBatch]]:
        """Portions of ``indices`` and their rows as the model reads them.

        Args:
            rows: of the whole step.
            indices: which of them go through the model.
            units: a number for each of ``indices``; rows of one number stay in one portion, however
                long it gets. None: every row may go alone.
        """
        chosen = [rows[b] for b in indices]
        if not chosen:
            return
        layout, portions = self._laid_out(chosen, units)
        policy = self._policy
        for portion in portions:
            batch = layout.from_rows(
                [chosen[i] for i in portion], pad_id=policy.pad_id, device=policy.device
            )
            yield [indices[i] for i in portion], batch

    def _laid_out(
        self, rows: Sequence[Row], units: Sequence[int] | None
    ) -> tuple[Layout, Portions]:
        """The layout for these rows, and the portions it cuts them into."""
        lengths = [len(prompt) + len(response) for prompt, response in rows]
        budget = self.schedule.tokens_per_microbatch
        padding = PADDING.get(self._policy.device.type, PADDING["cuda"])
        if units is None:
            padded = list(microbatches(lengths, tokens=budget, padding=padding))
        else:
            padded = list(whole_units(lengths, units, tokens=budget))
        work = _work(padded_size, rows, padded)
        least = min(work, sum(lengths) / PACKED) if self._may_pack() else work
        if self._may_share():
            shared = list(shared_microbatches(rows, tokens=budget)) if units is None else padded
            pays = _work(shared_size, rows, shared) <= SHARED * least
            wanted = pays or self.schedule.share_prompts == "always"
            if wanted and self._is_proven(SharedBatch, rows, shared[0]):
                return SharedBatch, shared
        if self._may_pack() and (least < work or self.schedule.packing == "always"):
            packed = list(packed_microbatches(lengths, tokens=budget, units=units))
            if self._is_proven(PackedBatch, rows, packed[0]):
                return PackedBatch, packed
        return TokenBatch, padded

    def _may_pack(self) -> bool:
        return self.schedule.packing != "never" and self._proven.get(PackedBatch, True)

    def _may_share(self) -> bool:
        model = self._policy.model
        # Checkpointing recomputes layers and keeps no cache; dropout must differ between samples.
        return (
            self.schedule.share_prompts != "never"
            and self._proven.get(SharedBatch, True)
            and not getattr(model, "is_gradient_checkpointing", False)
            and not _has_dropout(model)
        )

    def _is_proven(self, layout: Layout, rows: Sequence[Row], portion: Sequence[int]) -> bool:
        if layout not in self._proven:
            tried = [rows[b] for b in portion]
            kind = self._policy.model.config.model_type
            if layout is SharedBatch:
                self._proven[layout] = self._policy.shares_prompts(tried)
                what = (
                    f"model type {kind!r} gives other log-probs when a prompt is computed once for "
                    "its group; every row is computed whole (schedule.share_prompts)"
                )
            else:
                reason = self._policy.packs_rows(tried)
                self._proven[layout] = reason is None
                what = (
                    f"rows of model type {kind!r} are not packed: {reason}; "
                    "they are padded (schedule.packing)"
                )
            if not self._proven[layout]:
                warnings.warn(what, stacklevel=2)
        return self._proven[layout]


def _work(size: Callable[[Sequence[Row]], int], rows: Sequence[Row], portions: Portions) -> int:
    """Tokens that go through the model, padding included."""
    return sum(size([rows[b] for b in portion]) for portion in portions)


def _has_dropout(model: nn.Module) -> bool:
    inside = any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())
    return inside or bool(getattr(getattr(model, "config", None), "attention_dropout", 0.0))
