"""The policy: a causal language model, its tokenizer, and the one function for log-probs.

Shape letters in this file
    B  sequences          T  response tokens of a sequence, left-aligned, right-padded
    L  prompt + response  N  response tokens of all sequences, in row order
    D  hidden size        V  vocabulary
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache

from llmalign.batch import AnyBatch, PackedBatch, Row, SharedBatch, TokenBatch
from llmalign.head import TokenLoss, at_least_float32, chunks, head_logprobs, head_loss
from llmalign.packing import packed_arguments, why_not_packed
from llmalign.schema import Lora, Model
from llmalign.truncation import renormalised_entropy, renormalised_logprobs

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Policy:
    """A model and its tokenizer on one device, with what training and sampling need of them."""

    def __init__(self, model: Any, tokenizer: Any, device: torch.device) -> None:
        self.model = model.to(device)
        self.tokenizer = tokenizer
        self.device = device
        self.pad_id: int = tokenizer.pad_token_id
        self.eos_ids = _eos_ids(model, tokenizer)
        self.version = 0
        base = model.get_base_model() if self.has_adapter else model
        self._decoder = base.get_decoder()
        self._head = base.get_output_embeddings()
        self._plain_head = type(self._head) is nn.Linear and self._head.bias is None
        self._softcap: float | None = getattr(base.config, "final_logit_softcapping", None)
        self._plain_head &= not self._softcap
        self.context_length = int(getattr(base.config, "max_position_embeddings", 1 << 30))
        self._check_head()

    @property
    def has_adapter(self) -> bool:
        """True where the policy is a LoRA adapter on a frozen base."""
        return hasattr(self.model, "disable_adapter")

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that learn, by name."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 compute over float32 weights on a GPU; nothing on a CPU."""
        if self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def logprobs(
        self,
        batch: AnyBatch,
        *,
        temperature: float,
        entropy_gradient: bool = False,
        kept: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of every response token and entropy of the distribution it came from.

            logp = log softmax(logits / temperature)[token];  H = -sum_v p_v log p_v

        No [B, T, V] tensor is ever held: the head runs over chunks of tokens, and where there is
        more than one chunk the backward pass computes each again. A loss that is a sum over tokens
        is cheaper by ``loss_over_tokens``.

        Args:
            batch: token ids and which of them are response.
            temperature: what the logits are divided by, as in sampling; > 0.
            entropy_gradient: whether the entropy carries a gradient (an entropy bonus needs it).
            kept: ids_NK and counts_N of what truncated sampling kept for each response token, in
                row order; both results are then of the policy renormalised on it.
        Returns:
            logp_BT and entropy_BT in nats, in float32 or the model's float64; 0 where a row has
            no token.
        """
        with self.autocast():
            hidden_ND, target_N = self.hidden(batch)
            logp_N, entropy_N = self._head_logprobs(
                hidden_ND, target_N, temperature, entropy_gradient, kept
            )
        return _placed(logp_N, batch.mask_BT), _placed(entropy_N, batch.mask_BT)

    def loss_over_tokens(
        self,
        batch: AnyBatch,
        token_loss: TokenLoss,
        *,
        temperature: float,
        entropy_gradient: bool = False,
        kept: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A loss that is a sum over response tokens, with the logits of each computed only once.

            loss = sum over chunks of token_loss(logp_C, entropy_C, chunk)

        Value and gradient are those of ``token_loss`` on what ``logprobs`` returns.

        Args:
            batch, temperature, kept: as in ``logprobs``.
            token_loss: called with log-probs and entropies of some response tokens, and the slice
                that they are of all of the batch in row order (of ``x_BT[batch.mask_BT]``); returns
                a scalar. Called in order, once for each token.
            entropy_gradient: whether the loss learns through the entropy too.
        Returns:
            the loss, whose backward pass can run once; logp_BT and entropy_BT as ``logprobs``
            returns them, without gradient.
        """
        with self.autocast():
            hidden_ND, target_N = self.hidden(batch)
            if self._plain_head and kept is None:
                loss, logp_N, entropy_N = head_loss(
                    hidden_ND,
                    self._head.weight,
                    target_N,
                    token_loss,
                    temperature=temperature,
                    entropy_gradient=entropy_gradient,
                )
                return loss, _placed(logp_N, batch.mask_BT), _placed(entropy_N, batch.mask_BT)
            logp_N, entropy_N = self._head_logprobs(
                hidden_ND, target_N, temperature, entropy_gradient, kept
            )
        loss = token_loss(logp_N, entropy_N, slice(0, len(target_N)))
        logp_N, entropy_N = logp_N.detach(), entropy_N.detach()
        return loss, _placed(logp_N, batch.mask_BT), _placed(entropy_N, batch.mask_BT)

    @torch.no_grad()
    def token_scores(
        self, batch: TokenBatch, *, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the model says about every response token, in row order.

        Returns:
            logp_N and entropy_N in nats; certainty_N, logsumexp of the logits minus their mean over
            the tokenizer's vocabulary (padding rows of the head do not count); hidden_ND.
        """
        with self.autocast():
            hidden_ND, target_N = self.hidden(batch)
        hidden_ND = at_least_float32(hidden_ND)
        logp_N, entropy_N = self._head_logprobs(hidden_ND, target_N, temperature, False)
        words = min(len(self.tokenizer), self._head.weight.shape[0])
        certainties = []
        for where in chunks(len(target_N), self._head.weight):
            logits_CV = self.next_logits(hidden_ND[where])[:, :words] / temperature
            certainties.append(torch.logsumexp(logits_CV, -1) - logits_CV.mean(-1))
        certainty_N = torch.cat(certainties) if certainties else torch.zeros(0)
        return logp_N.cpu(), entropy_N.cpu(), certainty_N.cpu(), hidden_ND.cpu()

    def hidden(self, batch: AnyBatch) -> tuple[Tensor, Tensor]:
        """hidden_ND that predicts each response token, and token_N, in row order."""
        if isinstance(batch, PackedBatch):
            hidden_1LD = self._decoder(
                batch.input_ids_1L,
                position_ids=batch.position_1L,
                use_cache=False,
                **packed_arguments(self._decoder.config, batch),
            ).last_hidden_state
            predicted = batch.response_1L[:, 1:]
            return hidden_1LD[:, :-1][predicted], batch.input_ids_1L[:, 1:][predicted]
        if isinstance(batch, TokenBatch):
            hidden_BLD = self._decoder(batch.input_ids_BL, use_cache=False).last_hidden_state
            predicted = batch.response_BL[:, 1:]
            return hidden_BLD[:, :-1][predicted], batch.input_ids_BL[:, 1:][predicted]
        cache = DynamicCache(config=self.model.config)
        last_UD = self._decoder(
            batch.prompt_ids_UL,
            attention_mask=batch.prompt_seen_UL.long(),
            position_ids=batch.prompt_position_UL,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        hidden_BTD = last_UD[batch.prompt_B][:, None]
        if batch.mask_BT.shape[1] > 1:
            cache.batch_select_indices(batch.prompt_B)
            rest_BTD = self._decoder(
                batch.response_ids_BT[:, :-1],
                attention_mask=batch.seen_BL,
                position_ids=batch.position_BT[:, :-1],
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            hidden_BTD = torch.cat([hidden_BTD, rest_BTD], dim=1)
        return hidden_BTD[batch.mask_BT], batch.response_ids_BT[batch.mask_BT]

    def shares_prompts(self, rows: Sequence[Row]) -> bool:
        """Whether log-probs with each prompt computed once equal those without, on these rows."""
        return self._same(SharedBatch, rows)

    def packs_rows(self, rows: Sequence[Row]) -> str | None:
        """Why log-probs of rows one behind the other do not equal those of padded rows, tried on
        these rows (a single one is packed twice); None: they do."""
        if reason := why_not_packed(self._decoder.config):
            return reason
        try:
            same = self._same(PackedBatch, list(rows) * (1 if len(rows) > 1 else 2))
        except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:120]}"
        return None if same else "it gives other log-probs"

    @torch.no_grad()
    def _same(self, layout: type[SharedBatch] | type[PackedBatch], rows: Sequence[Row]) -> bool:
        """Whether log-probs in another layout equal those of padded rows."""
        layouts: tuple[type[TokenBatch], type[Any]] = (TokenBatch, layout)
        batches = [b.from_rows(rows, pad_id=self.pad_id, device=self.device) for b in layouts]
        was_training = self.model.training
        self.model.eval()
        try:
            one, other = (self.logprobs(b, temperature=1.0)[0] for b in batches)
        finally:
            self.model.train(was_training)
        # A wrong mask or position shows in whole nats; bfloat16 rounds at a few hundredths.
        tolerance = 1e-3 if self.device.type == "cpu" else 0.1
        return bool((one - other).abs().max() <= tolerance)

    def next_logits(self, hidden_BD: Tensor) -> Tensor:
        """Logits [B, V] in float32 (float64 of a float64 model) from hidden states [B, D]."""
        logits_BV = at_least_float32(self._head(hidden_BD))
        if self._softcap:
            logits_BV = torch.tanh(logits_BV / self._softcap) * self._softcap
        return logits_BV

    def _head_logprobs(
        self,
        hidden_ND: Tensor,
        target_N: Tensor,
        temperature: float,
        entropy_gradient: bool,
        kept: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        if self._plain_head and kept is None:
            return head_logprobs(
                hidden_ND,
                self._head.weight,
                target_N,
                temperature=temperature,
                entropy_gradient=entropy_gradient,
            )

        def chunk(hidden_CD: Tensor, target_C: Tensor, *kept: Tensor) -> tuple[Tensor, Tensor]:
            logits_CV = self.next_logits(hidden_CD)
            with_entropy = entropy_gradient and torch.is_grad_enabled()
            if kept:
                logp_C = renormalised_logprobs(logits_CV, target_C, *kept, temperature=temperature)
                with torch.set_grad_enabled(with_entropy):
                    return logp_C, renormalised_entropy(logits_CV, *kept, temperature=temperature)
            logp_CV = torch.log_softmax(logits_CV / temperature, dim=-1)
            with torch.set_grad_enabled(with_entropy):
                entropy_C = torch.special.entr(logp_CV.exp()).sum(-1)
            return logp_CV.gather(1, target_C[:, None])[:, 0], entropy_C

        tensors = (hidden_ND, target_N, *(kept or ()))
        slices = list(chunks(len(target_N), self._head.weight))
        if len(slices) <= 1:
            return chunk(*tensors)
        parts = [
            checkpoint(chunk, *(t[where] for t in tensors), use_reentrant=False) for where in slices
        ]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    @torch.no_grad()
    def _check_head(self) -> None:
        # Some architectures scale or shift logits after the head; ours must equal theirs.
        ids = torch.arange(8, device=self.device)[None, :] % self._head.weight.shape[0]
        with self.autocast():
            theirs = self.model(input_ids=ids, use_cache=False).logits[0].float()
            ours = self.next_logits(self._decoder(ids, use_cache=False).last_hidden_state[0])
        gap = (theirs - ours).abs().max().item()
        if not gap <= 1e-2 * max(1.0, theirs.abs().max().item()):
            raise ValueError(
                f"model type {self.model.config.model_type!r} changes its logits after the head "
                f"(gap {gap:.3g}), expected plain logits or a final softcap; "
                "this architecture is not supported"
            )

    def save(self, folder: Path) -> None:
        """A plain Hugging Face model (or adapter) with its tokenizer."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def _placed(values_N: Tensor, mask_BT: Tensor) -> Tensor:
    """Values of tokens in row order where the tokens are; 0 elsewhere."""
    zeros_BT = torch.zeros(mask_BT.shape, dtype=values_N.dtype, device=values_N.device)
    return zeros_BT.masked_scatter(mask_BT, values_N)


def load_policy(config: Model, *, seed: int, path: str | Path | None = None) -> Policy:
    """The policy a recipe's ``model`` block describes.

    Args:
        config: the block.
        seed: initialises ``build: tiny`` and LoRA.
        path: a folder that replaces ``config.path`` / ``config.build`` (the warm-started model).
    Raises:
        FileNotFoundError: ``config.path`` looks like a folder and does not exist.
        RuntimeError: a hub name that cannot be loaded.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    transformers.utils.logging.disable_progress_bar()  # the run has a display of its own
    torch.manual_seed(seed)
    if path is None and config.build == "tiny":
        from llmalign.tiny import build_tiny

        model, tokenizer = build_tiny(dict(config.build_options), seed=seed)
    else:
        model, tokenizer = _load_pretrained(str(path or config.path), config, device)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.lora is not None:
        model = _add_adapter(model, config.lora)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if config.lora is not None:
            model.enable_input_require_grads()
    return Policy(model, tokenizer, device)


def _load_pretrained(path: str, config: Model, device: torch.device) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local = Path(path).expanduser()
    looks_local = path.startswith((".", "/", "~")) or local.exists()
    if looks_local and not (local / "config.json").is_file():
        raise FileNotFoundError(
            f"model.path is {path!r}, expected a folder with config.json; "
            "give the folder of a saved model or a hub name"
        )
    common = {"revision": config.revision or "main", "trust_remote_code": config.trust_remote_code}
    name = str(local) if looks_local else path
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **common)
        model = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=_weights_dtype(config, device),
            attn_implementation=config.attention,
            **common,
        )
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise RuntimeError(
            f"model.path is {path!r}, which cannot be loaded: {reason}; "
            "give a local folder or check the hub name"
        ) from error
    return model, tokenizer


def _weights_dtype(config: Model, device: torch.device) -> torch.dtype:
    if config.dtype != "auto":
        return _DTYPES[config.dtype]
    # AdamW loses updates below 2^-8 of a weight in bfloat16, so weights that learn stay float32
    # (compute is bfloat16 by autocast); the frozen base of an adapter may be bfloat16.
    frozen_on_gpu = config.lora is not None and device.type == "cuda"
    return torch.bfloat16 if frozen_on_gpu else torch.float32


def _add_adapter(model: Any, lora: Lora) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    return get_peft_model(
        model,
        LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=lora.rank,
            lora_alpha=int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,  # type: ignore[arg-type]
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
        ),
    )


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a completion: chat models often have more than the tokenizer's one."""
    ids: set[int] = set()
    generation = getattr(model, "generation_config", None)
    for found in (tokenizer.eos_token_id, getattr(generation, "eos_token_id", None)):
        if found is not None:
            ids |= set(found) if isinstance(found, list | tuple) else {int(found)}
    return frozenset(ids)
