"""How the rows of a step go through the policy: cut into micro-batches, each laid out for the least
work that gives the same numbers."""

import warnings
from collections.abc import Iterator, Sequence

from torch import nn

from llmalign.batch import (
    Row,
    SharedBatch,
    TokenBatch,
    microbatches,
    padded_size,
    shared_microbatches,
    shared_size,
    whole_units,
)
from llmalign.policy import Policy
from llmalign.schema import Schedule

# What one more forward and backward pass costs, in tokens of a pass that is under way.
PADDING = {"cpu": 256, "cuda": 4096}
WORTH = 0.75  # share of the tokens below which computing each prompt once pays for its second pass


class Forward:
    """Lays rows out for a policy.

    Each prompt is computed once for all its responses where the schedule says ``always``, or where
    that is clearly less work (``auto``). On first use both ways are compared; a model on which they
    differ is computed row by row from then on, with a warning.

    Args:
        policy: the model; its reference has the same architecture.
        schedule: ``tokens_per_microbatch`` and ``share_prompts``.
    """

    def __init__(self, policy: Policy, schedule: Schedule) -> None:
        self._policy, self.schedule = policy, schedule
        self._proven: bool | None = None

    def batches(
        self, rows: Sequence[Row], indices: Sequence[int], units: Sequence[int] | None = None
    ) -> Iterator[tuple[list[int], TokenBatch | SharedBatch]]:
        """Portions of ``indices`` and their rows as the model reads them.

        Args:
            rows: of the whole step.
            indices: which of them go through the model.
            units: a number for each of ``indices``; rows of one number stay in one portion, however
                long it gets. None: every row may go alone.
        """
        chosen = [rows[b] for b in indices]
        lengths = [len(prompt) + len(response) for prompt, response in chosen]
        budget = self.schedule.tokens_per_microbatch
        padding = PADDING.get(self._policy.device.type, PADDING["cuda"])
        if units is None:
            portions = list(microbatches(lengths, tokens=budget, padding=padding))
        else:
            portions = list(whole_units(lengths, units, tokens=budget))
        layout: type[TokenBatch] | type[SharedBatch] = TokenBatch
        if portions and self._may_share():
            shared = portions
            if units is None:
                shared = list(shared_microbatches(chosen, tokens=budget))
            if self._pays(chosen, portions, shared) and self._is_proven(chosen, shared[0]):
                portions, layout = shared, SharedBatch
        policy = self._policy
        for portion in portions:
            batch = layout.from_rows(
                [chosen[i] for i in portion], pad_id=policy.pad_id, device=policy.device
            )
            yield [indices[i] for i in portion], batch

    def _may_share(self) -> bool:
        model = self._policy.model
        # Checkpointing recomputes layers and keeps no cache; dropout must differ between samples.
        return (
            self.schedule.share_prompts != "never"
            and self._proven is not False
            and not getattr(model, "is_gradient_checkpointing", False)
            and not _has_dropout(model)
        )

    def _pays(
        self, rows: Sequence[Row], plain: Sequence[list[int]], shared: Sequence[list[int]]
    ) -> bool:
        if self.schedule.share_prompts == "always":
            return True
        without = sum(padded_size([rows[b] for b in portion]) for portion in plain)
        once = sum(shared_size([rows[b] for b in portion]) for portion in shared)
        return once <= WORTH * without

    def _is_proven(self, rows: Sequence[Row], portion: Sequence[int]) -> bool:
        if self._proven is None:
            self._proven = self._policy.shares_prompts([rows[b] for b in portion])
            if not self._proven:
                warnings.warn(
                    f"model type {self._policy.model.config.model_type!r} gives other log-probs "
                    "when a prompt is computed once for its group; every row is computed whole "
                    "(schedule.share_prompts)",
                    stacklevel=2,
                )
        return self._proven


def _has_dropout(model: nn.Module) -> bool:
    inside = any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())
    return inside or bool(getattr(getattr(model, "config", None), "attention_dropout", 0.0))
