"""JSON-lines files under kills, full disks and concurrent processes; atomic writes."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.helpers.paths import ROOT
from uniprune.errors import UserError
from uniprune.utils import files
from uniprune.utils.files import JsonLines, check_writable, write_atomically


class Line(BaseModel):
    n: int
    text: str = ""


def lines(path: Path) -> JsonLines[Line]:
    return JsonLines(path, Line.model_validate, "a stored line", "delete it and run again")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with three lines."""
    path = tmp_path / "folder" / "x.jsonl"
    lines(path).append({"n": n} for n in range(3))
    return path


def numbers(path: Path) -> list[int]:
    return [line.n for line in lines(path).read()]


def state(path: Path) -> dict[Path, tuple[bytes, int, int]]:
    """Bytes, time of change and inode of every file in the folder."""
    return {one: (one.read_bytes(), one.stat().st_mtime_ns, one.stat().st_ino) for one in path.parent.iterdir()}


def test_lines_come_back_in_order(path: Path) -> None:
    lines(path).append([{"n": 3, "text": "a\nb\u2028c\r\x85"}])
    assert numbers(path) == [0, 1, 2, 3]
    assert lines(path).read()[-1].text == "a\nb\u2028c\r\x85"
    assert len(path.read_text().splitlines()) == 4, "readers that split at Unicode line ends find other lines"
    assert lines(path.parent / "none.jsonl").read() == []
    assert not (path.parent / "none.lock").exists()


@pytest.mark.parametrize("rest", ['{"n": 3', "{", '{"n": 3}'], ids=["cut", "begun", "without its end"])
def test_a_cut_last_line_is_skipped_by_readers_and_removed_by_the_next_append(rest: str, path: Path) -> None:
    with path.open("a") as file:
        file.write(rest)
    before = state(path)
    assert numbers(path) == [0, 1, 2]
    assert state(path) == before
    lines(path).append([{"n": 4}])
    assert path.read_text() == '{"n": 0}\n{"n": 1}\n{"n": 2}\n{"n": 4}\n'


@pytest.mark.parametrize("block", [1, 7, 8, 1 << 16])
@pytest.mark.parametrize("whole", ["", '{"n": 0}\n', '{"n": 0}\n{"n": 1, "text": "long"}\n'])
def test_the_last_line_end_is_found_wherever_it_is(
    whole: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK", block)
    path = tmp_path / "x.jsonl"
    path.write_text(whole + '{"n": 5, "text": "cut')
    lines(path).append([{"n": 6}])
    assert path.read_text() == whole + '{"n": 6}\n'


def test_an_append_reads_the_end_of_the_file_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines(path).append([{"n": 3, "text": "x" * 10 * files.BLOCK}, {"n": 4}])
    read: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda handle, size, start: read.append(size) or pread(handle, size, start))
    lines(path).append([{"n": 5}])
    assert read == [files.BLOCK]
    assert numbers(path) == [0, 1, 2, 3, 4, 5]


def test_another_kind_of_file_is_not_cut(path: Path) -> None:
    path.write_text("notes without a line end")
    with pytest.raises(UserError, match=r"x\.jsonl ends in something that is no stored line; choose another file"):
        lines(path).append([{"n": 0}])
    assert path.read_text() == "notes without a line end"


def test_reading_needs_no_right_to_write(path: Path) -> None:
    """In a folder on a read-only file system, or of someone else; root may write there, so its rights are not used."""
    with path.open("a") as file:
        file.write('{"n": 3')
    path.with_suffix(".lock").unlink()
    path.chmod(0o444)
    path.parent.chmod(0o555)
    before = state(path)
    try:
        assert numbers(path) == [0, 1, 2]
        assert state(path) == before
        assert not path.with_suffix(".lock").exists()
        if os.geteuid():
            with pytest.raises(UserError, match=r"cannot write .*x\.jsonl: Permission denied"):
                lines(path).append([{"n": 4}])
    finally:
        path.parent.chmod(0o755)


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        ("garbage", "Expecting value"),
        ('{"n": "x"}', "1 validation error for Line, n, Input should be a valid integer"),
        ("[]", "Input should be a valid dictionary"),
        ("", "Expecting value"),
        ('{"n": 1', "Expecting ',' delimiter"),
    ],
    ids=["text", "other fields", "list", "blank", "cut"],
)
def test_a_damaged_line_in_the_middle_is_named_with_reason_and_remedy(damaged: str, reason: str, path: Path) -> None:
    content = path.read_text().replace('{"n": 1}', damaged)
    path.write_text(content)
    expected = rf"x\.jsonl line 2 is not a stored line \(.*{re.escape(reason)}.*\); delete it and run again"
    with pytest.raises(UserError, match=expected):
        lines(path).read()
    assert path.read_text() == content


def test_bytes_that_are_no_text_are_a_damaged_line(path: Path) -> None:
    path.write_bytes(b'{"n": 0}\n\xff\xfe\n')
    with pytest.raises(UserError, match=r"line 2 is not a stored line"):
        lines(path).read()


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        lines(tmp_path).read()


def test_a_rewrite_is_atomic(path: Path) -> None:
    with path.open() as old:
        lines(path).rewrite([{"n": 7}])
        assert old.read() == '{"n": 0}\n{"n": 1}\n{"n": 2}\n'  # who has it open goes on reading the old lines
    assert numbers(path) == [7]
    with pytest.raises(TypeError, match="not JSON serializable"):
        lines(path).rewrite([{"n": 8}, {"n": object()}])
    assert numbers(path) == [7]
    assert sorted(one.name for one in path.parent.iterdir()) == ["x.jsonl", "x.lock"]


def test_lines_that_cannot_be_encoded_leave_what_was_there(path: Path) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield {"n": 3}
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        lines(path).append(broken())
    assert numbers(path) == [0, 1, 2]


FULL = """
import resource, sys
from pathlib import Path
from uniprune.errors import UserError
from uniprune.utils.files import JsonLines
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
lines = JsonLines(Path(sys.argv[1]), dict, "a line", "remedy")
try:
    getattr(lines, sys.argv[3])([{"n": 3, "text": "x" * 20}, {"n": 4, "text": "x" * 2000}])
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("rest", ["", '{"n": 3, "te'], ids=["complete", "cut"])
@pytest.mark.parametrize("call", ["append", "rewrite"])
def test_a_full_disk_leaves_what_was_there(call: str, rest: str, path: Path) -> None:
    """With room for the first line: a limit on the size of files acts as the end of a disk."""
    before = path.read_bytes()
    path.write_bytes(before + rest.encode())
    command = [sys.executable, "-c", FULL, str(path), "200", call]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    message = r"cannot write .*x\.jsonl: File too large; everything stored before is kept\. Make room"
    assert re.match(message, done.stdout)
    assert path.read_bytes() == before + (rest.encode() if call == "rewrite" else b"")
    assert sorted(one.name for one in path.parent.iterdir()) == ["x.jsonl", "x.lock"]
    lines(path).append([{"n": 5}])
    assert numbers(path) == [0, 1, 2, 5]


def _append_many(path: Path, first: int) -> None:
    for n in range(first, first + 100, 5):
        lines(path).append({"n": k, "text": "x" * 500} for k in range(n, n + 5))


def test_processes_that_append_lose_no_line(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append_many, args=(path, 1000 * k)) for k in (1, 2, 3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    found = numbers(path)
    assert found[:3] == [0, 1, 2]
    assert sorted(found[3:]) == [n for k in (1, 2, 3) for n in range(1000 * k, 1000 * k + 100)]
    for k in (1, 2, 3):  # each batch in one piece, batches in their order
        own = [n for n in found if n // 1000 == k]
        assert own == sorted(own)
    batches = [found[i : i + 5] for i in range(3, len(found), 5)]
    assert all(batch == list(range(batch[0], batch[0] + 5)) for batch in batches)


def test_a_locked_file_is_waited_for_and_the_lock_is_given_back(path: Path) -> None:
    holder, other = lines(path), lines(path)
    waited: list[Path] = []

    def waiting(which: Path) -> None:
        waited.append(which)
        holder._lock.release()

    holder._lock.acquire()
    with other.locked(waiting):
        other.append([{"n": 3}])  # the lock is held already
    assert waited == [path]
    with holder.locked(waiting):
        pass
    assert waited == [path]


def test_removing_leaves_nothing(path: Path) -> None:
    lines(path).remove()
    assert list(path.parent.iterdir()) == []
    lines(path).remove()
    assert numbers(path) == []


def test_atomic_writes_leave_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    write_atomically(target, "é")
    assert target.read_bytes() == "é".encode()
    assert target.stat().st_mode & 0o777 == 0o644
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", "x")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder", "x.txt"]


def test_a_path_that_cannot_be_written_is_named_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*: it is a folder; name a file in it"):
        check_writable(tmp_path)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match=r"cannot write .*file/x: .*choose another --output"):
        check_writable(tmp_path / "file" / "x")
    check_writable(tmp_path / "new" / "x")
    assert list((tmp_path / "new").iterdir()) == []
    check_writable(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


def test_lines_are_plain_json(path: Path) -> None:
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"n": 0}, {"n": 1}, {"n": 2}]
