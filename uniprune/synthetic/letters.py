"""The embedded instruction set: small letter tasks, each item of a known kind.

Kinds, relative to the embedded base model (`models/tiny/language.py`):

    redundant    tasks it has mastered: `repeat`, `next`
    clean        `shift`, which it confidently answers in the wrong direction: one letter back instead of on
    hard         `flip`, which it has half learned, on lists longer than in its training
    mislabelled  `shift` and `flip` with the answer of another item
"""

from __future__ import annotations

import random
from collections.abc import Callable

LETTERS = "abcdefghijklmnop"
FRAME = ("the result is", ".")
"""Words around every answer."""
WORDS = ("please", "the", "letters", ":", "result", "is", ".", "repeat", "next", "back", "shift", "flip")
SHARES = {"redundant": 0.25, "clean": 0.35, "hard": 0.2, "mislabelled": 0.2}


def _moved(step: int) -> Callable[[str], str]:
    return lambda letters: "".join(LETTERS[(LETTERS.index(letter) + step) % len(LETTERS)] for letter in letters)


TASKS: dict[str, Callable[[str], str]] = {
    "repeat": lambda letters: letters,
    "next": _moved(1),
    "back": _moved(-1),
    "shift": _moved(1),
    "flip": lambda letters: letters[::-1],
}
"""Task -> correct answer. The base model learned `shift` as `back`."""


def record(task: str, letters: str, answer: str, kind: str = "") -> dict[str, str]:
    """Make an Alpaca record."""
    start, end = FRAME
    instruction = f"please {task} the letters : {' '.join(letters)}"
    return {"instruction": instruction, "output": f"{start} {' '.join(answer)} {end}", "kind": kind}


def word(rng: random.Random, low: int, high: int) -> str:
    """Draw between `low` and `high` letters."""
    return "".join(rng.choices(LETTERS, k=rng.randint(low, high)))


def training_set(count: int = 1280, seed: int = 0) -> list[dict[str, str]]:
    """Draw `count` items of all kinds, in random order."""
    rng = random.Random(f"train {seed}")
    made = []
    for kind, share in SHARES.items():
        for number in range(round(share * count)):
            task, letters = _asked(kind, number, rng)
            answer = TASKS[task](letters)
            while kind == "mislabelled" and answer == TASKS[task](letters):
                answer = TASKS[task](word(rng, len(letters), len(letters)))
            made.append(record(task, letters, answer, kind))
    rng.shuffle(made)
    return made


def held_out_set(count: int = 240, seed: int = 0) -> list[dict[str, str]]:
    """Draw held-out items with correct answers, equally many of each kind but the mislabelled."""
    rng = random.Random(f"test {seed}")
    kinds = [kind for kind in SHARES if kind != "mislabelled"]
    made = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        task, letters = _asked(kind, number // len(kinds), rng)
        made.append(record(task, letters, TASKS[task](letters), kind))
    return made


def _asked(kind: str, number: int, rng: random.Random) -> tuple[str, str]:
    """Draw task and letters of an item."""
    tasks = {"redundant": ("repeat", "next"), "clean": ("shift",), "hard": ("flip",), "mislabelled": ("shift", "flip")}
    task = tasks[kind][number % len(tasks[kind])]
    return task, word(rng, 4, 6) if task == "flip" else word(rng, 3, 6)
