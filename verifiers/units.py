"""Units of measurement with exact factors: names, SI prefixes, and products of powers of units.

Factors are those of the SI brochure (9th edition, 2019, revised 2024), of NIST Special
Publication 811 (2008) for customary units, and CODATA 2022 for the dalton. Ambiguous units are
left out (ton, the calorie other than 4.184 J) or fixed here: gallon, quart, pint and cup are US
liquid measure, a year has 365.25 days, a month is a twelfth of it, byte prefixes are decimal.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

MAX_UNIT = 200  # characters
MAX_EXPONENT = 12
MAX_DEPTH = 5  # of brackets

_PI = Fraction(314159265358979323846264338327950288, 10**35)

# symbols | names | factor | dimensions; "*" after the symbols: they and the names take SI prefixes.
_TABLE = """
m * | metre meter | 1 | m
g * | gram gramme | 1/1000 | kg
s * | second sec | 1 | s
A * | ampere amp | 1 | A
K * | kelvin | 1 | K
mol * | mole | 1 | mol
cd * | candela | 1 | cd
bit * | | 1 | bit
B * | byte | 8 | bit
rad * | radian | 1 |
sr * | steradian | 1 |
Hz * | hertz | 1 | s^-1
N * | newton | 1 | kg m s^-2
Pa * | pascal | 1 | kg m^-1 s^-2
J * | joule | 1 | kg m^2 s^-2
W * | watt | 1 | kg m^2 s^-3
C * | coulomb | 1 | A s
V * | volt | 1 | kg m^2 s^-3 A^-1
F * | farad | 1 | kg^-1 m^-2 s^4 A^2
Ω * | ohm | 1 | kg m^2 s^-3 A^-2
S * | siemens | 1 | kg^-1 m^-2 s^3 A^2
Wb * | weber | 1 | kg m^2 s^-2 A^-1
T * | tesla | 1 | kg s^-2 A^-1
H * | henry | 1 | kg m^2 s^-2 A^-2
lm * | lumen | 1 | cd
lx * | lux | 1 | cd m^-2
Bq * | becquerel | 1 | s^-1
Gy * | gray | 1 | m^2 s^-2
Sv * | sievert | 1 | m^2 s^-2
kat * | katal | 1 | mol s^-1
L l * | litre liter | 1/1000 | m^3
M * | molar | 1000 | mol m^-3
eV * | electronvolt | 1.602176634e-19 | kg m^2 s^-2
Wh * | | 3600 | kg m^2 s^-2
cal * | calorie | 4.184 | kg m^2 s^-2
bar * | | 100000 | kg m^-1 s^-2
t * | tonne | 1000 | kg
pc * | parsec | 3.0856775814913673e16 | m
G * | gauss | 1/10000 | kg s^-2 A^-1
Ci * | curie | 3.7e10 | s^-1
erg | | 1e-7 | kg m^2 s^-2
dyn | dyne | 1e-5 | kg m s^-2
u Da amu | dalton | 1.66053906892e-27 | kg
min | minute | 60 | s
h hr | hour | 3600 | s
d | day | 86400 | s
wk | week | 604800 | s
| month | 2629800 | s
y yr | year | 31557600 | s
cc | | 1e-6 | m^3
ha | hectare | 10000 | m^2
Å | angstrom | 1e-10 | m
au AU | | 149597870700 | m
ly | lightyear | 9460730472580800 | m
in | inch inches | 0.0254 | m
ft | foot feet | 0.3048 | m
yd | yard | 0.9144 | m
mi | mile | 1609.344 | m
nmi | | 1852 | m
lb lbs | pound | 0.45359237 | kg
oz | ounce | 0.028349523125 | kg
lbf | | 4.4482216152605 | kg m s^-2
acre | | 4046.8564224 | m^2
gal | gallon | 0.003785411784 | m^3
qt | quart | 0.000946352946 | m^3
pt | pint | 0.000473176473 | m^3
cup | | 0.0002365882365 | m^3
mph | | 0.44704 | m s^-1
kph kmh | | 5/18 | m s^-1
kn | knot | 463/900 | m s^-1
atm | atmosphere | 101325 | kg m^-1 s^-2
mmHg | | 133.322387415 | kg m^-1 s^-2
Torr | torr | 20265/152 | kg m^-1 s^-2
psi | | 44482216152605/6451600000 | kg m^-1 s^-2
BTU Btu | | 1055.05585262 | kg m^2 s^-2
hp | horsepower | 37284993579113511/50000000000000 | kg m^2 s^-3
rev | revolution | 1 | rev
rpm | | 1/60 | rev s^-1
% | percent | 1/100 |
ppm | | 1e-6 |
$ USD | dollar | 1 | dollar
€ EUR | euro | 1 | euro
£ GBP | | 1 | sterling
"""
_SYMBOLS = {"Q": 30, "R": 27, "Y": 24, "Z": 21, "E": 18, "P": 15, "T": 12, "G": 9, "M": 6, "k": 3,
            "K": 3, "h": 2, "da": 1, "d": -1, "c": -2, "m": -3, "µ": -6, "n": -9, "p": -12,
            "f": -15, "a": -18, "z": -21, "y": -24, "r": -27, "q": -30}  # fmt: skip
_NAMES = {"quetta": 30, "ronna": 27, "yotta": 24, "zetta": 21, "exa": 18, "peta": 15, "tera": 12,
          "giga": 9, "mega": 6, "kilo": 3, "hecto": 2, "deca": 1, "deka": 1, "deci": -1,
          "centi": -2, "milli": -3, "micro": -6, "nano": -9, "pico": -12, "femto": -15,
          "atto": -18, "zepto": -21, "yocto": -24, "ronto": -27, "quecto": -30}  # fmt: skip

_TOKEN = re.compile(
    r"(?P<name>(?:[A-Za-zµΩÅ°]+|[%$€£]))(?P<power>[+-]?[0-9]+)?|(?P<sign>[*/()])"
    r"|\^\s*(?P<raised>[+-]?[0-9]+)|\s+"
)
_RAISING = {"square": 2, "sq": 2, "cubic": 3, "squared": 2, "cubed": 3}


class NotAUnit(ValueError):
    """The text is no product of powers of units."""


@dataclass(frozen=True)
class Unit:
    """``value`` in this unit is ``(value + offset) * factor`` in SI base units."""

    factor: Fraction = Fraction(1)
    powers: Mapping[str, int] = field(default_factory=dict)  # of base units; no zeros
    offset: Fraction = Fraction(0)

    def times(self, other: "Unit", power: int) -> "Unit":
        """The product with a power of another unit; an offset is lost: differences remain."""
        powers = dict(self.powers)
        for base, exponent in other.powers.items():
            powers[base] = powers.get(base, 0) + exponent * power
        kept = {base: exponent for base, exponent in powers.items() if exponent}
        return Unit(self.factor * other.factor**power, kept)


_AFFINE = {
    "degC": Unit(Fraction(1), {"K": 1}, Fraction("273.15")),
    "degF": Unit(Fraction(5, 9), {"K": 1}, Fraction("459.67")),
}


def _dimensions(text: str) -> dict[str, int]:
    parts = (part.partition("^") for part in text.split())
    return {base: int(exponent or 1) for base, _, exponent in parts}


def _read_table() -> list[dict[str, Unit]]:
    """Units by symbol and by name; those of them that take prefixes."""
    tables: list[dict[str, Unit]] = [{}, {}, {}, {}]
    for line in _TABLE.strip().splitlines():
        symbols, names, factor, dimensions = (part.strip() for part in line.split("|"))
        unit = Unit(Fraction(factor), _dimensions(dimensions))
        for place, words in ((0, symbols.rstrip("* ")), (1, names)):
            for word in words.split():
                tables[place][word] = unit
                if symbols.endswith("*"):
                    tables[place + 2][word] = unit
    by_symbol, by_name = tables[:2]
    by_symbol["°"] = by_name["degree"] = by_symbol["deg"] = Unit(_PI / 180)
    by_symbol["arcmin"], by_symbol["arcsec"] = Unit(_PI / 10_800), Unit(_PI / 648_000)
    return tables


_BY_SYMBOL, _BY_NAME, _PREFIXED_SYMBOL, _PREFIXED_NAME = _read_table()


@lru_cache(maxsize=4096)
def named(name: str) -> Unit:
    """The unit of a symbol or a name. Any other word of two letters or more is what is counted,
    a base unit of its own, so that 5 apples are 5 apples.

    Raises:
        NotAUnit: a single letter that is no unit.
    """
    if name in _AFFINE:
        return _AFFINE[name]
    if name in _BY_SYMBOL:
        return _BY_SYMBOL[name]
    word = name.lower()
    for singular in (word, word.removesuffix("s")):
        if singular in _BY_NAME:
            return _BY_NAME[singular]
    if found := _prefixed(name, _SYMBOLS, _PREFIXED_SYMBOL):
        return found
    for singular in (word, word.removesuffix("s")):
        if found := _prefixed(singular, _NAMES, _PREFIXED_NAME):
            return found
    if len(name) < 2:
        raise NotAUnit(f"no unit {name!r}")
    return Unit(Fraction(1), {word.removesuffix("s"): 1})


def _prefixed(name: str, prefixes: Mapping[str, int], units: Mapping[str, Unit]) -> Unit | None:
    for prefix, power in prefixes.items():
        unit = units.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if unit and len(prefix) < len(name):
            return Unit(unit.factor * Fraction(10) ** power, unit.powers)
    return None


def parse(text: str, *, divides_all: bool) -> Unit:
    """The unit that a text spells: ``m/s^2``, ``kg m2 s-2``, ``J/(kg K)``, ``miles per hour``.

    Args:
        text: names, ``* / ^ ( )``, ``per``, integers as exponents; a space multiplies.
        divides_all: whether ``/`` divides by all that follows it, so that J/kg K is J/(kg K), or
            by the next unit only.
    Raises:
        NotAUnit: it is none, or too long or too deep.
    """
    if len(text) > MAX_UNIT:
        raise NotAUnit("too long")
    tokens: list[tuple[str, int]] = []  # names with their power; signs with 0
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if not match:
            raise NotAUnit(f"unexpected {text[at]!r}")
        at = match.end()
        _add_token(match, tokens)
    parser = _Parser(tokens, divides_all)
    unit = parser.product(0)
    if parser.at < len(tokens):
        raise NotAUnit("a bracket too many")
    return unit


def _add_token(match: re.Match[str], tokens: list[tuple[str, int]]) -> None:
    raised = match["raised"] or match["power"]
    if raised and (len(raised) > 3 or abs(int(raised)) > MAX_EXPONENT):
        raise NotAUnit(f"exponent {raised[:9]}")
    name = match["name"]
    if match["raised"]:
        if not tokens or tokens[-1][0] in "*/(":
            raise NotAUnit("an exponent of nothing")
        tokens[-1] = (tokens[-1][0], int(match["raised"]))
    elif name in ("squared", "cubed") and tokens:
        tokens[-1] = (tokens[-1][0], _RAISING[name])
    elif name == "per":
        tokens.append(("/", 0))
    elif name:
        raising = _RAISING.get(tokens[-1][0]) if tokens else None
        if raising:
            tokens.pop()
        tokens.append((name, int(match["power"] or raising or 1)))
    elif match["sign"]:
        tokens.append((match["sign"], 1 if match["sign"] == ")" else 0))


class _Parser:
    def __init__(self, tokens: list[tuple[str, int]], divides_all: bool) -> None:
        self.tokens, self.divides_all, self.at = tokens, divides_all, 0

    def product(self, depth: int) -> Unit:
        if depth > MAX_DEPTH:
            raise NotAUnit("nested too deep")
        unit, sign, empty, affine = Unit(), 1, True, Unit()
        while self.at < len(self.tokens) and self.tokens[self.at][0] != ")":
            token, power = self.tokens[self.at]
            self.at += 1
            if token == "/":
                sign = -1
                continue
            if token == "*":
                continue
            factor, power = self.bracket(depth) if token == "(" else (named(token), power)
            affine = factor if empty and power == 1 and sign == 1 else Unit()
            unit, empty = unit.times(factor, sign * power), False
            sign = sign if self.divides_all else 1
        if empty or self.tokens[self.at - 1][0] in "*/":
            raise NotAUnit("no unit, or one that breaks off")
        return affine if affine.offset else unit

    def bracket(self, depth: int) -> tuple[Unit, int]:
        inner = self.product(depth + 1)
        if self.at == len(self.tokens):
            raise NotAUnit("a bracket that is never closed")
        self.at += 1
        return inner, self.tokens[self.at - 1][1]
