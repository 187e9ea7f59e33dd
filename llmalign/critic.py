"""The critic of PPO: a value before each response token, learnt from the returns.

A value is read from the hidden state that predicts the token, so that it knows the prompt and the
tokens before, never the token itself. There are two kinds:

- ``model``: a decoder of its own with a value head. It costs what a second policy costs: with
  float32 weights, their gradients and Adam's two moments, 16 bytes a parameter (112 GB for 7e9
  parameters); of a policy with an adapter only the copied base and a second adapter.
- ``head``: D + 1 numbers on the policy's own hidden states. Its loss joins the policy's optimizer
  step and reaches the trunk with weight ``coef``, so that the two tasks share its capacity.

No logits are computed, and no tensor is larger than the hidden states of one micro-batch.

Shape letters in this file
    B  samples of a step    T  response tokens, right-padded
    N  response tokens of a micro-batch, in row order    D  hidden size
"""

import contextlib
import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llmalign.advantages.critic import ValueStats, gae, value_loss
from llmalign.batch import AnyBatch, PackedBatch, Row, SharedBatch, TokenBatch
from llmalign.forward import Forward
from llmalign.optim import Updater, UpdateResult
from llmalign.policy import Policy
from llmalign.schema import CriticOptions, Model, Schedule

HEAD_FILE = "value_head.safetensors"


@dataclass
class ValueSums:
    """Sums over the tokens of all updates on one batch, as in ``ValueStats``; parts add up."""

    tokens: float = 0.0
    clipped: float = 0.0
    loss: float = 0.0

    def add(self, loss: Tensor, stats: ValueStats) -> None:
        """Takes in one micro-batch: the sum of its token losses and its statistics."""
        self.loss += float(loss.detach())
        self.tokens += float(stats.tokens)
        self.clipped += float(stats.clipped)


class Trunk(Policy):
    """A decoder that is read like a policy but has no output layer: hidden states only."""

    def __init__(self, decoder: Any, tokenizer: Any, device: torch.device) -> None:
        # Not the policy's own: what that sets up and checks is the output layer.
        self.model = self._decoder = decoder.to(device)
        self.tokenizer, self.device = tokenizer, device
        self.pad_id = tokenizer.pad_token_id
        self.version = 0

    @torch.no_grad()
    def _same(self, layout: type[SharedBatch] | type[PackedBatch], rows: Sequence[Row]) -> bool:
        """Whether hidden states in another layout equal those of padded rows."""
        layouts: tuple[type[TokenBatch], type[Any]] = (TokenBatch, layout)
        with _evaluating(self.model), self.autocast():
            one, other = (
                self.hidden(b.from_rows(rows, pad_id=self.pad_id, device=self.device))[0]
                for b in layouts
            )
        tolerance = 1e-3 if self.device.type == "cpu" else 0.1
        scale = max(1.0, one.abs().max().item())
        return (one - other).abs().max().item() <= tolerance * scale


class Critic:
    """Values of response tokens and what learns them; ``online`` asks for both.

    Made at the start of a run, from the start policy. A fresh head is zero: all first values are 0
    and the first advantages those of the bare returns.

    Args:
        policy: whose start weights, or hidden states, the critic has.
        config: the recipe's ``critic``.
        model: the recipe's ``model``: dtype, attention and checkpointing of a critic by ``path``.
        schedule: micro-batches, prompt sharing and the number of steps.
    Raises:
        FileNotFoundError, RuntimeError: ``path`` is not there or cannot be loaded.
        ValueError: what ``path`` holds cannot value this policy's tokens.
    """

    def __init__(
        self, policy: Policy, config: CriticOptions, *, model: Model, schedule: Schedule
    ) -> None:
        self.config = config
        self.version = 0
        self._trunk, head = _trunk_and_head(policy, config, model)
        # Values in half precision would tie, and advantages are differences of values.
        self._head = head.to(policy.device, torch.float32)
        own = {} if self._trunk is policy else {"decoder": self._trunk.model}
        self.model = nn.ModuleDict({**own, "head": self._head})
        self._forward = Forward(self._trunk, schedule)
        self.updater = Updater(self, config.optimizer, total_steps=schedule.steps)

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that the critic's own optimizer moves, by name."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def warms_up(self, step: int) -> bool:
        """Whether only the critic learns in this step, counted from 0."""
        return step < self.config.warmup_steps

    # -- values -------------------------------------------------------------------------------

    @torch.no_grad()
    def values(self, rows: Sequence[Row], mask_BT: Tensor) -> Tensor:
        """value_BT, the value before each response token in units of reward, on the CPU.

        Args:
            rows: prompt and response ids of the whole step.
            mask_BT: bool, True for tokens that are trained on; other rows are not computed.
        Returns: value_BT in float32 (float64 of a float64 critic), 0 outside the mask.
        """
        value_BT = torch.zeros(mask_BT.shape, dtype=self._head.weight.dtype)
        with _evaluating(self._trunk.model):
            active = mask_BT.any(1).nonzero()[:, 0].tolist()
            for portion, batch in self._forward.batches(rows, active):
                found_BT = self._values(batch, through_trunk=False).cpu()
                value_BT[portion, : found_BT.shape[1]] = found_BT
        return torch.where(mask_BT, value_BT, 0.0)

    def _values(self, batch: AnyBatch, *, through_trunk: bool) -> Tensor:
        gradient = torch.is_grad_enabled() and through_trunk
        with torch.set_grad_enabled(gradient), self._trunk.autocast():
            hidden_ND, _ = self._trunk.hidden(batch)
        value_N = self._head(hidden_ND.to(self._head.weight.dtype))[:, 0]
        mask_BT = batch.mask_BT
        return value_N.new_zeros(mask_BT.shape).masked_scatter(mask_BT, value_N)

    def returns(
        self,
        reward_B: Tensor,
        mask_BT: Tensor,
        penalty_BT: Tensor,
        value_BT: Tensor,
        *,
        gamma: float,
        lam: float,
    ) -> Tensor:
        """return_BT, what the values should have been: as ``gae`` has it, with ``returns_lam``.

        Args: as ``gae``; reward_B: NaN where nobody could score, whose rows return 0.
        """
        lam = lam if self.config.returns_lam is None else self.config.returns_lam
        group_B = torch.zeros(len(reward_B), dtype=torch.int64)  # plays no part
        tensors = (reward_B, group_B, mask_BT, penalty_BT, value_BT)
        adv_BT = gae(*tensors, gamma=gamma, lam=lam, whiten=False, eps=1.0)
        counts_BT = mask_BT & ~reward_B.isnan()[:, None]
        return adv_BT + torch.where(counts_BT, value_BT, 0.0)

    # -- learning -----------------------------------------------------------------------------

    def losses(
        self,
        rows: Sequence[Row],
        value_old_BT: Tensor,
        return_BT: Tensor,
        mask_BT: Tensor,
        *,
        indices: Iterable[int],
        num_tokens: int,
        step: int,
        sums: ValueSums,
    ) -> Iterator[Tensor]:
        """Micro-batch losses that add up to the mean value loss of one optimizer step's tokens.

            loss = sum of ``value_loss`` over the tokens of ``indices`` / num_tokens

        A sample teaches the critic also where its advantage is 0, so every row with a token goes
        through the trunk. In the warm-up of kind ``head`` the trunk gets no gradient.

        Args:
            rows, mask_BT: as ``values``; value_old_BT: what that returned when the advantages were
                made; return_BT: what ``returns`` returned. Nothing is read outside the mask.
            indices: rows of the optimizer step that go through the trunk here.
            num_tokens: tokens under the mask of the whole optimizer step, over all processes.
            step: the loop's step, counted from 0.
            sums: taken up to date, micro-batch by micro-batch.
        """
        through_trunk = self.config.kind == "model" or not self.warms_up(step)
        active = [b for b in indices if mask_BT[b].any()]
        for portion, batch in self._forward.batches(rows, active):
            value_BT = self._values(batch, through_trunk=through_trunk)
            old_BT, target_BT, here_BT = (
                tensor_BT[portion, : value_BT.shape[1]].to(value_BT.device)
                for tensor_BT in (value_old_BT, return_BT, mask_BT)
            )
            loss_BT, stats = value_loss(
                value_BT, old_BT.to(value_BT.dtype), target_BT, here_BT, clip=self.config.clip
            )
            loss = loss_BT.sum()
            sums.add(loss, stats)
            yield loss / num_tokens

    def update(self, losses: Iterable[Tensor], *, step: int) -> UpdateResult:
        """One optimizer step of the critic alone; see ``Updater.update``."""
        return self.updater.update(losses, step=step)

    def update_with(
        self,
        policy: Updater,
        policy_losses: Iterable[Tensor],
        losses: Iterable[Tensor],
        *,
        step: int,
    ) -> tuple[UpdateResult, UpdateResult]:
        """One optimizer step of the policy and one of the critic: what the loop calls.

        For kind ``head`` the losses are joined, policy + coef * value: the policy's optimizer moves
        the trunk, the critic's its head, and each refuses gradients of its own that are not finite.
        During the warm-up the loop calls ``update`` instead.

        Returns: the policy's result and the critic's; both with the joint loss for kind ``head``.
        """
        if self.config.kind == "model":
            return policy.update(policy_losses, step=step), self.update(losses, step=step)
        joint = itertools.chain(policy_losses, (self.config.coef * loss for loss in losses))
        results: list[UpdateResult] = []

        def backward() -> Iterator[Tensor]:
            # The policy's backward passes fill the head's gradients too, so they must run after the
            # critic has cleared them and before it makes its step.
            results.append(policy.update(joint, step=step))
            yield from ()

        ours = self.update(backward(), step=step)
        return results[0], replace(ours, loss=results[0].loss)

    def state_dict(self) -> dict[str, Any]:
        """Trainable weights, optimizer state and refused updates in a row, for a checkpoint."""
        return {**self.updater.state_dict(), "bad_in_a_row": self.updater.bad_in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what ``state_dict`` returned."""
        self.updater.load_state_dict(state)
        self.updater.bad_in_a_row = state["bad_in_a_row"]

    def save(self, folder: Path) -> None:
        """What ``path`` reads: the head; for kind ``model`` the decoder too, an adapter merged."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.config.kind == "model":
            _merged(self._trunk.model).save_pretrained(folder)
            self._trunk.tokenizer.save_pretrained(folder)
        save_file(self._head.state_dict(), folder / HEAD_FILE)


def value_metrics(
    value_BT: Tensor, return_BT: Tensor, mask_BT: Tensor, sums: ValueSums
) -> dict[str, float | None]:
    """Figures of one step: the tensors its advantages were made of, and the sums of its updates;
    None where there is nothing to tell."""
    value_N = value_BT[mask_BT].double()
    return {
        "critic/value": float(value_N.mean()) if len(value_N) else None,
        "critic/explained_variance": explained_variance(value_BT, return_BT, mask_BT),
        "critic/loss": sums.loss / sums.tokens if sums.tokens else None,
        "critic/clip_share": sums.clipped / sums.tokens if sums.tokens else None,
    }


def explained_variance(value_BT: Tensor, return_BT: Tensor, mask_BT: Tensor) -> float | None:
    """Share of the variance of the returns that the values foresee: 1 - Var(R - V) / Var(R).

    Args: value_BT, return_BT: in units of reward. mask_BT: bool, which tokens count.
    Returns: at most 1, 0 for constant values; None where the returns do not differ.
    """
    return_N = return_BT[mask_BT].double()
    if len(return_N) == 0 or bool((return_N == return_N[0]).all()):
        return None
    left_N = return_N - value_BT[mask_BT].double()
    return float(1 - left_N.var(correction=0) / return_N.var(correction=0))


def _trunk_and_head(policy: Policy, given: CriticOptions, model: Model) -> tuple[Policy, nn.Linear]:
    path = given.path
    if given.kind == "head":
        return policy, _zero_head(policy) if path is None else _saved_head(policy, path)
    if path is None:
        trunk = Trunk(copy.deepcopy(policy._decoder), policy.tokenizer, policy.device)
        return trunk, _zero_head(trunk)
    decoder, score = _load(path, model, policy)
    trunk = Trunk(decoder, policy.tokenizer, policy.device)
    if (Path(path).expanduser() / HEAD_FILE).is_file():
        return trunk, _saved_head(trunk, path)
    return trunk, _zero_head(trunk) if score is None else score


def _zero_head(trunk: Policy, *, bias: bool = True) -> nn.Linear:
    head = nn.Linear(trunk.model.config.get_text_config().hidden_size, 1, bias=bias)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    return head


def _saved_head(trunk: Policy, path: str) -> nn.Linear:
    file = Path(path).expanduser() / HEAD_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"critic.path is {path!r}, expected a folder with {HEAD_FILE}; give a saved critic's"
        )
    state = load_file(file)
    head = _zero_head(trunk, bias="bias" in state)
    if state["weight"].shape != head.weight.shape:
        raise ValueError(
            f"critic.path is {path!r}, whose head reads {state['weight'].shape[1]} numbers, "
            f"expected {head.in_features}, the hidden size of the model; give a head saved with it"
        )
    head.load_state_dict(state)
    return head


def _load(path: str, model: Model, policy: Policy) -> tuple[Any, nn.Linear | None]:
    """The decoder in ``path``, in float32 unless the recipe says otherwise, and its score layer."""
    name, common = str(Path(path).expanduser()), {"trust_remote_code": model.trust_remote_code}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **common)
        config = transformers.AutoConfig.from_pretrained(name, **common)
        loaded, told = _auto_class(config).from_pretrained(
            name,
            dtype=torch.float32 if model.dtype == "auto" else getattr(torch, model.dtype),
            attn_implementation=model.attention,
            output_loading_info=True,
            **common,
        )
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise RuntimeError(
            f"critic.path is {path!r}, which cannot be loaded: {reason}; give a local folder or "
            "check the hub name"
        ) from error
    decoder, score = loaded.base_model, getattr(loaded, "score", None)
    labels = getattr(score, "out_features", None)
    if loaded is not decoder and labels != 1:
        raise ValueError(
            f"critic.path is {path!r}, a {type(loaded).__name__} whose layer `score` gives "
            f"{labels} labels, expected one: the value; give a model trained with num_labels=1"
        )
    if missing := sorted(told["missing_keys"]):
        raise ValueError(
            f"critic.path is {path!r}, which lacks trained weights of {', '.join(missing[:3])}; "
            "they would start from random numbers: give a model that was saved with them"
        )
    if tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ValueError(
            f"critic.path is {path!r}, whose vocabulary of {len(tokenizer)} tokens is not the "
            f"policy's of {len(policy.tokenizer)}, expected the same; the critic reads the "
            "policy's token ids: give a model of its family"
        )
    if model.gradient_checkpointing:
        decoder.gradient_checkpointing_enable({"use_reentrant": False})
    return decoder, score


def _auto_class(config: Any) -> Any:
    """Loads a model without its output layer, unless that gives values."""
    named = str((config.architectures or [""])[0])
    classifiers = ("ForSequenceClassification", "ForTokenClassification")
    suffix = next((known for known in classifiers if named.endswith(known)), "")
    return getattr(transformers, f"AutoModel{suffix}")


def _merged(decoder: Any) -> Any:
    """The decoder with its adapter merged, as a copy; itself where there is none."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not any(isinstance(module, BaseTunerLayer) for module in decoder.modules()):
        return decoder
    plain = copy.deepcopy(decoder)
    for name, layer in list(plain.named_modules()):
        if not isinstance(layer, BaseTunerLayer):
            continue
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(plain.get_submodule(parent), child, layer.get_base_layer())
    return plain


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout; put back behind."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
