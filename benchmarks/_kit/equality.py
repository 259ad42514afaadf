r"""Compare two mathematical answers as VLMEvalKit does, without running them as code.

VLMEvalKit's MathVision rule gives both answers to Python's `eval`, then to `latex2sympy`, whose text it gives to
`eval` again, in a child process of 20 to 80 ms per comparison. Here the same two texts are read as arithmetic: numbers,
`+ - * / // % **` and brackets. LaTeX is read by the kit's own parser, which computes nothing.

The results differ only where `eval` does more than arithmetic, or where it would not end:

* names: "A" equals every number for the kit (it is the variable that holds the truth), "abs(-3)" is a call;
* operators on bits, comparisons, logic: "2^3" equals 1 as well as 8 for the kit, "1<2" equals 1;
* powers beyond `LARGEST_POWER` bits, texts longer than `LONGEST` or nested deeper than `DEEPEST`, and what the parser
  does compute (binomials, gcd, lcm) of other than small whole numbers;
* option letters: "(b)" and `\text{B}` equal "B" for the kit, again by a variable of that name, `\text{C}` is not "C".
"""

from __future__ import annotations

import ast
import functools
import operator
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

Number = int | float | complex

TOLERANCE = 1e-6
"""Largest absolute difference of equal numbers, as in the kit."""
LONGEST = 200
"""Most characters of a text that is read as arithmetic."""
DEEPEST = 16
"""Most brackets around a number: the parser's time doubles with every few of them."""
LARGEST_POWER = 10_000
"""Most bits of a power of integers."""

_OPERATORS: Mapping[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda base, exponent: _power(base, exponent),
}
_NUMERIC_LATEX = re.compile(
    r"(?: [^\\a-z,|<>=] | (?<=\d),(?=\d{3}(?!\d)) | \\[^a-z|]"
    r" | \\(?:frac|sqrt|times|cdot|div|text|quad|qquad|circ|circle|degree|phantom|approx)(?![a-z])"
    r" | \\binom\{\d{1,3}\}\{\d{1,3}\} | \\(?:gcd|lcm)\(\d{1,9},\ ?\d{1,9}\) )+",
    re.X,
)
"""LaTeX of which the parser can make a number, after its own normalisation: no letters, sets, relations, functions."""
_PARSER = threading.Lock()
"""The parser's tables grow while it reads, and a judge model's replies are compared in threads."""
_LETTER = re.compile(r"(?:\\text|[\s(){}$])*([a-z])[\s(){}$]*")


def is_equal(answer: object, truth: object) -> bool:
    """Check whether two answers are the same text, the same letter, or arithmetic of the same value."""
    a, b = str(answer).lower().strip(), str(truth).lower().strip()
    return a == b or any(_close(read(a), read(b)) for read in (plain_value, latex_value))


def _close(a: Any, b: Any) -> bool:
    """Check whether two values were read and are equal."""
    if a is None or b is None:
        return False
    try:
        return bool(abs(a - b) < TOLERANCE)
    except (TypeError, OverflowError):  # letters; an integer that no float can hold
        return bool(a == b)


def plain_value(text: str) -> Number | None:
    """Return the value of a text as Python's arithmetic ("1/2", "2**3", "1e3"); None for anything else."""
    try:
        return _value(ast.parse(text, mode="eval").body) if len(text) <= LONGEST else None
    except (ValueError, SyntaxError, ArithmeticError, TypeError, RecursionError, MemoryError):
        return None


@functools.lru_cache(maxsize=4096)  # the kit compares each row four times; the parser takes milliseconds
def latex_value(text: str) -> Number | str | None:
    r"""Return the value of a LaTeX text ("3\frac{1}{2}", "\boxed{7}"), or its only letter; None for anything else."""
    # The kit imports this parser, too; a list of benchmarks needs neither.
    from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex

    latex = normalize_latex(text, NormalizationConfig())
    if letter := _LETTER.fullmatch(latex):
        return letter[1]
    if len(latex) > LONGEST or _depth(latex) > DEEPEST or not _NUMERIC_LATEX.fullmatch(latex):
        return None
    try:
        with _PARSER:
            parsed = str(latex2sympy(latex, normalization_config=None))
    except Exception:  # it raises bare exceptions, AttributeError and others for what it cannot read
        return None
    return plain_value(parsed)


def _depth(text: str) -> int:
    """Return the deepest nesting of brackets."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(depth, deepest)
    return deepest


def _value(node: ast.expr) -> Number:
    """Evaluate an arithmetic tree as Python does.

    Raises:
        ValueError: it is more than arithmetic.
    """
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
    raise ValueError("not arithmetic")


def _power(base: Number, exponent: Number) -> Number:
    """Raise a number to a power.

    Raises:
        OverflowError: the result would have more than `LARGEST_POWER` bits.
    """
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > LARGEST_POWER:
        raise OverflowError(f"a power of more than {LARGEST_POWER} bits")
    result: Number = base**exponent
    return result
