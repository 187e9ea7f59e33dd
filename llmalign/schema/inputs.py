"""Where a run starts from: the model and the data."""

from typing import Any, Literal

from pydantic import Field, model_validator

from llmalign.schema.base import Strict

Policy = Literal["error", "drop"]


class Lora(Strict):
    """Low-rank adapters (peft); the base model stays frozen and serves as the reference."""

    rank: int = Field(16, gt=0)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | list[str] = "all-linear"


class Model(Strict):
    """Where the policy comes from: ``path`` (hub name or folder) or ``build: tiny``."""

    path: str | None = None
    build: Literal["tiny"] | None = None
    build_options: dict[str, int | float | bool] = {}
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: Literal["sdpa", "eager", "flash_attention_2"] | None = None
    lora: Lora | None = None
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> "Model":
        if (self.path is None) == (self.build is None):
            raise ValueError(
                f"path is {self.path!r} and build is {self.build!r}, expected exactly one of them"
            )
        return self


class Source(Strict):
    """Rows: ``path`` (local JSONL/CSV/parquet or hub name) or ``generate`` (a seeded generator)."""

    path: str | None = None
    subset: str | None = None
    split: str = "train"
    generate: str | None = None
    count: int = Field(1000, gt=0)
    options: dict[str, Any] = {}
    seed: int = 0
    limit: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_source(self) -> "Source":
        if (self.path is None) == (self.generate is None):
            raise ValueError(
                f"path is {self.path!r} and generate is {self.generate!r}, "
                "expected exactly one of them"
            )
        return self


class Data(Strict):
    """What is trained on and what is held out."""

    train: Source
    eval: Source | None = None
    holdout: int = Field(0, ge=0)
    columns: dict[str, str] = {}
    template: str | None = None
    system: str | None = None
    chat: Literal["auto", "always", "never"] = "auto"
    on_bad_gold: Policy = "error"
    on_bad_row: Policy = "error"
    on_long_prompt: Policy = "error"
    max_prompt_tokens: int = Field(1024, gt=0)
    shuffle: bool = True

    @model_validator(mode="after")
    def _one_eval(self) -> "Data":
        if self.eval is not None and self.holdout:
            raise ValueError(
                f"holdout is {self.holdout} and eval is set, expected only one; set holdout to 0"
            )
        return self
