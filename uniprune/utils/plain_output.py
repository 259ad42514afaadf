"""Output on terminals and files that cannot show every character: typographic ones become plain ones, none fails."""

from __future__ import annotations

import codecs
from typing import TextIO

PLAIN = "uniprune-plain"
"""Name of the error handler."""
REPLACED = {
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "×": "x",
    "·": "|",
    "±": "+/-",
    "≥": ">=",
    "≤": "<=",
    "→": "->",
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "•": "*",
    "━": "-",
    "╸": "-",
    "╺": "-",
    "²": "^2",
    "µ": "u",
}
"""Characters with a plain form; any other becomes its escaped number, so that no sign of a value is lost."""


def plain(error: UnicodeError) -> tuple[str, int]:
    """Return what is written instead of characters that an encoding lacks, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    texts = (REPLACED.get(letter, letter.encode("ascii", "backslashreplace").decode()) for letter in lacking)
    return "".join(texts), error.end


def survive(*streams: TextIO) -> None:
    """Make text streams write characters that their encoding lacks in a plain form."""
    codecs.register_error(PLAIN, plain)
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)  # streams that a caller put in place may have none
        if reconfigure is not None:
            reconfigure(errors=PLAIN)
