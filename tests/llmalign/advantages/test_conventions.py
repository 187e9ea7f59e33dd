import pytest

from llmalign.advantages import ADVANTAGES, convention
from llmalign.advantages.conventions import CONVENTIONS
from llmalign.inputs import ADVANTAGE_INPUTS

PAIRS = [(trainer, name) for trainer, known in CONVENTIONS.items() for name in known]


@pytest.mark.parametrize(("trainer", "name"), PAIRS)
def test_every_convention_is_a_full_set_of_options(trainer: str, name: str) -> None:
    entry = ADVANTAGES.get(name, "conventions")
    given = convention(trainer, name)
    assert entry.resolve(given, "conventions") == given


def test_changing_what_was_returned_changes_no_convention() -> None:
    convention("trl", "group")["eps"] = 1.0
    assert convention("trl", "group")["eps"] == 1e-4


@pytest.mark.parametrize(
    ("trainer", "name", "message"),
    [
        ("tlr", "group", "unknown convention 'tlr'; did you mean 'trl'"),
        ("trl", "grup", "unknown trl advantage 'grup'; did you mean 'group'"),
    ],
)
def test_what_we_do_not_know_is_named(trainer: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convention(trainer, name)


@pytest.mark.parametrize("entry", ADVANTAGES.entries(), ids=lambda entry: entry.name)
def test_every_advantage_asks_for_what_a_recipe_can_give(entry) -> None:
    assert set(entry.inputs) <= ADVANTAGE_INPUTS.keys()
    assert entry.paper and entry.summary.endswith(".")
