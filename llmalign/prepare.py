"""From scored groups to the tensors that a step learns from: log-probs, advantages, token weights.

Shape letters in this file
    B  samples of a step    T  response tokens, right-padded
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from llmalign.advantages import ADVANTAGES
from llmalign.critic import Critic
from llmalign.experience import Experience, ScoredGroup
from llmalign.forward import Forward
from llmalign.losses.kl import kl_penalty
from llmalign.losses.mismatch import mean_one, mismatch_weights
from llmalign.maps import attention_maps
from llmalign.policy import Policy
from llmalign.reference import Reference
from llmalign.rollout import sample_seed
from llmalign.sampling.select import chosen_rows
from llmalign.schema import Recipe
from llmalign.structure import (
    margins_of_all,
    margins_over_reference,
    node_values,
    spans,
    steps,
    tree_paths,
)
from llmalign.token_weights import TOKEN_WEIGHTS, credited
from llmalign.verifiers.registry import Entry


class Preparer:
    """Gives advantages and token weights what they ask for by name, and fills ``Experience``."""

    def __init__(
        self,
        recipe: Recipe,
        policy: Policy,
        forward: Forward,
        reference: Reference | None = None,
        critic: Critic | None = None,
    ) -> None:
        self.recipe, self.policy, self.forward = recipe, policy, forward
        self.reference, self.critic = reference, critic
        self._advantage = ADVANTAGES.get(recipe.advantage.kind, "advantage.kind")
        weights = recipe.token_weights
        self._weights: Entry | None = None
        if weights is not None:
            self._weights = TOKEN_WEIGHTS.get(weights.kind, "token_weights.kind")

    # -- the tensors of a step ----------------------------------------------------------------

    def experience(self, groups: list[ScoredGroup]) -> Experience:
        """Rewards, groups and mask, with old and reference log-probs where something needs them."""
        pairs = [pair for g in groups for pair in zip(g.group.samples, g.scores, strict=True)]
        values = [float("nan") if score.value is None else score.value for _, score in pairs]
        reward_B = torch.tensor(values, dtype=torch.float64)
        sizes = torch.tensor([len(g.scores) for g in groups], dtype=torch.int64)
        group_B = torch.arange(len(groups)).repeat_interleave(sizes)
        length_B = torch.tensor([len(s.token_ids) for s, _ in pairs], dtype=torch.int64)
        kept_B = ~reward_B.isnan()
        if self.recipe.overlong.filter:
            kept_B &= ~torch.tensor([s.truncated for s, _ in pairs], dtype=torch.bool)
        width = int(length_B.max()) if pairs else 0
        mask_BT = (torch.arange(width)[None, :] < length_B[:, None]) & kept_B[:, None]
        experience = Experience(groups, reward_B, group_B, mask_BT)
        if not pairs:
            return experience
        if self._needs_old or any(g.age for g in groups):
            self._look_back(experience)
        if self.recipe.mismatch.kind is not None:
            self._weigh(experience)
        if self.reference is not None and self.recipe.kl.coef:
            experience.logp_ref_BT, _ = self._forward_all(experience, self.reference)
        return experience

    @property
    def _needs_old(self) -> bool:
        # One update of a fresh batch is exactly on-policy: the ratio is 1 and needs no old pass.
        schedule = self.recipe.schedule
        several = schedule.updates_per_batch * schedule.epochs_per_batch > 1
        several = several or not schedule.skip_old_pass or self.recipe.mismatch.kind is not None
        several = several or bool(self._weights and "entropy_BT" in self._weights.inputs)
        return several or (bool(self.recipe.kl.coef) and self.recipe.kl.place == "reward")

    def _look_back(self, experience: Experience) -> None:
        """Log-probs of the policy that sampled: this one, or an older one for replayed groups."""
        old_BT, experience.entropy_BT = self._forward_all(experience, self.policy)
        age_B = torch.tensor([g.age for g in experience.groups])[experience.group_B]
        replayed_BT = (age_B > 0)[:, None] & experience.mask_BT
        if replayed_BT.any():
            sampled_BT = experience.logp_sampled_BT
            if sampled_BT[replayed_BT].isnan().any():
                raise ValueError(
                    "the engine reported no log-probs for a replayed sample, expected one per "
                    "token; leave out sampling.replay"
                )
            old_BT = torch.where(replayed_BT, sampled_BT.to(old_BT), old_BT)
        experience.logp_old_BT = old_BT

    @torch.no_grad()
    def _forward_all(
        self, experience: Experience, model: Policy | Reference
    ) -> tuple[Tensor, Tensor]:
        """logp_BT and entropy_BT of the whole step, without gradient; the latter is 0 for a
        reference."""
        logp_BT, entropy_BT = (torch.zeros(experience.mask_BT.shape) for _ in range(2))
        rows = experience.rows
        for portion, batch in self.forward.batches(rows, range(len(rows))):
            kept = experience.kept(portion, self.policy.device)
            found = model.logprobs(batch, temperature=self.recipe.rollout.temperature, kept=kept)
            logp, entropy = found if isinstance(found, tuple) else (found, None)
            logp_BT[portion, : logp.shape[1]] = logp.to(logp_BT)
            if entropy is not None:
                entropy_BT[portion, : logp.shape[1]] = entropy.to(entropy_BT)
        return logp_BT, entropy_BT

    def _weigh(self, experience: Experience) -> None:
        """Weights for what the engine's log-probs are off the trainer's, and their statistics."""
        mismatch = self.recipe.mismatch
        assert experience.logp_old_BT is not None and mismatch.kind is not None
        tensors = (experience.logp_old_BT, experience.logp_sampled_BT, experience.mask_BT)
        weight_BT, stats = mismatch_weights(
            *tensors,
            kind=mismatch.kind,
            low=mismatch.low,
            high=mismatch.high,
            level=mismatch.level,
        )
        if mismatch.mean_one:
            weight_BT = mean_one(weight_BT, experience.mask_BT, level=mismatch.level)
        experience.weight_BT = weight_BT
        experience.mismatch = {k: float(v) for k, v in vars(stats).items()}

    # -- advantages and token weights -----------------------------------------------------------

    def advantages(self, experience: Experience, *, step: int, kl_coef: float) -> None:
        """Fills ``adv_BT`` and ``loss_mask_BT``; a KL term in the reward is a penalty per token."""
        experience.loss_mask_BT = experience.mask_BT
        penalty_BT = torch.zeros(experience.mask_BT.shape, dtype=torch.float64)
        kl = self.recipe.kl
        if kl_coef and kl.place == "reward" and experience.logp_old_BT is not None:
            assert experience.logp_ref_BT is not None
            penalty_BT -= kl_coef * kl_penalty(
                experience.logp_old_BT,
                experience.logp_ref_BT,
                experience.mask_BT,
                kind=kl.estimator,
            )
        if int(experience.mask_BT.sum()) < 2:  # nothing, or nothing to compare it with
            experience.adv_BT = torch.zeros_like(penalty_BT)
            return
        if self.critic is not None:
            self._value(experience, self.critic, penalty_BT)
        known = {"penalty_BT": penalty_BT, "seed": sample_seed(self.recipe.seed, "advantage", step)}
        given = self._given(self._advantage, experience, known)
        experience.adv_BT = self._advantage.thing(*given, **self.recipe.advantage.options)
        if self._weights is not None:
            self._weigh_tokens(self._weights, experience)
        if any(g.chosen is not None for g in experience.groups):
            sizes = [len(g.scores) for g in experience.groups]
            chosen = [
                range(n) if g.chosen is None else g.chosen
                for n, g in zip(sizes, experience.groups, strict=True)
            ]
            experience.loss_mask_BT = experience.loss_mask_BT & chosen_rows(chosen, sizes)[:, None]

    def _value(self, experience: Experience, critic: Critic, penalty_BT: Tensor) -> None:
        options = self.recipe.advantage.options
        value_BT = critic.values(experience.rows, experience.mask_BT)
        experience.value_BT = value_BT
        experience.return_BT = critic.returns(
            experience.reward_B,
            experience.mask_BT,
            penalty_BT,
            value_BT,
            gamma=options["gamma"],
            lam=options["lam"],
        )

    def _weigh_tokens(self, entry: Entry, experience: Experience) -> None:
        assert self.recipe.token_weights is not None
        if "local_BTT" in entry.inputs:
            weight_BT = self._attended(entry, experience)
        else:
            given = self._given(entry, experience, {})
            weight_BT = entry.thing(*given, **self.recipe.token_weights.options)
        if entry.traits.get("only_positive"):
            experience.adv_BT = credited(experience.adv_BT, weight_BT)
            return
        experience.adv_BT = experience.adv_BT * weight_BT
        experience.loss_mask_BT = experience.mask_BT & (weight_BT > 0)

    def _attended(self, entry: Entry, experience: Experience) -> Tensor:
        """Token weights that read attention, response by response: a map is T x T. Rows that
        nothing could be credited to are not computed."""
        assert self.recipe.token_weights is not None
        weight_BT = torch.ones(experience.mask_BT.shape, dtype=torch.float64)
        for b, row in enumerate(experience.rows):
            if not (experience.adv_BT[b] > 0).any():
                continue
            mask_1T = experience.mask_BT[b : b + 1, : len(row[1])]
            local_1TT, global_1TT = attention_maps(self.policy, [row])
            known = {"local_BTT": local_1TT, "global_BTT": global_1TT, "mask_BT": mask_1T}
            given = [known[name] for name in entry.inputs]
            found_1T = entry.thing(*given, **self.recipe.token_weights.options)
            weight_BT[b : b + 1, : len(row[1])] = found_1T
        return weight_BT

    def _given(self, entry: Entry, experience: Experience, known: Mapping[str, Any]) -> list[Any]:
        """What ``entry`` asks for, in its order; signals that come together are made once."""
        found: dict[str, Any] = {
            "reward_B": experience.reward_B,
            "group_B": experience.group_B,
            "mask_BT": experience.mask_BT,
            "value_BT": experience.value_BT,
            "entropy_BT": experience.entropy_BT,
            **known,
        }
        for name in entry.inputs:
            if name not in found:
                found |= self._signal(name, entry.name, experience)
        return [found[name] for name in entry.inputs]

    def _signal(self, name: str, asked_by: str, experience: Experience) -> dict[str, Tensor]:
        tokenizer = self.policy.tokenizer
        if name in ("step_reward_BK", "step_end_BK"):
            return steps(experience, tokenizer, asked_by)
        if name in ("span_BS2", "value_BS"):
            return spans(experience, tokenizer, asked_by)
        if name in ("path_BD", "step_end_BD"):
            return tree_paths(experience)
        if name == "margin_BB":
            return margins_of_all(experience, asked_by)
        if name in ("margin_BJ", "reference_B"):
            return margins_over_reference(experience, asked_by)
        return {name: node_values(experience, self.recipe.advantage.inputs[name])}
