"""Only a regular file is opened, and nothing that stands in its place is waited for."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from datasources import open_regular
from datasources.testing.watch import descriptors


def test_a_file_is_opened_as_by_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with open(path, "rb", opener=open_regular) as file:
        assert file.read() == b"content"


def test_a_new_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    with open(tmp_path / "new", "wb", opener=open_regular):
        pass
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["pipe", "directory", "device", "socket"])
def test_what_is_no_regular_file_is_an_error_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd"
    bound = socket.socket(socket.AF_UNIX)
    if kind == "pipe":
        os.mkfifo(path)  # without O_NONBLOCK, opening it would wait for ever
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/null")
    else:
        bound.bind(str(path))
    with bound:
        before = descriptors()
        with pytest.raises(OSError, match=r"not a regular file|No such device") as caught:
            open_regular(str(path))
        assert descriptors() == before
    assert caught.value.errno in {errno.EINVAL, errno.ENXIO}


def test_a_link_is_followed_only_on_request(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    link = tmp_path / "link"
    link.symlink_to("file")
    with pytest.raises(OSError, match="symbolic links") as caught:
        open_regular(str(link))
    assert caught.value.errno == errno.ELOOP
    with os.fdopen(open_regular(str(link), follow_links=True), "rb") as file:
        assert file.read() == b"content"
