"""The loop over a dataset: supervised fine-tuning and preference losses.

Shape letters in this file
    B  sequences    T  response tokens, right-padded    N  preference pairs (2N sequences)
"""

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmalign.batch import TokenBatch, microbatches
from llmalign.data import ProblemSampler
from llmalign.demonstrations import Example, Row, encoded, fitting, read_demonstrations
from llmalign.distributions import logprobs_and_reference_kl
from llmalign.evaluation.run import evaluate_policy
from llmalign.examples import to_pairs
from llmalign.losses import LOSSES
from llmalign.losses.aggregate import sequence_weights
from llmalign.observe.log import write_json
from llmalign.optim import Updater
from llmalign.policy import Policy
from llmalign.problems import load_problems, load_rows, uses_chat
from llmalign.reference import Reference
from llmalign.rewards import RewardHost
from llmalign.rollout import SamplingParams
from llmalign.rollout.hf import HfEngine
from llmalign.run import RunFolder
from llmalign.schema import Recipe
from llmalign.scoring import open_host


class OfflineLoop:
    """State of an offline run, and one step of it; ``llmalign.training`` drives it.

    An example is one row (a demonstration) or two (chosen, rejected), so that everything but the
    loss itself is the same for both.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder, policy: Policy) -> None:
        self.recipe, self.folder, self.policy = recipe, folder, policy
        self.left_out: list[dict[str, Any]] = []
        if recipe.stage == "preference":
            examples = _read_pairs(recipe, policy, self.left_out)
        else:
            examples = read_demonstrations(recipe.data, policy.tokenizer)
        self.examples = self._measured(examples)
        if self.left_out:
            write_json(folder.path / "left_out.json", self.left_out)
        self.sampler = ProblemSampler(
            len(self.examples), seed=recipe.seed, shuffle=recipe.data.shuffle
        )
        self.updater = Updater(policy, recipe.optimizer, total_steps=recipe.schedule.steps)
        entry = LOSSES.get(recipe.loss.kind, "loss.kind")
        self._loss, self._inputs = entry.thing, entry.inputs
        # Of the whole distribution, so it cannot be kept per example as the pairs' log-probs are.
        self._start = Reference(policy) if "ref_kl_BT" in entry.inputs else None
        self._held_out: Any = None
        self.host = self._open_evaluation()
        self._reference = self._reference_logprobs() if recipe.stage == "preference" else None

    def close(self) -> None:
        """Ends the reward processes, where there are any."""
        if self.host is not None:
            self.host.close()

    def _measured(self, examples: list[Example]) -> list[list[Row]]:
        data, most = self.recipe.data, self.recipe.rollout.max_new_tokens
        limit = min(self.policy.context_length, data.max_prompt_tokens + most)
        kept, long = fitting(examples, limit=limit, data=data)
        self.left_out += long
        return kept

    def step(self, step: int) -> dict[str, Any]:
        """One optimizer step on ``schedule.batch_size`` examples. Returns its metrics."""
        started = time.perf_counter()
        chosen = [index for index, _ in self.sampler.next(self.recipe.schedule.batch_size)]
        stats: dict[str, float] = {}
        losses = self._pair_losses if self.recipe.stage == "preference" else self._token_losses
        result = self.updater.update(losses(chosen, stats), step=step)
        if self.updater.bad_in_a_row >= self.recipe.schedule.max_bad_updates:
            self._save_bad_batch(chosen, result.loss, step)
        seconds = time.perf_counter() - started
        tokens = sum(len(p) + len(c) for i in chosen for p, c in self.examples[i])
        return {
            "loss": result.loss,
            "grad_norm": result.grad_norm,
            "lr": result.lr,
            "updates": int(result.applied),
            "bad_updates": int(not result.applied),
            **stats,
            "tokens_per_second": tokens / seconds,
            "seconds": seconds,
        }

    def _token_losses(self, chosen: Sequence[int], stats: dict[str, float]) -> Iterator[Tensor]:
        rows = [self.examples[i][0] for i in chosen]
        num_tokens = sum(len(c) for _, c in rows)
        weight_B = sequence_weights(
            torch.tensor([len(c) for _, c in rows]),
            kind=self.recipe.aggregate,
            max_tokens=self.recipe.rollout.max_new_tokens,
            num_sequences=len(rows),
        )
        for portion in self._portions([[r] for r in rows]):
            batch = self._batch([rows[b] for b in portion])
            given = {"mask_BT": batch.mask_BT}
            if self._start is None:
                given["logp_BT"], _ = self.policy.logprobs(batch, temperature=1.0)
            else:
                given["logp_BT"], _, given["ref_kl_BT"] = logprobs_and_reference_kl(
                    self.policy, self._start, batch, temperature=1.0
                )
                kl = float(given["ref_kl_BT"].detach().sum()) / num_tokens
                stats["kl"] = stats.get("kl", 0.0) + kl
            tensors = [given[name] for name in self._inputs]
            loss_BT = self._loss(*tensors, **self.recipe.loss.options)
            yield (weight_B[portion].to(loss_BT)[:, None] * loss_BT).sum()

    def _pair_losses(self, chosen: Sequence[int], stats: dict[str, float]) -> Iterator[Tensor]:
        assert self._reference is not None
        examples = [self.examples[i] for i in chosen]
        totals: dict[str, float] = {}
        for portion in self._portions(examples):
            logp_N2 = self._pair_logprobs([examples[n] for n in portion], self.policy)
            ref_N2 = self._reference[[chosen[n] for n in portion]].to(logp_N2)
            length_N2 = torch.tensor([[len(c) for _, c in examples[n]] for n in portion]).to(
                logp_N2
            )
            loss_N, found = self._loss(
                *logp_N2.unbind(1),
                *ref_N2.unbind(1),
                *length_N2.unbind(1),
                **self.recipe.loss.options,
            )
            for name, value in vars(found).items():
                totals[name] = totals.get(name, 0.0) + float(value)
            yield loss_N.sum() / len(examples)
        stats.update({name: value / len(examples) for name, value in totals.items()})

    def _pair_logprobs(self, pairs: Sequence[list[Row]], model: Policy | Reference) -> Tensor:
        """Summed log-probs [N, 2] of (chosen, rejected)."""
        batch = self._batch([row for pair in pairs for row in pair])
        found = model.logprobs(batch, temperature=1.0)
        logp_BT = found[0] if isinstance(found, tuple) else found
        return torch.where(batch.mask_BT, logp_BT, 0.0).sum(1).reshape(len(pairs), 2)

    def _reference_logprobs(self) -> Tensor:
        """Summed log-probs of all examples under the start policy; computed once and kept."""
        path = self.folder.path / "reference_logprobs.pt"
        fingerprint = hashlib.sha256(repr(self.examples).encode()).hexdigest()
        if path.is_file():
            kept = torch.load(path, weights_only=True)
            if kept["fingerprint"] == fingerprint:
                return Tensor(kept["logp_N2"])
        logp_N2 = torch.zeros(len(self.examples), 2)
        reference = Reference(self.policy, keep=False)
        with torch.no_grad():
            for portion in self._portions(self.examples):
                pairs = [self.examples[i] for i in portion]
                logp_N2[portion] = self._pair_logprobs(pairs, reference).cpu()
        temporary = path.with_suffix(".writing")
        torch.save({"fingerprint": fingerprint, "logp_N2": logp_N2}, temporary)
        temporary.rename(path)
        return logp_N2

    def _portions(self, examples: Sequence[list[Row]]) -> Iterator[list[int]]:
        length = [sum(len(p) + len(c) for p, c in rows) for rows in examples]
        yield from microbatches(length, tokens=self.recipe.schedule.tokens_per_microbatch)

    def _batch(self, rows: Sequence[Row]) -> TokenBatch:
        return TokenBatch.from_rows(rows, pad_id=self.policy.pad_id, device=self.policy.device)

    def _save_bad_batch(self, chosen: Sequence[int], loss: float, step: int) -> None:
        decode = self.policy.tokenizer.decode
        rows = [[decode(p), decode(c)] for i in chosen for p, c in self.examples[i]]
        path = self.folder.path / f"bad-{step:08d}.json"
        write_json(path, rows)
        raise RuntimeError(
            f"loss is {loss} in {self.updater.bad_in_a_row} updates in a row "
            f"(schedule.max_bad_updates is {self.recipe.schedule.max_bad_updates}); none was "
            f"applied, the rows are in {path}; lower optimizer.lr and go on from the last "
            "checkpoint"
        )

    # -- evaluation and state -----------------------------------------------------------------

    @property
    def evaluates(self) -> bool:
        """Whether there are held-out problems and a reward that can judge them."""
        return bool(self._held_out)

    def _open_evaluation(self) -> RewardHost | None:
        if self.recipe.reward is None:
            return None
        host = open_host(self.recipe, self.recipe.reward, self.policy)
        self._held_out = load_problems(self.recipe, self.policy, host, held_out_only=True).held_out
        return host

    def evaluate(self, label: str) -> dict[str, Any]:
        """Held-out evaluation by sampling; every sample goes to ``eval/LABEL.json``."""
        assert self.host is not None
        rollout = self.recipe.rollout
        return evaluate_policy(
            HfEngine(self.policy, batch_size=rollout.batch_size),
            self.host,
            self._held_out,
            self.recipe.evaluate,
            SamplingParams(rollout.max_new_tokens, stop=tuple(rollout.stop)),
            seed=self.recipe.seed,
            output=self.folder.path / "eval" / f"{label}.json",
        )

    def state_dict(self) -> dict[str, Any]:
        """The JSON-able part of the state; tensors are the updater's."""
        return {"sampler": self.sampler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what ``state_dict`` returned."""
        self.sampler.load_state_dict(state["sampler"])

    def tensors(self) -> dict[str, Any]:
        """Nothing: the start policy is built again."""
        return {}

    def load_tensors(self, state: dict[str, Any]) -> None:
        """See ``tensors``."""

    def save_final(self, folder: Path) -> None:
        """What the run is for: the model."""
        self.policy.save(folder)


def _read_pairs(recipe: Recipe, policy: Policy, left_out: list[dict[str, Any]]) -> list[Example]:
    rows, name = load_rows(recipe.data.train, split="train")
    pairs, bad = to_pairs(
        rows,
        source=name,
        columns=recipe.data.columns,
        template=recipe.data.template,
        system=recipe.data.system,
        chat=uses_chat(recipe.data, policy.tokenizer),
        policy=recipe.data.on_bad_row,
    )
    left_out += [{"id": b.id, "why": b.why} for b in bad]
    return [
        (p.id, [encoded(p.prompt, side, policy.tokenizer) for side in (p.chosen, p.rejected)])
        for p in pairs
    ]


@contextlib.contextmanager
def open_offline(recipe: Recipe, folder: RunFolder, policy: Policy) -> Iterator[OfflineLoop]:
    """The loop, with its reward processes ended however the run ends."""
    loop = OfflineLoop(recipe, folder, policy)
    try:
        yield loop
    finally:
        loop.close()
