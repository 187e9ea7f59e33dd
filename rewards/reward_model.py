"""Reward models: sequence classifiers that pay for an answer to a prompt."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from llmalign.rewards.base import Group, Problem, Prompt, Score
from llmalign.rewards.centred import log_sigmoid, sigmoid
from llmalign.rewards.classifier import FromModel, Kind, Reader
from llmalign.rewards.combine import brme
from llmalign.rewards.tree import REWARDS
from llmalign.verifiers import GoldError

Activation = Literal["none", "sigmoid", "softmax", "log_sigmoid"]
Template = Literal["auto", "chat", "joined", "pair"]


@dataclass(kw_only=True)
class Classified(FromModel):
    """Base of a reward that is read from the logits of a sequence classifier.

    Args:
        template: how prompt and answer become one text. ``chat``: through the model's own chat
            template, a plain prompt as the words of a user. ``joined``: one after the other with
            ``separator`` between, as are the messages of a chat. ``pair``: as the two texts of a
            pair, the way of encoders such as DeBERTa. ``auto``: ``chat`` for chats and ``joined``
            for plain prompts.
        separator: see ``joined``.
    """

    kind: ClassVar[Kind] = "sequence"

    template: Template = "auto"
    separator: str = "\n\n"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.template == "pair" and self.on_long == "cut_left":
            raise ValueError(
                "on_long is 'cut_left' and template is 'pair', expected 'undecided', because a cut "
                "would take the first text of the pair apart"
            )

    @abstractmethod
    def value(self, logits: Sequence[float]) -> tuple[float, dict[str, float]]:
        """The value of one answer, and named parts of it."""

    def check_model(self, reader: Reader) -> None:
        """Raises ValueError where ``template`` is ``chat`` and the model has none."""
        if self.template == "chat" and not reader.tokenizer.chat_template:
            raise ValueError(
                f"reward {self.name!r}: template is 'chat', expected 'joined' or 'pair', because "
                f"{self.model!r} has no chat template"
            )

    def check(self, problem: Problem) -> None:
        """Raises GoldError where the prompt is a chat that the model has no template for."""
        chat = not isinstance(problem.prompt, str)
        if chat and self.template == "auto" and not self.reader.tokenizer.chat_template:
            raise GoldError(
                f"problem {problem.id!r}: the prompt is a chat and {self.model!r} has no chat "
                f"template, expected a plain prompt; set template of reward {self.name!r} to "
                "'joined' or 'pair', whichever the model was trained on"
            )

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Reads all samples of all groups, in batches of about equal length."""
        read = [self._encoded(g.problem.prompt, s.text) for g in groups for s in g.samples]
        fitted = [self.fitted(ids) for ids, _ in read]
        rows = [ids for ids, _ in fitted if ids]
        types = [kinds for (_, kinds), (ids, _) in zip(read, fitted, strict=True) if ids and kinds]
        logits = iter(
            self.reader.classify(rows, batch_tokens=self.batch_tokens, types=types or None)
        )
        scores = iter(
            [self._score(next(logits) if ids else None, ids, excess) for ids, excess in fitted]
        )
        return [[next(scores) for _ in group.samples] for group in groups]

    def _encoded(self, prompt: Prompt, answer: str) -> tuple[list[int], list[int]]:
        """Token ids, and of a pair which of the texts each is of, where the model wants to know."""
        tokenizer, way = self.reader.tokenizer, self.template
        if way == "auto":
            way = "joined" if isinstance(prompt, str) else "chat"
        if way == "chat":
            asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            chat = [*map(dict, asked), {"role": "assistant", "content": answer}]
            # The template writes the start token where there is one: none is added.
            return list(tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)), []
        parts = [prompt] if isinstance(prompt, str) else [m["content"] for m in prompt]
        if way == "pair":
            found = tokenizer(self.separator.join(parts), answer, verbose=False)
            return list(found["input_ids"]), list(found.get("token_type_ids", []))
        text = self.separator.join([*parts, answer])
        return list(tokenizer(text, verbose=False)["input_ids"]), []

    def _score(self, logits: Sequence[float] | None, ids: Any, excess: int) -> Score:
        if ids is None:
            return self.too_long(excess)
        if not logits:
            return self.undecided("prompt and answer are empty")
        if not all(map(math.isfinite, logits)):
            return self.undecided(f"the model says {list(logits)!r:.80}, expected finite numbers")
        value, parts = self.value(logits)
        aspects = {self.name: value, **{f"{self.name}_{part}": v for part, v in parts.items()}}
        note = f"{self.name}: the first {excess} tokens were cut" if excess else ""
        return Score(value, aspects, note=note)


@REWARDS.register(
    "reward_model",
    paper="Bradley-Terry models; several labels: Multi-Objective GRPO",
    traits={
        "example": {
            "centred": {
                "of": {"reward_model": {"model": "Skywork/Skywork-Reward-V2-Qwen3-0.6B"}},
                "reference_answers": "references",
            }
        }
    },
)
@dataclass(kw_only=True)
class RewardModel(Classified):
    """What a reward model says of the answer: one logit, or a weighted sum of several.

        R = sum_k w_k a(z)_k        z: logits; a: activation; w: 1 for ``head``, or ``weights``

    Range: unbounded without activation; for one head [0, 1] with ``sigmoid`` and ``softmax``,
    (-inf, 0] with ``log_sigmoid``. None, counted as undecided, where the text is too long or a
    logit is not finite. A reward model is a proxy that a policy learns to please: bend it with
    ``centred`` or ``clip``, and pay something beside it that can be verified. Aspects, for the
    name ``reward_model`` and with ``weights``: ``reward_model_LABEL``, after the activation.

    Args:
        head: the logit of a model with several: its index or the name of its label.
        weights: label -> weight, for a sum over several; applied as written.
        activation: of the logits, before the weights; ``softmax`` is over all labels.

    Source: the sum over labels is that of "Optimizing Safe and Aligned Language Generation: A
    Multi-Objective GRPO Approach", whose weights were not found.
    """

    head: int | str | None = None
    weights: Mapping[str, float] | None = None
    activation: Activation = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head is not None and self.weights is not None:
            raise ValueError(f"head is {self.head!r} and weights are set, expected only one")
        if self.weights is not None and not (self.weights and all(map(_number, self._given))):
            raise ValueError(
                f"weights is {dict(self.weights)!r:.80}, expected a finite number for each label"
            )

    @property
    def _given(self) -> list[Any]:
        return list((self.weights or {}).values())

    def check_model(self, reader: Reader) -> None:
        """Raises ValueError where the model lacks a label, or it is unclear which one counts."""
        super().check_model(reader)
        self._weight_of(reader.labels)

    def value(self, logits: Sequence[float]) -> tuple[float, dict[str, float]]:
        """Weighs the logits after their activation."""
        labels = self.reader.labels
        weights = self._weight_of(labels)
        values = activated(logits, self.activation)
        parts = {labels[k]: values[k] for k in weights} if self.weights else {}
        return math.fsum(w * values[k] for k, w in weights.items()), parts

    def _weight_of(self, labels: Sequence[str]) -> dict[int, float]:
        if self.activation == "softmax" and len(labels) == 1:
            raise ValueError(
                f"reward {self.name!r}: activation is 'softmax' and {self.model!r} has one label, "
                "of which that is always 1; expected 'sigmoid' or 'none'"
            )
        if self.weights is not None:
            return {self._index(label, labels, "weights"): w for label, w in self.weights.items()}
        if self.head is not None:
            return {self._index(self.head, labels, "head"): 1.0}
        if len(labels) > 1:
            raise ValueError(
                f"reward {self.name!r}: {self.model!r} has {len(labels)} labels, expected to know "
                f"which counts; set head or weights to one or several of: {', '.join(labels)}"
            )
        return {0: 1.0}

    def _index(self, label: int | str, labels: Sequence[str], option: str) -> int:
        if isinstance(label, int) and 0 <= label < len(labels):
            return label
        if label in labels:
            return labels.index(str(label))
        raise ValueError(
            f"reward {self.name!r}: {option} names {label!r}, expected a label of {self.model!r}: "
            f"{', '.join(labels)}"
        )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def activated(logits: Sequence[float], activation: Activation) -> list[float]:
    """The logits, or their sigmoid, log sigmoid (nats) or softmax."""
    if activation == "sigmoid":
        return [sigmoid(z) for z in logits]
    if activation == "log_sigmoid":
        return [log_sigmoid(z) for z in logits]
    if activation == "softmax":
        shifted = [math.exp(z - max(logits)) for z in logits]
        return [e / math.fsum(shifted) for e in shifted]
    return list(logits)


@REWARDS.register(
    "brme",
    paper="Reward-Robust RLHF in LLMs, arXiv:2409.15360, eq. 7",
    traits={"example": {"brme": {"model": "models/five-heads", "alpha": 0.3}}},
)
@dataclass(kw_only=True)
class Brme(Classified):
    """Robust value of a reward model with several heads that each say how sure they are (BRME).

        R = alpha * mean of the surest head + (1 - alpha) * least mean

    Range: unbounded. None, counted as undecided, where the text is too long or a logit is not
    finite. The model has 2H labels: logits 0 to H-1 are the means of the heads, logits H to 2H-1
    their standard deviations in the same order, or the logs of these: only their order counts.
    Aspects, for the name ``brme``: ``brme_surest`` and ``brme_least``.

    Args:
        alpha: weight of the surest head, in [0, 1]; 0.2 to 0.4 was best with five heads.
    Source: Reward-Robust RLHF in LLMs, arXiv:2409.15360, eq. 7, from a digest: the least is taken
    over the heads of one sample, where the paper takes it over expectations.
    """

    alpha: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}, expected it in [0, 1]")

    def check_model(self, reader: Reader) -> None:
        """Raises ValueError where the labels do not come in pairs."""
        super().check_model(reader)
        if len(reader.labels) % 2:
            raise ValueError(
                f"reward {self.name!r}: {self.model!r} has {len(reader.labels)} labels, expected "
                "an even number: the means of all heads, then their standard deviations"
            )

    def value(self, logits: Sequence[float]) -> tuple[float, dict[str, float]]:
        """Combines the heads."""
        half = len(logits) // 2
        means, spreads = logits[:half], logits[half:]
        parts = {"surest": brme(means, spreads, 1.0), "least": brme(means, spreads, 0.0)}
        return brme(means, spreads, self.alpha), parts
