"""Verifiers say whether an answer is right. They know neither rewards nor tensors."""

from llmalign.verifiers.registry import Registry
from llmalign.verifiers.verdict import GoldError, Judgement, Verdict

# A verifier is a function ``judge(text, gold, *, options) -> Judgement``. Its traits:
# ``signature`` (all that can change a verdict, such as "math|v1"), ``check_gold`` (raises
# GoldError, cheap enough for a whole data set) and ``preload`` (modules a worker imports first).
# Further, where they are needed: ``budget_s(gold, options)`` (wall time one judgement may take,
# where that may exceed the pool's limit), ``prepare(**options)`` (run once in a worker, outside any
# time limit; what it raises is the caller's error), ``audit_row(row)`` (text, gold and options of
# a labelled row, for ``llmalign verify``).
VERIFIERS = Registry("verifier")

from llmalign.verifiers import (  # noqa: E402  (they register themselves)
    choice,
    code,
    countdown,
    format,
    ifeval,
    json_schema,
    math,
    pattern,
    quantity,
    sql,
    text,
    toolcall,
)

__all__ = [
    "VERIFIERS",
    "GoldError",
    "Judgement",
    "Verdict",
    "choice",
    "code",
    "countdown",
    "format",
    "ifeval",
    "json_schema",
    "math",
    "pattern",
    "quantity",
    "sql",
    "text",
    "toolcall",
]
