"""Pays answers whose tokens lie near those of a reference: matching of token embeddings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from llmalign.rewards.base import EmbedTokens, Group, Need, Problem, Score, Services
from llmalign.rewards.references import answer_text, named_score, references
from llmalign.rewards.tree import REWARDS

if TYPE_CHECKING:
    import numpy as np

Vectors = Sequence[Sequence[float]]  # one per token; an array is as good

_ROWS = 512  # tokens of the answer that are compared at once


def max_average_similarity(
    answer: "Vectors | np.ndarray", reference: "Vectors | np.ndarray"
) -> tuple[float, float, float] | None:
    """Bidirectional max-average similarity of two lists of token vectors.

        precision = mean over tokens a of the answer of     max_r cos(a, r)
        recall    = mean over tokens r of the reference of  max_a cos(a, r)
        value     = (precision + recall) / 2

    A vector of zeros is like nothing: its cosines are 0.

    Returns:
        value, precision and recall, each in [-1, 1]; None where a side has no token or a vector
        is not finite.
    Source: Mixed-R1, arXiv:2505.24164; reconstructed from its abstract and the method's name.
    """
    import numpy as np  # late: importing rewards stays cheap

    sides = [np.asarray(side, dtype=np.float64) for side in (answer, reference)]
    if any(side.size == 0 or not np.isfinite(side).all() for side in sides):
        return None
    a_AD, r_RD = (_directions(side) for side in sides)
    nearest_A = np.empty(len(a_AD))
    nearest_R = np.full(len(r_RD), -1.0)
    for start in range(0, len(a_AD), _ROWS):
        cosine_CR = np.clip(a_AD[start : start + _ROWS] @ r_RD.T, -1.0, 1.0)
        nearest_A[start : start + _ROWS] = cosine_CR.max(axis=1)
        nearest_R = np.maximum(nearest_R, cosine_CR.max(axis=0))
    precision, recall = float(nearest_A.mean()), float(nearest_R.mean())
    return (precision + recall) / 2, precision, recall


def _directions(vectors_ND: "np.ndarray") -> "np.ndarray":
    import numpy as np

    largest_N1 = np.abs(vectors_ND).max(axis=1, keepdims=True)
    scaled_ND = vectors_ND / np.where(largest_N1 > 0, largest_N1, 1.0)  # squares do not overflow
    length_N1 = np.linalg.norm(scaled_ND, axis=1, keepdims=True)
    directions_ND: np.ndarray = scaled_ND / np.where(length_N1 > 0, length_N1, 1.0)
    return directions_ND


@REWARDS.register(
    "bmas",
    paper="Mixed-R1, arXiv:2505.24164",
    traits={"example": {"bmas": {"column": "references"}}},
)
@dataclass(kw_only=True)
class Bmas:
    """How near the tokens of the answer lie to those of a reference, both ways (BMAS).

    For each token of one side the greatest cosine with any token of the other, averaged over its
    side; then the mean of the two sides. Range: [-1, 1], in practice above 0, as tables of
    embeddings have a common direction. 0 for an answer without tokens, which matches nothing; None
    where an embedding is not finite or a reference has no token. Of several references the best
    one counts. Aspects, for the name ``bmas``: ``bmas.precision`` (of the answer's tokens),
    ``bmas.recall`` (of the reference's).

    The order of the tokens does not count, and nothing in the paper's abstract guards against
    repetition: one token of the reference, said any number of times, has precision 1 and loses
    only recall. Pay a reward for variety or length beside this one.

    Args:
        column: the column with the reference, or with a list of several.

    Source: Mixed-R1, arXiv:2505.24164. Its abstract names the measure and that it matches
    tokenizer embeddings of response and ground truth; the formula is reconstructed from the name.
    Ours: the embeddings are the input embeddings of the policy as the run started, the answer is
    what stands in the last ``<answer>``, or after the thinking, and several references.
    """

    need: ClassVar[Need] = "frozen_embeddings"

    name: str
    column: str = "references"

    def __post_init__(self) -> None:
        if not self.column:
            raise ValueError("column is '', expected the name of the column with the references")
        self._embed: EmbedTokens | None = None

    def bind(self, services: Services) -> None:
        """Takes the host's embeddings; before ``score``."""
        self._embed = services.embed_tokens

    def check(self, problem: Problem) -> None:
        """Raises GoldError that names the problem where it has no reference."""
        references(problem, self.column)

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Embeds the answers and references of a group at once."""
        if self._embed is None:
            raise RuntimeError(
                f"reward {self.name!r} needs token embeddings and was given none; "
                "score through a training run"
            )
        return [self._score(group, self._embed) for group in groups]

    def _score(self, group: Group, embed: EmbedTokens) -> list[Score]:
        texts = references(group.problem, self.column)
        answers = [answer_text(sample) for sample in group.samples]
        distinct = list(dict.fromkeys([*answers, *texts]))
        vectors = dict(zip(distinct, embed(distinct), strict=True))
        return [self._one(vectors[a], [vectors[text] for text in texts]) for a in answers]

    def _one(self, answer: "np.ndarray", golds: "Sequence[np.ndarray]") -> Score:
        if len(answer) == 0 and all(len(gold) for gold in golds):
            return named_score(self.name, _parts((0.0, 0.0, 0.0)))
        found = [max_average_similarity(answer, gold) for gold in golds]
        known = [one for one in found if one is not None]
        if len(known) < len(found):
            note = f"{self.name}: an embedding is not finite, or a reference has no token"
            return Score(None, {self.name: None}, note=note)
        return named_score(self.name, _parts(max(known)))


def _parts(found: tuple[float, float, float]) -> Mapping[str, float]:
    return dict(zip(("", "precision", "recall"), found, strict=True))
