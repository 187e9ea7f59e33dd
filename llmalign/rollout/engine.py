"""What every rollout engine is: requests in, samples out as they finish."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from llmalign.rewards import Sample


@dataclass(frozen=True)
class SamplingParams:
    """The distribution to sample from and where to stop.

    ``temperature`` 0 takes the most likely token. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 keep the
    whole vocabulary; they apply in this order and renormalise on what is left. ``max_kept`` above 0
    records in each sample which tokens were left, at most so many at a position; 0 records nothing.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_kept: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """One completion to sample: a tokenised prompt and the seed of its own random stream.

    ``max_new_tokens`` is a limit of its own below that of the params; None: theirs.
    """

    prompt_ids: tuple[int, ...]
    seed: int
    max_new_tokens: int | None = None

    def limit(self, params: SamplingParams) -> int:
        """Most tokens that may be sampled for it."""
        own = self.max_new_tokens
        return params.max_new_tokens if own is None else min(own, params.max_new_tokens)


class Engine(Protocol):
    """Samples completions. Engines with weights of their own take them in ``sync``."""

    @property
    def weights_version(self) -> int:
        """Optimizer steps of the weights it samples with."""
        ...

    def generate(
        self, requests: Sequence[Request], params: SamplingParams
    ) -> Iterator[tuple[int, Sample]]:
        """(index of the request, sample), as each finishes, in any order.

        The log-probs of a sample are those of the distribution it was drawn from. What is drawn
        for a request depends on its prompt and seed, not on the requests beside it.
        """
        ...

    def sync(self, version: int) -> None:
        """Takes over the policy's weights as of optimizer step ``version``."""
        ...


def sample_seed(run_seed: int, *parts: object) -> int:
    """A 63-bit seed for one sample: the same for the same run seed and parts on every machine."""
    text = "\x1f".join(str(p) for p in (run_seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
