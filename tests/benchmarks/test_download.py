"""`download` and `list benchmarks`, a server on this machine: a file is there whole and checked, or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.filesize import decimal

from tests.helpers.kit_tables import EXAMPLES, write
from tests.helpers.paths import ROOT
from uniprune.benchmarks._kit import official, transfer
from uniprune.benchmarks._kit.boot import boot
from uniprune.benchmarks._kit.table import md5
from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions
from uniprune.registry import BENCHMARKS

pytestmark = pytest.mark.end_to_end


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        content, claimed = self.server.content, self.server.claimed
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        wanted = self.headers.get("Range", "")
        self.server.ranges.append(wanted)
        if wanted and self.server.ranged:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            first = start + self.server.shift
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            content = content[first:]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(claimed or len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
        self.server.silence.wait(self.server.seconds)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    """Sends `content`, claiming it is `claimed` bytes long, and keeps the connection for some seconds after it.

    Where it is `ranged` it sends the end that is asked for, or `shift` bytes less.
    """

    def __init__(self, content: bytes):
        self.content, self.claimed, self.status, self.seconds = content, None, 200, 0.0
        self.ranged, self.shift = True, 0
        self.asked: list[str] = []
        self.ranges: list[str] = []
        self.silence = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """POPE's and MME's address and md5 are those of a small file on this machine."""
    table = write(tmp_path / "published.tsv", EXAMPLES["pope"].rows)
    instance = Server(table.read_bytes())
    monkeypatch.setenv("no_proxy", "*")
    dataset = boot().image_yorn.ImageYORNDataset
    for name in ("POPE", "MME"):
        monkeypatch.setitem(dataset.DATASET_URL, name, f"http://127.0.0.1:{instance.server_port}/VLMEval/{name}.tsv")
        monkeypatch.setitem(dataset.DATASET_MD5, name, md5(table))
    thread = threading.Thread(target=instance.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield instance
    instance.silence.set()
    instance.shutdown()
    instance.server_close()
    thread.join()


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*") if not path.name.endswith(".lock"))


def download(folder: Path, *names: str) -> int:
    return main(["download", *names, "--data-dir", str(folder)])


def test_a_missing_file_is_fetched_by_the_command_its_error_names(server, tmp_path, capsys):
    folder = tmp_path / "with space"
    with pytest.raises(UserError, match=r"POPE\.tsv does not exist") as caught:
        BENCHMARKS.get("pope")(DataOptions(folder))
    assert not folder.exists() and not server.asked
    command = str(caught.value).split("run: python run.py ")[1]
    assert main(shlex.split(command)) == 0
    assert f"pope: {folder}/POPE.tsv (" in capsys.readouterr().out
    assert visible(folder) == ["POPE.tsv"]
    dataset = BENCHMARKS.get("pope")(DataOptions(folder))
    assert dataset.score(EXAMPLES["pope"].answers, tmp_path).value == 75
    assert download(folder, "pope", "mini-pope") == 0
    assert "mini-pope: needs no file" in capsys.readouterr().out
    assert server.asked == ["/VLMEval/POPE.tsv"]


def cut_off(server):
    server.claimed = len(server.content) + 1000


def another_file(server):
    server.content = server.content.replace(b"Yes", b"No")


def not_there(server):
    server.status = 404


def silent(server):
    server.claimed, server.seconds = len(server.content) + 1000, 30


def gone(server):
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (cut_off, "cut off after"),
        (another_file, "sent another file (md5"),
        (not_there, "HTTP Error 404"),
        (silent, "timed out"),
        (gone, "Connection refused"),
    ],
)
def test_a_failed_download_leaves_nothing_under_the_name(fault, message, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(transfer, "PATIENCE", 0.3)
    whole = server.content
    fault(server)
    folder = tmp_path / "data"
    assert download(folder, "pope") == 2
    told = capsys.readouterr().err
    assert message in told and "To do it by hand, fetch http://127.0.0.1" in told
    assert "Traceback" not in told
    kept = fault in (cut_off, silent)
    assert visible(folder) == [".POPE.tsv.partial"] * kept
    assert (f"{decimal(len(whole))} are kept, the same command continues" in told) is kept
    if fault is not gone:
        server.content, server.claimed, server.status, server.seconds = whole, None, 200, 0
        assert download(folder, "pope") == 0
        assert visible(folder) == ["POPE.tsv"]
        assert server.ranges[-1] == (f"bytes={len(whole)}-" if kept else "")


@pytest.mark.parametrize(
    ("beginning", "ranged", "shift", "ranges"),
    [
        (lambda whole: whole[:200], True, 0, ["bytes=200-"]),
        (lambda whole: whole[:200], False, 0, ["bytes=200-"]),
        (lambda whole: whole, True, 0, ["bytes={}-"]),
        (lambda whole: b"x" * 200, True, 0, ["bytes=200-", ""]),
        (lambda whole: whole + b"more", True, 0, ["bytes={}-", ""]),
        (lambda whole: b"", True, 0, [""]),
    ],
    ids=["the rest", "ranges ignored", "nothing is left", "of another file", "too long", "empty"],
)
def test_a_download_is_continued(beginning, ranged, shift, ranges, server, tmp_path):
    """Only what is missing is asked for; where the parts do not fit together, everything, once."""
    server.ranged, server.shift = ranged, shift
    whole = server.content
    partial = tmp_path / "data" / ".POPE.tsv.partial"
    partial.parent.mkdir()
    partial.write_bytes(beginning(whole))
    size = partial.stat().st_size
    assert download(partial.parent, "pope") == 0
    assert visible(partial.parent) == ["POPE.tsv"]
    assert (partial.parent / "POPE.tsv").read_bytes() == whole
    assert server.ranges == [one.format(size) for one in ranges]


def test_a_server_that_sends_other_bytes_than_asked_for_is_not_believed(server, tmp_path, capsys):
    server.shift = 5
    partial = tmp_path / ".POPE.tsv.partial"
    partial.write_bytes(server.content[:200])
    assert download(tmp_path, "pope") == 2
    assert "requested the bytes from 200 on, the server sent others" in capsys.readouterr().err
    assert partial.stat().st_size == 200


def test_a_stopped_download_goes_on_where_it_was(server, tmp_path):
    """Ctrl-C while the server pauses in the middle."""
    whole, folder = server.content, tmp_path / "data"
    server.content, server.claimed, server.seconds = whole[:300], len(whole), 30
    program = (
        "import sys; from pathlib import Path; from uniprune.benchmarks._kit.transfer import download;"
        "download(sys.argv[1], Path(sys.argv[2]))"
    )
    partial = folder / ".POPE.tsv.partial"
    folder.mkdir()
    address = boot().image_yorn.ImageYORNDataset.DATASET_URL["POPE"]
    stopped = subprocess.Popen(
        [sys.executable, "-c", program, address, str(partial)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size == 300) and time.monotonic() < deadline:
        time.sleep(0.01)
    stopped.send_signal(signal.SIGINT)
    stopped.wait(20)
    assert partial.stat().st_size == 300
    server.content, server.claimed, server.seconds = whole, None, 0
    assert download(folder, "pope") == 0
    assert server.ranges == ["", "bytes=300-"]


def test_one_failure_does_not_keep_the_others(server, tmp_path, capsys):
    (tmp_path / "MME.tsv").write_text("mine")
    assert download(tmp_path, "mme", "pope") == 2
    shown = capsys.readouterr()
    assert f"{tmp_path}/MME.tsv is not the official file and is left alone; move it away, then run" in shown.err
    assert "pope: " in shown.out and (tmp_path / "MME.tsv").read_text() == "mine"
    assert server.asked == ["/VLMEval/POPE.tsv"]


def test_all_missing_files_are_named_at_once(tmp_path, capsys):
    assert main(["--data", "pope", "mme", "mini-pope", "--data-dir", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.endswith(f"lacks the files of pope, mme; run: python run.py download pope mme --data-dir {tmp_path}\n")


def test_a_folder_that_cannot_be_written(server, tmp_path, capsys):
    (tmp_path / "data").write_text("a file")
    assert download(tmp_path / "data", "pope") == 2
    assert "File exists" in capsys.readouterr().err


def test_names_are_needed_and_checked(tmp_path, capsys):
    assert main(["download"]) == 2
    assert "nothing to download" in capsys.readouterr().err
    assert download(tmp_path, "popp") == 2
    assert "did you mean 'pope'" in capsys.readouterr().err
    assert main(["download", "--suite", "mini", "--data-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("needs no file") == 10


@pytest.mark.parametrize("size", [official.LARGE, official.LARGE - 1])
def test_reading_a_large_file_shows_a_bar_on_a_terminal(size, tmp_path):
    with (tmp_path / "MME.tsv").open("wb") as file:
        file.truncate(size)
    primary, secondary = pty.openpty()
    command = [sys.executable, "run.py", "list", "benchmarks", "mme", "--json", "--data-dir", str(tmp_path)]
    listing = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=secondary, env={**os.environ, "TERM": "xterm"}
    )
    os.close(secondary)
    shown = b""
    with contextlib.suppress(OSError):  # how the end of a terminal reads
        while piece := os.read(primary, 4096):
            shown += piece
    os.close(primary)
    told, _ = listing.communicate(timeout=100)
    assert json.loads(told)[0]["state"] == "altered"
    assert (b"checking MME.tsv" in shown) is (size >= official.LARGE)


def test_the_listing_says_what_is_there(server, tmp_path, capsys):
    (tmp_path / "POPE.tsv").write_bytes(server.content)
    (tmp_path / "MME.tsv").write_bytes(server.content + b"x")
    assert main(["list", "benchmarks", "--data-dir", str(tmp_path), "--json"]) == 0
    rows = {row["benchmark"]: row for row in json.loads(capsys.readouterr().out)}
    size = len(server.content)
    told = {name: tuple(rows[name][key] for key in ("state", "size", "md5", "file", "judge")) for name in rows}
    assert told["pope"] == ("ok", size, md5(tmp_path / "POPE.tsv"), str(tmp_path / "POPE.tsv"), False)
    assert told["mme"] == ("altered", size + 1, md5(tmp_path / "MME.tsv"), str(tmp_path / "MME.tsv"), False)
    assert told["mia-bench"] == ("absent", None, None, str(tmp_path / "MIA-Bench.tsv"), True)
    assert told["mini-pope"] == ("needs no file", None, None, "", False)
    assert (rows["pope"]["rows"], rows["pope"]["estimated"], rows["mathvista"]["estimated"]) == (5127, True, False)
    assert main(["list", "benchmarks", "*pope", "--data-dir", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert "ok" in table and f"{size} bytes" in table and "mathvista" not in table
    assert not server.asked and visible(tmp_path) == ["MME.tsv", "POPE.tsv", "published.tsv"]
