"""Verifiers say whether an answer is right. They know neither rewards nor tensors."""

from llmalign.verifiers.registry import Registry
from llmalign.verifiers.verdict import GoldError, Judgement, Verdict

# A verifier is a function ``judge(text, gold, *, options) -> Judgement``. Its traits:
# ``signature`` (all that can change a verdict, such as "math|v1"), ``check_gold`` (raises
# GoldError, cheap enough for a whole data set) and ``preload`` (modules a worker imports first).
VERIFIERS = Registry("verifier")

from llmalign.verifiers import countdown, math, pattern  # noqa: E402  (they register themselves)

__all__ = ["VERIFIERS", "GoldError", "Judgement", "Verdict", "countdown", "math", "pattern"]
