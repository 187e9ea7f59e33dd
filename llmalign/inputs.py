"""What advantages, token weights and losses may ask for by the names of their positional
parameters, and what a recipe must say so that the loop has it.

A new advantage or loss that needs what is listed here needs no other change; a new kind of input is
one line here and one in ``llmalign.prepare``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from llmalign.schema import Recipe
from llmalign.verifiers.registry import Entry

Condition = tuple[Callable[[Recipe], Any], str]  # whether the recipe gives it; how it would

ALWAYS: Condition = (lambda recipe: True, "")
TREE: Condition = (lambda recipe: recipe.sampling.tree, "samples that branch: set sampling.tree")
CRITIC: Condition = (lambda recipe: recipe.critic, "a critic: set critic, at least `critic: {}`")


def _node(name: str) -> Condition:
    return (
        lambda recipe: name in recipe.advantage.inputs,
        f"a value per sample: name the reward node that gives it, advantage.inputs.{name}",
    )


# Step scores and comparisons come with the scores; the loop says so if a step's scores have none.
ADVANTAGE_INPUTS: Mapping[str, Condition] = {
    **dict.fromkeys(("reward_B", "group_B", "mask_BT", "penalty_BT", "seed"), ALWAYS),
    **dict.fromkeys(("step_reward_BK", "step_end_BK"), ALWAYS),
    **dict.fromkeys(("margin_BB", "margin_BJ", "reference_B"), ALWAYS),
    "value_BT": CRITIC,
    "path_BD": TREE,
    "step_end_BD": TREE,
    "delta_B": _node("delta_B"),
    "gap_B": _node("gap_B"),
}
WEIGHT_INPUTS: Mapping[str, Condition] = {
    **dict.fromkeys(("entropy_BT", "group_B", "mask_BT"), ALWAYS),
    **dict.fromkeys(("local_BTT", "global_BTT", "span_BS2", "value_BS"), ALWAYS),
    "path_BD": TREE,
    "step_end_BD": TREE,
}
LOSS_INPUTS: Mapping[str, Condition] = dict.fromkeys(
    (
        *("logp_BT", "logp_old_BT", "adv_BT", "mask_BT"),
        *("group_B", "seed", "ref_kl_BT", "logp_end_BT"),
    ),
    ALWAYS,
)


def check_inputs(recipe: Recipe, entry: Entry, where: str, known: Mapping[str, Condition]) -> None:
    """Raises ValueError, with the way out, unless the recipe gives all that ``entry`` asks for."""
    for name in entry.inputs:
        if name not in known:
            raise ValueError(
                f"{where} is {entry.name!r}, which asks for {name}; no loop has that, it can be "
                "called from Python only"
            )
        given, way_out = known[name]
        if not given(recipe):
            raise ValueError(f"{where} is {entry.name!r}, which needs {way_out}")
