"""Only a regular file is opened, and nothing that stands in its place is waited for."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from pathlib import Path

import pytest

from datasources import delete_below, open_below, open_regular
from tests.descriptors import descriptors_below


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
        before = descriptors_below(path)
        with pytest.raises(OSError, match=r"not a regular file|No such device") as caught:
            open_regular(str(path))
        assert descriptors_below(path) == before
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


def test_file_below_a_directory_is_opened_and_deleted(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_bytes(b"content")
    with os.fdopen(open_below(tmp_path, "a/b/c"), "rb") as file:
        assert file.read() == b"content"
    delete_below(tmp_path, "a/b/c")
    assert os.listdir(tmp_path / "a/b") == []


@pytest.mark.skipif(
    os.geteuid() != 0 or not hasattr(os, "O_PATH"), reason="only root can act as another user"
)
def test_file_in_a_folder_that_may_be_searched_but_not_listed_is_opened() -> None:
    with tempfile.TemporaryDirectory() as directory:  # that other users may search, unlike tmp_path
        folder = Path(directory, "folder")
        folder.mkdir()
        (folder / "file").write_bytes(b"content")
        folder.chmod(0o711)
        Path(directory).chmod(0o711)
        os.seteuid(65534)
        try:
            with os.fdopen(open_below(directory, "folder/file"), "rb") as file:
                assert file.read() == b"content"
        finally:
            os.seteuid(0)


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/x", "", ".", "a//x", "link/x", "x\0", "\udc00"]
)
def test_nothing_outside_of_a_directory_is_opened_or_deleted(tmp_path: Path, path: str) -> None:
    (tmp_path / "x").write_bytes(b"content")
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/link").symlink_to(tmp_path)
    for function in (open_below, delete_below):
        with pytest.raises((OSError, ValueError)):
            function(tmp_path / "in", path)
    assert descriptors_below(tmp_path) == []
    assert (tmp_path / "x").exists()


def test_link_in_place_of_a_file_is_not_followed_below_a_directory(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x").symlink_to(tmp_path / "x")
    (tmp_path / "also").symlink_to(tmp_path / "in")
    for directory in ("in", "also"):
        with pytest.raises(OSError, match=r"symbolic link|Not a directory"):
            open_below(tmp_path / directory, "x")
    delete_below(tmp_path / "in", "x")
    assert (tmp_path / "x").exists()
    assert not (tmp_path / "in/x").is_symlink()
