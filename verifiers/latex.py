r"""One spelling for what LaTeX, Unicode and markdown spell in many ways; and units."""

import re
import unicodedata

_GREEK = {
    letter: f"\\{name} "
    for letter, name in zip(
        "αβγδεζηθικλμνξρστυφχψωΓΔΘΛΞΣΦΨΩ",
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau"
        " upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega".split(),
        strict=True,
    )
}
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("−‐‑‒–—﹣－", "-"),
        **dict.fromkeys("×·⋅∙∗•", "*"),
        **dict.fromkeys("÷∕⁄", "/"),
        **dict.fromkeys("°º˚", r"^\circ "),
        **dict.fromkeys("′’", "'"),
        **dict.fromkeys("″”", "''"),
        **_GREEK,
        "π": r"\pi ",
        "𝜋": r"\pi ",
        "∞": r"\infty ",
        "∅": r"\emptyset ",
        "∪": r"\cup ",
        "∩": r"\cap ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "∈": r"\in ",
        "±": r"\pm ",
        "∓": r"\mp ",
        "≈": r"\approx ",
        "ℝ": r"\mathbb{R}",
        "ℤ": r"\mathbb{Z}",
        "ℕ": r"\mathbb{N}",
        "ℚ": r"\mathbb{Q}",
        "⟨": r"\langle ",
        "⟩": r"\rangle ",
        "…": r"\ldots ",
    }
)
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ]+")
_SUBSCRIPTS = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₍₎]+")
_ROOT = re.compile(r"√\s*(\([^()]*\)|[0-9]+|[A-Za-z])")
_PRICE = re.compile(r"\$\s*[0-9.]")
_CIRCLED = re.compile("[①-⑨]{2,}")
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u00ad]")

# Each with a piece that must stand in the text for it to apply: most do not, and are not tried.
# In this order: a later rule may rely on an earlier one.
_RULES = [
    (needed, re.compile(pattern), replacement)
    for needed, pattern, replacement in [
        ("$", r"(?<!\\)\$", " "),
        ("\\", r"\\\[|\\\]|\\\(|\\\)", " "),
        ("rac", r"\f\s*rac(?![a-z])|(?<![\\a-zA-Z])rac(?=\{)|\\rac(?=\{)", r"\\frac"),
        ("\t", r"\t(?=ext\{|imes|an\b|heta)", r"\\t"),
        (
            "\\",
            r"\\(?:left|right|[bB]igg?[lr]?|middle|(?:display|text)style|limits)(?![a-zA-Z])",
            "",
        ),
        ("frac", r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        ("\\", r"\\(?:math|text)(?:bf|bb)\s*\{?\s*([RZNQ])\s*\}?(?![a-zA-Z}])", r"\\mathbb{\1}"),
        (
            "\\",
            r"\\(?:mathbf|boldsymbol|bm|vec|hat)\s*(?:\{\s*([a-z])\s*\}|([a-z])(?![a-zA-Z]))",
            r"\\vec{\1\2}",
        ),
        ("\\", r"\\(?:text(?:bf|rm|it|sf|tt|normal)|mbox|math(?:rm|bf|sf|it|tt))\s*\{", r"\\text{"),
        (",", r",\\!\s*|\{\s*,\s*\}\s*", ","),
        ("\\!", r"\\!", ""),
        ("\\", r"(?<!\\)\\[,;:> ~]|\\q?quad|\\space(?![a-zA-Z])", " "),
        ("~", r"~", " "),
        ("\\text", r"\\text\{([^{}A-Za-z\\]*)\}", r" \1 "),
        ("\\prime", r"\^\s*(?:\{\s*\\prime\s*\}|\\prime(?![a-z]))", "'"),
        ("\\prime", r"\^\s*\{\s*\\prime\s*\\prime\s*\}", "''"),
        ("\\", r"\\%|\\percent(?![a-zA-Z])", "%"),
        ("\\", r"\\(?:times|cdot|ast)(?![a-zA-Z])", "*"),
        ("\\div", r"\\div(?![a-zA-Z])", "/"),
        (" ", r"(?<=[0-9])\s+[xX]\s+(?=[0-9])", "*"),
        ("**", r"\*\*", "^"),
        ("\\angle", r"(?<![a-zA-Z])m\s*\\angle(?![a-zA-Z])", r"\\angle"),
        ("\\deg", r"\\(?:degree|degrees)(?![a-zA-Z])", r"^\\circ "),
        ("\\neq", r"\\neq(?![a-zA-Z])", r"\\ne"),
        ("\\leq", r"\\leq(?:slant)?(?![a-zA-Z])", r"\\le"),
        ("\\geq", r"\\geq(?:slant)?(?![a-zA-Z])", r"\\ge"),
        ("\\lt", r"\\lt(?![a-zA-Z])", "<"),
        ("\\gt", r"\\gt(?![a-zA-Z])", ">"),
        ("", r"\s+", " "),
    ]
]
_LOST_ESCAPE = re.compile(r"(?<!\\)\\\\(?=[a-zA-Z])")
_EDGE = re.compile(r"^(?:\*\*|__|`)+|(?:\*\*|__|`)+$")
_FULL_STOP = re.compile(r"(?<=[^.\s])\s*[.,;:\\]$")


def normalise(answer: str) -> str:
    r"""An answer in one spelling: ASCII signs and digits, ``\frac``, ``*``, ``^``, ``\text``.

    Whitespace is collapsed, not removed; value and structure never change.
    """
    text = answer if answer.isascii() else _ascii(answer)
    text = text.strip()
    if text.isdigit():
        return text
    if text.count("$") % 2 and _PRICE.match(text):
        text = "\\" + text
    text = _EDGE.sub("", text).strip()
    if "\\\\" in text and r"\begin" not in text:  # outside a matrix no row ends there
        text = _LOST_ESCAPE.sub(r"\\", text)
    for needed, pattern, replacement in _RULES:
        if needed in text:
            text = pattern.sub(replacement, text)
    return _without_stray_braces(_FULL_STOP.sub("", text.strip()).strip())


def _ascii(text: str) -> str:
    """Signs, digits, letters and roots of Unicode in ASCII or LaTeX."""
    text = _INVISIBLE.sub("", text)
    text = _SUPERSCRIPTS.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}}", text)
    text = _SUBSCRIPTS.sub(lambda m: f"_{{{unicodedata.normalize('NFKC', m[0])}}}", text)
    text = _CIRCLED.sub(lambda m: ",".join(m[0]), text)  # numbers of a choice, one by one
    text = "".join(_spelled_out(c) if ord(c) > 127 else c for c in text)
    text = text.replace("−", "-")
    return _ROOT.sub(lambda m: rf"\sqrt{{{m[1].strip('()')}}}", text)


_GROUPED = re.compile(
    r"(?<![\w.,(\[{/])([1-9][0-9]{0,2})((?:,[0-9]{3})+|(?: [0-9]{3})+)(?![0-9,)\]}/])"
)


def without_grouping(text: str) -> str:
    """Numbers without the commas or spaces between their thousands; not inside brackets."""
    return _GROUPED.sub(lambda m: m[1] + re.sub("[ ,]", "", m[2]), text)


def _without_stray_braces(text: str) -> str:
    """Without one closing brace too many at the end, and without braces round braces."""
    if text.endswith("}") and text.count("}") - text.count("{") == 1:
        text = text[:-1].rstrip()
    opening = len(text) - len(text.lstrip("{"))
    closing = len(text) - len(text.rstrip("}"))
    nested = min(opening, closing) - 1
    return text[nested : len(text) - nested] if nested > 0 and _is_nest(text, nested) else text


def _is_nest(text: str, nested: int) -> bool:
    """Whether the first braces of a text close only at its end."""
    depth = lowest = 0
    for character in text[nested : len(text) - nested]:
        depth += {"{": 1, "}": -1}.get(character, 0)
        lowest = min(lowest, depth)
    return lowest == 0 and depth == 0


def _spelled_out(character: str) -> str:
    spelled = character.translate(_SIGNS)
    if spelled != character:
        return spelled
    # "2½" is 2 1/2, not 21/2: a vulgar fraction keeps its distance.
    gap = " " if unicodedata.decomposition(character).startswith("<fraction>") else ""
    return gap + unicodedata.normalize("NFKC", character).translate(_SIGNS)


_UNIT_WORDS = {
    "%": "% percent percentage pct percents",
    "dollar": r"\$ $ dollar dollars usd",
    "cent": "cent cents ¢",
    "euro": "€ euro euros eur",
    "pound": "£ pound pounds gbp lb lbs",
    "yen": "yen jpy",
    "yuan": "yuan 元 rmb cny",
    "rupee": "₹ rupee rupees",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "m": "meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "inch": "inch inches in",
    "foot": "foot feet ft",
    "yard": "yard yards yd",
    "mile": "mile miles mi",
    "mg": "mg milligram milligrams",
    "g": "gram grams",
    "kg": "kg kilogram kilograms",
    "ounce": "ounce ounces oz",
    "ton": "ton tons tonne tonnes",
    "ml": "ml milliliter milliliters millilitre millilitres",
    "liter": "liter liters litre litres",
    "s": "second seconds sec secs",
    "minute": "minute minutes min mins",
    "h": "hour hours hr hrs",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years yr yrs",
    "mph": "mph",
    "km/h": "km/h kmh kph",
    "degree": r"^\circ degree degrees deg",
    "radian": "radian radians rad",
    "unit": "unit units",
}
_UNITS = {word: unit for unit, words in _UNIT_WORDS.items() for word in words.split()}
_UNIT_LETTERS = {"m", "g", "s", "h"}
_POWERS = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}

_PER = re.compile(
    r"(?P<rest>.*\\text\{[^{}0-9]*\})\s*/\s*\\text\{\s*(?P<unit>[^{}0-9]*?)\s*\}"
    r"\s*(?P<power>\^\s*\{?\s*[23]\s*\}?)?",
    re.DOTALL,
)
_ORDINAL = re.compile(
    r"(?<=[0-9])\s*(?:\^\s*\{?)?(?:\\text\{\s*(?:st|nd|rd|th)\s*\}|st|nd|rd|th)\}?$"
)
_LEADING_UNIT = re.compile(r"([+-]?)\s*(\\\$|[€£¥₹])\s*(?=[0-9.\\+-])")
_TRAILING_UNIT = re.compile(
    r"(?P<number>.*[0-9)}.])\s*"
    r"(?P<unit>%|\\\$|\^\s*\{?\s*\\circ\s*\}?|[€£¥₹元¢]|\\text\{[^{}0-9]*\}|[A-Za-z][A-Za-z /.]*)"
    r"\s*(?P<power>\^\s*\{?\s*[23]\s*\}?)?",
    re.DOTALL,
)
_PER_WORD = re.compile(rf"(?:{'|'.join(w for w in _UNITS if w.isalpha())}) ?(?:per|/) ?[a-z]+")
_THINGS = re.compile(
    r"(?P<number>(?:[^a-z]*=)?\s*[-+]?(?:\\?\$)?\s*[0-9][0-9,.]*)(?:\s+[a-z]{2,}){1,6}"
)
_NO_THING = re.compile(
    r"\b(?:or|and|to|by|not|if|mod|modulo|times|plus|minus|over|choose|squared|cubed|factorial"
    r"|hundred|thousand|million|billion|trillion|dozen|half|halves|thirds?|quarters?|fourths?"
    r"|tenths?|pi|is|are|than|less|more|base|digits?|zeros?)\b"
)
_CONNECTIVE = re.compile(r"\b(?:or|and|to|by|not)\b")


def split_unit(text: str) -> tuple[str, str | None]:
    r"""A normalised answer without its unit, and the unit in one spelling ("%" for per cent).

    A bare word must be a known unit, so that ``5x`` and ``5 or 6`` stay whole, and a bare letter
    must keep its distance (``5 m``); in ``\text{}`` any words are a unit. Ordinal endings go.
    """
    text = _ORDINAL.sub("", text)
    if leading := _LEADING_UNIT.match(text):
        text = leading[1] + text[leading.end() :]
    if per := _PER.fullmatch(text):
        rest, unit = split_unit(per["rest"])
        below = _UNITS.get(per["unit"].lower(), per["unit"]) + re.sub(
            r"[\s{}]", "", per["power"] or ""
        )
        return (rest, f"{unit}/{below}") if unit else (text, None)
    match = _TRAILING_UNIT.fullmatch(text)
    unit = _unit(match) if match else None
    if match and unit:
        text = match["number"]
    unit = unit or (leading and _currency(leading[2])) or None
    if unit is None and (things := _THINGS.fullmatch(text)) and not _NO_THING.search(text):
        return split_unit(things["number"])  # "12 cows": what is counted is no unit of measure
    return text, unit


def _currency(sign: str) -> str:
    return "yen or yuan" if sign == "¥" else _UNITS[sign]


def _unit(match: re.Match[str]) -> str | None:
    raw = re.sub(r"[\s{}]", "", match["unit"]) if match["unit"][0] == "^" else match["unit"]
    quoted = raw.startswith(r"\text{")
    phrase = (raw[6:-1] if quoted else raw).strip(" .").lower()
    if phrase == "¥":
        return _currency(phrase)
    words = phrase.split()
    power = re.sub(r"[\s{}]", "", match["power"] or "")
    if words and words[0] in _POWERS:
        power, words = _POWERS[words[0]], words[1:]
    name = " ".join(words)
    apart = quoted or match.end("number") < match.start("unit")
    if not quoted and _PER_WORD.fullmatch(name):
        return name
    known = _UNITS.get(name) or (name if apart and name in _UNIT_LETTERS else None)
    if known is None and (not quoted or not name or _CONNECTIVE.search(name)):
        return None
    return (known or name.removesuffix("s")) + power
