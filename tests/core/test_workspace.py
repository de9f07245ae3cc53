"""Files in a workspace: inside it, whole or absent, within the limits."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given, strategies as st

from datasources import DataFetchError, LimitExceededError, Limits, Workspace
from datasources.workspace import RequestOrder
from datasources.workspace.paths import safe_path

HOSTILE = [
    "..",
    "../x",
    "a/../../x",
    "/etc/passwd",
    "//x",
    "a//b",
    "a/",
    "/",
    ".",
    "./x",
    "a/./b",
    "a\\..\\b",
    "\0",
    "a\nb",
    "%2e%2e/x",
    "%2F",
    "100%",
    "100%25",
    "%",
    "~",
    "~root",
    "-rf",
    "con",
    "a:b",
    "é",
    "e\u0301",
    "A",
    "a",
    " ",
    "a ",
    "a.",
    "\u202e",
    "🦆",
    "|",
    "*",
    "$(x)",
    ".datasources-0123456789abcdef.part",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_written_inside_the_workspace(tmp_path: Path, name: str) -> None:
    workspace = tmp_path / "inner" / "workspace"
    with Workspace(workspace).create(name) as file:
        file.write(b"content")
    written = Path(file.path)
    assert written.read_bytes() == b"content"
    assert written.resolve().is_relative_to(workspace)
    outside = [path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "inner")]
    assert outside == []


def test_hostile_names_give_distinct_files(tmp_path: Path) -> None:
    for name in HOSTILE:
        with Workspace(tmp_path).create(name, flat=True) as file:
            file.write(name.encode())
    contents = [path.read_bytes().decode() for path in tmp_path.iterdir()]
    assert sorted(contents) == sorted(HOSTILE)
    assert len({safe_path(name) for name in HOSTILE}) == len(HOSTILE)


@given(st.text(min_size=1, max_size=60))
def test_percent_decoding_a_path_gives_the_name_back(name: str) -> None:
    try:
        path = safe_path(name)
    except DataFetchError:
        surrogates = [char for char in name if "\ud800" <= char <= "\udfff"]
        if not surrogates:
            assert len(name.encode()) > 200
        return
    assert unquote(path, errors="surrogatepass") == name
    assert not {"", ".", ".."} & set(path.split("/"))


@given(st.text(alphabet="a/.%2eEfF\\\0", min_size=1, max_size=12), st.booleans())
def test_a_flat_path_is_one_segment_that_decodes_to_the_name(name: str, flat: bool) -> None:
    path = safe_path(name, flat=flat)
    assert unquote(path) == name
    assert not (flat and "/" in path)


def test_an_ordinary_name_keeps_its_folders_and_extension(tmp_path: Path) -> None:
    with Workspace(tmp_path).create("data/sales.csv") as file:
        file.write(b"a,b\n")
    assert file.path == str(tmp_path / "data" / "sales.csv")


@pytest.mark.parametrize("name", ["", "\ud800", "x" * 256, "é" * 128])
def test_a_name_that_no_file_can_have_is_a_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataFetchError, match="name"):
        Workspace(tmp_path).create(name)


def test_the_receipt_has_size_and_checksum(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.create("x") as file:
        for piece in (b"one", bytearray(b"two"), memoryview(b"three")):
            file.write(piece)
        file.rows, file.version = 3, "v1"
    written = workspace.written[file.path]
    assert (written.size, written.rows, written.version) == (11, 3, "v1")
    assert written.sha256 == hashlib.sha256(b"onetwothree").hexdigest()
    assert workspace.adopt(file.path) == written


def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with suppress(RuntimeError), Workspace(tmp_path).create("x") as file:
        file.write(b"new")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_failure_leaves_no_folder_of_the_item(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Workspace(tmp_path).create("a/b/c"):
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_exactly_the_limit_is_written_and_one_byte_more_is_not(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, limits=Limits(max_bytes=4))
    with workspace.create("fits") as file:
        file.write(b"1234")
    with suppress(LimitExceededError), workspace.create("large") as file:
        file.write(b"1234")
        message = "'large' has 5 bytes or more, over the limit of 4 bytes a fetch"
        with pytest.raises(LimitExceededError, match=message):
            file.write(b"5")
        raise LimitExceededError("as a connector lets it pass")
    assert os.listdir(tmp_path) == ["fits"]


def test_a_size_over_the_limit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, limits=Limits(max_bytes=4))
    with pytest.raises(LimitExceededError), workspace.create("x", size=5):
        pytest.fail("entered")


@pytest.mark.parametrize("content", [b"", b"123", b"12345"])
def test_another_length_than_announced_is_an_error(tmp_path: Path, content: bytes) -> None:
    with (
        pytest.raises(DataFetchError, match=f"4 bytes, but {len(content)} arrived"),
        Workspace(tmp_path).create("x", size=4) as file,
    ):
        file.write(content)
    assert os.listdir(tmp_path) == []


def test_progress_is_told_bytes_so_far_and_the_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int | None]] = []
    workspace = Workspace(tmp_path, progress=lambda done, total: calls.append((done, total)))
    with workspace.create("x", size=3) as file:
        file.write(b"12")
        file.write(b"3")
    assert calls == [(2, 3), (3, 3)]


def plant_link(workspace: Path, outside: Path) -> None:
    (workspace / "data").symlink_to(outside)


def plant_file(workspace: Path, outside: Path) -> None:
    (workspace / "data").write_bytes(b"")


def plant_folder(workspace: Path, outside: Path) -> None:
    (workspace / "data" / "x").mkdir(parents=True)


def plant_dangling_link(workspace: Path, outside: Path) -> None:
    (workspace / "data").symlink_to(outside / "missing")


@pytest.mark.parametrize("plant", [plant_link, plant_file, plant_folder, plant_dangling_link])
def test_something_planted_on_the_way_is_an_error_that_names_the_item(
    tmp_path: Path, plant: object
) -> None:
    workspace, outside = tmp_path / "workspace", tmp_path / "outside"
    workspace.mkdir()
    outside.mkdir()
    plant(workspace, outside)  # type: ignore[operator]
    with (
        pytest.raises(DataFetchError, match="cannot write 'data/x' to the workspace: a folder"),
        Workspace(workspace).create("data/x") as file,
    ):
        file.write(b"content")
    assert list(outside.iterdir()) == []
    assert os.listdir(workspace) == ["data"]


@pytest.mark.parametrize("planted", ["symlink", "hardlink", "fifo"])
def test_something_planted_at_the_end_is_replaced_not_followed(
    tmp_path: Path, planted: str
) -> None:
    workspace, outside = tmp_path / "workspace", tmp_path / "outside"
    workspace.mkdir()
    outside.write_bytes(b"precious")
    target = workspace / "x"
    {"symlink": target.symlink_to, "hardlink": target.hardlink_to}.get(
        planted, lambda _: os.mkfifo(target)
    )(outside)
    with Workspace(workspace).create("x") as file:
        file.write(b"content")
    assert outside.read_bytes() == b"precious"
    assert stat.S_ISREG(target.lstat().st_mode)
    assert target.read_bytes() == b"content"


def test_a_link_planted_while_writing_is_not_followed(tmp_path: Path) -> None:
    workspace, outside = tmp_path / "workspace", tmp_path / "outside"
    outside.mkdir()
    file = Workspace(workspace).create("data/x").__enter__()
    file.write(b"content")
    (workspace / "data").symlink_to(outside)
    with pytest.raises(DataFetchError, match="link"):
        file.__exit__(None, None, None)
    assert list(outside.iterdir()) == []


def test_identical_requests_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.create("x") as first, workspace.create("x") as second:
        first.write(b"1" * 10)
        second.write(b"2" * 20)
    assert (tmp_path / "x").read_bytes() in {b"1" * 10, b"2" * 20}
    assert os.listdir(tmp_path) == ["x"]


def test_two_items_of_one_batch_never_share_a_file(tmp_path: Path) -> None:
    owners: dict[str, str] = {}
    with Workspace(tmp_path, owner="one", owners=owners).create("x") as file:
        file.write(b"1")
    with (
        pytest.raises(DataFetchError, match="'x' would overwrite what one brings"),
        Workspace(tmp_path, owner="two", owners=owners).create("x"),
    ):
        pytest.fail("entered")


def write(workspace: Workspace, content: bytes) -> None:
    with workspace.create("x") as file:
        file.write(content)


@pytest.mark.parametrize("begun", ["earlier first", "later first", "later done", "in turn"])
def test_a_path_goes_to_the_earlier_item_of_a_batch_whichever_is_faster(
    tmp_path: Path, begun: str
) -> None:
    owners: dict[str, str] = {}
    order = RequestOrder(["one", "two", "two", "one"])
    earlier = Workspace(tmp_path, owner="one", owners=owners, order=order)
    later = Workspace(tmp_path, owner="two", owners=owners, order=order)
    refused = pytest.raises(DataFetchError, match="'x' would overwrite what one brings")
    if begun == "earlier first":
        write(earlier, b"1")
        with refused:
            write(later, b"2")
    elif begun == "later first":
        with refused, later.create("x") as file:
            file.write(b"2")
            write(earlier, b"1")
    elif begun == "later done":
        write(later, b"2")
        write(earlier, b"1")
    else:
        with earlier.create("x") as file:
            file.write(b"1")
            with refused:
                write(later, b"2")
    assert (tmp_path / "x").read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["x"]
    earlier.claim(f"{earlier}/x", "x")
    with refused:
        later.claim(f"{later}/x", "x")


@pytest.mark.parametrize("age", [-86_400, 0, 86_400])
def test_cleaning_removes_what_a_killed_writer_left_of_any_age_and_nothing_else(
    tmp_path: Path, age: float
) -> None:
    script = (
        "import sys, time\nfrom datasources import Workspace\n"
        "with Workspace(sys.argv[1]).create('x') as file:\n"
        "    file.write(b'half')\n    print('writing', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        (temporary,) = tmp_path.iterdir()
        written_at = temporary.stat().st_mtime - age
        os.utime(temporary, (written_at, written_at))
        (tmp_path / "kept").write_bytes(b"")
        assert Workspace(tmp_path).clean() == []  # its writer lives
        writer.send_signal(signal.SIGKILL)
    assert Workspace(tmp_path).clean() == [temporary.name]
    assert os.listdir(tmp_path) == ["kept"]


def test_a_full_disk_is_a_clear_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write fails half-way."""
    script = (
        "import resource, signal, sys\nfrom datasources import Workspace, DataFetchError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    with Workspace(sys.argv[1]).create('x') as file:\n"
        "        for _ in range(3): file.write(bytes(600))\n"
        "except DataFetchError as exc: print(exc)\n"
    )
    (tmp_path / "x").write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True
    )
    assert done.stdout == "cannot write 'x' to the workspace: File too large\n"
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_workspace_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(DataFetchError, match="cannot write 'x' to the workspace"),
        Workspace(tmp_path / "file" / "workspace").create("x"),
    ):
        pytest.fail("entered")


def test_a_file_that_a_connector_wrote_itself_is_checked(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace", limits=Limits(max_bytes=3))
    (tmp_path / "workspace" / "folder").mkdir(parents=True)
    for name, content in (("fits", b"123"), ("large", b"1234")):
        (tmp_path / "workspace" / name).write_bytes(content)
    (tmp_path / "outside").write_bytes(b"")
    (tmp_path / "workspace" / "link").symlink_to(tmp_path / "outside")
    assert workspace.adopt(f"{workspace}/fits").size == 3
    with pytest.raises(LimitExceededError, match="'large' has 4 bytes"):
        workspace.adopt(f"{workspace}/large")
    assert not os.path.exists(f"{workspace}/large")
    for path in (f"{workspace}/../outside", f"{workspace}/link", f"{workspace}/folder", ""):
        with pytest.raises(DataFetchError, match="no file of the workspace"):
            workspace.adopt(path)


def test_files_are_written_into_the_folder_of_a_workspace(tmp_path: Path) -> None:
    workspace = Workspace(Workspace(tmp_path, folder="shop"))
    for name, flat in (("a/b.csv", False), ("a/b.csv", True), ("../x", False)):
        with workspace.create(name, flat=flat) as file:
            file.write(b"1")
    paths = sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()
    )
    assert paths == ["shop/%2E%2E/x", "shop/a%2Fb.csv", "shop/a/b.csv"]
    assert Workspace(workspace, folder="other").folder == "other"


def test_folder_of_a_workspace_is_no_link_that_is_followed(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w/shop").symlink_to(tmp_path)
    with (
        pytest.raises(DataFetchError, match="a link"),
        Workspace(tmp_path / "w", folder="shop").create("a.csv") as file,
    ):
        file.write(b"1")
    assert os.listdir(tmp_path) == ["w"]
