"""Evaluation: benchmarks run on held-out problems, and the statistics of what came out."""

from llmalign.evaluation.passk import (
    ProblemRecord,
    bootstrap_interval,
    majority_at_k,
    pass_at_k,
    summarize,
)

__all__ = ["ProblemRecord", "bootstrap_interval", "majority_at_k", "pass_at_k", "summarize"]
