r"""Equality of mathematical answers, compared with VLMEvalKit's own on many pairs.

The kit's function runs without its child process and its time limit here: these texts are harmless.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from uniprune.benchmarks._kit.boot import boot
from uniprune.benchmarks._kit.equality import LONGEST, is_equal
from uniprune.benchmarks._kit.replacing import replaced

NUMBERS = ("2", "12", "0.5", "-5")
AROUND = (
    *("{}", "{}.", "{},", " {} ", "({})", "[{}]", "+{}", "-{}", "--{}", "0{}", "{}.0", "{}e0", "{} 0", "{}!", "{}0%"),
    *(
        "$ {} $",
        r"\({}\)",
        r"\[{}\]",
        r"\boxed{{{}}}",
        r"so \boxed{{{}}}.",
        r"\boxed{{{}}}, \boxed{{9}}",
        r"\fbox{{{}}}",
    ),
    *(r"\text{{{}}}", r"\mathrm{{{}}}", r"\mathbf{{{}}}", r"\textbf{{ {} }}", r"\displaystyle {}", r"\left({}\right)"),
    *(
        r"{}^\circ",
        r"{}^{{\circ}}",
        "{}°",
        r"{}\%",
        "{}%",
        r"\${}",
        r"{}\$",
        "{} cm",
        "{}cm",
        r"{}\mathrm{{cm}}",
        "{} percent",
    ),
    *(
        r"{}\text{{ degrees}}",
        r"{}\,",
        r"\;{}",
        r"{}\ ",
        r"{{{}}}",
        r"\{{{}\}}",
        "|{}|",
        r"\underline{{{}}}",
        "x={}",
        "x = {}",
    ),
    *(
        "the answer is {}",
        "The answer is {}.",
        "答案是{}",
        "{}平方厘米",
        "**{}**",
        r"{}\\",
        r"\phantom{{0}}{}",
        r"{}\!",
    ),
    *(
        r"\frac{{{}}}{{1}}",
        r"\dfrac{{{}}}{{2}}",
        r"\tfrac{{{}}}{{2}}",
        r"\frac{}2",
        r"\frac1{}",
        r"1\frac{{{}}}{{2}}",
        "{}/2",
    ),
    *(
        r"\sqrt{{{}}}",
        r"\sqrt {}",
        r"\sqrt[3]{{{}}}",
        r"\sqrt[2]{{{}}}",
        "{}*2",
        r"{}\times 2",
        r"{}\cdot2",
        "{}×2",
        "{}÷2",
    ),
    *(
        "{}**2",
        r"{}^{{2}}",
        r"{}^{{-1}}",
        r"2^{{{}}}",
        "2**{}",
        "{}:2",
        "{}//2",
        "{}%5",
        r"{}\div 2",
        r"{}\times10^{{3}}",
    ),
    *("{}e3", "{}E-3", "{}-3", "{} - 3", "{}+3", "({}, 3)", "[{}, 3]", "{},3", "{} \\pm 1", "{}=3", "3{}"),
    *(r"\approx {}", r"{}\approx 3.1", r"\pi {}", r"{}\pi", r"\lfloor {} \rfloor", "({})(2)"),
)
OTHERS = (
    *(
        r"\frac12",
        r"3\frac12",
        r"\sqrt8",
        r"2\sqrt{2}",
        "½",
        "²",
        "２",
        "−5",
        "–5",
        "1,000",
        "1{,}000",
        r"1\,000",
        "1,23",
    ),
    *("12 345", "3 1/2", "1.2.3", "5-", "5/0", "", ".", "x", "cm", "cat", "1_000", "0x10", "5 # five", "five", "½ cm"),
    *(r"\pi", r"\infty", "3.14159265", r"\sqrt[3]{-8}", "(-8)**(1/3)", "12345678901234567890", "12345678901234567891"),
    *(
        r"\text{Yes}",
        "yes",
        r"\text{cat}",
        r"\boxed{cat}",
        "(1+2)*3",
        r"\frac{\frac{1}{2}}{2}",
        r"2^{\frac{1}{2}}",
        "2**0.5",
    ),
    *(r"\binom{8}{1}", r"2\binom{4}{2}", r"\gcd(4,6)", r"\lcm(4, 6)", r"\max(2,3)", r"7 \bmod 4", "5!", r"\{2\}"),
    *(
        r"0.\overline{3}",
        "0.3333333",
        r"\frac{1}{3}",
        "1/3",
        "0.333333",
        r"\frac{10}{20}",
        r"\frac{ 1 }{ 2 }",
        r"{1 \over 2}",
    ),
)
TRUTHS = (*NUMBERS, "3", "4", "8", "5", "1/2", r"\frac{1}{3}", "-2", "24", "2000", "cat", "3.5")


XOR = "the kit reads ^ as exclusive or, too"
NAME = "the kit runs names: `a` is its variable for the truth, `b` for the answer"
LETTER = "the kit compares letters by these variables, so others than a and b never"
CODE = "the kit calls functions, compares and works on bits"
WHOLE = "the kit's parser computes these at once, so they are read for small whole numbers only"
ENDLESS = "the kit computes it, up to its time limit"

DIFFERENCES: tuple[tuple[str, str, bool, str], ...] = (
    *[("A", "5", True, NAME), (r"\text{A}", "5", True, NAME), ("5", "B", True, NAME), ("5", "(b)", True, NAME)],
    *[("a/2", "0", True, NAME), (r"\boxed{A}", "12", True, NAME)],
    *[(r"\text{C}", "C", False, LETTER), ("(C)", "C", False, LETTER), (r"\boxed{D}", "D", False, LETTER)],
    *[("2^3", "1", True, XOR), ("5^2", "7", True, XOR), ("10^2", "8", True, XOR)],
    *[("abs(-3)", "3", True, CODE), ("max(1, 3)", "3", True, CODE), ("1<2", "1", True, CODE), ("2|1", "3", True, CODE)],
    *[("len('abc')", "3", True, CODE), ("3 if 1 else 2", "3", True, CODE), ("3 or 2", "3", True, CODE)],
    *[
        (r"\binom{0.5}{1}", "0.5", True, WHOLE),
        (r"\gcd(0.5,6)", "0.5", True, WHOLE),
        (r"\binom{9999}{1}", "9999", True, WHOLE),
    ],
    *[("2 and 3", "3", True, CODE), ("~2", "-3", True, CODE)],
    *[("1+" * LONGEST + "1", str(LONGEST + 1), True, ENDLESS), ("2**20000", "4**10000", True, ENDLESS)],
)
"""Answer, truth, the kit's result, and why ours is the opposite."""


def kits() -> Callable[[str, str], bool]:
    return boot().mathv.is_equal.__wrapped__


def remembering(parse: Callable[[str], object]) -> Callable[[str], object]:
    """The kit's parser, which takes milliseconds, once for every text."""
    parsed: dict[str, object] = {}

    def remembered(text: str) -> object:
        if text not in parsed:
            try:
                parsed[text] = parse(text)
            except Exception as error:  # raised again, as often as it is wanted
                parsed[text] = error
        if isinstance(parsed[text], Exception):
            raise parsed[text]
        return parsed[text]

    return remembered


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    "texts",
    [
        OTHERS,
        pytest.param([form.format(number) for form in AROUND for number in NUMBERS], marks=pytest.mark.exhaustive),
    ],
    ids=["single texts", "numbers in forms"],
)
def test_equality_is_the_kits(texts):
    mathv, named = boot().mathv, {(answer, truth) for answer, truth, _, _ in DIFFERENCES}
    corpus = {(text, other) for text in texts for other in (*TRUTHS, text.replace("\\", " \\"))} - named
    with replaced(mathv, latex2sympy=remembering(mathv.latex2sympy)):
        kit = {pair for pair in corpus if kits()(*pair)}
    ours = {pair for pair in corpus if is_equal(*pair)}
    assert kit ^ ours == set()
    assert len(corpus) > 10 * len(texts) and len(ours) > len(texts) / 2


@pytest.mark.parametrize(("answer", "truth", "kit", "reason"), DIFFERENCES)
def test_every_difference_has_a_reason(answer, truth, kit, reason):
    assert kits()(answer, truth) is kit, reason
    assert is_equal(answer, truth) is not kit, reason


@pytest.mark.parametrize("answer", [r"\boxed{7}", r"Thus, the area is \boxed{\frac{14}{2}}.", r"\sqrt[3]{343}"])
def test_latex_of_long_answers_is_read(answer):
    assert is_equal(answer, "7") and is_equal("7", answer)
    assert not is_equal(answer, "8")


@pytest.mark.parametrize("letter", "ABCDE")
@pytest.mark.parametrize(
    "form", [r"\text{%s}", r"\boxed{%s}", "(%s)", r"\mathrm{%s}", r"$\textbf{(%s)}$", r"\boxed{\text{%s}}"]
)
def test_letters_are_letters(form, letter):
    assert is_equal(form % letter, letter)
    assert not is_equal(form % letter, "F") and not is_equal(form % letter, "5")


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9**9",
        "9^{9^{9^9}}",
        r"\frac{9^{9^9}}{2}",
        "10^{-999999999}",
        r"\binom{99999999}{9999999}",
        "9" * 9999,
        "(" * 90 + "1",
        "{" * 90 + "1" + "}" * 90,
        "-" * 5000 + "1",
        "|1" * 60,
        "1e999",
        "__import__('os').abort()",
        r"\text{__import__('os').abort()}",
        "a" * 99999,
        r"\frac" * 30,
        "\x00",
        "�",
    ],
)
def test_hostile_answers_are_unequal_at_once(text):
    assert not is_equal(text, "1") and not is_equal("1", text)
    assert is_equal(text, text)
