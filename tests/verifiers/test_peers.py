from pathlib import Path

import pytest

from llmalign.verifiers import GoldError, Verdict
from llmalign.verifiers.peers import math_verify, peer, prm800k, trl
from llmalign.verifiers.pool import VerifierPool

RIGHT, WRONG, NO_ANSWER = Verdict.RIGHT, Verdict.WRONG, Verdict.NO_ANSWER


@pytest.mark.parametrize(
    ("text", "gold", "form", "default", "trl_says"),
    [
        (r"so \boxed{\frac{2}{4}}", "1/2", "response", RIGHT, RIGHT),
        (r"so \boxed{3}", "1/2", "response", WRONG, WRONG),
        ("the answer is 0.5", "1/2", "response", RIGHT, NO_ANSWER),
        ("0.5", "1/2", "answer", RIGHT, RIGHT),
        ("", "1/2", "response", NO_ANSWER, NO_ANSWER),
    ],
)
def test_peers_say_what_their_own_calls_say(
    text: str, gold: str, form: str, default: Verdict, trl_says: Verdict
) -> None:
    assert math_verify(text, gold, form=form).verdict is default  # type: ignore[arg-type]
    assert trl(text, gold, form=form).verdict is trl_says  # type: ignore[arg-type]


def test_a_gold_that_trl_skips_is_a_gold_error() -> None:
    with pytest.raises(GoldError, match="parses nothing"):
        trl(r"\boxed{1}", r"\boxed{}")
    assert math_verify(r"\boxed{1}", r"\boxed{}").verdict is WRONG


@pytest.mark.slow
def test_a_peer_that_hangs_in_c_is_killed() -> None:
    kind, options, _ = peer("math-verify")
    with VerifierPool(1, 2.0) as pool:
        pairs = [(r"\boxed{1E+1000000000}", "1/2"), (r"\boxed{0.5}", "1/2")]
        hung, fine = pool.judge_many(kind, pairs, options)
    assert "timed out" in hung.why and fine.verdict is RIGHT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The layout of openai/prm800k with a grader of this test."""
    folder = tmp_path / "prm800k" / "grading"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "grader.py").write_text(
        "def grade_answer(given_answer, ground_truth):\n    return given_answer == ground_truth\n"
    )
    return tmp_path


def test_prm800k_is_imported_from_its_checkout_and_reads_the_last_box(checkout: Path) -> None:
    kind, options, signature = peer(f"prm800k:{checkout}")
    assert (kind, signature) == (f"{prm800k.__module__}:prm800k", "prm800k grade_answer")
    with VerifierPool(1, 10.0) as pool:
        pairs = [(r"not \boxed{1} but \boxed{2}", 2), ("2", "2"), (r"\boxed{3}", "2")]
        found = [j.verdict for j in pool.judge_many(kind, pairs, options)]
    assert found == [RIGHT, RIGHT, WRONG]


def test_a_broken_checkout_is_an_error_and_no_verdict(checkout: Path) -> None:
    (checkout / "prm800k" / "grading" / "grader.py").write_text("import no_such_package\n")
    kind, options, _ = peer(f"prm800k:{checkout}")
    with VerifierPool(1, 10.0) as pool:
        with pytest.raises(ValueError, match="No module named 'no_such_package'"):
            pool.judge_many(kind, [("2", "2")], options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("math_verify", "unknown peer 'math_verify'; did you mean 'math-verify'"),
        ("prm800k", "expected prm800k:PATH with PATH/prm800k/grading/grader.py"),
        ("prm800k:/nowhere", "clone github.com/openai/prm800k"),
    ],
)
def test_an_unknown_peer_says_what_there_is(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        peer(name)
