r"""One spelling for what LaTeX, Unicode and markdown spell in many ways; and units."""

import re
import unicodedata

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("−‐‑‒–—﹣－", "-"),
        **dict.fromkeys("×·⋅∙∗•", "*"),
        **dict.fromkeys("÷∕⁄", "/"),
        **dict.fromkeys("°º˚", r"^\circ "),
        "π": r"\pi ",
        "𝜋": r"\pi ",
        "∞": r"\infty ",
        "∅": r"\emptyset ",
        "∪": r"\cup ",
        "∩": r"\cap ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
    }
)
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ]+")
_SUBSCRIPTS = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₍₎]+")
_ROOT = re.compile(r"√\s*(\([^()]*\)|[0-9]+|[A-Za-z])")
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u00ad]")

# In this order: a later rule may rely on an earlier one.
_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\\[|\\\]|\\\(|\\\)|(?<!\\)\$", " "),
        (r"\\(?:left|right|[bB]igg?[lr]?|middle|displaystyle|textstyle|limits)(?![a-zA-Z])", ""),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:text(?:bf|rm|it|sf|tt|normal)|mbox|math(?:rm|bf|sf|it|tt))\s*\{", r"\\text{"),
        (r",\\!\s*|\{\s*,\s*\}\s*", ","),
        (r"\\!", ""),
        (r"\\[,;:> ~]|~|\\q?quad(?![a-zA-Z])|\\space(?![a-zA-Z])", " "),
        (r"\\%|\\percent(?![a-zA-Z])", "%"),
        (r"\\(?:times|cdot|ast)(?![a-zA-Z])", "*"),
        (r"\\div(?![a-zA-Z])", "/"),
        (r"\*\*", "^"),
        (r"\\(?:degree|degrees)(?![a-zA-Z])", r"^\\circ "),
        (r"\\neq(?![a-zA-Z])", r"\\ne"),
        (r"\\leq(?:slant)?(?![a-zA-Z])", r"\\le"),
        (r"\\geq(?:slant)?(?![a-zA-Z])", r"\\ge"),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\s+", " "),
    ]
]
_EDGE = re.compile(r"^(?:\*\*|__|`)+|(?:\*\*|__|`)+$")
_FULL_STOP = re.compile(r"(?<=[^.\s])\s*[.,;:\\]$")


def normalise(answer: str) -> str:
    r"""An answer in one spelling: ASCII signs and digits, ``\frac``, ``*``, ``^``, ``\text``.

    Whitespace is collapsed, not removed; value and structure never change.
    """
    text = _INVISIBLE.sub("", answer)
    text = _SUPERSCRIPTS.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}}", text)
    text = _SUBSCRIPTS.sub(lambda m: f"_{{{unicodedata.normalize('NFKC', m[0])}}}", text)
    text = "".join(_spelled_out(c) if ord(c) > 127 else c for c in text)
    text = text.replace("−", "-").strip()
    text = _EDGE.sub("", text).strip()
    text = _ROOT.sub(lambda m: rf"\sqrt{{{m[1].strip('()')}}}", text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return _FULL_STOP.sub("", text.strip()).strip()


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
_CONNECTIVE = re.compile(r"\b(?:or|and|to|by|not)\b")


def split_unit(text: str) -> tuple[str, str | None]:
    r"""A normalised answer without its unit, and the unit in one spelling ("%" for per cent).

    A bare word must be a known unit, so that ``5x`` and ``5 or 6`` stay whole, and a bare letter
    must keep its distance (``5 m``); in ``\text{}`` any words are a unit. Ordinal endings go.
    """
    text = _ORDINAL.sub("", text)
    if leading := _LEADING_UNIT.match(text):
        text = leading[1] + text[leading.end() :]
    match = _TRAILING_UNIT.fullmatch(text)
    unit = _unit(match) if match else None
    if match and unit:
        text = match["number"]
    unit = unit or (leading and _currency(leading[2])) or None
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
    known = _UNITS.get(name) or (name if apart and name in _UNIT_LETTERS else None)
    if known is None and (not quoted or not name or _CONNECTIVE.search(name)):
        return None
    return (known or name.removesuffix("s")) + power
