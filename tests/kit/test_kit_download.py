"""`download` and `list benchmarks`, a server on this machine: a file is there whole and checked, or not at all."""

from __future__ import annotations

import json
import shlex
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from kit_tables import EXAMPLES, write

from benchmarks._kit import official
from benchmarks._kit.boot import boot
from benchmarks._kit.table import md5
from uniprune.benchmark import DataOptions
from uniprune.cli import main
from uniprune.errors import UserError
from uniprune.registry import BENCHMARKS


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        content, claimed = self.server.content, self.server.claimed
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(claimed or len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
        self.server.silence.wait(self.server.seconds)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    """Sends `content`, claiming it is `claimed` bytes long, and keeps the connection for some seconds after it."""

    def __init__(self, content: bytes):
        self.content, self.claimed, self.status, self.seconds = content, None, 200, 0.0
        self.asked: list[str] = []
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
        (cut_off, "retrieval incomplete"),
        (another_file, "sent another file: md5"),
        (not_there, "HTTP Error 404"),
        (silent, "timed out"),
        (gone, "Connection refused"),
    ],
)
def test_a_failed_download_leaves_nothing(fault, message, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(official, "PATIENCE", 0.3)
    whole = server.content
    fault(server)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / ".POPE.tsv.partial").write_bytes(b"left by a kill")
    assert download(folder, "pope") == 2
    told = capsys.readouterr().err
    assert message in told and "nothing was changed. To do it by hand, fetch http://127.0.0.1" in told
    assert "Traceback" not in told
    assert visible(folder) == []
    if fault is not gone:
        server.content, server.claimed, server.status, server.seconds = whole, None, 200, 0
        assert download(folder, "pope") == 0  # the next one starts afresh
        assert visible(folder) == ["POPE.tsv"]


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
