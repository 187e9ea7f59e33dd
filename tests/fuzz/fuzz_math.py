"""Coverage-guided fuzzing of the math verifier: no exception, no slow answer, no asymmetry.

    python tests/fuzz/fuzz_math.py -max_total_time=600 [CORPUS_FOLDER]

Bytes choose tokens of the answer language, so that most inputs get past the lexer. A finding is
written by libFuzzer as ``crash-…``; replay it by its name, then keep the text as a test.
"""

import sys
import time

import atheris

with atheris.instrument_imports(include=["llmalign.verifiers"]):
    from llmalign.verifiers import GoldError
    from llmalign.verifiers.extract import MARKERS, extract
    from llmalign.verifiers.math import check_gold, equal, expressions, judge  # noqa: F401

LIMIT_S = 1.0
GOLDS = ["7", r"\sqrt{2}", "x+1", "(0,1]", r"\{1,2\}", "y=2x", "28%", "B", "3:15 pm", r"x\ge 2"]
TOKENS = (
    list("0123456789xyznkabefiABC")
    + list("+-*/^_=<>()[]{}|,;:!%'&.$ ")
    + r"""
    \frac \sqrt \sin \cos \tan \ln \log \exp \pi \infty \pm \mp \cdot \times \le \ge \ne \in
    \cup \cap \setminus \mathbb{R} \text{ \text{and} \text{cm} \binom \sum_{k=1}^{n}
    \prod_{k=1}^{3} \int_0^1 dx \lim_{x\to0} \to \left( \right) \{ \} \langle \rangle \lfloor
    \rfloor \begin{pmatrix} \end{pmatrix} \\ \begin{cases} \end{cases} ^\circ ^{ _{ \boxed{
    \overline{ \dot{ \emptyset \mid \bmod \approx \hat{i} \mathbf{j} and or sqrt pi 1e9 10^{
    9^{ .5 0.\overline{3} 1,000 #### answer is <answer> </answer> </think> \quad \, \dfrac
    \tfrac12 √ ½ ² π ≤ ∪ − × ° \alpha \hbar f( C(
    """.split()
)


def text_of(data: bytes) -> str:
    """One token a byte; a byte beyond the table starts a literal character of two bytes."""
    parts, at = [], 0
    while at < len(data):
        if data[at] < len(TOKENS):
            parts.append(TOKENS[data[at]])
        elif at + 2 < len(data):
            parts.append(chr(data[at + 1] << 8 | data[at + 2]))
            at += 2
        at += 1
    return "".join(parts)


def test_one_input(data: bytes) -> None:
    """Judges one text against every gold, itself and its other half."""
    text = text_of(data)
    began = time.perf_counter()
    for gold in GOLDS:
        judge(text, gold, form="answer")
    judge(text, "7")
    for marker in MARKERS:
        extract(text, (marker,))
    middle = len(text) // 2
    left, right = text[:middle], text[middle:]
    assert equal(left, right)[0] == equal(right, left)[0], (left, right)
    try:
        check_gold(text)
    except GoldError:
        return
    assert equal(text, text)[0] in (True, None), text
    assert time.perf_counter() - began < LIMIT_S * (len(GOLDS) + 4), text


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
