import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmalign.verifiers import VERIFIERS, GoldError, Verdict, ifeval
from llmalign.verifiers.ifeval import (
    MAX_TEXT,
    audit_row,
    check_gold,
    follow,
    fraction_followed,
    judge,
    one_by_one,
    variants,
)
from llmalign.verifiers.ifeval_checks import CHECKS, LANGUAGES, count_sentences, language_profiles

DATA = Path(os.environ.get("LLMALIGN_DATA", Path(__file__).parents[3] / "shared" / "data"))
RESPONSES, PROMPTS = DATA / "ifeval" / "gpt4_responses.jsonl", DATA / "ifeval" / "test.jsonl"

ENGLISH = "the house on the hill has been empty for years, and nobody in the village knows why"
HINDI = "यह घर कई सालों से खाली है और गाँव में कोई नहीं जानता कि क्यों"
GERMAN = "Das Haus auf dem Hügel steht seit Jahren leer, und niemand im Dorf weiß warum"
TWO = {
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{}, {"relation": "at least", "num_words": 3}],
}


def gold(name: str, **arguments: Any) -> dict[str, Any]:
    return {"instruction_id_list": [name], "kwargs": [arguments]}


# Instruction, its arguments, a text that follows it, and one near it that does not.
PAIRS: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["law", "ink"]}, "Lawful thinking", "Lawful things"),
    ("keywords:existence", {"keywords": ["a.c"]}, "see A.C here", "see abc here"),
    ("keywords:forbidden_words", {"forbidden_words": ["man"]}, "a woman manages", "A MAN!"),
    ("keywords:forbidden_words", {"forbidden_words": ["c++"]}, "c and c# and cc++", "use C++."),
    ("keywords:frequency", {"keyword": "war", "frequency": 2, "relation": "at least"},
     "War and wars", "a war"),
    ("keywords:frequency", {"keyword": "war", "frequency": 2, "relation": "less than"},
     "a war", "war, war"),
    ("keywords:letter_frequency", {"letter": "Q", "let_frequency": 2, "let_relation": "at least"},
     "quite Quiet", "quite calm"),
    ("keywords:letter_frequency", {"letter": "!", "let_frequency": 1, "let_relation": "less than"},
     "calm.", "calm!"),
    ("language:response_language", {"language": "hi"}, HINDI, ENGLISH),
    ("language:response_language", {"language": "de"}, GERMAN, ENGLISH),
    ("language:response_language", {"language": "de"}, GERMAN.upper(), ENGLISH.upper()),
    ("language:response_language", {"language": "kn"}, "ಈ ಮನೆ ಖಾಲಿಯಾಗಿದೆ", "12 + 34 = 46 !!!"),
    ("length_constraints:number_sentences", {"relation": "less than", "num_sentences": 3},
     "Dr. Li left. Why?", "He left. Why? Ask."),
    ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 3},
     "He left. Why? Ask.", "1. He left.\n2. Why?"),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 3},
     "I don't", "I do_not"),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 3},
     "two words!", "now three words"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2},
     "***\na\n***\nb\n***", "a\n***\n***\nb"),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
     'One.\n\n"Then," she said', "Then.\n\nOne."),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
     "One.\n\n\n\nThen.", "One.\n\nThen.\n\nThree."),
    ("detectable_content:number_placeholders", {"num_placeholders": 2},
     "[name], [street 5]", "[name], [street\n5]"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a][b]", "[a][][ ]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\np. s. Wait", "Bye. PS"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "P.P.S. Wait", "P.S. Wait"),
    ("detectable_content:postscript", {"postscript_marker": "NB"}, "nb: wait", "thumbnb: wait"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2},
     "Two:\n* a\n  - b\n---\n**bold**", "* a\n- b\n- c"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "* a", "• a"),
    ("detectable_format:constrained_response", {}, "Well. My answer is no.", "My answer is nope"),
    ("detectable_format:constrained_response", {},
     "My answer is maybe.", "My answer is yes. My answer is no."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2},
     "*one* and **two**", "*one* and ** **"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2},
     "* **a**: x\n* *b*: y", "* **a**: x\n* b c"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2},
     "***a*** ***b***", "***a***"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "*a b*", "*a\nb*"),
    ("detectable_format:multiple_sections", {"section_spliter": "SECTION", "num_sections": 2},
     "SECTION 1\na\nSECTION 2\nb", "SECTION I\na\nSECTION II\nb"),
    ("detectable_format:json_format", {}, '```json\n{"a": [1, 2]}\n```', "{'a': 1}"),
    ("detectable_format:json_format", {}, '{"a": ' + "1" * 9000 + "}", '{"a": NaN}'),
    ("detectable_format:json_format", {}, " [1]\n", 'Here: {"a": 1}'),
    ("detectable_format:title", {}, "A\n<<Poem of joy>>\nB", "<<Poem\nof joy>>"),
    ("detectable_format:title", {}, "<<<x>>>", "<<< >>>"),
    ("combination:two_responses", {}, "a\n******\nb", "a\n******\na"),
    ("combination:two_responses", {}, "******a******b", "a******b******c"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it. "}, "say it. Yes", "Yes. Say it."),
    ("startend:end_checker", {"end_phrase": "The end."}, 'x "the END."\n', "The end. x"),
    ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 3},
     "I'm on X-RAY WATCH", "I'm on X-Ray WATCH"),
    ("change_case:capital_word_frequency",
     {"capital_relation": "less than", "capital_frequency": 2}, "DON'T go", "DO GO"),
    ("change_case:english_capital", {}, ENGLISH.upper(), ENGLISH.capitalize()),
    ("change_case:english_capital", {}, "YES", "ДА"),
    ("change_case:english_lowercase", {}, ENGLISH, GERMAN.lower()),
    ("change_case:english_lowercase", {}, "etchings", "Etchings"),
    ("punctuation:no_comma", {}, "a; b", "a, b"),
    ("punctuation:no_comma", {}, "a; b", "أ، ب"),
    ("startend:quotation", {}, ' "a" ', '"a" b'),
    ("startend:quotation", {}, '""', '"'),
]  # fmt: skip


FIRST = {name: arguments for name, arguments, *_ in reversed(PAIRS)}
# All at once, which no text can follow: it would start with the prompt and with a quote.
ALL = {"instruction_id_list": list(FIRST), "kwargs": list(FIRST.values())}


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), PAIRS)
def test_an_instruction_is_told_from_its_near_miss(
    name: str, arguments: dict[str, Any], good: str, bad: str
) -> None:
    assert judge(good, gold(name, **arguments)).verdict is Verdict.RIGHT
    found = judge(bad, gold(name, **arguments))
    assert found.verdict is Verdict.WRONG
    assert found.why == f"0 of 1 followed; not {name}"


def test_every_instruction_has_a_pair() -> None:
    assert {name for name, *_ in PAIRS} == set(CHECKS)
    assert len(CHECKS) == 25


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two! Three? Four", 4),
        ("Mr. Li met Dr. J. R. Smith vs. Prof. Ito.", 1),
        ("It costs 3.50 at shop.com, i.e. no. 7 is cheap.", 1),
        ("Did they listen? No. And then?", 3),
        ("He works for the U.S. Department of Labor. Why?", 2),
        ("He left the U.S. The rest stayed.", 2),
        ("I know Apple Inc.\n\nPros follow.", 2),
        ("Pens, paper, etc. Bananas too, ink etc. as well.", 2),
        ("So am I. Then we go.", 2),
        ("Well... maybe. And… so? Wait... What?", 4),
        ('"Stop!" he said. "Why?" "No."', 3),
        ("He said so (twice.) Then he left.", 2),
        ("**Bold end.** Next.", 2),
        ("what?! no!!! yes.", 3),
        ("no capitals here. none at all! really? yes", 4),
        ("1. First one.\n2. Second one.\n  a. Third\n- iv. fourth", 3),
        ("Dear Sir,\n\nI write\nfrom home.", 1),
        ("P.S. Write soon.", 1),
        ("这是一。这是二！三", 3),
        ("यह घर है। वह घर है।", 2),
        ('{"a": "One.",\n "B": "Two."}', 2),
        ("... ! ?", 0),
        ("", 0),
    ],
)
def test_sentences_are_counted(text: str, count: int) -> None:
    assert count_sentences(text) == count


@pytest.mark.parametrize(
    ("text", "strict", "loose"),
    [
        ("Sure, here it is:\nno comma in this line", [False, True], [True, True]),
        ("no comma in this line\nI hope, this helps", [False, True], [True, True]),
        ("Sure, sir:\nno comma in this\nI hope, so", [False, True], [True, True]),
        ("a, b\nc, d", [False, True], [False, True]),
        ("no comma", [True, False], [True, False]),
        ("a, b", [False, False], [False, False]),  # cut variants are empty, and follow nothing
    ],
)
def test_loose_judges_each_instruction_without_first_and_last_line(
    text: str, strict: list[bool], loose: list[bool]
) -> None:
    assert follow(text, TWO) == strict
    assert follow(text, TWO, "loose") == loose


def test_loose_reads_without_stars() -> None:
    quoted = gold("startend:quotation")
    assert judge('**"Yes"**', quoted).verdict is Verdict.WRONG
    assert judge('**"Yes"**', quoted, mode="loose").verdict is Verdict.RIGHT


def test_there_are_eight_variants_the_response_first() -> None:
    assert variants("*a*\n*b*\n*c*") == [
        "*a*\n*b*\n*c*", "*b*\n*c*", "*a*\n*b*", "*b*", "a\nb\nc", "b\nc", "a\nb", "b",
    ]  # fmt: skip
    assert variants("one line") == ["one line", ""]


def test_why_counts_and_names_what_is_not_followed() -> None:
    assert judge("one two three", TWO).why == "2 of 2 followed"
    assert judge("a, b c", TWO).why == "1 of 2 followed; not punctuation:no_comma"
    assert judge("a, b c", TWO).answer is None


def test_the_fraction_is_that_of_the_instructions_judged_one_by_one() -> None:
    assert fraction_followed("a, b c", TWO) == 0.5
    apart = [judge("a, b c", part).verdict for part in one_by_one(TWO)]
    assert apart == [Verdict.WRONG, Verdict.RIGHT]


@pytest.mark.parametrize("text", ["", " \n", "<think>a word or more</think> \n"])
def test_an_empty_response_follows_nothing(text: str) -> None:
    assert judge(text, TWO, mode="loose").verdict is Verdict.NO_ANSWER
    assert follow(text, TWO, "loose") == [False, False]


def test_only_what_follows_the_thinking_is_judged() -> None:
    assert judge("<think>well, well</think>one two three", TWO).verdict is Verdict.RIGHT
    assert judge("<think>one two three</think>one", TWO).verdict is Verdict.WRONG


def test_null_and_float_arguments_are_read_as_columns_hold_them() -> None:
    filled: dict[str, Any] = {"relation": "at least", "num_words": 3.0, "keywords": None}
    row = {**TWO, "kwargs": [{"num_words": None, "relation": float("nan")}, filled]}
    assert follow("one two three", row) == [True, True]
    assert follow("one two three", {**TWO, "kwargs": [None, filled]}) == [True, True]


WORDS = "length_constraints:number_words"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (None, "gold is None, expected a mapping"),
        ({"kwargs": []}, "instruction_id_list and kwargs"),
        ({"instruction_id_list": "a", "kwargs": [{}]}, "instruction_id_list is 'a'"),
        ({"instruction_id_list": [], "kwargs": []}, "at least one"),
        ({**TWO, "kwargs": [{}]}, "2 instructions and 1 kwargs"),
        ({**TWO, "kwargs": [{}, "x"]}, f"kwargs of {WORDS} is 'x'"),
        (gold("punctuation:no_commas"), "did you mean 'punctuation:no_comma'?"),
        ({"instruction_id_list": [3], "kwargs": [{}]}, "unknown instruction"),
        (gold(WORDS, num_words=3), f"{WORDS}: relation is missing"),
        (gold(WORDS, num_words=3, relation=None), "relation is missing"),
        (gold(WORDS, num_words=3, relation="more than"), "expected 'less than' or 'at least'"),
        (gold(WORDS, num_words="3", relation="at least"), "num_words is '3', expected an integer"),
        (gold(WORDS, num_words=True, relation="at least"), "num_words is True"),
        (gold(WORDS, num_words=2.5, relation="at least"), "num_words is 2.5"),
        (gold(WORDS, num_words=-1, relation="at least"), "num_words is -1"),
        (gold(WORDS, num_word=1, relation="at least"), "did you mean 'num_words'?"),
        (gold("punctuation:no_comma", letter="a"), "unknown argument 'letter'"),
        (gold("keywords:existence", keywords=[]), "expected a list of texts"),
        (gold("keywords:existence", keywords="law"), "keywords is 'law'"),
        (gold("keywords:existence", keywords=[" "]), "expected a list of texts"),
        (gold("startend:end_checker", end_phrase=""), "end_phrase is ''"),
        (gold("language:response_language", language="klingon"), "language is 'klingon'"),
        (gold("keywords:letter_frequency", letter="ab", let_frequency=1, let_relation="at least"),
         "letter is 'ab', expected one character"),
        (gold("length_constraints:nth_paragraph_first_word",
              num_paragraphs=1, nth_paragraph=2, first_word="a"), "above num_paragraphs"),
        (gold("length_constraints:nth_paragraph_first_word",
              num_paragraphs=1, nth_paragraph=0, first_word="a"), "nth_paragraph is 0"),
    ],
)  # fmt: skip
def test_a_gold_of_another_form_is_refused_by_name(bad: Any, says: str) -> None:
    for refuse in (check_gold, lambda gold: judge("x", gold), lambda gold: judge("", gold)):
        with pytest.raises(GoldError) as error:
            refuse(bad)
        assert says in str(error.value)


def test_the_gold_of_all_instructions_is_read() -> None:
    check_gold(ALL)


def test_the_languages_are_those_of_the_detector() -> None:
    assert set(language_profiles().get_lang_list()) == LANGUAGES


def test_a_text_too_long_is_undecided() -> None:
    assert judge("a " * (MAX_TEXT // 2), TWO).verdict is Verdict.RIGHT
    assert judge("a" * (MAX_TEXT + 1), TWO).verdict is Verdict.UNDECIDED
    assert judge("a" * MAX_TEXT + "</think>a b c", TWO).verdict is Verdict.RIGHT


@pytest.mark.parametrize(
    "bit", ["[", "<", "*", ". \n", '.)"', "```", "a@", "p. ", "\n-", "{", "'m"]
)
def test_no_text_takes_long(bit: str) -> None:
    text = (bit * MAX_TEXT)[:MAX_TEXT]
    began = time.process_time()
    assert judge(text, ALL, mode="loose").verdict is Verdict.WRONG
    # Linear: under 1 s each; quadratic, minutes.
    assert time.process_time() - began < 10


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from(["*", "[", "]", "<<", ">>", ".", '!"', " ", "\n", "U.S.", "1.", "{", "é"])
    ).map("".join)
)
def test_no_text_raises_and_loose_forgives_only(text: str) -> None:
    strict, loose = follow(text, ALL), follow(text, ALL, "loose")
    assert all(late or not early for early, late in zip(strict, loose, strict=True))
    assert judge(text, ALL).verdict in (Verdict.WRONG, Verdict.NO_ANSWER)


@pytest.mark.parametrize("text", ["\ud800 a.", "\0", "[" * 100_000, '{"a":' * 40_000, "\u2028"])
def test_odd_texts_get_a_verdict(text: str) -> None:
    assert judge(text, ALL, mode="loose").verdict in (Verdict.WRONG, Verdict.NO_ANSWER)


def test_verdicts_are_the_same_in_threads_and_in_another_process() -> None:
    texts = [ENGLISH, GERMAN, "hola amigo", "et tu", "no", "va bene", "la casa", "bon jour"] * 2
    spoken = {"instruction_id_list": ["language:response_language"] * 4,
              "kwargs": [{"language": code} for code in ("en", "de", "es", "it")]}  # fmt: skip
    alone = [follow(text, spoken) for text in texts]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda text: follow(text, spoken), texts)) == alone
    code = (
        "import json, sys; from llmalign.verifiers.ifeval import follow\n"
        "texts, gold = json.load(sys.stdin); print(json.dumps([follow(t, gold) for t in texts]))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps([texts, spoken]),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(out.stdout) == alone


def test_the_import_brings_in_no_language_profiles() -> None:
    code = "import sys, llmalign.verifiers.ifeval; print('langdetect' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_a_missing_detector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langdetect.detector_factory", None)
    language_profiles.cache_clear()
    with pytest.raises(RuntimeError, match="pip install langdetect"):
        judge(ENGLISH, gold("change_case:english_lowercase"))


def test_it_is_registered_with_its_traits() -> None:
    entry = VERIFIERS.get("ifeval", "test")
    assert entry.thing is judge and entry.traits["check_gold"] is check_gold
    assert entry.traits["signature"] == "ifeval|v1"
    assert entry.resolve({"mode": "loose"}, "test") == {"mode": "loose"}
    with pytest.raises(ValueError, match="'strict', 'loose'"):
        entry.resolve({"mode": "lose"}, "test")
    entry.traits["prepare"](mode="loose")
    assert language_profiles.cache_info().currsize == 1


def test_a_labelled_row_is_read_in_both_layouts() -> None:
    own = {"response": "a b c", **TWO, "mode": "loose", "label": True}
    assert audit_row(own) == ("a b c", TWO, {"mode": "loose"})
    plain = {"prediction": "a b c", "gold": TWO, "label": True}
    assert audit_row(plain) == ("a b c", TWO, {"mode": "strict"})
    with pytest.raises(ValueError, match="'response' or 'prediction'"):
        audit_row({"gold": TWO})


@pytest.mark.skipif(not PROMPTS.is_file(), reason="IFEval's prompts are not here: LLMALIGN_DATA")
def test_every_gold_of_ifeval_is_read() -> None:
    rows = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    for row in rows:
        ifeval.check_gold(row)
    assert len(rows) == 541


@pytest.mark.skipif(not RESPONSES.is_file(), reason="judged responses not here: LLMALIGN_DATA")
@pytest.mark.parametrize("mode", ["strict", "loose"])
def test_verdicts_agree_with_the_authors_checker(mode: ifeval.Mode) -> None:
    agree: Counter[str] = Counter()
    differ = []
    for line in RESPONSES.read_text().splitlines():
        row = json.loads(line)
        ours, names = follow(row["response"], row, mode), row["instruction_id_list"]
        for name, mine, theirs in zip(names, ours, row[mode], strict=True):
            agree[name] += mine == theirs
            if mine != theirs:
                differ.append((row["id"], name))
    assert len(agree) == 25 and agree.total() + len(differ) == 419
    # Of the two, "YES" and "etchings", langdetect says that they are not English.
    assert {name for _, name in differ} <= {
        "change_case:english_capital", "change_case:english_lowercase",
    }  # fmt: skip
    assert agree.total() >= 417
