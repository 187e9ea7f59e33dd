from typing import Literal

import pytest

from llmalign.verifiers import Verdict
from llmalign.verifiers.pattern import judge


@pytest.mark.parametrize(
    ("text", "pattern", "mode", "verdict"),
    [
        ("<a>x\ny</a>", "<a>.*</a>", "full", Verdict.RIGHT),
        (" <a>x</a>", "<a>.*</a>", "full", Verdict.WRONG),
        (" <a>x</a>", "<a>.*</a>", "search", Verdict.RIGHT),
        ("", "a", "search", Verdict.WRONG),
    ],
)
def test_judge(text: str, pattern: str, mode: Literal["full", "search"], verdict: Verdict) -> None:
    assert judge(text, None, pattern=pattern, mode=mode).verdict is verdict
