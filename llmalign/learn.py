"""Updates of the policy on one step's experience: whole groups, cut into micro-batches.

Shape letters in this file
    B  samples of a step    T  response tokens, right-padded    C  response tokens of a chunk
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llmalign.batch import AnyBatch
from llmalign.control import Controls
from llmalign.critic import Critic
from llmalign.distributions import end_after_logprobs, logprobs_and_reference_kl
from llmalign.experience import Experience
from llmalign.forward import Forward
from llmalign.imitation import Imitation
from llmalign.losses import LOSSES
from llmalign.losses.aggregate import sequence_weights
from llmalign.losses.kl import kl_penalty
from llmalign.losses.mismatch import off_policy_mask
from llmalign.optim import Updater, UpdateResult
from llmalign.policy import Policy
from llmalign.reference import Reference
from llmalign.rollout import sample_seed
from llmalign.schema import Recipe
from llmalign.token_weights import entropy_band, fork

Stats = dict[str, float]
Sums = dict[str, Tensor]


class Learner:
    """Turns experience into optimizer steps.

    The gradient of a step is the same however its rows are cut into micro-batches: the weight of
    each sequence comes from the whole step before anything is cut.
    """

    def __init__(
        self,
        recipe: Recipe,
        policy: Policy,
        forward: Forward,
        updater: Updater,
        controls: Controls,
        reference: Reference | None = None,
        critic: Critic | None = None,
        imitation: Imitation | None = None,
    ) -> None:
        self.recipe, self.policy, self.forward, self.updater = recipe, policy, forward, updater
        self.controls, self.reference, self.critic = controls, reference, critic
        self.imitation = imitation
        entry = LOSSES.get(recipe.loss.kind, "loss.kind")
        self._loss, self._inputs, self._traits = entry.thing, entry.inputs, entry.traits

    # -- which rows ---------------------------------------------------------------------------

    def update(self, experience: Experience, step: int) -> tuple[list[UpdateResult], Stats]:
        """All optimizer steps on one batch of experience."""
        results: list[UpdateResult] = []
        stats: Sums = {}
        for epoch in range(self.recipe.schedule.epochs_per_batch):
            for part, rows in enumerate(self.minibatches(experience, step, epoch)):
                active = self.active(experience, rows)
                seed = sample_seed(self.recipe.seed, "loss", step, epoch, part)
                losses = self.losses(experience, rows, active, stats, seed) if active else None
                if self.imitation is not None:
                    losses = self.imitation.mixed(losses or (), step)
                result = self._take_step(experience, rows, losses, step)
                if result is None:
                    continue
                results.append(result)
                if result.applied and self.reference is not None:
                    self.reference.after_update(self.policy.version)
        return results, settled(stats)

    def _take_step(
        self,
        experience: Experience,
        rows: Sequence[int],
        losses: Iterator[Tensor] | None,
        step: int,
    ) -> UpdateResult | None:
        """One optimizer step of the policy, and of the critic where there is one. None: the policy
        had nothing to learn, or the critic is still warming up."""
        critic = self.critic
        if critic is None:
            return None if losses is None else self.updater.update(losses, step=step)
        num_tokens = int(experience.mask_BT[torch.tensor(rows, dtype=torch.long)].sum())
        if not num_tokens or experience.value_BT is None or experience.return_BT is None:
            if losses is None or critic.warms_up(step):
                return None
            return self.updater.update(losses, step=step)
        lessons = critic.losses(
            experience.rows,
            experience.value_BT,
            experience.return_BT,
            experience.mask_BT,
            indices=rows,
            num_tokens=num_tokens,
            step=step,
            sums=experience.value_sums,
        )
        if critic.warms_up(step) or (losses is None and critic.config.kind == "model"):
            critic.update(lessons, step=step)
            return None
        return critic.update_with(self.updater, losses or (), lessons, step=step)[0]

    def minibatches(self, experience: Experience, step: int, epoch: int) -> Iterator[list[int]]:
        """Sample indices of each optimizer step: whole groups, dealt out in a seeded order."""
        num_groups = len(experience.groups)
        parts = min(self.recipe.schedule.updates_per_batch, num_groups)
        if self.imitation is not None:
            parts = max(1, parts)  # there is something to learn also where no group was kept
        order = list(range(num_groups))
        if parts > 1:
            generator = torch.Generator().manual_seed(
                sample_seed(self.recipe.seed, "minibatch", step, epoch)
            )
            order = torch.randperm(num_groups, generator=generator).tolist()
        rows_of: list[list[int]] = [[] for _ in range(num_groups)]
        for b, g in enumerate(experience.group_B.tolist()):
            rows_of[g].append(b)
        for part in range(parts):
            yield [b for g in sorted(order[part::parts]) for b in rows_of[g]]

    def active(self, experience: Experience, rows: Sequence[int]) -> list[int]:
        """Rows with a gradient: a zero advantage has none unless KL or entropy is in the loss, or
        the loss looks at every row."""
        everywhere = (
            self._traits.get("every_row", False)
            or self._entropy_counts
            or (self.controls.kl_coef > 0 and self.recipe.kl.place == "loss")
        )
        everywhere = everywhere or not self.recipe.schedule.drop_idle
        has_token_B = experience.loss_mask_BT.any(1)
        has_adv_B = (experience.adv_BT != 0).any(1)
        return [b for b in rows if has_token_B[b] and (everywhere or has_adv_B[b])]

    @property
    def _entropy_counts(self) -> bool:
        return self.controls.entropy_bonus > 0 or self.recipe.entropy.band is not None

    # -- the loss -----------------------------------------------------------------------------

    def losses(
        self,
        experience: Experience,
        rows: Sequence[int],
        active: Sequence[int],
        stats: Sums,
        seed: int = 0,
    ) -> Iterator[Tensor]:
        """Micro-batch losses that add up to the loss over ``rows``; weights are of all ``rows``."""
        index = torch.tensor(rows)
        tokens_B = experience.loss_mask_BT[index].sum(1)
        num_sequences = int((tokens_B > 0).sum())
        weight_B = torch.zeros(len(experience.reward_B), dtype=torch.float64)
        weight_B[index] = sequence_weights(
            tokens_B,
            kind=self.recipe.aggregate,
            max_tokens=self.recipe.rollout.max_new_tokens,
            num_sequences=num_sequences,
        )
        units = self._units(experience, active)
        for portion, batch in self.forward.batches(experience.rows, active, units):
            terms = self._terms(experience, portion, batch, weight_B)
            band_weight = 1 / num_sequences
            yield self._portion_loss(experience, portion, batch, terms, stats, seed, band_weight)

    def _units(self, experience: Experience, active: Sequence[int]) -> list[int] | None:
        """Which rows must go through the model together, for the loss to see them together."""
        if self._traits.get("whole_batch"):
            return [0] * len(active)
        if self._traits.get("whole_groups"):
            return [int(experience.group_B[b]) for b in active]
        return None

    def _terms(
        self, experience: Experience, portion: list[int], batch: AnyBatch, weight_B: Tensor
    ) -> dict[str, Tensor]:
        """What the loss reads of the rows of a micro-batch, each [B, T]."""
        width = batch.mask_BT.shape[1]
        dtype = self._dtype
        found = {
            "mask_BT": experience.loss_mask_BT,
            "adv_BT": experience.adv_BT,
            "weight_BT": weight_B[:, None].expand(experience.mask_BT.shape),
            "logp_old_BT": experience.logp_old_BT,
            "ref_BT": experience.logp_ref_BT,
            "mismatch_BT": experience.weight_BT,
        }
        if self.recipe.mismatch.off_policy_delta is not None:
            found["sampled_BT"] = experience.logp_sampled_BT
        if self.recipe.entropy.band is not None:
            found["written_BT"] = experience.mask_BT
        terms = {}
        for name, tensor_BT in found.items():
            if tensor_BT is not None:
                here_BT = tensor_BT[portion, :width].to(self.policy.device)
                terms[name] = here_BT.to(dtype) if here_BT.is_floating_point() else here_BT
        return terms

    def _portion_loss(
        self,
        experience: Experience,
        portion: list[int],
        batch: AnyBatch,
        terms: dict[str, Tensor],
        stats: Sums,
        seed: int,
        band_weight: float,
    ) -> Tensor:
        """The weighted loss of a micro-batch. A sum over tokens is taken chunk by chunk, inside the
        head, so that logits are computed once."""
        extra: dict[str, Any] = {"seed": seed}
        if "group_B" in self._inputs:
            extra["group_B"] = experience.group_B[portion].to(self.policy.device)
        settings: dict[str, Any] = {
            "temperature": self.recipe.rollout.temperature,
            "entropy_gradient": self._entropy_counts,
            "kept": experience.kept(portion, self.policy.device),
        }
        if self._by_token:
            flat = {name: tensor_BT[batch.mask_BT] for name, tensor_BT in terms.items()}

            def token_loss(logp_C: Tensor, entropy_C: Tensor, chunk: slice) -> Tensor:
                part = {name: tensor_N[chunk][None] for name, tensor_N in flat.items()}
                return self._loss_of(logp_C[None], entropy_C[None], part, extra, stats)

            return self.policy.loss_over_tokens(batch, token_loss, **settings)[0]
        if "logp_end_BT" in self._inputs:
            everything, temperature = experience.rows, settings["temperature"]
            rows = [everything[b] for b in portion]
            extra["logp_end_BT"] = end_after_logprobs(self.policy, rows, temperature=temperature)
        if "ref_kl_BT" in self._inputs:
            assert self.reference is not None
            logp_BT, entropy_BT, extra["ref_kl_BT"] = logprobs_and_reference_kl(
                self.policy, self.reference, batch, **settings
            )
        else:
            logp_BT, entropy_BT = self.policy.logprobs(batch, **settings)
        loss = self._loss_of(logp_BT, entropy_BT, terms, extra, stats)
        return loss + self._outside_band(entropy_BT, terms, band_weight, stats)

    @property
    def _dtype(self) -> torch.dtype:
        """Of log-probs: float64 of a float64 model, else float32."""
        double = next(self.policy.model.parameters()).dtype == torch.float64
        return torch.float64 if double else torch.float32

    @property
    def _by_token(self) -> bool:
        """Whether the loss is a sum over tokens that needs nothing but what is known of each."""
        whole = {"whole_groups", "whole_batch"} & self._traits.keys()
        return (
            self.recipe.schedule.fuse_head
            and self._traits.get("level") == "token"
            and not whole
            and not {"ref_kl_BT", "logp_end_BT", "group_B"} & set(self._inputs)
            and self.recipe.mismatch.off_policy_delta is None
            and self.recipe.entropy.band is None
        )

    def _loss_of(
        self,
        logp_BT: Tensor,
        entropy_BT: Tensor,
        terms: dict[str, Tensor],
        extra: dict[str, Any],
        stats: Sums,
    ) -> Tensor:
        """Policy loss, KL and entropy bonus of some tokens, weighted and summed; a scalar."""
        kl, bonus, mask_BT = self.recipe.kl, self.controls.entropy_bonus, terms["mask_BT"]
        terms = {"logp_old_BT": logp_BT.detach(), **terms, "logp_BT": logp_BT}
        given = [extra[name] if name in extra else terms[name] for name in self._inputs]
        loss_BT, found = self._loss(*given, **self.recipe.loss.options)
        add(stats, vars(found))
        if "mismatch_BT" in terms:
            loss_BT = loss_BT * terms["mismatch_BT"]
        delta = self.recipe.mismatch.off_policy_delta
        if delta is not None:
            keep_BT = off_policy_mask(
                logp_BT, terms["sampled_BT"], terms["adv_BT"], mask_BT, delta=delta
            )
            add(stats, {"off_policy_tokens": (mask_BT & ~keep_BT).sum()})
            loss_BT = loss_BT * keep_BT
        if "ref_BT" in terms:
            kl_BT = kl_penalty(logp_BT, terms["ref_BT"], mask_BT, kind=kl.estimator)
            add(stats, {"kl_ref_nats": kl_BT.sum()})
            if kl.place == "loss":
                loss_BT = loss_BT + self.controls.kl_coef * kl_BT
        entropy_BT = torch.where(mask_BT, entropy_BT, 0.0)
        if bonus:
            loss_BT = loss_BT - bonus * entropy_BT
        add(stats, {"entropy_nats": entropy_BT.sum()})
        return (terms["weight_BT"] * loss_BT).sum()

    def _outside_band(
        self, entropy_BT: Tensor, terms: dict[str, Tensor], weight: float, stats: Sums
    ) -> Tensor | float:
        """What the entropy of each sequence's forks lies outside their band, weighed and summed."""
        band = self.recipe.entropy.band
        if band is None:
            return 0.0
        fork_BT = fork(entropy_BT.detach(), terms["written_BT"], share=band.share) > 0
        penalty_B, _ = entropy_band(entropy_BT, fork_BT, low=band.low, high=band.high)
        add(stats, {"band_nats": penalty_B.sum()})
        return band.coef * weight * penalty_B.sum()


def add(total: Sums, more: Mapping[str, Tensor]) -> None:
    """Adds up statistics of parts where they are, so that no part waits for the one before; of
    those that end in ``_max`` it keeps the largest."""
    for key, value in more.items():
        value = value.detach().double()
        if key in total:
            before = total[key]
            value = torch.maximum(before, value) if key.endswith("_max") else before + value
        total[key] = value


def settled(total: Sums) -> Stats:
    """The sums as numbers."""
    return {key: float(value) for key, value in total.items()}
