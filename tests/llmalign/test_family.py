from pathlib import Path

import pytest

from llmalign.advantages import ADVANTAGES
from llmalign.family import in_one_line, with_tables
from llmalign.losses import LOSSES
from llmalign.presets import PRESETS
from llmalign.recipe import RecipeLoader
from llmalign.token_weights import TOKEN_WEIGHTS

PAGE = Path(__file__).parents[2] / "docs" / "algorithms.md"


def test_the_page_of_algorithms_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert with_tables(page) == page, "run: python -m llmalign.family docs/algorithms.md"


@pytest.mark.parametrize(
    "names",
    [
        PRESETS,
        [entry.name for entry in ADVANTAGES.entries()],
        [entry.name for entry in TOKEN_WEIGHTS.entries()],
        [e.name for e in LOSSES.entries() if e.traits["stage"] in ("policy", "supervised")],
    ],
    ids=["algorithms", "advantages", "token weights", "losses"],
)
def test_everything_registered_stands_on_it(names) -> None:
    page = PAGE.read_text()
    assert not [name for name in names if f"| `{name}` |" not in page]


@pytest.mark.parametrize("name", PRESETS)
def test_choices_in_one_line_are_what_a_recipe_would_read(name) -> None:
    import yaml

    line = in_one_line(PRESETS[name].choices)
    assert yaml.load("{" + line + "}", Loader=RecipeLoader) == PRESETS[name].choices


def test_a_table_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown table 'advantage'; did you mean 'advantages'"):
        with_tables("<!-- table: advantage -->\n<!-- end -->\n")
