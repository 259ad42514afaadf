"""Compare two mathematical answers without running them as code.

VLMEvalKit's MathVision rule calls Python's `eval` on the model's answer, in a child process of 20 to 80 ms per row.
This module reads numbers and arithmetic only, in microseconds. It agrees with the kit wherever that evaluates
arithmetic, and deliberately not where `eval` goes wrong: there "A" equals every number (it names the variable that
holds the truth), and `2^3` equals 1 (exclusive or).
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable

TOLERANCE = 1e-6
"""Largest absolute difference of equal numbers, as in the kit."""

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_REWRITES = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\$|\\left|\\right|\\[,;! ]|\^\{?\\circ\}?", ""),
        (r"\\text\{([^{}]*)\}", r"\1"),
        (r"\\times|\\cdot", "*"),
        (r"\\div|:", "/"),
        (r"(\d+)\s*(\\[dt]?frac\{[^{}]*\}\{[^{}]*\})", r"(\1+\2)"),  # mixed numbers
        (r"(?<=\d),(?=\d{3}\b)", ""),
        (r"(?<![\d.])0+(?=\d)", ""),
    )
)
_ARITHMETIC = re.compile(r"[\d.eE+\-*/() ]{1,100}")
_BRACKETS = str.maketrans({"{": "(", "}": ")", "[": "(", "]": ")"})


def is_equal(answer: object, truth: object) -> bool:
    """Check whether two answers are the same text, or arithmetic of the same value."""
    a, b = str(answer).lower().strip(), str(truth).lower().strip()
    if a == b:
        return True
    x, y = number(a), number(b)
    return x is not None and y is not None and abs(x - y) < TOLERANCE


def number(text: str) -> float | None:
    r"""Evaluate plain or LaTeX arithmetic ("1/2", "3 \\times 4", "\\frac{1}{2}"); None for anything else."""
    for pattern, by in _REWRITES:
        text = pattern.sub(by, text)
    while (plain := _FRACTION.sub(r"((\1)/(\2))", text)) != text:
        text = plain
    text = text.translate(_BRACKETS).replace("^", "**").strip()
    if not _ARITHMETIC.fullmatch(text):
        return None
    try:
        return _value(ast.parse(text, mode="eval").body)
    except (ValueError, SyntaxError, ArithmeticError, TypeError):
        return None


def _value(node: ast.expr) -> float:
    """Evaluate an arithmetic tree, in floats throughout: a huge power overflows at once instead of being computed."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
    raise ValueError("not arithmetic")
