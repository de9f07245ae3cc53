"""What the records of every store promise, shown on each of them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from datasources import ConflictError, MemoryStore, Record, Records, SQLiteStore, Store, StoreError

# One of the processes of `race`; prints what it has got.
RACER = """
import sys
from datasources import ConflictError, CredentialManager, DataSourceRegistry, Record

keys = CredentialManager(CredentialManager.generate_key())
store = DataSourceRegistry(keys, store=sys.argv[1]).store
records = store.records()
print("ready", flush=True)
input()
taken = [n for n in range(50) if records.take("link", str(n)) is not None]
made = 0
for n in range(50):
    try:
        records.put(Record("slot", str(n)), expected=0)
        made += 1
    except ConflictError:
        pass
raised = 0
while raised < 50:
    counter = records.get("counter", "c")
    try:
        records.put(Record("counter", "c", data={"n": counter.data["n"] + 1}), expected=counter.version)
        raised += 1
    except ConflictError:
        pass
numbers = [records.append("event", "e", {"n": n}) for n in range(50)]
print(len(taken), made, len(numbers))
store.close()
"""


def records_of(store: Store) -> Records:
    records = store.records()
    assert records is not None
    return records


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "s.db")
    yield opened
    opened.close()


@pytest.fixture
def records(store: Store) -> Records:
    return records_of(store)


class TestRecordsOfEveryStore:
    def test_record_comes_back_as_it_was(self, records: Records):
        data = {"text": "Umzug „morgen“ \x00 \ud800", "list": [1, 2.5, None], "nested": {"a": True}}
        later = time.time() + 60
        stored = records.put(Record("job", "a", "ann", data, expires_at=later))
        assert stored == Record("job", "a", "ann", data, stored.version, later)
        assert records.get("job", "a") == stored
        assert records.list("job") == [stored]

    def test_unknown_record_is_none(self, records: Records):
        records.put(Record("job", "a"))
        assert records.get("job", "b") is None
        assert records.get("link", "a") is None
        assert records.take("link", "a") is None
        assert records.remove("job", "b") is False
        assert records.list("link") == []

    def test_records_are_listed_by_id_in_pages_of_an_owner(self, records: Records):
        for name, owner in (("b", "ann"), ("B", "ann"), ("ä", "ann"), ("a", "bob"), ("c", "ann")):
            records.put(Record("job", name, owner))
        records.put(Record("link", "aa", "ann"))
        assert [record.id for record in records.list("job")] == ["B", "a", "b", "c", "ä"]
        assert [record.id for record in records.list("job", owner="ann", limit=2)] == ["B", "b"]
        rest = records.list("job", owner="ann", after="b")
        assert [record.id for record in rest] == ["c", "ä"]

    def test_write_that_expects_another_version_is_a_conflict(self, records: Records):
        first = records.put(Record("job", "a", data={"n": 1}), expected=0)
        second = records.put(Record("job", "a", data={"n": 2}), expected=first.version)
        for expected in (0, first.version, second.version + 1):
            with pytest.raises(ConflictError, match="changed or removed"):
                records.put(Record("job", "a", data={"n": 3}), expected=expected)
        assert records.get("job", "a") == second
        assert records.put(Record("job", "a", data={"n": 4})).version > second.version
        with pytest.raises(ConflictError):
            records.put(Record("job", "b"), expected=1)
        assert records.get("job", "b") is None

    def test_version_of_a_removed_record_is_never_used_again(self, records: Records):
        first = records.put(Record("job", "a"))
        assert records.remove("job", "a") is True
        records.put(Record("job", "a"), expected=0)
        with pytest.raises(ConflictError):
            records.put(Record("job", "a"), expected=first.version)

    def test_record_is_taken_once(self, records: Records):
        stored = records.put(Record("link", "a", "ann", {"n": 1}))
        assert records.take("link", "a") == stored
        assert records.take("link", "a") is None
        assert records.get("link", "a") is None

    def test_of_many_threads_one_takes_a_record(self, records: Records):
        for number in range(20):
            records.put(Record("link", str(number)))
        with ThreadPoolExecutor(8) as pool:
            taken = list(pool.map(lambda n: records.take("link", str(n // 8)), range(160)))
        assert len([record for record in taken if record is not None]) == 20

    def test_record_that_has_expired_counts_as_removed(self, records: Records):
        for name in ("a", "b", "c", "d"):
            records.put(Record("link", name, "ann", expires_at=time.time() - 1))
        assert records.get("link", "a") is None
        assert records.list("link") == []
        assert records.take("link", "b") is None
        assert records.remove("link", "c") is False
        stale = records.put(Record("link", "d", expires_at=time.time() - 1))
        with pytest.raises(ConflictError):
            records.put(Record("link", "d"), expected=stale.version)
        assert records.put(Record("link", "d", "bob"), expected=0) == records.get("link", "d")

    def test_entries_are_read_in_order_of_their_numbers(self, records: Records):
        numbers = [records.append("event", "a", {"n": n}) for n in range(5)]
        records.append("event", "b", {"n": 9})
        assert numbers == sorted(set(numbers))
        entries = [(number, {"n": n}) for n, number in enumerate(numbers)]
        assert records.read("event", "a") == entries
        assert records.read("event", "a", after=numbers[1], limit=2) == entries[2:4]
        assert records.read("event", "a", newest_first=True, limit=2) == [entries[4], entries[3]]
        before = records.read("event", "a", before=numbers[3], newest_first=True, limit=2)
        assert before == [entries[2], entries[1]]
        assert records.read("event", "c") == []

    def test_many_entries_are_added_in_their_order(self, records: Records):
        first = records.append("event", "many", {"n": 0})
        records.append_many("event", "many", [{"n": n} for n in range(1, 40)])
        records.append_many("event", "many", [])
        numbers, entries = zip(*records.read("event", "many"), strict=True)
        assert [entry["n"] for entry in entries] == list(range(40))
        assert list(numbers) == sorted(set(numbers))
        assert numbers[0] == first

    def test_what_has_expired_is_deleted_and_nothing_else(self, records: Records):
        now = time.time()
        for name, expires_at in (("a", now + 10), ("b", now + 30), ("c", None)):
            records.put(Record("job", name, expires_at=expires_at))
            records.append("event", name, {}, expires_at)
        records.append("event", "a", {"old": True}, now - 1)
        assert [data for _, data in records.read("event", "a")] == [{}]
        assert records.delete_expired(now + 20) == 3
        assert [record.id for record in records.list("job")] == ["b", "c"]
        assert records.read("event", "a") == []
        assert len(records.read("event", "b")) == 1
        number = records.append("event", "a", {})
        assert number > records.read("event", "c")[0][0]

    def test_nobody_changes_a_record_by_its_data(self, records: Records):
        data: dict[str, Any] = {"list": [1]}
        stored = records.put(Record("job", "a", data=data))
        data["list"].append(2)
        stored.data["list"].append(3)
        read = records.get("job", "a")
        assert read
        read.data["list"].append(4)
        assert records.list("job")[0].data == {"list": [1]}

    def test_sources_are_not_records(self, store: Store, records: Records):
        records.put(Record("source", "a"))
        assert store.list() == []
        store.compact()
        assert records.get("source", "a") is not None


def race(url: str, records: Records) -> None:
    """Let two processes take the same links, make the same records and count up one record."""
    for number in range(50):
        records.put(Record("link", str(number)))
    records.put(Record("counter", "c", data={"n": 0}))
    command = [sys.executable, "-c", RACER, url]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, **pipes) for _ in range(2)]
    assert [racer.stdout.readline() for racer in racers if racer.stdout] == ["ready\n"] * 2
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("\n")
        racer.stdin.flush()
    outputs = [racer.communicate(timeout=60)[0] for racer in racers]
    taken, made, appended = zip(*[map(int, output.split()) for output in outputs], strict=True)
    assert (sum(taken), sum(made), sum(appended)) == (50, 50, 100)
    assert [racer.returncode for racer in racers] == [0, 0]
    counter = records.get("counter", "c")
    assert counter
    assert counter.data["n"] == 100
    assert len(records.read("event", "e", limit=200)) == 100


def test_processes_that_race_for_records_of_a_file_share_them_out(tmp_path: Path):
    store = SQLiteStore(tmp_path / "s.db")
    race(str(tmp_path / "s.db"), records_of(store))
    store.close()


def test_records_outlive_the_process_of_a_file(tmp_path: Path):
    store = SQLiteStore(tmp_path / "s.db")
    stored = records_of(store).put(Record("job", "a", "ann", {"n": 1}))
    store.close()
    with pytest.raises(StoreError, match="closed"):
        records_of(store).get("job", "a")
    again = SQLiteStore(tmp_path / "s.db")
    assert records_of(again).get("job", "a") == stored
    again.close()


def test_store_of_somebody_else_has_no_records():
    class Other(Store):
        persistent = False

        get = list = write = remove = compact = close = lambda *_: None  # type: ignore[assignment]

    assert Other().records() is None
