"""Rewards that are likelihoods: of the response, of what a user says next, of the right option."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from llmalign.rewards.base import (
    Group,
    Need,
    Problem,
    Prompt,
    Sample,
    Score,
    Services,
    TokenScores,
)
from llmalign.rewards.tree import REWARDS
from llmalign.rewards.verified import column
from llmalign.verifiers import GoldError
from llmalign.verifiers.extract import DEFAULT_MARKERS, Marker, extract

Over = Literal["sum", "mean"]


@dataclass(kw_only=True)
class TokenScored:
    """Base of a reward that asks a language model about tokens; it needs no gold."""

    need: ClassVar[Need]

    name: str

    def __post_init__(self) -> None:
        self._services: Services | None = None

    def bind(self, services: Services) -> None:
        """Takes the host's services; before ``score``."""
        self._services = services

    def check(self, problem: Problem) -> None:
        """Any problem will do."""

    def token_scores(self, pairs: Sequence[tuple[Prompt, Sample]]) -> list[TokenScores]:
        """What the model that ``need`` names says about each (prompt, sample).

        Raises:
            RuntimeError: the reward is not bound, or the host lends no such model.
        """
        if self._services is None:
            raise RuntimeError(f"reward {self.name!r} is not bound; score through a RewardHost")
        which = self.need.removesuffix("_logprobs")
        scorer = self._services.policy if which == "policy" else self._services.frozen
        if scorer is None:
            raise RuntimeError(
                f"reward {self.name!r} needs the log-probabilities of a {which} model and the host "
                "lends none; score through a trainer that has one"
            )
        return scorer(pairs) if pairs else []

    def scored(self, value: float | None, why: str, parts: Mapping[str, float | None]) -> Score:
        """A score with its named parts; ``why`` is noted where there is no value."""
        aspects = {self.name: value, **{f"{self.name}_{part}": v for part, v in parts.items()}}
        return Score(value, aspects, note=f"{self.name}: {why}" if value is None else "")


def total(values: Sequence[float], over: Over = "sum") -> float | None:
    """Sum or mean; None where there is nothing to add or something is not finite."""
    if not values or not all(map(math.isfinite, values)):
        return None
    return math.fsum(values) / (len(values) if over == "mean" else 1)


# -- of the response ------------------------------------------------------------------------------


def state_value(logits: Sequence[float], *, alpha: float = 1.0) -> float:
    """Soft value of a state: alpha * logsumexp(logits / alpha), the logits being its Q values."""
    largest = max(logits)
    return largest + alpha * math.log(math.fsum(math.exp((q - largest) / alpha) for q in logits))


def endogenous_rewards(
    logprobs: Sequence[float], values: Sequence[float], *, alpha: float = 1.0
) -> list[float]:
    """Token rewards hidden in a language model.

        r_t = Q(s_t, a_t) - V(s_{t+1}) = alpha * logprob_t + V(s_t) - V(s_{t+1})

    They telescope: their sum is alpha * sum of logprobs + V(s_1) - V(s_{T+1}).

    Args:
        logprobs: of each token at temperature ``alpha``, in nats.
        values: ``state_value`` before each token, and after the last one; 0 after it if left out.
    Source: "Generalist Reward Models: Found Inside Large Language Models", arXiv:2506.23235,
        eq. 11-12.
    """
    after = [*values, 0.0][1 : len(logprobs) + 1]
    return [
        alpha * logp + now - then for logp, now, then in zip(logprobs, values, after, strict=False)
    ]


@REWARDS.register(
    "endogenous",
    paper="arXiv:2506.23235, eq. 11-12",
    traits={"example": {"endogenous": {"over": "mean"}}},
)
@dataclass(kw_only=True)
class Endogenous(TokenScored):
    """Log-likelihood of the response under a frozen model: its endogenous reward.

    Range: (-inf, 0], in nats. Summed over the response the token rewards telescope to the
    log-likelihood and the value of the prompt, which all samples of a group share: the value of
    the prompt is left out, as any group baseline removes it. None for a response without tokens.
    It favours short and likely text. Aspects, for the name ``endogenous``: ``endogenous_mean``.

    Args:
        over: ``sum`` over the tokens, as in the paper, or ``mean``, which does not favour short
            responses.

    Source: "Generalist Reward Models: Found Inside Large Language Models", arXiv:2506.23235,
    eq. 11-12, with alpha 1.
    """

    need: ClassVar[Need] = "frozen_logprobs"

    over: Over = "sum"

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Asks the frozen model about every sample."""
        pairs = [(group.problem.prompt, s) for group in groups for s in group.samples]
        found = iter(self.token_scores(pairs))
        return [[self._score(next(found)) for _ in group.samples] for group in groups]

    def _score(self, scores: TokenScores) -> Score:
        value = total(scores.logprobs, self.over)
        return self.scored(value, _NO_TOKENS, {"mean": total(scores.logprobs, "mean")})


_NO_TOKENS = "no tokens, or a log-probability that is not finite"


def demonstration_ratio(
    logprobs_sft: Sequence[float], logprobs_base: Sequence[float]
) -> list[float]:
    """Token rewards of a model fine-tuned on demonstrations: log pi_sft - log pi_base, in nats.

    Their sum rewards what the demonstrations made more likely. Both models are frozen.

    Source: "Self-Rewarding PPO: Aligning Large Language Models with Demonstrations Only",
        arXiv:2510.21090.
    """
    return [sft - base for sft, base in zip(logprobs_sft, logprobs_base, strict=True)]


# -- of what a user says next ---------------------------------------------------------------------

POSITIVE = ("Thank you, that is just what I needed.", "Great, that answers my question.")
NEGATIVE = ("That does not answer my question.", "I do not think that is right.")


def follow_up_likelihood(
    positive: Sequence[float | None], negative: Sequence[float | None]
) -> float | None:
    """Mean over pairs of follow-ups of logp(positive) - logp(negative); None where one is missing.

    Source: "Aligning Language Models Using Follow-up Likelihood as Reward Signal",
        arXiv:2409.13948; the form is reconstructed.
    """
    gaps = [
        good - bad
        for good, bad in zip(positive, negative, strict=True)
        if good is not None and bad is not None
    ]
    return total(gaps, "mean") if len(gaps) == len(positive) else None


@REWARDS.register("follow_up", paper="FLR, arXiv:2409.13948", traits={"example": "follow_up"})
@dataclass(kw_only=True)
class FollowUp(TokenScored):
    """How much likelier a content user is to speak next than a discontent one.

    Range: unbounded, in nats per token. A frozen model reads the conversation as a transcript and
    is asked for the likelihood of follow-ups of the user, per token, so that their length does not
    matter. None where the model has no finite answer.

    Args:
        positive: follow-ups of a content user.
        negative: follow-ups of a discontent one, as many; each is compared with its counterpart.

    Source: "Aligning Language Models Using Follow-up Likelihood as Reward Signal",
    arXiv:2409.13948; the form is reconstructed and the default follow-ups are ours.
    """

    need: ClassVar[Need] = "frozen_logprobs"

    positive: tuple[str, ...] = POSITIVE
    negative: tuple[str, ...] = NEGATIVE

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.positive or len(self.positive) != len(self.negative):
            raise ValueError(
                f"positive lists {len(self.positive)} and negative {len(self.negative)} "
                "follow-ups, expected as many of each and at least one"
            )
        if not all(text.strip() for text in (*self.positive, *self.negative)):
            raise ValueError("a follow-up is empty, expected words that a user may say")

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Asks the frozen model about every follow-up to every sample."""
        spoken = [*self.positive, *self.negative]
        pairs = [
            (transcript(group.problem.prompt, ("assistant", s.text)) + "\nUser:", written(text))
            for group in groups
            for s in group.samples
            for text in spoken
        ]
        found = iter(self.token_scores(pairs))
        return [
            [self._score([next(found) for _ in spoken]) for _ in group.samples] for group in groups
        ]

    def _score(self, scores: Sequence[TokenScores]) -> Score:
        means = [total(s.logprobs, "mean") for s in scores]
        positive, negative = means[: len(self.positive)], means[len(self.positive) :]
        value = follow_up_likelihood(positive, negative)
        parts = {"positive": _mean(positive), "negative": _mean(negative)}
        return self.scored(value, f"a follow-up has {_NO_TOKENS}", parts)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return total(known, "mean") if len(known) == len(values) else None


def transcript(prompt: Prompt, *turns: tuple[str, str]) -> str:
    """A conversation as plain text, one ``Speaker: words`` per turn."""
    spoken = (
        [("user", prompt)]
        if isinstance(prompt, str)
        else [(message["role"], message["content"]) for message in prompt]
    )
    return "\n".join(f"{role.capitalize()}: {text}" for role, text in [*spoken, *turns])


def written(text: str) -> Sample:
    """A text that no policy sampled, to be scored after a plain prompt: it has no token ids, so
    that the scorer tokenises it."""
    return Sample(f" {text}", (), (), "stop")


# -- of the right option --------------------------------------------------------------------------

_HIDDEN = "[...]"
_OPENINGS = (r"\boxed{", r"\fbox{", "####", "<answer>")  # of an answer
_LONG = 200  # characters of an answer, from which on its borders need not be looked at


def option_probability(logprobs: Sequence[float | None], index: int) -> float | None:
    """Probability of one of several options, renormalised over them; None where one is unknown."""
    known = [logp for logp in logprobs if logp is not None]
    if len(known) != len(logprobs):
        return None
    largest = max(known)
    return math.exp(known[index] - largest) / math.fsum(math.exp(x - largest) for x in known)


@REWARDS.register(
    "listener",
    paper="arXiv:2506.22832, eq. 3",
    traits={
        "example": {
            "sum": [
                {"format": "<think>.+</think>.+"},
                {"choice": {"weight": 0.5}},
                {"listener": {"weight": 0.5}},
            ]
        }
    },
)
@dataclass(kw_only=True)
class Listener(TokenScored):
    """Probability that a frozen listener gives the right option after reading the reasoning.

    Range: [0, 1]. The listener sees the question, the options and the sample's reasoning with its
    answer hidden, and its probability is renormalised over the options. A sample without reasoning
    gets the probability of a blind guess, 1 / options. None where the listener has no finite
    answer. The paper pays ``format + 0.5 exact + 0.5 listener``: a sum in the recipe.

    Args:
        column: the column of the problem with the right option, spelled as in ``options_column``.
        options_column: the column with the options, at least two strings.
        markers: how the answer that is hidden is found in the response.

    Source: "Listener-Rewarded Thinking in VLMs for Image Preferences", arXiv:2506.22832, eq. 3;
    here the listener is a language model and reads text.
    """

    need: ClassVar[Need] = "frozen_logprobs"

    column: str = "answer"
    options_column: str = "options"
    markers: tuple[Marker, ...] = DEFAULT_MARKERS

    def check(self, problem: Problem) -> None:
        """Raises GoldError that names the problem where its options or its answer will not do."""
        try:
            self._options(problem)
        except GoldError as error:
            raise GoldError(f"problem {problem.id!r}: {error}") from None

    def _options(self, problem: Problem) -> tuple[list[str], int]:
        """The options, and which one is right."""
        listed, answer = column(problem, self.options_column), column(problem, self.column)
        texts = isinstance(listed, Sequence) and all(isinstance(o, str) and o for o in listed)
        if isinstance(listed, str) or not texts or not 2 <= len(set(listed)) == len(listed):
            raise GoldError(
                f"column {self.options_column!r} is {repr(listed)[:80]}, "
                "expected a list of at least two different strings"
            )
        if answer not in listed:
            raise GoldError(
                f"column {self.column!r} is {repr(answer)[:80]}, expected one of the options "
                f"{repr(list(listed))[:80]}; spell it like the option"
            )
        return list(listed), list(listed).index(answer)

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Asks the listener about every option after every sample's reasoning."""
        pairs = []
        for group in groups:
            options, _ = self._options(group.problem)
            for sample in group.samples:
                if reasoning := hidden_reasoning(sample.text, self.markers):
                    heard = self._heard(group.problem.prompt, options, reasoning)
                    pairs += [(heard, written(option)) for option in options]
        found = iter(self.token_scores(pairs))
        scores: list[list[Score]] = []
        for group in groups:
            options, right = self._options(group.problem)
            scores.append([])
            for sample in group.samples:
                value: float | None = 1 / len(options)
                if hidden_reasoning(sample.text, self.markers):
                    logps = [total(next(found).logprobs) for _ in options]
                    value = option_probability(logps, right)
                scores[-1].append(self.scored(value, f"an option has {_NO_TOKENS}", {}))
        return scores

    def _heard(self, prompt: Prompt, options: Sequence[str], reasoning: str) -> str:
        listed = "\n".join(f"- {option}" for option in options)
        asked = transcript(prompt)
        return f"{asked}\nOptions:\n{listed}\nReasoning: {reasoning}\nThe answer is:"


def hidden_reasoning(text: str, markers: Sequence[Marker] = DEFAULT_MARKERS) -> str:
    """The reasoning of a response with its answer hidden; empty where there is none.

    What stands before the last ``</think>``, or else before the answer; in it the answer is hidden
    wherever it stands as whole words, in the spelling of the answer.
    """
    thought, closed, _ = text.rpartition("</think>")
    answer = extract(text, markers)
    if not closed:
        # Several boxes are one answer, which then stands nowhere as such.
        places = (text.rfind(answer), text.find(r"\boxed")) if answer else ()
        thought = text[: next((at for at in places if at >= 0), len(text))]
        thought = thought.rstrip(" \n\t$")
        for opening in _OPENINGS:
            thought = thought.removesuffix(opening)
    if answer and len(answer) < _LONG:
        thought = re.sub(rf"(?<!\w){re.escape(answer)}(?!\w)", _HIDDEN, thought)
    elif answer:
        thought = thought.replace(answer, _HIDDEN)
    words = thought.replace("<think>", "").strip(" \n\t$")
    return words if re.search(r"\w{2}", words.replace(_HIDDEN, "")) else ""
