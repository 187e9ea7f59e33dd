"""Vectors of texts, and how similar they are."""

import importlib
import math
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from llmalign.rewards.base import Prompt, Sample, Scorer

Vector = Sequence[float]

_WORD = re.compile(r"\w+|[^\w\s]")
_CHARACTERS = 4  # length of a character n-gram


def policy_embeddings(
    pairs: Sequence[tuple[Prompt, Sample]], policy: Scorer
) -> list[Vector | None]:
    """Per (prompt, sample) the mean over its tokens of the policy's last hidden state.

    None where that is empty or not finite.
    """
    return [_usable(scores.hidden) for scores in policy(pairs, hidden=True)]


def ngram_embeddings(texts: Sequence[str], *, dimensions: int = 4096) -> list[Vector | None]:
    """Hashed counts of words, pairs of words and runs of 4 characters; needs no model.

    A feature seen n times adds 1 + log(n) with the sign of its hash, so that features that share
    a place cancel on average. The hash is the same on every machine. None for a text without
    features.
    """
    return [_usable(_hashed(text.lower(), dimensions)) for text in texts]


def _hashed(text: str, dimensions: int) -> list[float]:
    words = _WORD.findall(text)
    joined = " ".join(words)
    counts: Counter[str] = Counter(words)
    counts.update(f"{a} {b}" for a, b in zip(words, words[1:], strict=False))
    counts.update(f"#{joined[i : i + _CHARACTERS]}" for i in range(len(joined) - _CHARACTERS + 1))
    vector = [0.0] * dimensions
    for feature, count in counts.items():
        code = zlib.crc32(feature.encode())
        sign = 1.0 if code & 1 else -1.0
        vector[(code >> 1) % dimensions] += sign * (1.0 + math.log(count))
    return vector


def sentence_embeddings(texts: Sequence[str], model: str) -> list[Vector | None]:
    """Vectors of a sentence-transformers model, by name or folder; it is loaded once.

    None where a vector is not finite. What a text has beyond the model's own limit is cut there.

    Raises:
        RuntimeError: the package is missing.
    """
    vectors = _sentence_model(model).encode(list(texts), show_progress_bar=False)
    return [_usable([float(x) for x in vector]) for vector in vectors]


@lru_cache(maxsize=2)
def _sentence_model(model: str) -> Any:
    try:
        package = importlib.import_module("sentence_transformers")
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "embedder is 'sentence_transformers' and that package is missing; "
            "run: pip install sentence-transformers, or choose embedder 'policy' or 'ngrams'"
        ) from error
    return package.SentenceTransformer(model)


def _usable(vector: Vector) -> Vector | None:
    finite = len(vector) > 0 and all(map(math.isfinite, vector))
    return vector if finite and any(vector) else None


def cosine_matrix(vectors: Sequence[Vector | None]) -> list[list[float | None]]:
    """Cosine of every pair of vectors, clipped to [0, 1]; None where one of the two is missing.

    Raises:
        ValueError: the vectors have different lengths.
    """
    import numpy as np  # late: importing rewards stays cheap

    there = [i for i, vector in enumerate(vectors) if vector is not None]
    lengths = {len(v) for v in vectors if v is not None}
    if len(lengths) > 1:
        raise ValueError(f"vectors have lengths {sorted(lengths)}, expected one length")
    matrix: list[list[float | None]] = [[None] * len(vectors) for _ in vectors]
    if not there:
        return matrix
    stacked = np.array([vectors[i] for i in there], dtype=np.float64)
    stacked /= np.abs(stacked).max(axis=1, keepdims=True)  # squares neither overflow nor vanish
    stacked /= np.linalg.norm(stacked, axis=1, keepdims=True)
    cosines = np.clip(stacked @ stacked.T, 0.0, 1.0).tolist()
    for i, row in zip(there, cosines, strict=True):
        for j, value in zip(there, row, strict=True):
            matrix[i][j] = value
    return matrix
