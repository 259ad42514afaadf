"""Preparation of the process before a command runs."""

from __future__ import annotations

from collections.abc import Sequence


def prepare(plugins: Sequence[str], debug: bool) -> None:
    """Prepare the process for a command.

    Args:
        plugins: Python files of the user to import.
        debug: keep the messages of transformers.
    """
    from uniprune.registry import load_plugin
    from uniprune.utils.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    if not debug:
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
    for plugin in plugins:
        load_plugin(plugin)
