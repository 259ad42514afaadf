"""Check of image settings by encoding pictures: one that a processor would ignore, or fail with, is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from uniprune.errors import UserError, unknown
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.image_settings import (
    TYPE,
    ImageSettings,
    for_images,
    image_processor_class,
    with_settings,
)
from uniprune.modeling.pictures import SMALL, Pictures, encode, own, plain, reason
from uniprune.registry import BENCHMARKS

MISSING = object()


def check_image_settings(processor: Any, entry: ModelEntry) -> None:
    """Check that every image setting of an entry, under its policy, changes how some picture is encoded.

    A setting that equals what holds without it is accepted if another value would change something.

    Args:
        processor: the checkpoint's own.
        entry: the model.

    Raises:
        UserError: a setting is unknown, fails or has no effect; or its benchmark does not exist.
    """
    if entry.images == "checkpoint":
        return
    pictures = Pictures()
    Check(processor, ImageSettings().joined(entry), f"model {entry.name!r}", pictures).run()
    base = with_settings(processor, entry.image_processor)
    for pattern, more in entry.benchmarks.items():
        if not BENCHMARKS.names(pattern):
            raise UserError(
                f"{unknown('benchmark', pattern, BENCHMARKS.names())} Model {entry.name!r} has image settings for it; "
                "correct configs/models.yaml, or load the benchmark's file with --plugin"
            )
        Check(base, more, f"model {entry.name!r} for {pattern}", pictures).run()


class Check:
    """Check of settings against the processor that they change.

    Args:
        processor: the processor without them.
        settings: the settings.
        place: whose they are, for messages.
        pictures: encoded so far.
    """

    def __init__(self, processor: Any, settings: ImageSettings, place: str, pictures: Pictures) -> None:
        self.processor, self.settings, self.place, self.pictures = processor, settings, place, pictures

    def run(self) -> None:
        """Check all settings.

        Raises:
            UserError: one is unknown, fails or has no effect.
        """
        fields = self.settings.image_processor
        kind = image_processor_class(fields.get(TYPE, self.processor.image_processor))
        for name in (*fields, *self.settings.image_total):
            if name != TYPE and name not in kind.valid_kwargs.__annotations__:
                raise self._refusal(f"{name!r} is unknown to {kind.__name__}; {self._known(name)}")
        changed = self._changed(fields)
        for name in fields:
            self._check_form(name, changed)
        for size in SMALL:
            before, after = self.pictures.encoded(self.processor, size), self.pictures.encoded(changed, size)
            if isinstance(after, str) and not isinstance(before, str):
                raise self._refusal(f"{self._words(fields)} fails ({after}); {self._known()}")
        for path in leaves(fields, own(self.processor)):
            self._check_effect(path, changed)
        for name in self.settings.image_total:
            one = self._limited(changed, name)
            if not self.pictures.differ(changed, one):
                raise self._refusal(f"{name!r} of image_total has no effect on {kind.__name__}")
        factor = self.settings.enlarge_first
        if factor != 1 and not self.pictures.differ(changed, changed, factor):
            raise self._refusal(f"enlarge_first={factor} has no effect on {kind.__name__}")
        if self.settings.one_by_one and encode(changed, SMALL[2], 1, {}, 2) == encode(
            changed, SMALL[2], 1, {}, 2, True
        ):
            raise self._refusal(f"one_by_one=true has no effect on {kind.__name__}")

    def _check_form(self, name: str, changed: Any) -> None:
        """Refuse a value that the image processor holds in another form, or under another name."""
        given, held = plain(self.settings.image_processor[name]), own(changed)
        if held.get(name) == given:
            return
        before = own(self.processor)
        others = {key: value for key, value in held.items() if before.get(key) != value}
        hint = f"write {self._words(others)}" if others else self._known()
        raise self._refusal(f"{name}={given} is not what {type(changed.image_processor).__name__} holds; {hint}")

    def _check_effect(self, path: tuple[str, ...], changed: Any) -> None:
        """Refuse a value without effect, unless it holds already: passed in the call it changes nothing, another does.

        A processor may pass values of its own to the image processor, which win over the image processor's fields.
        """
        fields = self.settings.image_processor
        if self.pictures.differ(changed, self._try(replaced(fields, path, value_at(own(self.processor), path)))):
            return
        name, value = path[0], value_at(plain(fields), path)
        if path == (TYPE,) and value == own(self.processor)[TYPE]:
            return
        calls = [{name: replaced(fields, path, one)[name]} for one in (value, *others(value)) if name != TYPE]
        changes = (self.pictures.differ(changed, changed, call=call) for call in calls)
        if next(changes, None) is False and any(changes):
            return
        kind = type(changed.image_processor).__name__
        raise self._refusal(
            f"{'.'.join(path)}={value} has no effect: {kind} encodes pictures of 8x8 to 4000x3000 pixels as without "
            f"it; {self._known()}"
        )

    def _changed(self, fields: Mapping[str, Any]) -> Any:
        """Return the processor with settings; a failure is refused."""
        changed = self._try(fields)
        if isinstance(changed, str):
            raise self._refusal(f"{self._words(fields)} fails ({changed}); {self._known()}")
        return changed

    def _try(self, fields: Mapping[str, Any]) -> Any:
        """Return the processor with settings, or the reason why there is none."""
        try:
            return with_settings(self.processor, fields)
        except UserError:
            raise
        except Exception as error:  # processors raise whatever their arguments lead to
            return reason(error)

    def _limited(self, changed: Any, name: str) -> Any:
        """Return the processor with the share of a prompt of very many images."""
        try:
            return for_images(changed, {name: self.settings.image_total[name]}, 10**9)
        except Exception as error:  # as above
            raise self._refusal(f"{name!r} of image_total is no limit ({reason(error)}); {self._known()}") from error

    def _known(self, name: str = "") -> str:
        """Return the settings that the image processor has, those of a similar name first."""
        held = own(self.processor)
        spelled = {key: key for key in held} | {
            inner: f"{key}: {{{', '.join(value)}}}"
            for key, value in held.items()
            if isinstance(value, dict)
            for inner in value
        }
        near = dict.fromkeys(spelled[one] for one in get_close_matches(name, spelled, n=3, cutoff=0.4))
        hint = f"did you mean {' or '.join(near)}; " if near else ""
        return f"{hint}it has {self._words(held)}"

    def _words(self, fields: Mapping[str, Any]) -> str:
        """Format settings as in YAML."""
        return ", ".join(f"{name}: {_yaml(plain(value))}" for name, value in fields.items())

    def _refusal(self, text: str) -> UserError:
        return UserError(f"image_processor setting of {self.place}: {text}. Correct configs/models.yaml")


def leaves(fields: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the paths of single values: fields, and the parts of a field that already has parts."""
    for name, value in fields.items():
        if isinstance(value, dict) and isinstance(before.get(name), dict):
            yield from ((name, inner) for inner in value)
        else:
            yield (name,)


def value_at(fields: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Return the value of a path, `MISSING` if there is none."""
    value: Any = fields
    for name in path:
        value = value.get(name, MISSING) if isinstance(value, dict) else MISSING
    return value


def replaced(fields: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return settings with another value at a path; `MISSING` takes it out."""
    name, *inner = path
    new = replaced(fields[name], tuple(inner), value) if inner else value
    return {**{key: old for key, old in fields.items() if key != name}, **({} if new is MISSING else {name: new})}


def others(value: Any) -> tuple[Any, ...]:
    """Return other values of the same kind; none where they cannot be guessed."""
    match value:
        case bool():
            return (not value,)
        case int():
            return (value // 2, value * 2)
        case float():
            return (value / 2,)
        case list():
            return ([*value[:-1], *others(value[-1])[:1]],) if value else ()
    return ()


def _yaml(value: Any) -> str:
    """Format a plain value as YAML does in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_yaml(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value)
