"""How a step is sampled: which problems, how completions are drawn, which of them are kept."""

from typing import Any, Literal

from pydantic import Field, model_validator

from llmalign.schema.base import Strict


class Rollout(Strict):
    """How completions are sampled.

    Under ``top_k``, ``top_p`` and ``min_p`` the tokens that could have been drawn are recorded, at
    most ``max_kept`` at a position, and old, new and reference policy are renormalised on them.
    """

    engine: Literal["hf"] = "hf"
    samples_per_problem: int = Field(8, gt=0)
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    max_kept: int = Field(1024, gt=0)
    max_new_tokens: int = Field(512, gt=0)
    stop: list[str] = []
    batch_size: int = Field(128, gt=0)


class Dynamic(Strict):
    """DAPO's dynamic sampling: replace groups whose ``metric`` does not differ, within a budget.

    ``metric`` is the name of a reward node; null is the recipe's reward before the overlong
    penalty. ``max_batches`` bounds the problems generated in one step, in units of
    ``problems_per_step``.
    """

    max_batches: int = Field(10, gt=0)
    metric: str | None = None


class CurriculumOptions(Strict):
    """Leaves out problems that are too easy or too hard for the policy as it is.

    Those whose running share of right samples (or mean of reward node ``metric``, in [0, 1]) lies
    outside [``low``, ``high``] after ``min_visits``, until ``recheck_after`` steps have passed; and
    after ``retire_after`` visits in a row that were all right or all wrong, for ``retire_for``
    steps. ``order`` deals the problems out by ``column``, where larger is harder. A step looks at
    ``max_looks`` times the problems it wants.
    """

    metric: str | None = None
    low: float = Field(0.2, ge=0, le=1)
    high: float = Field(0.8, ge=0, le=1)
    min_visits: int = Field(1, gt=0)
    recheck_after: int = Field(100, gt=0)
    decay: float = Field(0.5, ge=0, lt=1)
    retire_after: int | None = Field(None, gt=0)
    retire_for: int = Field(500, gt=0)
    order: Literal["none", "easy_first", "hard_first"] = "none"
    column: str | None = None
    max_looks: int = Field(20, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> "CurriculumOptions":
        if self.low > self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}, expected low <= high")
        if (self.order != "none") != (self.column is not None):
            raise ValueError(
                f"order is {self.order!r} and column is {self.column!r}, expected both or neither"
            )
        return self

    def filter_options(self) -> dict[str, Any]:
        """Those of ``llmalign.sampling.curriculum.Curriculum``."""
        return self.model_dump(exclude={"metric", "order", "column", "max_looks"})


class Replay(Strict):
    """Trains again on groups of earlier steps, their ratio taken to the policy that sampled them.

    A ``share`` of the groups of a step, none older than ``max_age`` optimizer steps, each at most
    ``max_uses`` times; of the ``capacity`` groups kept those nearest a pass rate of one half first
    (``pick: priority``), or drawn (``uniform``).
    """

    share: float = Field(0.25, gt=0, lt=1)
    capacity: int = Field(256, gt=0)
    max_age: int = Field(8, gt=0)
    max_uses: int = Field(1, gt=0)
    pick: Literal["priority", "uniform"] = "priority"


class TreeRl(Strict):
    """``trees`` samples of a problem, and from each in each of ``rounds`` ``per_point`` more from
    before its ``branches`` least likely tokens (TreeRL); not from its last ``tail`` tokens, nor
    behind a word of ``until``."""

    kind: Literal["treerl"]
    trees: int = Field(6, gt=0)
    branches: int = Field(2, ge=0)
    rounds: int = Field(1, ge=0)
    per_point: int = Field(2, gt=0)
    tail: int = Field(1, ge=0)
    until: list[str] = ["answer", "conclusion"]


class TreePo(Strict):
    """``width`` samples of a problem grown in segments of ``segment_tokens``, begun with a number
    drawn from ``first``, each open one forking into ``forks`` (TreePO)."""

    kind: Literal["treepo"]
    segment_tokens: int = Field(512, gt=0)
    width: int = Field(16, gt=0)
    first: tuple[int, int] = (2, 8)
    forks: int = Field(2, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> "TreePo":
        if not 1 <= self.first[0] <= self.first[1]:
            raise ValueError(f"first is {self.first}, expected (low, high) with 1 <= low <= high")
        return self


class Sampling(Strict):
    """Which problems make a step, and which of the scored samples of each are trained on.

    ``train_samples`` below the number sampled lets many be scored and few learn, those that
    ``select`` names (see ``llmalign.sampling.select``): the ``first``, as in TTRL; the ``best``;
    the largest ``spread`` of reward, as in PODS; ``balanced`` around the mean; ``random``. null:
    all. ``baseline``: whether an advantage compares the ``chosen`` samples with each other, or with
    ``all``. With a ``tree`` samples share their beginnings, and their number is the tree's.
    """

    problems_per_step: int = Field(8, gt=0)
    train_samples: int | None = Field(None, gt=0)
    select: Literal["first", "best", "spread", "balanced", "random"] = "first"
    baseline: Literal["chosen", "all"] = "chosen"
    dynamic: Dynamic | None = None
    curriculum: CurriculumOptions | None = None
    replay: Replay | None = None
    tree: TreeRl | TreePo | None = Field(None, discriminator="kind")
