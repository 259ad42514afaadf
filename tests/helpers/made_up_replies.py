"""Made-up replies to a row: right, wrong and odd, by kind."""

from __future__ import annotations

from tests.helpers.kit_agreement import right_answer
from tests.helpers.kit_rows import Row

FORMS: dict[str, tuple[str, ...]] = {
    "right": ("{right}", "{text}"),
    "wrong": ("{wrong}", "not in the image"),
    "case": ("{lower}", "{upper}"),
    "punctuation": ("({right})", "**{right}**.", '"{text}"', "{right}:"),
    "sentence": (
        "The answer is {right}.",
        "I think it is {text}, I am sure.",
        "Not {right}, but {wrong}",
        "{right} or {wrong}",
    ),
    "empty": ("", " ", "\n"),
    "Chinese": ("答案是{right}", "选{right}。", "不知道"),
    "units": ("{right} cm", "{right}%", "${right}", "{text}kg"),
    "words for nothing": ("None", "nan", "N/A"),
    "numbers": ("007", "1.0", "1e3"),
}
"""Kind -> forms of the replies: `text` is the right option's, `wrong` another answer."""


def replies(name: str, row: Row) -> dict[str, str]:
    """Return form -> reply to a row of a dataset's example."""
    right = right_answer(name, row)
    text = str(row.get(right) or right) if len(right) == 1 else right
    wrong = {"A": "B", "Yes": "No", "No": "Yes"}.get(right, "A")
    words = {"right": right, "text": text, "wrong": wrong, "lower": right.lower(), "upper": text.upper()}
    return {form: form.format(**words) for forms in FORMS.values() for form in forms}
