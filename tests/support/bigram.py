"""A small language model for tests: characters, counted as it reads."""

import math
from collections import Counter
from collections.abc import Sequence

from llmalign.rewards import Sample
from llmalign.rewards.base import Prompt, TokenScores

VOCABULARY = [chr(code) for code in (10, *range(32, 127))]
SMOOTHING = 0.05


def sampled(text: str) -> Sample:
    """A sample whose tokens are its characters."""
    return Sample(text, tuple(map(ord, text)), (0.0,) * len(text), "eos")


class BigramModel:
    """P(next | last) from the bigrams of the prompt and of what it has read since, smoothed.

    ``asked`` lists the prompts of each call. ``hidden`` is the mean one-hot vector of the tokens.
    """

    def __init__(self) -> None:
        self.asked: list[list[Prompt]] = []

    def __call__(
        self, pairs: Sequence[tuple[Prompt, Sample]], *, hidden: bool = False
    ) -> list[TokenScores]:
        self.asked.append([prompt for prompt, _ in pairs])
        return [self._score(prompt, sample, hidden) for prompt, sample in pairs]

    def _score(self, prompt: Prompt, sample: Sample, hidden: bool) -> TokenScores:
        text = prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)
        read = "\n" + text + "\n"
        tokens = [chr(code) for code in sample.token_ids] or list(sample.text)
        seen = Counter(zip(read, read[1:], strict=False))
        last, rows = read[-1], []
        for token in tokens:
            rows.append(self._token([seen[last, v] + SMOOTHING for v in VOCABULARY], token))
            seen[last, token] += 1
            last = token
        share = [tokens.count(v) / len(tokens) for v in VOCABULARY] if hidden and tokens else []
        columns = [tuple(column) for column in zip(*rows, strict=True)] or [(), (), ()]
        return TokenScores(columns[0], columns[1], columns[2], tuple(share))

    def _token(self, weights: Sequence[float], token: str) -> tuple[float, float, float]:
        total = sum(weights)
        logps = [math.log(weight / total) for weight in weights]
        entropy = -sum(math.exp(logp) * logp for logp in logps)
        return logps[VOCABULARY.index(token)], entropy, -sum(logps) / len(logps)
