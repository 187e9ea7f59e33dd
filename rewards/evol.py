"""Rewards the majority answer, and among equal answers the reasoning unlike the others."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmalign.rewards.base import Group, Need, Score, Services
from llmalign.rewards.embed import (
    Vector,
    cosine_matrix,
    ngram_embeddings,
    policy_embeddings,
    sentence_embeddings,
)
from llmalign.rewards.majority import Answers, Voted, majority_vote
from llmalign.rewards.tree import REWARDS
from llmalign.verifiers.extract import extract

Embedder = Literal["policy", "ngrams", "sentence_transformers"]
Bands = Literal["released", "paper"]

MAJORITY_BAND = (0.5, 1.0)
MINORITY_BAND = (-1.0, -0.5)
INVALID = -1.0
_SAME = 1e-9  # novelty that differs by less is a tie: cosines are only that exact


def novelty(
    similarity: Sequence[Sequence[float | None]], in_majority: Sequence[bool | None]
) -> list[float | None]:
    """How unlike the others each sample is.

        1 - (mean similarity to its own side + largest similarity to anyone) / 2

    Sides are majority and minority; without company on its own side, the mean is over all others.
    None for a sample that is left out or has nobody to compare with.

    Args:
        similarity: of each pair, in [0, 1].
        in_majority: the side of each sample; None leaves it out.
    Source: Zhou et al. 2025 (EVOL-RL), arXiv:2509.15194.
    """
    return [_novelty(i, similarity[i], in_majority) for i in range(len(in_majority))]


def _novelty(
    index: int, row: Sequence[float | None], in_majority: Sequence[bool | None]
) -> float | None:
    side = in_majority[index]
    others = [
        (value, other)
        for j, (value, other) in enumerate(zip(row, in_majority, strict=True))
        if j != index and value is not None and other is not None
    ]
    if side is None or not others:
        return None
    near = [value for value, other in others if other == side] or [value for value, _ in others]
    return 1.0 - 0.5 * (sum(near) / len(near)) - 0.5 * max(value for value, _ in others)


def evol_rewards(
    raw: Sequence[float | None],
    in_majority: Sequence[bool | None],
    *,
    mapping: Bands = "released",
) -> list[float]:
    """Side and novelty of the samples of one group to rewards.

    Novelty is stretched to [0, 1] on each side (0.5 where a side of several ties, 1 for a lone
    member) and fills the band of the side: [0.5, 1] for the majority, [-1, -0.5] for the minority.
    Invalid samples get -1.

    Args:
        raw: ``novelty`` of each sample; where a valid one has none it counts as a lone member.
        in_majority: the side of each sample; None for an invalid one.
        mapping: ``released``: the only valid sample among invalid ones gets -1, and a group of one
            the plain 1 or 0 of the vote; ``paper``: the bands hold for these too.
    Source: Zhou et al. 2025 (EVOL-RL), arXiv:2509.15194.
    """
    valid = [side for side in in_majority if side is not None]
    if mapping == "released" and len(valid) == 1:
        return [float(valid[0])] if len(in_majority) == 1 else [INVALID] * len(in_majority)
    rewards = [INVALID] * len(in_majority)
    for side, (low, high) in ((True, MAJORITY_BAND), (False, MINORITY_BAND)):
        members = [i for i, own in enumerate(in_majority) if own is side]
        stretched = _stretch([raw[i] for i in members])
        for i, share in zip(members, stretched, strict=True):
            rewards[i] = low + (high - low) * share
    return rewards


def _stretch(values: Sequence[float | None]) -> list[float]:
    known = [value for value in values if value is not None]
    if len(values) < 2 or not known:
        return [1.0] * len(values)
    low, high = min(known), max(known)
    if high - low < _SAME:
        return [0.5] * len(values)
    return [1.0 if value is None else (value - low) / (high - low) for value in values]


@REWARDS.register(
    "evol", paper="EVOL-RL, arXiv:2509.15194", traits={"example": {"evol": {"embedder": "policy"}}}
)
@dataclass(kw_only=True)
class Evol(Voted):
    """Majority answers get [0.5, 1], others [-1, -0.5], more for reasoning unlike the group's.

    Range: [-1, -0.5] and [0.5, 1]; 0 or 1 for a group of one under ``released``. A sample without a
    readable answer gets -1 and is compared with nobody; None where the verifier could not tell, or
    where there is no vector for the reasoning. Aspects, for the name ``evol``: ``evol_novelty``,
    ``evol_majority`` (1 or 0), ``evol_ratio``.

    Args:
        embedder: what vectors of the reasoning are made with: ``policy``: its mean hidden state
            over the tokens of the sample; ``ngrams``: hashed words and characters, no model;
            ``sentence_transformers``: the model named by ``model``. The last two read what stands
            after the first ``</think>``, or all.
        model: name or folder of a sentence-transformers model, such as ``Qwen/Qwen3-Embedding-4B``.
        mapping: ``released`` or ``paper``; they differ where only one answer is readable, see
            ``evol_rewards``.
        digits: an answer without any digit is invalid, as in the released code; that rules out
            letters of a choice and symbols.
        markers: how the answer is found in the response, as for ``math``.

    Source: Zhou et al. 2025, arXiv:2509.15194. Unlike the released code, a failure to embed makes
    no random vector, and an answer need hold no digit.
    """

    embedder: Embedder = "policy"
    model: str | None = None
    mapping: Bands = "released"
    digits: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.embedder == "sentence_transformers") != (self.model is not None):
            raise ValueError(
                f"model is {self.model!r} and embedder is {self.embedder!r}; "
                "embedder 'sentence_transformers' needs a model, the others take none"
            )

    @property
    def need(self) -> Need:
        """The policy's hidden states, or only the group."""
        return "policy_logprobs" if self.embedder == "policy" else "groupwise"

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Lets each group vote, then compares its reasoning."""
        answered = self.answered(groups)
        vectors = iter(self._embed(groups, self.services()))
        return [
            self._score(group, answers, [next(vectors) for _ in group.samples])
            for group, answers in zip(groups, answered, strict=True)
        ]

    def _embed(self, groups: Sequence[Group], services: Services) -> list[Vector | None]:
        pairs = [(group.problem.prompt, s) for group in groups for s in group.samples]
        if self.embedder == "policy":
            if services.policy is None:
                raise RuntimeError(
                    f"reward {self.name!r} needs the policy's hidden states and the host lends no "
                    "policy scorer; choose embedder 'ngrams' or 'sentence_transformers'"
                )
            return policy_embeddings(pairs, services.policy)
        texts = [_after_first_thought(sample.text) for _, sample in pairs]
        return sentence_embeddings(texts, self.model) if self.model else ngram_embeddings(texts)

    def _score(
        self, group: Group, answers: Answers, vectors: Sequence[Vector | None]
    ) -> list[Score]:
        classes = [self._valid(c, group.samples[i].text) for i, c in enumerate(answers.classes)]
        ballot = majority_vote(classes)
        sides = [
            None if c is None else agrees for c, agrees in zip(classes, ballot.agrees, strict=True)
        ]
        lacks = [self._lack(answers, i, sides[i], vectors[i]) for i in range(len(sides))]
        kept = [i for i, lack in enumerate(lacks) if not lack]
        kept_sides = [sides[i] for i in kept]
        raw = novelty(cosine_matrix([vectors[i] for i in kept]), kept_sides)
        values = evol_rewards(raw, kept_sides, mapping=self.mapping)
        value_of: dict[int, float] = dict(zip(kept, values, strict=True))
        novelty_of: dict[int, float | None] = dict(zip(kept, raw, strict=True))
        scores = []
        for i, (side, lack) in enumerate(zip(sides, lacks, strict=True)):
            aspects = {
                self.name: value_of.get(i),
                f"{self.name}_novelty": novelty_of.get(i),
                f"{self.name}_majority": None if side is None else float(side),
                f"{self.name}_ratio": ballot.ratio,
            }
            why = lack or ("no valid answer" if side is None else "")
            scores.append(
                Score(value_of.get(i), aspects, note=f"{self.name}: {why}" if why else "")
            )
        return scores

    def _valid(self, own: int | None, text: str) -> int | None:
        if self.digits and not re.search(r"\d", extract(text, self.markers) or ""):
            return None
        return own

    def _lack(self, answers: Answers, index: int, side: bool | None, vector: Vector | None) -> str:
        """Why a sample cannot be scored; empty where it can."""
        if not answers.known(index):
            return answers.judgements[index].why or "undecided"
        return "no vector for this sample" if side is not None and vector is None else ""


def _after_first_thought(text: str) -> str:
    before, closed, after = text.partition("</think>")
    return after if closed else before
