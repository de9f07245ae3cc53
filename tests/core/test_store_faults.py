"""Processes that write at once or are killed, and files that are damaged, full or not ours."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from datasources import CredentialManager, DataSourceError, SQLiteStore, StoreError
from datasources.registry import SourceRecords
from tests.core.fakes import stored
from tests.core.subprocesses import environment

KEY = CredentialManager.generate_key()

PRELUDE = """
import os, sys
from dataclasses import replace
from datasources.errors import StoreError
from datasources.stores import StoredSource
from datasources.stores.sqlite import SQLiteStore

def source(name, credentials="x"):
    return StoredSource(name, "custom", name, 1.0, {}, None, None, credentials)

store = SQLiteStore(sys.argv[1])
"""
COUNTER = """
for _ in range(250):
    while True:
        record = store.get("counter")
        try:
            store.update(replace(record, credentials=str(int(record.credentials) + 1)))
            break
        except StoreError as exc:
            assert "changed or removed meanwhile" in str(exc), exc
"""
ADDER = """
import itertools
for n in itertools.count():
    name = f"{sys.argv[2]}-{n}"
    store.add(source(name), source(name + "-twin"))
    os.write(1, b"%d\\n" % n)
    if n % 3 == 0:
        store.update(replace(store.get(name), credentials="updated" * 200))
    if n % 5 == 0:
        store.remove(name + "-twin")
        os.write(1, b"-%d\\n" % n)
"""

WRITER = """
import itertools
for n in itertools.count():
    name = f"{sys.argv[2]}-{n}"
    while True:
        counter = store.get("counter")
        risen = replace(counter, credentials=str(int(counter.credentials) + 1))
        try:
            store.write(add=[source(name), source(f"{name}-twin")], update=[risen])
            break
        except StoreError as exc:
            assert "changed or removed meanwhile" in str(exc), exc
    os.write(1, b"%d\\n" % n)
    if n + 1 == int(sys.argv[3]):
        break
"""


def start(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PRELUDE + code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )


def finish(process: subprocess.Popen[bytes]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    return out.decode()


def test_four_processes_lose_no_update(tmp_path: Path):
    with_counter = SQLiteStore(tmp_path / "s.db")
    with_counter.add(stored("counter", "0"))
    processes = [start(COUNTER, tmp_path / "s.db") for _ in range(4)]
    for process in processes:
        finish(process)
    assert (record := with_counter.get("counter"))
    assert record.credentials == "1000"
    with_counter.close()


def test_first_users_of_a_new_file_may_race(tmp_path: Path):
    code = "store.add(source(sys.argv[2])); assert store.get(sys.argv[2])"
    processes = [start(code, tmp_path / "s.db", n) for n in range(6)]
    for process in processes:
        finish(process)
    store = SQLiteStore(tmp_path / "s.db")
    assert [r.id for r in store.list()] == list("012345")
    store.close()


def test_change_of_another_process_is_seen_at_the_next_read(tmp_path: Path):
    store = SQLiteStore(tmp_path / "s.db")
    code = "store.add(source('b')); os.write(1, b'added\\n'); sys.stdin.read(1)"
    process = start(code, tmp_path / "s.db")
    assert process.stdout
    assert process.stdout.readline() == b"added\n"
    assert store.get("b")
    finish(process)
    store.close()


def kill_writers(path: Path, times: int, seed: int) -> None:
    """Kill a writer again and again; what it acknowledged is there, and nothing is half written."""
    moments = random.Random(seed)
    acknowledged: dict[str, int] = {}
    removed: set[str] = set()
    for round_ in range(times):
        process = start(ADDER, path, round_)
        assert process.stdout
        process.stdout.readline()  # it is at work
        time.sleep(moments.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().split(b"\n")[:-1]
        process.wait()
        assert process.stderr
        process.stdout.close()
        process.stderr.close()
        numbers = [0, *map(int, lines)] if lines else [0]
        acknowledged[str(round_)] = max(numbers)
        removed |= {f"{round_}-{-n}-twin" for n in numbers if n < 0}
        store = SQLiteStore(path)
        found = {record.id for record in store.list()}
        for name, last in acknowledged.items():
            assert {f"{name}-{n}" for n in range(last + 1)} <= found
        assert not removed & found
        for record in store.list():
            assert record.credentials in ("x", "updated" * 200)
            if record.id.endswith("-twin"):
                assert record.id.removesuffix("-twin") in found
        store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_killed_writer_loses_nothing_acknowledged(tmp_path: Path):
    kill_writers(tmp_path / "s.db", 30, seed=1)


@pytest.mark.soak
def test_writer_killed_200_times_loses_nothing_acknowledged(tmp_path: Path):
    kill_writers(tmp_path / "s.db", 200, seed=random.randrange(2**32))


def check_counted(store: SQLiteStore) -> int:
    """Return how often the counter rose: as often as two sources were added with it."""
    ids = {record.id for record in store.list()} - {"counter"}
    record = store.get("counter")
    assert record
    assert {f"{each}-twin" for each in ids if not each.endswith("-twin")} == {
        each for each in ids if each.endswith("-twin")
    }
    assert int(record.credentials) * 2 == len(ids)
    return int(record.credentials)


def test_what_four_processes_add_and_replace_together_stays_together(tmp_path: Path):
    store = SQLiteStore(tmp_path / "s.db")
    store.add(stored("counter", "0"))
    processes = [start(WRITER, tmp_path / "s.db", n, 60) for n in range(4)]
    for process in processes:
        finish(process)
    assert check_counted(store) == 240
    store.close()


@pytest.mark.parametrize("times", [8, pytest.param(200, marks=pytest.mark.soak)])
def test_writers_killed_at_random_leave_whole_writes(tmp_path: Path, times: int):
    moments = random.Random(times)
    for round_ in range(times):
        store = SQLiteStore(tmp_path / f"{round_}.db")
        store.add(stored("counter", "0"))
        processes = [start(WRITER, store.path, n, -1) for n in range(2)]
        for process in processes:
            assert process.stdout
            process.stdout.readline()  # it is at work
        time.sleep(moments.uniform(0, 0.03))
        for process in processes:
            process.send_signal(signal.SIGKILL)
        acknowledged = 0
        for process in processes:
            assert process.stdout
            assert process.stderr
            acknowledged += 1 + process.stdout.read().count(b"\n")
            process.wait()
            process.stdout.close()
            process.stderr.close()
        assert acknowledged <= check_counted(store) <= acknowledged + 2
        store.close()


# Files.


def unusable(path: Path, message: str) -> None:
    with pytest.raises(StoreError) as caught:
        SQLiteStore(path)
    text = str(caught.value)
    assert repr(str(path)) in text
    assert message in text
    assert "\n" not in text


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The file of a closed store of 300 sources, all in one file."""
    path = tmp_path / "s.db"
    store = SQLiteStore(path)
    manager = CredentialManager(KEY)
    store.add(
        *(
            stored(f"s{n:03}", manager.encrypt_credentials({"password": n}, source_id=f"s{n:03}"))
            for n in range(300)
        )
    )
    store.compact()
    store.close()
    return path


@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 4096, b"{}"])
def test_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes):
    path = tmp_path / "s.db"
    path.write_bytes(content)
    unusable(path, "cannot be used")
    assert path.read_bytes() == content


def test_database_of_another_program_is_left_alone(tmp_path: Path):
    path = tmp_path / "s.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE sources (id TEXT)")
    connection.close()
    before = path.read_bytes()
    unusable(path, "not one of datasources")
    assert path.read_bytes() == before


def test_store_of_a_newer_version_is_left_alone(written: Path):
    with sqlite3.connect(written) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = written.read_bytes()
    unusable(written, "newer version of datasources (schema 99; this one knows 3)")
    assert written.read_bytes() == before


def test_directory_pipe_and_impossible_path_are_refused(tmp_path: Path):
    unusable(tmp_path, "it is not a file")
    os.mkfifo(tmp_path / "pipe")
    unusable(tmp_path / "pipe", "not a file")
    (tmp_path / "file").touch()
    unusable(tmp_path / "file" / "s.db", "Not a directory")
    unusable(Path(f"{tmp_path}/nul\0"), "embedded null")


NOBODY = """
import os, sys, sqlite3
from datasources import SQLiteStore, StoreError, StoredSource
import datasources.stores.sqlite
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
"""


def as_nobody(code: str, path: Path) -> str:
    """Run as a user without rights where this one has all of them."""
    return subprocess.run(
        [sys.executable, "-c", NOBODY + code, str(path)],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


@contextmanager
def follower(code: str, path: Path) -> Iterator[Callable[[], str]]:
    """Run as a user without rights; what it yields asks for a line and returns it."""
    with subprocess.Popen(
        [sys.executable, "-c", NOBODY + code, str(path)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        stdin, stdout = process.stdin, process.stdout

        def ask() -> str:
            stdin.write("\n")
            stdin.flush()
            return stdout.readline().rstrip("\n")

        yield ask


@pytest.fixture
def open_to_all(written: Path) -> Iterator[Path]:
    """The store as others may read and not write it, in a directory that nobody may write."""
    # Not where pytest makes directories: its next run, of anybody, closes them to other users.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(shutil.move(written, folder))
        if os.getuid() == 0:
            os.chown(path, 65534, 65534)  # as whom the reader runs; only an owner sets the mode
        path.chmod(0o444)
        path.parent.chmod(0o555)
        yield path
        path.parent.chmod(0o755)


UNWRITABLE = """
def refused(write, *arguments):
    try: write(*arguments)
    except StoreError as exc: print(exc)

refused(SQLiteStore, sys.argv[1] + ".new")
store = SQLiteStore(sys.argv[1])
refused(store.add, StoredSource("a", "custom", "a", 1.0, {}, None, None, ""))
refused(store.remove, "s007")
refused(store.compact)
print(len(store.list()), store.get("s007").name)
store.close()
"""


def test_store_that_cannot_be_written_is_listed_and_left_alone(open_to_all: Path):
    before = open_to_all.read_bytes()
    new, *writes, listed = as_nobody(UNWRITABLE, open_to_all).splitlines()
    assert new.endswith(f"'{open_to_all}.new' cannot be used: Permission denied")
    told = f"the store {str(open_to_all)!r} can be read, but not written: Permission denied"
    assert writes == [told] * 3
    assert listed == "300 S007"
    assert open_to_all.read_bytes() == before
    assert list(open_to_all.parent.iterdir()) == [open_to_all]


FOLLOWING = """
store = SQLiteStore(sys.argv[1])
for line in sys.stdin:
    print(store.get("s007").credentials, len(store.list()), flush=True)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user")
def test_who_may_only_read_sees_what_others_write(open_to_all: Path):
    with follower(FOLLOWING, open_to_all) as ask:
        first = ask()
        assert first.endswith(" 300")
        assert ask() == first
        for number in range(3):  # opened and closed: with a log and without one
            store = SQLiteStore(open_to_all)
            for _ in range(2):
                record = store.get("s007")
                assert record
                store.update(replace(record, credentials=f"new-{number}-{record.version}"))
                assert ask() == f"new-{number}-{record.version} {300 + number}"
            store.add(stored(f"t{number}"))
            assert ask().endswith(f" {301 + number}")
            store.close()
            assert ask().endswith(f" {301 + number}")


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user")
def test_log_of_a_killed_writer_is_read_without_the_right_to_write(open_to_all: Path):
    finish(start("store.add(source('new')); os._exit(0)", open_to_all))
    assert open_to_all.with_name("s.db-wal").stat().st_size
    for file in open_to_all.parent.iterdir():
        file.chmod(0o444)
    listed = "print(len(SQLiteStore(sys.argv[1]).list()))"
    assert as_nobody(listed, open_to_all) == "301\n"


FULL_AT_START = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
store = SQLiteStore(sys.argv[1])
assert len(store.list()) == 300
try:
    store.add(source("new"))
except StoreError as exc:
    assert "can be read, but not written: " in str(exc), exc
else:
    raise AssertionError("the disk was not full")
assert len(store.list()) == 300
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.add(source("new"))
assert len(store.list()) == 301
"""


def test_store_is_listed_on_a_full_disk_and_written_when_there_is_room(written: Path):
    process = subprocess.run(
        [sys.executable, "-c", PRELUDE.replace("store =", "#") + FULL_AT_START, written],
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    store = SQLiteStore(written)
    assert len(store.list()) == 301
    store.close()


FULL = """
import resource, signal
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    for n in range(10_000):
        store.add(source(f"new{n}", "y" * 500))
        os.write(1, b"%d\\n" % n)
except StoreError as exc:
    assert "\\n" not in str(exc) and "cannot be used" in str(exc), exc
    assert len(store.list()) == 300 + n, len(store.list())
else:
    raise AssertionError("the disk was never full")
"""


@pytest.mark.parametrize(
    ("room", "writes"),
    [(0, False), (1, False), (4096, False), (60_000, True), (123_457, True), (300_000, True)],
)
def test_full_disk_is_one_error_and_loses_nothing(written: Path, room: int, writes: bool):
    kept = SQLiteStore(written)
    before = kept.list()
    acknowledged = finish(start(FULL, written, room)).splitlines()
    after = {record.id: record for record in kept.list()}
    new = [after.pop(f"new{n}").credentials for n in range(len(acknowledged))]
    assert set(new) <= {"y" * 500}
    assert list(after.values()) == before
    assert bool(new) is writes
    kept.add(stored("later"))
    kept.close()


def outcome(path: Path) -> dict[str, str]:
    """Read and decrypt everything; say how each source fared, or what failed."""
    try:
        store = SQLiteStore(path)
    except StoreError as exc:
        return {"": one_line(exc)}
    sources = SourceRecords(store, CredentialManager(KEY))
    found = {}
    try:
        for record in store.list():
            assert sources.masked_config(record).id == record.id
            try:
                config = sources.config(record, decrypt=True, sanitize=False)
                found[record.id] = f"ok {config.config['password']}"
            except DataSourceError as exc:
                found[record.id] = f"error {one_line(exc)}"
    finally:
        store.close()
    assert all(repr(i) in text for i, text in found.items() if text.startswith("error"))
    return found


def one_line(error: Exception) -> str:
    text = str(error)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("times", [20, pytest.param(80, marks=pytest.mark.soak)])
def test_flipped_bits_are_errors_and_no_other_secrets(written: Path, times: int):
    original = written.read_bytes()
    moments = random.Random(5)
    worse = 0
    for _ in range(times):
        data = bytearray(original)
        data[moments.randrange(len(data))] ^= 1 << moments.randrange(8)
        for old in written.parent.iterdir():
            old.unlink()
        written.write_bytes(data)
        for name, found in outcome(written).items():
            kind, _, value = found.partition(" ")
            if kind == "ok":
                assert name == f"s{int(value):03}"
            else:
                worse += 1
    assert worse > times / 8


def test_truncated_file_is_an_error_or_lists_every_source(written: Path):
    original = written.read_bytes()
    last_page = len(original) - 4096
    listed = 0
    # SQLite takes a file of one byte for an empty one.
    for length in (*range(2, last_page, 997), *range(last_page, len(original), 97)):
        for old in written.parent.iterdir():
            old.unlink()
        written.write_bytes(original[:length])
        found = outcome(written)
        if list(found) == [""]:
            continue
        listed += 1
        assert len(found) == 300
        for name, text in found.items():
            assert text == f"ok {int(name[1:])}" if text.startswith("ok") else f"'{name}'" in text
    assert listed > 0


DAMAGED = "error the credentials of source 's007' are damaged"
DAMAGES = {
    "credentials = 'x'": DAMAGED,
    "credentials = x'00ff'": DAMAGED,
    "credentials = 5": DAMAGED,
    "type = 'Not A Type'": DAMAGED,
    "type = x'ff'": DAMAGED,
    "created_at = 'yesterday'": DAMAGED,
    "metadata = '{'": DAMAGED,
    "metadata = '[]'": DAMAGED,
    "limits = '{\"max_bytes\": -1}'": DAMAGED,
    "limits = '{\"x\": 1}'": DAMAGED,
    "limits = '5'": DAMAGED,
    "options = '[1]'": DAMAGED,
    "options = 'null'": DAMAGED,
    "name = CAST(x'ff' AS TEXT)": "ok 7",
    "version = 'x'": DAMAGED,
    "version = -5": "ok 7",
}


@pytest.mark.parametrize(("damage", "becomes"), DAMAGES.items())
def test_one_damaged_row_is_named_and_the_others_are_listed(
    written: Path, damage: str, becomes: str
):
    with sqlite3.connect(written) as connection:
        connection.execute(f"UPDATE sources SET {damage} WHERE id = 's007'")
    connection.close()
    found = outcome(written)
    assert len(found) == 300
    assert found.pop("s007").startswith(becomes)
    assert found == {f"s{n:03}": f"ok {n}" for n in range(300) if n != 7}


def test_row_swapped_with_anothers_does_not_open(written: Path):
    with sqlite3.connect(written) as connection:
        connection.execute(
            "UPDATE sources SET credentials = (SELECT credentials FROM sources WHERE id = 's008') "
            "WHERE id = 's007'"
        )
    connection.close()
    assert "belong to another source" in outcome(written)["s007"]


def test_row_of_an_impossible_id_is_shown(written: Path):
    with sqlite3.connect(written) as connection:
        connection.execute("UPDATE sources SET id = 'a/b' WHERE id = 's007'")
    connection.close()
    assert outcome(written)["damaged.a_b"].startswith("error")


def test_writing_goes_on_around_a_damaged_row(written: Path):
    with sqlite3.connect(written) as connection:
        connection.execute("UPDATE sources SET metadata = '{' WHERE id = 's007'")
    connection.close()
    store = SQLiteStore(written)
    store.add(stored("new"))
    record = store.get("s008")
    assert record
    store.update(replace(record, credentials="y"))
    assert store.remove("s007")
    assert len(store.list()) == 300
    store.close()
