r"""Numbers in what a model wrote: prose in any script, Unicode's forms of digits and signs, LaTeX.

`plain` writes all of them one way; `numbers` finds the numbers of plain text.
"""

from __future__ import annotations

import re
import unicodedata

from .equality import plain_value

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺"
_SIGNS = str.maketrans({**dict.fromkeys("−–‒‐‑", "-"), "⁄": "/", "×": "*", "·": "*", "⋅": "*", "•": "*", "∶": ":"})
_MARKUP = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"(?<=\d)(?:\\[,!]|['’])(?=\d{3}(?!\d))", ""),
        (r"\\(?:left|right|displaystyle|limits)(?![A-Za-z])|\\[()\[\]!]|\{,\}(?!\d{3})|~", ""),
        (r"\{,\}", ","),
        (r"\\[,;: ]", " "),
        (r"\\([$%&#_{}])", r"\1"),
        (r"\\(?:times|cdot)(?![A-Za-z])", "*"),
        (r"\\?sqrt\s*\{([^{}]*)\}|\\?sqrt\s*\(([^()]*)\)", r"√\1\2"),
        (r"\\?sqrt\s*(?:\[[^\]]*\])?\s*[{(]?\s*", "√"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\pi(?![A-Za-z])", "π"),
        (r"\^\s*\{?\s*(?:\\circ|\\degree)\s*\}?|\\degree(?![A-Za-z])", "°"),
        (r"\\(?:text|math)[a-z]*\s*\{([^{}]*)\}", r" \1 "),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"-\s*\\frac\s*\{\s*(\d[\d.]*)\s*\}\s*\{\s*(\d[\d.]*)\s*\}", r"-\1/\2"),
        (r"\\frac\s*\{\s*(-?\d[\d.]*)\s*\}\s*\{\s*(\d[\d.]*)\s*\}", r" \1/\2 "),
        (r"\^\s*\{\s*(-?\d+)\s*\}", r"^\1"),
        (r"(?i)(?<![a-z])(?:minus|negative)\s+(?=\d)|负\s*(?=\d)", "-"),
    )
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"""(?<![A-Za-z0-9_^√])(?<!\d[.:/])           # not inside a word, an exponent, a root or a longer number
    (?: (?<![)\]}}.°%]) (?P<sign>-) [$€£¥]? )?       # a minus is a sign, not the dash of "3-4" or "a-b"
    (?P<size> (?:\d+\ +\d+/\d+)                      # 3 1/2
      | (?:{_DIGITS}) (?: /(?:{_DIGITS}) | :\d+(?![\d:]) )?)
    (?P<power> (?:\s*\*\s*10\^|[eE](?=[+-]?\d)) [+-]?\d+ | \^-?\d+ )?
    (?! \d | [./]\d | \s*[√π] | (?:st|nd|rd|th|[nxyz])(?![A-Za-z]) )""",
    re.X,
)

_LEADING_ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")


def plain(text: str) -> str:
    r"""Write digits, signs, fractions, powers and LaTeX one way: "−５" is -5, "3½" is 3 1/2, "\dfrac12" is 1/2."""
    raised = re.sub(rf"[{_SUPERSCRIPTS}]+", lambda found: "^" + unicodedata.normalize("NFKC", found[0]), text)
    grouped = re.sub(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))", "", raised)
    spaced = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", grouped)
    text = unicodedata.normalize("NFKC", spaced).translate(_SIGNS)
    for pattern, by in _MARKUP:
        text = pattern.sub(by, text)
    return text


def boxed(text: str) -> str:
    r"""Return the content of the last `\boxed{…}` of a text, all of it without one."""
    found: list[str] = _BOXED.findall(text)
    return found[-1] if found else text


def numbers(text: str) -> list[str]:
    """Return the numbers of plain text in order, without thousands separators and units.

    They are written as Python and VLMEvalKit read them: 1234.5, -3, 2/3, 7/2 (of 3 1/2), 1.5e3 (of 1.5*10^3), 2^10.
    """
    return [_written(found) for found in _NUMBER.finditer(text)]


def _written(found: re.Match[str]) -> str:
    """Write one number."""
    size, power = found["size"].replace(",", ""), re.sub(r"\s|\+", "", found["power"] or "")
    if " " in size:
        whole, top, bottom = map(int, re.findall(r"\d+", size))
        size = f"{whole * bottom + top}/{bottom}"
    if power and not power.startswith("^"):
        power = "e" + re.sub(r"\*10\^|[eE]", "", power)
    return f"{found['sign'] or ''}{size}{power}"


def value(number: str) -> float | None:
    """Return the value of a number that `numbers` found; None of a ratio, and if no float holds it."""
    found = plain_value(_LEADING_ZEROS.sub("", number).replace("^", "**"))
    if not isinstance(found, int | float):
        return None
    try:
        return float(found)
    except OverflowError:
        return None
