"""Options of `run` and `sweep` that choose what answers the rows."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from uniprune.errors import UserError

if TYPE_CHECKING:  # importing it imports torch
    from uniprune.evaluation.backend import Backend

OF_THE_SERVER = {"device": "auto", "dtype": "auto", "attn": "auto", "share_vision": 0, "share_prefix": False}
"""Options that a server decides itself -> their value when they are not given."""


def backend_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--backend` and its options."""
    group = parser.add_argument_group("backend")
    group.add_argument(
        "--backend",
        choices=("transformers", "vllm"),
        default="transformers",
        help="answers from the model in this process (default), or from servers of vLLM with the plug-in uniprune-vllm",
    )
    group.add_argument(
        "--server",
        nargs="+",
        default=[],
        metavar="URL",
        help="of --backend vllm: one server per method and ratio, such as http://127.0.0.1:8000; --batch-size is the "
        "number of requests in flight",
    )
    group.add_argument(
        "--timeout", type=float, metavar="S", help="of --backend vllm: seconds that a request may take (default: 600)"
    )


def chosen_backend(options: argparse.Namespace) -> Backend:
    """Return the backend of a command.

    Raises:
        UserError: options contradict each other.
    """
    from uniprune.evaluation.backend import Transformers
    from uniprune.evaluation.serving.backend import Served
    from uniprune.evaluation.serving.client import LIMIT

    if options.backend == "transformers":
        if options.server or options.timeout is not None:
            raise UserError("--server and --timeout are options of --backend vllm; add it, or leave them out")
        return Transformers()
    if not options.server:
        raise UserError("--backend vllm needs --server URL, such as http://127.0.0.1:8000; docs/serving.md starts one")
    given = [name for name, usual in OF_THE_SERVER.items() if getattr(options, name) != usual]
    if given:
        raise UserError(
            f"--{given[0].replace('_', '-')} has no meaning with --backend vllm: the server decides it; leave it out, "
            "and give the server its own option"
        )
    if options.keep_selections:
        raise UserError(
            "--keep-selections needs the model in this process: servers do not report which tokens they keep; leave it "
            "out, or leave out --backend vllm"
        )
    return Served(tuple(options.server), LIMIT if options.timeout is None else options.timeout)
