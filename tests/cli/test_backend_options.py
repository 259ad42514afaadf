"""`--backend`, `--server` and `--timeout` of `run` and `sweep`, before anything is loaded."""

from __future__ import annotations

import argparse

import pytest

from uniprune.cli.run import arguments
from uniprune.errors import UserError


def chosen(*words: str) -> object:
    from uniprune.cli.backend_options import chosen_backend

    parser = argparse.ArgumentParser()
    arguments(parser)
    return chosen_backend(parser.parse_args(words))


def test_the_usual_backend_and_served_ones() -> None:
    from uniprune.evaluation.backend import IN_PROCESS
    from uniprune.evaluation.serving.backend import Served

    assert chosen() == IN_PROCESS
    backend = chosen("--backend", "vllm", "--server", "http://a:1/", "http://b:2/v1", "http://a:1", "--timeout", "5")
    assert backend == Served(("http://a:1", "http://b:2"), timeout=5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--server", "http://a"], "--server and --timeout are options of --backend vllm"),
        (["--timeout", "3"], "--server and --timeout are options of --backend vllm"),
        (["--backend", "vllm"], r"--backend vllm needs --server URL"),
        (["--backend", "vllm", "--server", "a:8000"], r"--server 'a:8000' must be an address"),
        (["--backend", "vllm", "--server", "http://a", "--dtype", "float16"], "--dtype has no meaning with"),
        (["--backend", "vllm", "--server", "http://a", "--device", "cpu"], "--device has no meaning with"),
        (["--backend", "vllm", "--server", "http://a", "--share-vision", "1"], "--share-vision has no meaning with"),
        (["--backend", "vllm", "--server", "http://a", "--share-prefix"], "--share-prefix has no meaning with"),
        (["--backend", "vllm", "--server", "http://a", "--keep-selections"], "--keep-selections needs the model in"),
        (["--backend", "vllm", "--server", "http://a", "--timeout", "0"], r"--timeout 0 must be above 0 seconds"),
    ],
)
def test_contradictions_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen(*words)
