"""The words of the house: what is sampled, what is scored, and what a reward is.

A ``Problem`` is answered by a ``Group`` of ``Sample``s; a ``Reward`` gives each a ``Score``.
No tensor, tokenizer, step number or rank is known here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from llmalign.verifiers import Judgement

if TYPE_CHECKING:
    import numpy as np

Message = Mapping[str, str]  # {"role": "user", "content": "..."}
Prompt = str | tuple[Message, ...]
Need = Literal[
    "pointwise",
    "groupwise",
    "paired_groups",
    "policy_logprobs",
    "frozen_logprobs",
    "frozen_embeddings",
    "judge",
]
FinishReason = Literal["eos", "stop", "length"]


@dataclass(frozen=True)
class Problem:
    """One question: a chat (list of messages) or a plain string, and its other columns.

    ``columns`` carries ``answer`` (the gold, where there is one), tests, references and so on.
    """

    id: str
    prompt: Prompt
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One completion, token in, token out: nothing is ever tokenised again.

    Attributes:
        text: the completion, decoded once, without stop string or special tokens.
        token_ids: the sampled tokens in order, the end token included where it was sampled.
        logprobs: log-probability in nats of each token under the distribution sampled from.
        finish_reason: ``eos``, ``stop`` (a stop string), or ``length`` (cut at the limit).
        weights_version: number of optimizer steps of the weights that sampled it.
        seed: seed of this sample's own random stream.
        turns: (start, end) token spans the policy wrote, for multi-turn samples; empty = all.
        kept_ids: tokens that truncated sampling could have drawn, of all positions one after the
            other, as native int32; empty where nothing was truncated.
        kept_counts: how many of them belong to each position, as native int32.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    weights_version: int = 0
    seed: int = 0
    turns: tuple[tuple[int, int], ...] = ()
    kept_ids: bytes = field(default=b"", repr=False)
    kept_counts: bytes = field(default=b"", repr=False)

    @property
    def truncated(self) -> bool:
        """True where the limit cut the completion off."""
        return self.finish_reason == "length"


@dataclass(frozen=True)
class Group:
    """The samples of one problem: the unit of reward and of advantage."""

    problem: Problem
    samples: tuple[Sample, ...]
    max_new_tokens: int | None = None  # the limit these samples were drawn under


@dataclass(frozen=True)
class StepScore:
    """The value of one step or turn, from character ``start`` to ``end`` of the sample's text."""

    start: int
    end: int
    value: float


@dataclass(frozen=True)
class Score:
    """What a reward says about one sample.

    ``value`` None means not scorable: the sample leaves the baseline and the loss.
    ``aspects`` holds the value of every node of the reward tree below (None: not scorable there).
    ``seconds`` is what the slowest checker took, where it left no judgement.
    ``versus`` says of each sample of the group that this one was compared with, by its index there,
    how far this one is ahead in each judgement: > 0 where it wins, None where the judgement could
    not be read. Judgements alternate between the two orders of showing.
    """

    value: float | None
    aspects: Mapping[str, float | None] = field(default_factory=dict)
    judgement: Judgement | None = None
    note: str = ""
    steps: tuple[StepScore, ...] = ()
    seconds: float = 0.0
    versus: Mapping[int, tuple[float | None, ...]] = field(default_factory=dict)


class Verify(Protocol):
    """Judges (text, gold) pairs with the verifier ``kind``, in order, within a hard time limit."""

    def __call__(
        self, kind: str, pairs: Sequence[tuple[str, Any]], options: Mapping[str, Any]
    ) -> list[Judgement]: ...


@dataclass(frozen=True)
class TokenScores:
    """What a language model says about the tokens of one completion, one entry per token.

    Attributes:
        logprobs: log-probability of each token given prompt and tokens before, in nats.
        entropies: entropy of the model's distribution at each token, in nats.
        certainties: self-certainty at each token: logsumexp of the logits minus their mean, in
            nats (the KL divergence from the uniform distribution plus the log of the vocabulary).
        hidden: mean over the tokens of the last hidden state; empty where it was not asked for.
    """

    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    certainties: tuple[float, ...]
    hidden: tuple[float, ...] = ()


class Scorer(Protocol):
    """A language model that scores completions it is given: the policy as it samples, or a frozen
    one. One result per pair, in order."""

    def __call__(
        self, pairs: Sequence[tuple[Prompt, Sample]], *, hidden: bool = False
    ) -> list[TokenScores]: ...


class EmbedTokens(Protocol):
    """The input embeddings of a text's tokens, [tokens, dimensions] in float32 for each text: the
    rows of the table that the policy started with. No special tokens are added."""

    def __call__(self, texts: Sequence[str]) -> "list[np.ndarray]": ...


class Judge(Protocol):
    """A language model that answers chats. One text per chat, in order; None where the judge could
    not be reached or gave nothing, after retries. One with a true ``on_device`` runs where the
    policy does, and is asked after generation only."""

    def __call__(self, chats: Sequence[Sequence[Message]]) -> list[str | None]: ...


@dataclass(frozen=True)
class Services:
    """What the host lends to rewards; a service is there if the reward's ``need`` names it.

    ``open_model`` comes with ``frozen``: a second frozen scorer, by folder or hub name, with the
    policy's own tokenizer. Each model is loaded once.
    """

    verify: Verify
    policy: Scorer | None = None
    frozen: Scorer | None = None
    judge: Judge | None = None
    step: Callable[[], int] = lambda: 0  # number of optimizer steps done
    open_model: Callable[[str], Scorer] | None = None
    embed_tokens: EmbedTokens | None = None


class Reward(Protocol):
    """Scores whole groups; a leaf or a node of the recipe's reward tree.

    A reward that needs a gold lists in ``check`` what is wrong with a problem's columns before
    training starts. ``bind`` hands over the host's services and is called once before ``score``.
    """

    name: str
    need: Need

    def bind(self, services: Services) -> None: ...

    def check(self, problem: Problem) -> None:
        """Raises GoldError where this reward could never score ``problem``."""
        ...

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """One list per group, one score per sample, in order."""
        ...


# In the style of TRL: f(prompts, completions, **columns)
RewardFunction = Callable[..., Sequence[float | None]]
