"""The wheel works outside the checkout, in a project that has packages of the same names.

The environment is fresh, except that torch, transformers and the other dependencies are those of the test environment,
found by a .pth file: installing them again takes minutes and shows nothing about the wheel. The editable install of the
test environment stays hidden, as .pth files in a folder that a .pth file names are not read.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.readme import PREPARATION, library_example

pytestmark = pytest.mark.end_to_end

FOLDERS = ("methods", "models", "benchmarks", "configs")
HOSTILE = (*FOLDERS, "tests", "run")
METHOD = '''
from dataclasses import dataclass
from uniprune import PreLLM, register_method
import torch

@register_method("first")
@dataclass(frozen=True, kw_only=True)
class First(PreLLM):
    """Keeps the first tokens."""

    def select(self, view, keep):
        return torch.arange(keep)
'''

Run = Callable[..., str]


def build(kind: str, source: Path, folder: Path) -> None:
    """Build a distribution of a source folder, without the isolated environment that needs the network."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, timeout=200)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the source distribution of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build("sdist", ROOT, folder)
    (archive,) = folder.glob("uniprune-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    build("wheel", folder / archive.name.removesuffix(".tar.gz"), folder)
    (built,) = folder.glob("uniprune-*-py3-none-any.whl")
    return built


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs a program of the fresh environment in the hostile project and returns its output."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment)
    python = environment / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, timeout=200)
    query = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip())
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    project = tmp_path_factory.mktemp("project")
    for name in HOSTILE:
        (project / name).mkdir()
        (project / name / "__init__.py").write_text(f"raise ImportError('{name} of the project was imported')\n")
    (project / "my_method.py").write_text(METHOD)

    def call(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(environment / "bin" / program), *arguments],
            cwd=project,
            env=os.environ | {"PYTHONPATH": str(project)},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


def test_it_holds_one_package_with_all_its_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    inside = {name for name in names if ".dist-info/" not in name}
    assert all(name.startswith("uniprune/") for name in inside)
    shipped = {"py": 0, "yaml": 0, "csv": 0, "html": 0, "js": 0, "css": 0, "safetensors": 0}
    for folder in ("uniprune", *FOLDERS):
        for kind in shipped:
            for path in (ROOT / folder).rglob(f"*.{kind}"):
                place = path.relative_to(ROOT).as_posix()
                assert (place if folder == "uniprune" else f"uniprune/{place}") in inside
                shipped[kind] += 1
    assert all(shipped.values()), shipped
    assert "uniprune/py.typed" in inside
    assert not any(name.startswith("uniprune/tests") for name in inside)


def test_its_metadata_describe_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (file,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(file).decode())
    assert metadata["Name"] == "uniprune"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert metadata["Keywords"]
    assert metadata.get_payload().startswith("# UniPrune")


def test_it_comes_from_the_environment(run: Run) -> None:
    code = "import sys, uniprune, uniprune.methods as m; print(uniprune.__file__, m.__file__, *sys.path, sep='\\n')"
    package, methods, *path = run("python", "-c", code).splitlines()
    assert Path(methods) == Path(package).parent / "methods" / "__init__.py"
    assert str(ROOT) not in path
    assert not Path(package).is_relative_to(ROOT)


def test_both_command_lines_print_the_version(run: Run, wheel: Path) -> None:
    version = wheel.name.split("-")[1]
    assert run("uniprune", "--version") == run("python", "-m", "uniprune", "--version") == f"uniprune {version}\n"


def test_it_lists_the_models_it_ships(run: Run) -> None:
    printed = run("uniprune", "list", "models")
    tiny = ("tiny-llava", "tiny-internvl", "tiny-qwen2.5-vl", "tiny-qwen3-vl")
    assert all(name in printed for name in (*tiny, "family llava"))


def test_the_embedded_default_runs(run: Run) -> None:
    assert "divprune" in run("uniprune", "--limit", "2", "--output", "results")
    assert "divprune" in run("uniprune", "leaderboard", "--output", "results")
    assert "written: runs.html" in run("uniprune", "report", "--output", "results", "--html", "runs.html")


def test_it_checks_a_method_of_the_project(run: Run) -> None:
    assert "none failed" in run("uniprune", "check", "my_method.py", "--family", "llava", "qwen3_vl")


def test_the_readme_example_prunes(run: Run) -> None:
    package = Path(run("python", "-c", "import uniprune; print(uniprune.__path__[0])").strip())
    code = PREPARATION + library_example(str(package / "models" / "tiny" / "llava"))
    assert "[16, 16," in run("python", "-c", code)
