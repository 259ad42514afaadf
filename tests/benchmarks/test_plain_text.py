"""Numbers in prose of any script, in Unicode's forms and in LaTeX."""

from __future__ import annotations

import pytest

from uniprune.benchmarks._kit.plain_text import boxed, numbers, plain, value

FOUND: dict[str, tuple[str, ...]] = {
    "28": (
        "28cm",
        "28 cm",
        "28平方厘米",
        "面积是28",
        "28cm²",
        "28 cm2",
        r"$28 \mathrm{~cm}^{2}$",
        r"28\,\text{cm}",
        "28m/s",
    ),
    "5": (
        "x=5",
        "5%",
        r"5\%",
        "5°",
        r"5^\circ",
        r"5^{\circ}",
        "5！",
        "$5",
        r"\$5",
        "No.5",
        "５",
        r"\left(5\right)",
        "5A",
    ),
    "-5": (
        "-5",
        "−5",
        "－5",
        "–5",
        "minus 5",
        "Negative 5",
        "负5",
        "(-5)",
        "-5.",
        "x=-5",
        "是−5℃",
        r"\mathbf{-5}",
        r"$-5$",
    ),
    "-29.00": ("-$29.00", "$-29.00", "−$29.00."),
    "1234.5": ("1,234.5", "1234.5", "1{,}234.5", r"1\,234.5", "1，234.5", "1'234.5", "1\u202f234.5", "1,234.5kg"),
    "1000000": ("1,000,000", "1{,}000{,}000", "1000000"),
    "1/2": (
        "1/2",
        "½",
        r"\frac12",
        r"\frac{1}{2}",
        r"\dfrac{1}{2}",
        r"\tfrac 1 2",
        r"$\frac{1}{2} \mathrm{~m}$",
        "½cm",
    ),
    "-1/2": (r"-\frac{1}{2}", r"\frac{-1}{2}", "−½", "-1/2"),
    "7/2": ("3 1/2", "3½", r"3\frac{1}{2}", r"3 \dfrac{1}{2}"),
    "1.5e3": (
        "1.5e3",
        "1.5E3",
        "1.5E+3",
        "1.5×10^3",
        "1.5 × 10³",
        r"1.5\times 10^{3}",
        r"1.5 \cdot 10^3",
        "1.5*10^3kg",
    ),
    "3e-4": ("3e-4", "3×10⁻⁴", r"3\times10^{-4}", "3 × 10^−4"),
    "2^10": ("2^10", "2^{10}", "2¹⁰"),
    "2:1": ("2:1", "2∶1"),
    ".5": (".5", "x = .5."),
    "0": ("0", "0."),
}

SEVERAL: dict[str, list[str]] = {
    "3-4": ["3", "4"],
    "10–15 cm": ["10", "15"],
    "1, 2,3": ["1", "2", "3"],
    "5 - 3 = 2": ["5", "3", "2"],
    "a-5 and b − 6": ["5", "6"],
    "3 or 4×5": ["3", "4", "5"],
    "- 5 apples": ["5"],
    "(2)-3 and 5%-4": ["2", "3", "5", "4"],
    "√16 = 4": ["4"],
    r"2\sqrt{3}, so 4": ["4"],
    "K7P x2 1.2.3 3/4/2020 2nd 2x 5π H2O": [],
}


@pytest.mark.parametrize(("number", "text"), [(number, text) for number, texts in FOUND.items() for text in texts])
def test_a_number_is_found_however_it_is_written(number, text):
    for around in (text, f"长{text}。", f"it is {text}, in total", f"({text})", f"**{text}**"):
        assert numbers(plain(around)) == [number], around


@pytest.mark.parametrize(("text", "found"), SEVERAL.items())
def test_numbers_stand_apart(text, found):
    assert numbers(plain(text)) == found


@pytest.mark.parametrize(
    ("number", "amount"),
    [
        ("007", 7.0),
        ("-1/2", -0.5),
        ("1.5e3", 1500.0),
        ("2^10", 1024.0),
        ("0/5", 0.0),
        (".5", 0.5),
        ("2:1", None),
        ("4:06", None),
        ("1/0", None),
        ("9^99999", None),
    ],
)
def test_values(number, amount):
    assert value(number) == amount


def test_the_last_box_is_read():
    assert boxed(r"\boxed{7} or \boxed{\frac{1}{2}} of 9") == r"\frac{1}{2}"
    assert boxed("7 {of} 9") == "7 {of} 9"
    assert boxed(r"cut \boxed{7") == r"cut \boxed{7"
