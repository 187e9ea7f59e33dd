"""Coefficients that follow what is measured: of the KL term and of the entropy bonus."""

from typing import Any

from llmalign.losses.entropy import adaptive_entropy_coef
from llmalign.losses.policy.kl_control import adaptive_kl_coef
from llmalign.schema import Recipe


class Controls:
    """The coefficients of the next step; constant where the recipe gives no target.

    Attributes:
        kl_coef: of the KL term.
        entropy_bonus: of the entropy, 0 where the control switches it off.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._kl, self._entropy = recipe.kl, recipe.entropy
        self.kl_coef = recipe.kl.coef
        self.entropy_bonus = self._carried = recipe.entropy.bonus

    def after_step(
        self, *, kl: float | None, entropy: float | None, num_samples: int
    ) -> dict[str, float]:
        """Takes in the mean KL and entropy per token of a step, in nats; None: not measured.

        Returns: the coefficients that the step was trained with, by metric, where they move.
        """
        used = {}
        if self._kl.target is not None:
            used["kl_coef"] = self.kl_coef
            if kl is not None:
                self.kl_coef = adaptive_kl_coef(
                    self.kl_coef,
                    kl=kl,
                    target=self._kl.target,
                    horizon=self._kl.horizon,
                    num_samples=num_samples,
                )
        goal = self._entropy.adaptive
        if goal is not None:
            used["entropy_bonus"] = self.entropy_bonus
            if entropy is not None:
                self.entropy_bonus, self._carried = adaptive_entropy_coef(
                    self._carried,
                    entropy,
                    target=goal.target,
                    step=goal.step,
                    coef_min=goal.low,
                    coef_max=goal.high,
                )
        return used

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"kl": self.kl_coef, "bonus": self.entropy_bonus, "carried": self._carried}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what ``state_dict`` returned."""
        self.kl_coef, self.entropy_bonus = state["kl"], state["bonus"]
        self._carried = state["carried"]
