"""Values of expressions as balls.

Every value is an interval that certainly holds the true one (Arb, through python-flint), at the
precision that is set. That and the count of steps belong to the whole process, so one comparison
runs at a time (see ``expressions``).
"""

import random
from collections.abc import Callable, Mapping
from fractions import Fraction

from flint import acb, arb, ctx, fmpq, fmpz

from llmalign.verifiers.math.tree import Node

MAX_TERMS = 2_000  # of a sum or product
MAX_EVALUATIONS = 400  # of an integrand
MAX_EXPONENT_BITS = 200  # of an exponent; beyond, towers are not evaluated

MAX_STEPS = 30_000  # evaluated nodes of one comparison, some 0.03 s …
STEPS_PER_NODE = 16  # … or so many for each node, enough for all points where both are long

Values = Mapping[str, acb]
_steps_left = 0


def start(*trees: Node) -> None:
    """Begins a comparison of some trees: sets how many steps it may take."""
    global _steps_left
    _steps_left = max(MAX_STEPS, STEPS_PER_NODE * sum(1 for tree in trees for _ in tree.walk()))


class Undefined(ArithmeticError):
    """No finite value here: a division by zero, a pole, or a quantity beyond all bounds."""


class Beyond(Undefined):
    """Finite perhaps, but larger or longer than we evaluate."""


def evaluate(node: Node, env: Values) -> acb:
    """The value of an expression at the current precision.

    Raises:
        Undefined: it has none; Beyond: it is out of reach; KeyError: no such variable;
        TypeError: it is no number, such as a set.
    """
    global _steps_left
    _steps_left -= 1
    if _steps_left < 0:
        raise Beyond("steps")
    rule = _RULES.get(node.kind)
    if rule is None:
        raise TypeError(f"a {node.kind} is no number")
    value = rule(node, env)
    if not value.is_finite():
        raise Beyond(node.kind)
    return value


def integer_value(value: acb, limit: int = 10**60) -> int:
    """The integer that a ball certainly is, or Undefined."""
    if value.abs_upper() > limit:  # first: 2^(10^10) is exact, and has 10^10 digits
        raise Beyond("too large an integer")
    found = value.unique_fmpz()
    if found is None or (value - found).abs_upper() > arb(10) ** -10:
        raise Undefined("no integer")
    return int(found)


def compare_real(a: acb, b: acb) -> int:
    """-1, 0 or 1 as a is less than, equal to or greater than b, both real; else Undefined."""
    if not (a.imag.contains(0) and b.imag.contains(0)):
        raise Undefined("not real")
    difference = (a - b).real
    if difference.contains(0):
        size = max(a.abs_upper(), b.abs_upper(), arb(1))
        if difference.abs_upper() > size * arb(10) ** -20:
            raise Undefined("known too roughly")
        return 0
    return 1 if difference > 0 else -1


# --- one rule per kind of node


def _number(node: Node, env: Values) -> acb:
    value: Fraction = node.value
    if value.denominator == 1:
        return acb(value.numerator)
    return acb(arb(fmpq(value.numerator, value.denominator)))


def _symbol(node: Node, env: Values) -> acb:
    if node.value in env:
        return env[node.value]
    if node.value == "pi":
        return acb(arb.pi())
    if node.value == "e":
        return acb(arb.const_e())
    if node.value == "i":
        return acb(0, 1)
    raise KeyError(node.value)


def _add(node: Node, env: Values) -> acb:
    total = acb(0)
    for term in node.args:
        total += evaluate(term, env)
    return total


def _mul(node: Node, env: Values) -> acb:
    total = acb(1)
    for factor in node.args:
        total *= evaluate(factor, env)
    return total


def _div(node: Node, env: Values) -> acb:
    top, bottom = (evaluate(arg, env) for arg in node.args)
    if bottom.contains(0):
        raise Undefined("division by zero")
    return top / bottom


def _neg(node: Node, env: Values) -> acb:
    return -evaluate(node.args[0], env)


def _degrees(node: Node, env: Values) -> acb:
    return evaluate(node.args[0], env) * arb.pi() / 180


def _pow(node: Node, env: Values) -> acb:
    if node.args[0].kind == "num" and node.args[0].value == 1:
        return acb(1)  # however large the exponent
    base, exponent = (evaluate(arg, env) for arg in node.args)
    if exponent.bits() > 4096 or exponent.abs_upper() > arb(2) ** MAX_EXPONENT_BITS:
        raise Beyond("exponent")
    if base.contains(0):
        if exponent.is_zero():
            return acb(1)
        if not exponent.real > 0:
            raise Undefined("a power of zero")
        return acb(0) if base.is_zero() else base**exponent
    odd = _odd_root(node.args[1])
    if odd and base.imag.is_zero() and base.real < 0:
        root = -((-base).pow(acb(1) / odd.denominator))
        return root**odd.numerator
    return base**exponent


def _odd_root(exponent: Node) -> Fraction | None:
    """``p/q`` with odd q > 1, where (-8)^(1/3) is -2."""
    sign = 1
    if exponent.kind == "neg":
        sign, exponent = -1, exponent.args[0]
    if exponent.kind != "div" or any(arg.kind != "num" for arg in exponent.args):
        return None
    top, bottom = (arg.value for arg in exponent.args)
    if not bottom or top.denominator != 1 or bottom.denominator != 1:
        return None
    value = sign * Fraction(top, bottom)
    return value if value.denominator > 1 and value.denominator % 2 else None


def _call(node: Node, env: Values) -> acb:
    args = [evaluate(arg, env) for arg in node.args]
    function = _FUNCTIONS.get(node.value)
    if function is None:
        return _unknown_function(node.value, args)
    try:
        return function(*args)
    except TypeError as error:
        raise Undefined(str(error)) from None  # the wrong number of arguments


def _unknown_function(name: str, args: list[acb]) -> acb:
    """A function nobody defined: some value that depends on its name and arguments alone."""
    shown = ",".join(str(arg.mid().real.str(25, radius=False)) for arg in args)
    state = random.Random(f"{name}({shown})".encode("utf-8", "surrogatepass"))
    return acb(arb(fmpq(state.randint(1, 10**9), 10**9 + 7)))


def _root(degree: acb, value: acb) -> acb:
    n = integer_value(degree, 10**9)
    if n == 2:
        return value.sqrt()
    if n % 2 and value.imag.is_zero() and value.real < 0:
        return -((-value).pow(acb(1) / n))
    if not n:
        raise Undefined("root of degree zero")
    return acb(0) if value.is_zero() else value.pow(acb(1) / n)


def _log(*args: acb) -> acb:
    if len(args) == 1:
        return args[0].log()
    base, value = args
    bottom = base.log()
    if bottom.contains(0):
        raise Undefined("logarithm to base one")
    return value.log() / bottom


def _factorial(value: acb) -> acb:
    if value.abs_upper() > arb(10) ** 1000:
        raise Beyond("factorial")
    return (value + 1).gamma()


def _binomial(n: acb, k: acb) -> acb:
    if n.abs_upper() > arb(10) ** 100 or k.abs_upper() > arb(10) ** 100:
        raise Beyond("binomial")
    return (n + 1).gamma() * (k + 1).rgamma() * (n - k + 1).rgamma()


def _floor(value: acb) -> acb:
    if not value.imag.contains(0):
        raise Undefined("floor of a complex number")
    if value.abs_upper() > arb(10) ** 60:
        raise Beyond("floor")
    low, high = value.real.lower().floor(), value.real.upper().floor()
    whole = low.unique_fmpz()
    if whole is None or high.unique_fmpz() != whole:
        raise Undefined("at a jump")
    return acb(whole)


def _ceil(value: acb) -> acb:
    return -_floor(-value)


def _integers(function: Callable[..., fmpz]) -> Callable[..., acb]:
    def call(*args: acb) -> acb:
        return acb(function(*(fmpz(integer_value(arg)) for arg in args)))

    return call


def _gcd(*args: fmpz) -> fmpz:
    total = fmpz(0)
    for arg in args:
        total = total.gcd(arg)
    return total


def _lcm(*args: fmpz) -> fmpz:
    total = fmpz(1)
    for arg in args:
        total = total.lcm(arg)
    return total


def _mod(a: fmpz, b: fmpz) -> fmpz:
    if not b:
        raise Undefined("modulo zero")
    return a % b


def _extreme(sign: int) -> Callable[..., acb]:
    def call(*args: acb) -> acb:
        best = args[0]
        for arg in args[1:]:
            if compare_real(arg, best) == sign:
                best = arg
        return best

    return call


_FUNCTIONS: dict[str, Callable[..., acb]] = {
    "sin": acb.sin, "cos": acb.cos, "tan": acb.tan, "cot": acb.cot, "sec": acb.sec,
    "csc": acb.csc, "arcsin": acb.asin, "arccos": acb.acos, "arctan": acb.atan,
    "arccot": lambda x: acb(arb.pi() / 2) - x.atan(), "arcsec": lambda x: (1 / x).acos(),
    "arccsc": lambda x: (1 / x).asin(), "sinh": acb.sinh, "cosh": acb.cosh, "tanh": acb.tanh,
    "coth": acb.coth, "ln": acb.log, "log": _log, "lg": lambda x: x.log() / acb(10).log(),
    "exp": acb.exp, "root": _root, "abs": lambda x: acb(abs(x)), "floor": _floor, "ceil": _ceil,
    "factorial": _factorial, "binom": _binomial, "gcd": _integers(_gcd), "lcm": _integers(_lcm),
    "mod": _integers(_mod), "max": _extreme(1), "min": _extreme(-1),
    "Re": lambda x: acb(x.real), "Im": lambda x: acb(x.imag), "arg": lambda x: acb(x.arg()),
    "sgn": acb.sgn,
}  # fmt: skip


# --- sums, products, integrals, limits


def _series(node: Node, env: Values) -> acb:
    low_node, high_node, body = node.args
    low = integer_value(evaluate(low_node, env))
    if high_node.kind == "inf":
        return _infinite(node, low, env)
    high = integer_value(evaluate(high_node, env))
    if high - low > MAX_TERMS:
        raise Beyond("terms")
    total = acb(0 if node.kind == "sum" else 1)
    for k in range(low, high + 1):
        term = evaluate(body, {**env, node.value: acb(k)})
        total = total + term if node.kind == "sum" else total * term
    return total


def _infinite(node: Node, low: int, env: Values) -> acb:
    """A convergent infinite sum by Richardson extrapolation of its partial sums."""
    if node.kind != "sum":
        raise Beyond("an infinite product")
    orders, start = 10, 8
    sums, total, k = [], acb(0), low
    with ctx.workprec(256):
        for order in range(orders):
            stop = low + start * (order + 1)
            while k < stop:
                total += evaluate(node.args[2], {**env, node.value: acb(k)})
                k += 1
            sums.append(total)
        full, less = _richardson(sums), _richardson(sums[:-1])
        geometric = sums[-1] - sums[-2]
    if geometric.abs_upper() < arb(10) ** -20:
        return _widened(sums[-1], geometric.abs_upper() * 4)
    gap = (full - less).abs_upper()
    if not gap < arb(10) ** -5:
        raise Beyond("a sum that converges too slowly")
    return _widened(full, gap * 4)


def _richardson(sums: list[acb]) -> acb:
    """Limit of S(1), S(2), … with an error expansion in powers of 1/n."""
    size = len(sums)
    total = acb(0)
    factorials = [fmpz(1)]
    for k in range(1, size + 1):
        factorials.append(factorials[-1] * k)
    for k in range(1, size + 1):
        sign = -1 if (size - k) % 2 else 1
        weight = fmpq(sign * fmpz(k) ** size, factorials[k] * factorials[size - k])
        total += sums[k - 1] * acb(arb(weight))
    return total


def _widened(value: acb, radius: arb) -> acb:
    margin = arb(0, float(radius) + 1e-300)
    return value + acb(margin)


def _integral(node: Node, env: Values) -> acb:
    low, high, body = node.args
    a, b = evaluate(low, env), evaluate(high, env)

    def integrand(x: acb, analytic: bool) -> acb:
        try:
            return evaluate(body, {**env, node.value: x})
        except Undefined:
            return acb(arb(0, float("inf")))

    with ctx.workprec(128):
        return acb.integral(integrand, a, b, eval_limit=MAX_EVALUATIONS)


def _limit(node: Node, env: Values) -> acb:
    """The value very near the point, where two distances agree."""
    target, body = node.args
    values = []
    with ctx.workprec(1024):
        for power in (60, 62):
            step = arb(10) ** -power
            x = acb(1 / step) if target.kind == "inf" else evaluate(target, env) + step
            values.append(evaluate(body, {**env, node.value: x}))
    gap = (values[0] - values[1]).abs_upper()
    if not gap < arb(10) ** -30 * (1 + values[1].abs_upper()):
        raise Beyond("no limit in sight")
    return _widened(values[1], arb(10) ** -30)


_RULES: dict[str, Callable[[Node, Values], acb]] = {
    "num": _number, "sym": _symbol, "add": _add, "mul": _mul, "div": _div, "neg": _neg,
    "deg": _degrees, "pow": _pow, "call": _call, "sum": _series, "prod": _series,
    "int": _integral, "lim": _limit,
}  # fmt: skip
