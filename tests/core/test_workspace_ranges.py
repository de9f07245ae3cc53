"""Files written out of order, and files whose source gave a digest."""

from __future__ import annotations

import hashlib
import os
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from datasources import DataFetchError, LimitExceededError, Limits, Workspace, WorkspaceFile


@st.composite
def pieces(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, int]]]:
    """Bytes, and the pieces they are cut into, in any order."""
    data = draw(st.binary(min_size=1, max_size=2000))
    cuts = sorted(draw(st.sets(st.integers(1, len(data)), max_size=20)) | {0, len(data)})
    return data, draw(st.permutations(list(pairwise(cuts))))


@settings(max_examples=200, deadline=None)
@given(case=pieces(), hash_between=st.booleans())
def test_pieces_in_any_order_give_the_file_and_its_digest(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[bytes, list[tuple[int, int]]],
    hash_between: bool,
) -> None:
    data, order = case
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    with workspace.create("blob", size=len(data)) as file:
        for start, end in order:
            file.write_at(start, data[start:end])
            if hash_between:
                file.update_checksums()
    assert Path(file.path).read_bytes() == data
    assert workspace.written[file.path].sha256 == hashlib.sha256(data).hexdigest()


def test_digest_follows_in_a_thread_while_pieces_arrive(tmp_path: Path) -> None:
    data = os.urandom(8 << 20)
    step = 1000
    workspace = Workspace(tmp_path)
    with workspace.create("blob", size=len(data)) as file:
        done = threading.Event()

        def follow() -> None:
            # It finds nothing to do as often as a little, and bytes arrive while it looks.
            while not done.is_set():
                file.update_checksums()

        thread = threading.Thread(target=follow)
        thread.start()
        for start in range(0, len(data), step):
            file.write_at(start, data[start : start + step])
        done.set()
        thread.join()
    assert workspace.written[file.path].sha256 == hashlib.sha256(data).hexdigest()


def write(file: WorkspaceFile, *spans: tuple[int, int]) -> None:
    """Write these spans into the file and leave its block."""
    with file:
        for start, end in spans:
            file.write_at(start, b"x" * (end - start))


def test_overlapping_pieces_of_the_right_total_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataFetchError, match="leave gaps"):
        write(Workspace(tmp_path).create("blob", size=30), (0, 10), (5, 15), (20, 30))
    assert os.listdir(tmp_path) == []


def test_missing_piece_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataFetchError, match="should have 30 bytes, but 20"):
        write(Workspace(tmp_path).create("blob", size=30), (10, 30))
    assert os.listdir(tmp_path) == []


def test_pieces_count_towards_the_limit(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, limits=Limits(max_bytes=15))
    with pytest.raises(LimitExceededError):
        write(workspace.create("blob"), (0, 10), (10, 20))
    assert os.listdir(tmp_path) == []


def test_pieces_report_progress(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    workspace = Workspace(tmp_path, progress=lambda done, total: seen.append((done, total)))
    with workspace.create("blob", size=3) as file:
        file.write_at(2, b"c")
        file.write_at(0, b"ab")
    assert seen == [(1, 3), (3, 3)]


def write_checked(file: WorkspaceFile, data: bytes, *, in_order: bool) -> None:
    """Write data that should have the MD5 of `right`."""
    with file:
        file.expect_checksum("md5", hashlib.md5(b"right").digest())
        if in_order:
            file.write(data)
        else:
            file.write_at(0, data)


@pytest.mark.parametrize("in_order", [True, False])
def test_wrong_digest_of_the_source_leaves_nothing(tmp_path: Path, in_order: bool) -> None:
    with pytest.raises(DataFetchError, match="'blob' arrived damaged: its md5"):
        write_checked(Workspace(tmp_path).create("blob"), b"wrong", in_order=in_order)
    assert os.listdir(tmp_path) == []
    write_checked(Workspace(tmp_path).create("blob"), b"right", in_order=in_order)
    assert os.listdir(tmp_path) == ["blob"]


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_right_digest_of_the_source_passes(tmp_path: Path, algorithm: str) -> None:
    workspace = Workspace(tmp_path)
    with workspace.create("blob") as file:
        file.expect_checksum(algorithm, hashlib.new(algorithm, b"data").digest())
        file.write(b"da")
        file.write(b"ta")
    assert workspace.written[file.path].sha256 == hashlib.sha256(b"data").hexdigest()


def test_leaving_waits_for_a_thread_that_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, rename = os.preadv, os.rename
    reading, renamed = threading.Event(), threading.Event()

    def slow_read(*arguments: Any) -> int:
        reading.set()
        renamed.wait(0.2)  # for what must not happen
        return read(*arguments)

    def note_rename(*arguments: Any, **more: Any) -> None:
        renamed.set()
        rename(*arguments, **more)

    monkeypatch.setattr(os, "preadv", slow_read)
    monkeypatch.setattr(os, "rename", note_rename)
    workspace = Workspace(tmp_path)
    with workspace.create("blob") as file:
        file.write_at(0, b"data")
        thread = threading.Thread(target=file.update_checksums)
        thread.start()
        reading.wait()
    thread.join()
    assert workspace.written[file.path].sha256 == hashlib.sha256(b"data").hexdigest()


def test_leaving_on_an_error_stops_a_thread_that_hashes(tmp_path: Path) -> None:
    threads = []
    with pytest.raises(RuntimeError), Workspace(tmp_path).create("blob") as file:  # noqa: PT012
        file.write_at(0, bytes(64 << 20))
        threads = [threading.Thread(target=file.update_checksums) for _ in range(3)]
        for thread in threads:
            thread.start()
        raise RuntimeError
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert os.listdir(tmp_path) == []


def write_while_cut_short(workspace: Workspace) -> None:
    with workspace.create("blob") as file:
        file.write_at(0, b"data")
        (temporary,) = Path(workspace).iterdir()
        os.truncate(temporary, 1)


def test_file_cut_short_by_someone_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataFetchError, match="cut short by someone else"):
        write_while_cut_short(Workspace(tmp_path))
    assert os.listdir(tmp_path) == []
