"""The 25 checks of IFEval, and what they count: words, sentences, paragraphs, languages.

Each check is a function of the text and of the instruction's own arguments. All are linear in the
length of the text. Rules: Zhou et al. 2023, arXiv:2311.07911, table 1, and the conventions of the
authors' published checker; where a rule differs from that checker, its docstring says so.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

Relation = Literal["less than", "at least"]

LANGUAGES = frozenset(
    "af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr "
    "ne nl no pa pl pt ro ru sk sl so sq sv sw ta te th tl tr uk ur vi zh-cn zh-tw".split()
)  # the codes of langdetect
FEW_LETTERS = 50  # below, langdetect guesses: it reads "etchings" as German
OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")

_WORD = re.compile(r"\w+")
_WRITTEN_WORD = re.compile(r"\w++(?:[-.&/'’]\w++)*+")  # x-ray, U.S., I'm, AND/OR
_CLITIC = re.compile(r"(?:['’](?:s|m|d|ll|re|ve)|n['’]t)$", re.IGNORECASE)
_STARS = re.compile(r"\*+")
_BULLET = re.compile(r"(?:-|\*(?!\*)).*\w")
_FENCE = re.compile(r"```(?:json)?", re.IGNORECASE)
_COMMAS = frozenset(",،，")  # comma, Arabic comma, fullwidth comma

# A run of terminators with what closes it, before a space or the end; an ideographic or fullwidth
# one needs no space. A comma at the end of a line is that of JSON. The look-behind and the
# possessive repeats keep the search linear.
_STOP = re.compile(
    r"""(?<![.!?…])[.!?…]++(?P<close>["'”’»)\]*_]*+(?:(?<="),(?=\n))?)(?=\s|$)|[。！？]++["'”’」』)]*+|।(?=\s|$)"""
)
_NEXT = re.compile(r"""(?P<space>[\s"'“‘«(\[*_]*+)(?P<word>\w++|\S)""")
_BEFORE = re.compile(r"""(?:^|[\s"'“‘«(\[*_])([^\s"'“‘«(\[*_]*)$""")
_ENUMERATOR = re.compile(r"(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,5})$")
_TITLES = frozenset(
    "mr mrs ms mx dr prof st sen rep gen gov lt col sgt capt cmdr hon rev fr pres messrs mt ft vs "
    "v cf e.g i.e viz al ca approx fig figs eq no nos vol pp ed eds dept univ p.s p.p.s".split()
)  # a name or a number follows: never the end of a sentence
_SHORTENED = frozenset(
    "etc inc ltd co corp llc plc bros jr sr esq a.m p.m u.s u.k u.n e.u d.c ph.d m.d b.a m.a b.c "
    "a.d jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri "
    "sat sun ave blvd rd st est min max hr hrs sec ext".split()
)  # the end of a sentence only before an empty line or a word that starts one
_STARTERS = frozenset(
    "a after all also an and another as at because before both but by can do each even every for "
    "from he her here his how however i if in is it its let many most my no not now of on once one "
    "or our she since so some such that the their then there these they this those though to "
    "unlike we what when where which while who why with yet you your".split()
)


def compare(count: int, relation: Relation, bound: int) -> bool:
    """``count`` is less than, or at least, ``bound``."""
    return count < bound if relation == "less than" else count >= bound


def count_sentences(text: str) -> int:
    """Number of sentences, by rules made for English.

    A sentence ends at ``. ! ? …`` (closing quotes and brackets included) before a space or the
    end, and holds a word. A full stop ends none after a title (Mr.), an initial (J. Smith) or a
    list number (1.); an ellipsis, or "etc.", only before a capital; other abbreviations (U.S.)
    only before an empty line or a capitalised word that often starts a sentence (The).
    The end of a line ends none, as in the tokenizer of the authors' checker: a poem or a list
    without full stops is one sentence. That tokenizer counts a list number as a sentence; we do
    not.
    """
    count, start, lower_only = 0, 0, text.islower()
    for stop in _STOP.finditer(text):
        if _ends_sentence(text, stop, lower_only):
            count += _holds_word(text[start : stop.end()])
            start = stop.end()
    return count + _holds_word(text[start:])


def _holds_word(text: str) -> bool:
    return any(c.isalnum() for c in text)


def _ends_sentence(text: str, stop: re.Match[str], lower_only: bool) -> bool:
    following = _NEXT.match(text, stop.end())
    if following is None:
        return True
    after = following["word"]
    marks = stop[0][: len(stop[0]) - len(stop["close"] or "")]
    if marks != ".":
        open_ended = "…" in marks or set(marks) == {"."} or stop["close"]
        return lower_only or not (open_ended and after[0].islower())
    before = text[max(0, stop.start() - 40) : stop.start()]
    word = found[1] if (found := _BEFORE.search(before)) else ""
    line = before.rpartition("\n")[2].strip(" \t*#>-(")
    if line == word and _ENUMERATOR.match(word):
        return False
    if word.lower() in _TITLES or (len(word) == 1 and word.isupper() and word != "I"):
        return word.lower() == "no" and after[0].isalpha()
    if word.lower() in _SHORTENED:
        return "\n\n" in following["space"] or (
            after[0].isupper() and (word.lower() == "etc" or after.lower() in _STARTERS)
        )
    return True


def is_language(text: str, language: str) -> bool:
    """Whether a text is written in a language, by its code, as langdetect sees it.

    The detection is seeded, and reads the first 10,000 characters. A text without letters is in
    no language (the authors' checker accepts it).
    """
    detector = language_profiles().create()
    from langdetect.lang_detect_exception import LangDetectException

    # langdetect skips words in capitals.
    detector.append(text.lower() if text.isupper() else text)
    try:
        return detector.detect() == language
    except LangDetectException:
        return False


@cache
def language_profiles() -> Any:
    """The profiles of langdetect, own and seeded; read once, in a fixed order, in about 0.5 s.

    Raises:
        RuntimeError: langdetect is not installed.
    """
    try:
        from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
    except ImportError:
        raise RuntimeError(
            "instructions about language need langdetect; pip install langdetect"
        ) from None
    factory = DetectorFactory()
    factory.set_seed(0)
    files = sorted(path for path in Path(PROFILES_DIRECTORY).iterdir() if path.is_file())
    factory.load_json_profile([path.read_text(encoding="utf-8") for path in files])
    return factory


def _is_english(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    if len(letters) < FEW_LETTERS:
        return all(c.isascii() for c in letters)
    return is_language(text, "en")


def existence(text: str, *, keywords: Sequence[str]) -> bool:
    """Every keyword occurs, in any case, also inside a longer word."""
    return all(re.search(re.escape(word), text, re.IGNORECASE) for word in keywords)


def frequency(text: str, *, keyword: str, frequency: int, relation: Relation) -> bool:
    """A keyword occurs so often, in any case, also inside a longer word."""
    count = len(re.findall(re.escape(keyword), text, re.IGNORECASE))
    return compare(count, relation, frequency)


def forbidden_words(text: str, *, forbidden_words: Sequence[str]) -> bool:
    """No forbidden word occurs as a whole word, in any case."""
    return not any(
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
        for word in forbidden_words
    )


def letter_frequency(text: str, *, letter: str, let_frequency: int, let_relation: Relation) -> bool:
    """A letter, or another character, occurs so often, in any case."""
    return compare(text.lower().count(letter.lower()), let_relation, let_frequency)


def response_language(text: str, *, language: str) -> bool:
    """The text is in one language."""
    return is_language(text, language)


def number_sentences(text: str, *, num_sentences: int, relation: Relation) -> bool:
    """So many sentences."""
    return compare(count_sentences(text), relation, num_sentences)


def number_words(text: str, *, num_words: int, relation: Relation) -> bool:
    r"""So many words: runs of ``\w``, so that "don't" is two."""
    return compare(sum(1 for _ in _WORD.finditer(text)), relation, num_words)


def number_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    """Exactly so many paragraphs between the dividers ``***``, none in the middle empty."""
    parts = _between(text, "***")
    return parts is not None and len(parts) == num_paragraphs


def nth_paragraph_first_word(
    text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> bool:
    """Exactly so many paragraphs between empty lines, and one starts with a word, in any case.

    Empty paragraphs do not count; the authors' checker counts them to find the nth.
    """
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    if len(paragraphs) != num_paragraphs:
        return False
    word = paragraphs[nth_paragraph - 1].split(maxsplit=1)[0].lstrip("'\"‘“")
    return re.split(r"[.,?!'\"’”]", word, maxsplit=1)[0].lower() == first_word.lower()


def _between(text: str, divider: str) -> list[str] | None:
    """What stands between dividers, the first and last left out where empty; None where another
    is empty."""
    parts = [part.strip() for part in text.split(divider)]
    if not all(parts[1:-1]):
        return None
    return [part for part in parts if part]


def number_placeholders(text: str, *, num_placeholders: int) -> bool:
    """At least so many ``[placeholders]``. Empty brackets and ``[ ]`` are none, though the
    authors' checker counts them."""
    return sum(_placeholders(line) for line in text.split("\n")) >= num_placeholders


def _placeholders(line: str) -> int:
    count, end = 0, -1
    while (start := line.find("[", end + 1)) >= 0 and (end := line.find("]", start)) >= 0:
        count += _holds_word(line[start:end])
    return count


def postscript(text: str, *, postscript_marker: str) -> bool:
    """The marker occurs, in any case. ``P.S.`` and ``P.P.S`` may hold spaces (``P. S.``)."""
    known = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
    pattern = known.get(postscript_marker, re.escape(postscript_marker.lower()))
    return re.search(rf"(?<!\w){pattern}", text.lower()) is not None


def number_bullet_lists(text: str, *, num_bullets: int) -> bool:
    """Exactly so many lines that start with ``*`` or ``-`` and hold a word. A rule (``---``) is
    none, though the authors' checker counts it."""
    lines = (line.lstrip() for line in text.split("\n"))
    return sum(1 for line in lines if _BULLET.match(line)) == num_bullets


def constrained_response(text: str) -> bool:
    """Holds exactly one of the three options. The authors' checker also accepts several."""
    return sum(option in text for option in OPTIONS) == 1


def number_highlighted_sections(text: str, *, num_highlights: int) -> bool:
    """At least so many ``*highlights*`` or ``**highlights**``, each within a line.

    Each counts once; the authors' checker counts ``***both***``, and bold in a ``*`` list, twice.
    """
    return sum(_highlights(line) for line in text.split("\n")) >= num_highlights


def _highlights(line: str) -> int:
    runs = list(_STARS.finditer(line))
    if len(runs) % 2 and line.lstrip().startswith("* "):
        runs = runs[1:]  # the mark of a list
    count, opened = 0, None
    for run in runs:
        if opened is not None and line[opened.end() : run.start()].strip():
            count, opened = count + 1, None
        else:
            opened = run
    return count


def multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many marks such as ``SECTION 1``: the word and a number."""
    mark = re.compile(rf"{re.escape(section_spliter.strip())}\s?\d++")
    return sum(1 for _ in mark.finditer(text)) >= num_sections


def json_format(text: str) -> bool:
    """The whole text is JSON, bare or in a code fence."""
    text = text.strip()
    if fence := _FENCE.match(text):
        text = text[fence.end() :]
    try:
        # The values of numbers do not matter, and long ones cost quadratic time.
        json.loads(
            text.removesuffix("```"), parse_int=str, parse_float=str, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        return False
    return True


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not in JSON (RFC 8259, section 6)")


def title(text: str) -> bool:
    """A title in ``<<double angular brackets>>`` on one line."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end and line[start:end].strip("<> \t"):
            return True
    return False


def two_responses(text: str) -> bool:
    """Two different responses with ``******`` between."""
    parts = _between(text, "******")
    return parts is not None and len(parts) == 2 and parts[0] != parts[1]


def repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    """The text starts with the request, in any case."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(text: str, *, end_phrase: str) -> bool:
    """The text ends with a phrase, in any case; double quotes at the end may follow."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def capital_word_frequency(
    text: str, *, capital_frequency: int, capital_relation: Relation
) -> bool:
    """So many words in capitals, ``I`` and ``A`` among them. ``X-RAY`` is one word; ``I'm`` is
    read without its ending."""
    words = (_CLITIC.sub("", found[0]) for found in _WRITTEN_WORD.finditer(text))
    return compare(sum(word.isupper() for word in words), capital_relation, capital_frequency)


def english_capital(text: str) -> bool:
    """English, without small letters. Fewer than 50 letters are English where all are ASCII."""
    return text.isupper() and _is_english(text)


def english_lowercase(text: str) -> bool:
    """English, without capitals. Fewer than 50 letters are English where all are ASCII."""
    return text.islower() and _is_english(text)


def no_comma(text: str) -> bool:
    """No comma, neither ASCII nor Arabic nor fullwidth."""
    return _COMMAS.isdisjoint(text)


def quotation(text: str) -> bool:
    """The whole text stands in double quotes."""
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


CHECKS: dict[str, Callable[..., bool]] = {
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "combination:repeat_prompt": repeat_prompt,
    "combination:two_responses": two_responses,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:json_format": json_format,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:title": title,
    "keywords:existence": existence,
    "keywords:forbidden_words": forbidden_words,
    "keywords:frequency": frequency,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": response_language,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_words": number_words,
    "punctuation:no_comma": no_comma,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
}
