"""Is a short answer in words right? Exact after normalisation, contained, or by F1 of words.

Normalisation and F1 follow SQuAD's evaluation (Rajpurkar et al. 2016, arXiv:1606.05250): small
letters, no punctuation, no articles (a, an, the), single spaces. Different from there, because
they would make different numbers equal: a point between digits and a minus before a number stay,
and of commas only those before three digits go. Unicode is brought to NFKC first. Number words
are words: "two" is not 2.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from llmalign.verifiers import VERIFIERS
from llmalign.verifiers.extract import after_thinking
from llmalign.verifiers.format import marked_answer, shortened
from llmalign.verifiers.verdict import GoldError, Judgement, Verdict

Mode = Literal["exact", "contains", "f1"]

MAX_ANSWER = 10_000  # characters

_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_MINUS = re.compile(r"(?<![\w)\]])[-−](?=\.?[0-9])")
_POINT = re.compile(r"(?<=[0-9])\.(?=[0-9])")
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_KEPT = {"\0": "-", "\1": "."}  # a sign and a point that belong to a number


def normalise_text(text: str) -> str:
    """A text for comparison; one of articles or punctuation alone keeps them."""
    folded = unicodedata.normalize("NFKC", text).replace("\0", "").replace("\1", "").casefold()
    spaced = " ".join(folded.split())
    marked = _POINT.sub("\1", _MINUS.sub("\0", _THOUSANDS.sub("", spaced)))
    words = "".join(c for c in marked if not _is_punctuation(c))
    for mark, character in _KEPT.items():
        words = words.replace(mark, character)
    return " ".join(_ARTICLE.sub(" ", words).split()) or " ".join(words.split()) or spaced


def _is_punctuation(character: str) -> bool:
    return character in "$+<=>^`|~" or unicodedata.category(character)[0] == "P"


def check_gold(gold: Any) -> None:
    """Raises GoldError unless ``gold`` is a text, or a list of texts, none of them empty."""
    _read_gold(gold)


def _read_gold(gold: Any) -> list[str]:
    texts = [gold] if isinstance(gold, str | int | float) else gold
    if not isinstance(texts, list | tuple) or not texts:
        raise GoldError(f"gold is {repr(gold)[:80]}, expected a text or a list of texts")
    for text in texts:
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise GoldError(f"gold holds {repr(text)[:80]}, expected a text; quote it")
        if not str(text).strip() or len(str(text)) > MAX_ANSWER:
            expected = f"1 to {MAX_ANSWER:,} characters"
            raise GoldError(f"gold holds {repr(text)[:80]}, expected {expected}; drop it")
    return [normalise_text(str(text)) for text in texts]


def find_text(text: str) -> str | None:
    """The answer of a response: where ``marked_answer`` finds it, else the response itself where
    it is a single line."""
    if found := marked_answer(text):
        return found
    line = after_thinking(text).strip()
    return line if line and "\n" not in line else None


@VERIFIERS.register(
    "text",
    paper="Rajpurkar et al. 2016, arXiv:1606.05250",
    traits={"signature": "text|v1", "check_gold": check_gold, "preload": ()},
)
def judge(
    text: str,
    gold: Any,
    *,
    mode: Mode = "exact",
    threshold: float = 0.8,
    form: Literal["response", "answer"] = "response",
) -> Judgement:
    """Whether an answer in words is one of the golds.

    Args:
        text: the whole response, or a bare answer; never raises on it.
        gold: a text, or a list of texts of which any will do.
        mode: ``exact``: equal after normalisation; ``contains``: the words of the gold stand in
            the answer one after another; ``f1``: the F1 of the words reaches the threshold. The
            last two pay for guesses strung together: as a reward, take ``exact``.
        threshold: of ``f1``, in (0, 1]; not read otherwise.
        form: ``response``: the answer is found as in ``find_text``; ``answer``: the text is one.
    Raises:
        GoldError: the gold is no text, or an empty one.
        ValueError: the threshold lies outside its range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}, expected a number in (0, 1]")
    golds = _read_gold(gold)
    answer = text.strip() if form == "answer" else find_text(text)
    if not answer:
        return Judgement(Verdict.NO_ANSWER, None, "no answer found")
    if len(answer) > MAX_ANSWER:
        return Judgement(Verdict.UNDECIDED, None, f"the answer has {len(answer):,} characters")
    said = normalise_text(answer)
    right, why = _compare(said, golds, mode, threshold)
    return Judgement(Verdict.RIGHT if right else Verdict.WRONG, shortened(said), why)


def _compare(said: str, golds: Sequence[str], mode: Mode, threshold: float) -> tuple[bool, str]:
    if mode == "exact":
        right = said in golds
        return right, "equal text" if right else "different text"
    if mode == "contains":
        right = any(f" {gold} " in f" {said} " for gold in golds)
        return right, "contains the gold" if right else "does not contain the gold"
    best = max(_f1(said.split(), gold.split()) for gold in golds)
    return best >= threshold, f"F1 of words is {best:.3f}"


def _f1(said: Sequence[str], gold: Sequence[str]) -> float:
    common = (Counter(said) & Counter(gold)).total()
    return 2 * common / (len(said) + len(gold))
