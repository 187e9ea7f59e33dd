"""How far a response is from a demonstration, clause by clause."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmalign.rewards.base import Group, Score
from llmalign.rewards.embed import Vector, cosine_matrix, ngram_embeddings, sentence_embeddings
from llmalign.rewards.references import TextOnly, answer_text, references
from llmalign.rewards.tree import REWARDS
from llmalign.verifiers import GoldError

_CLAUSE_END = re.compile(r"[.,;:!?…]+(?=\s|$)|[。，、；：！？]|\n")


@REWARDS.register(
    "clause_distance",
    paper="DR-IRL (GRPO-S), ICLR 2026",
    traits={"example": {"sum": ["refusal", {"clause_distance": {"weight": 0.0}}]}},
)
@dataclass(kw_only=True)
class ClauseDistance(TextOnly):
    """How far a response is from the problem's demonstration: the delta of ``grpo_s``.

        delta = 1 - mean over the demonstration's clauses of the largest cosine to a clause of the
                response

    Range: [0, 1]; 0 where every clause of the demonstration is there, 1 for a response without a
    clause. None where the problem has no demonstration, or a vector is missing for all of it. It
    is a distance: as a reward it wants a weight below 0, as an input of ``grpo_s`` weight 0.

    Args:
        column: the column with the demonstration: a text, or a list of texts of which the nearest
            counts.
        embedder: what vectors of the clauses are made with: ``ngrams``: hashed words and
            characters, no model; ``sentence_transformers``: the model named by ``model``.
        model: name or folder of a sentence-transformers model.

    Source: DR-IRL, ICLR 2026, from a digest. What a clause is and the vectors of the paper were
    not found: here clauses end at punctuation before a space and at line ends, and cosines below 0
    count 0.
    """

    name: str
    column: str = "demonstration"
    embedder: Literal["ngrams", "sentence_transformers"] = "ngrams"
    model: str | None = None

    def __post_init__(self) -> None:
        if (self.embedder == "sentence_transformers") != (self.model is not None):
            raise ValueError(
                f"model is {self.model!r} and embedder is {self.embedder!r}; "
                "embedder 'sentence_transformers' needs a model, the other takes none"
            )

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Embeds the clauses of a group at once."""
        return [self._scores(group) for group in groups]

    def _scores(self, group: Group) -> list[Score]:
        try:
            texts = references(group.problem, self.column)
        except GoldError:
            return [self._none("no demonstration")] * len(group.samples)
        shown = [clauses(text) for text in texts]
        said = [clauses(answer_text(sample)) for sample in group.samples]
        vectors = self._embed(list(dict.fromkeys(sum([*shown, *said], []))))
        return [self._score(shown, own, vectors) for own in said]

    def _embed(self, texts: list[str]) -> dict[str, Vector | None]:
        made = sentence_embeddings(texts, self.model) if self.model else ngram_embeddings(texts)
        return dict(zip(texts, made, strict=True))

    def _score(
        self,
        shown: Sequence[Sequence[str]],
        said: Sequence[str],
        vectors: dict[str, Vector | None],
    ) -> Score:
        response = [vectors[clause] for clause in said]
        found = [clause_distance([vectors[c] for c in one], response) for one in shown]
        known = [distance for distance in found if distance is not None]
        if not known:
            return self._none("no vector for the demonstration")
        return Score(min(known), {self.name: min(known)})

    def _none(self, why: str) -> Score:
        return Score(None, {self.name: None}, note=f"{self.name}: {why}")


def clauses(text: str) -> list[str]:
    """The parts of a text between punctuation that hold a letter or a digit."""
    parts = (part.strip() for part in _CLAUSE_END.split(text))
    return [part for part in parts if any(map(str.isalnum, part))]


def clause_distance(
    demonstration: Sequence[Vector | None], response: Sequence[Vector | None]
) -> float | None:
    """1 - mean_k max_l max(cos(d_k, r_l), 0), in [0, 1].

    Args:
        demonstration, response: one vector per clause, all of one length; None is left out.
    Returns:
        None where the demonstration has no vector; 1 where only the response has none.
    Source: DR-IRL, ICLR 2026, from a digest.
    """
    wanted = [vector for vector in demonstration if vector is not None]
    there = [vector for vector in response if vector is not None]
    if not wanted:
        return None
    if not there:
        return 1.0
    cosines = cosine_matrix([*wanted, *there])
    nearest = [max(c or 0.0 for c in row[len(wanted) :]) for row in cosines[: len(wanted)]]
    return 1 - sum(nearest) / len(nearest)
