"""Download a file, continuing where an earlier attempt ended."""

from __future__ import annotations

import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from rich.console import Console

from uniprune.utils.console import byte_progress

PATIENCE = 60.0
"""Seconds without a byte after which the download fails."""
CHUNK = 2**20


def download(url: str, partial: Path) -> bool:
    """Complete `partial` from `url`, requesting only the missing bytes, with a progress bar on a terminal.

    Bytes once received are kept. Only a checksum can verify that both parts are of one file.

    Returns:
        whether earlier bytes were kept.

    Raises:
        OSError: the server cannot be reached, has no such file, stops sending or ends early; or there is no room.
    """
    there = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response, partial.open("ab") as file:
            if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {there}-"):
                raise OSError(f"requested the bytes from {there} on, the server sent others")
            if response.status != 206:  # the whole file: servers may ignore ranges
                there = 0
                file.truncate(0)
            length = response.headers.get("Content-Length")
            if length is not None and not length.isdecimal():
                raise OSError(f"the server announces {length!r} bytes")
            total = None if length is None else there + int(length)
            with byte_progress(Console(stderr=True)) as bar:
                task = bar.add_task(partial.name.strip(".").removesuffix(".partial"), total=total, completed=there)
                have = there
                while chunk := response.read1(CHUNK):
                    file.write(chunk)
                    file.flush()  # a kill then loses no received byte
                    have += len(chunk)
                    bar.update(task, completed=have)
            if total is not None and have < total:
                raise OSError(f"cut off after {have} of {total} bytes")
            return there > 0
    except urllib.error.HTTPError as error:
        if error.code == 416 and there:  # the file is complete
            return True
        raise
    except HTTPException as error:
        raise OSError(f"the connection broke ({type(error).__name__})") from error
