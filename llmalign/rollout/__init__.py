"""Rollout: problems in, groups of samples out."""

from llmalign.rollout.engine import Engine, Request, SamplingParams, sample_seed

__all__ = ["Engine", "Request", "SamplingParams", "sample_seed"]
