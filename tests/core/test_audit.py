"""The audit log: who did what, when, and what came of it; whole lines, and no secret in any."""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    AuditLog,
    ConnectError,
    DataFetchError,
    DataItem,
    DataSourceConnector,
    DataSourceError,
    DataSourceRegistry,
    Limits,
    OptionError,
    Outcome,
    PoolConfig,
    Preview,
    Workspace,
    caller,
)
from datasources.cli.context import CliContext
from datasources.config import read_settings
from datasources.registry.observing import redacted_excerpt
from tests.core.fakes import AbleConnector, MemoryConnector, fresh, registry_of, source
from tests.core.redaction_corpus import SECRETS, SHAPES, TEXTS
from tests.core.subprocesses import run_python
from tests.waiting import clock_ahead, wait_until


class Counting(AbleConnector):
    """Counts rows, uploads files of a known size."""

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        if identifier != "rows.csv":
            return await super().fetch_data(identifier, workspace)
        with Workspace.of(workspace).create(identifier) as file:
            file.write(b"x\n1\n2\n3\n")
            file.rows = 2
            file.truncated = True
        return file.path

    async def preview(self, identifier: str, rows: int) -> Preview:
        return Preview(("x",), [(1,), (2,)], truncated=False)

    async def upload_file(
        self, local_path: str, blob_name: str | None = None, overwrite: bool = True
    ) -> DataItem:
        return DataItem("n", "n", size=7)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


async def audited(
    log: Path, cls: type[DataSourceConnector] = MemoryConnector, **arguments: Any
) -> DataSourceRegistry:
    """Return a registry whose source `s` was there before its audit log."""
    registry = registry_of(cls, **arguments)
    await registry.register_data_source(source())
    registry.plugins.register_plugin(AuditLog(log))
    return registry


def lines(log: Path) -> list[dict[str, Any]]:
    text = log.read_bytes()
    assert text.isascii()
    *whole, rest = text.split(b"\n")
    assert rest == b""
    return [json.loads(line) for line in whole]


async def test_a_fetch_is_a_line_with_who_asked_what_and_what_came_of_it(
    log: Path, tmp_path: Path
) -> None:
    async with await audited(log, fresh(Counting)) as registry:
        with caller(user="ann", request_id="r1"):
            receipt = await registry.fetch("s", "rows.csv", tmp_path / "ws")
    (line,) = lines(log)
    started = datetime.fromisoformat(line.pop("time"))
    assert started.utcoffset() == timedelta(0)
    assert timedelta(0) <= datetime.now(UTC) - started < timedelta(minutes=5)
    assert 0 < line.pop("duration") < 300
    assert line == {
        "operation": "fetch",
        "source": "s",
        "request_id": "r1",
        "user": "ann",
        "identifier": "rows.csv",
        "outcome": "ok",
        "bytes": 8,
        "rows": 2,
        "sha256": receipt.sha256,
        "truncated": True,
        "unchanged": False,
    }


async def test_every_operation_has_its_figures(log: Path) -> None:
    async with await audited(log, fresh(Counting)) as registry:
        await registry.list_items("s", "reports")
        await registry.glob_items("s", "a.*")
        assert [item.path async for item in registry.iter_items("s")] == ["a.csv", "b.csv"]
        await registry.preview("s", "a.csv")
        await registry.upload("s", "/tmp/x")
        await registry.get_metadata("s", "a.csv")
        await registry.check_connection("s")
    assert [
        {key: line.get(key) for key in ("operation", "identifier", "items", "rows", "bytes")}
        for line in lines(log)
    ] == [
        {"operation": name, "identifier": asked, "items": items, "rows": rows, "bytes": size}
        for name, asked, items, rows, size in (
            ("list_items", "reports", 2, None, None),
            ("glob_items", "a.*", 1, None, None),
            ("iter_items", None, 2, None, None),
            ("preview", "a.csv", None, 2, None),
            ("upload", "x", None, None, 7),
            ("get_metadata", "a.csv", None, None, None),
            ("check_connection", None, None, None, None),
        )
    ]


async def test_sources_registered_and_removed_are_told_with_who_did_it_but_no_options(
    log: Path,
) -> None:
    async with registry_of(MemoryConnector) as registry:
        registry.plugins.register_plugin(AuditLog(log))
        with caller(user="ann", request_id="r1"):
            await registry.register_data_sources(
                [source("a", host="db.example.com", password="hunter2"), source("b")]
            )
            await registry.unregister_data_source("a")
    assert [
        (line["operation"], line["source"], line.get("type"), line["user"], line["request_id"])
        for line in lines(log)
    ] == [
        ("register", "a", None, "ann", "r1"),
        ("register", "b", None, "ann", "r1"),
        ("registered", "a", "memory", "ann", "r1"),
        ("registered", "b", "memory", "ann", "r1"),
        ("unregister", "a", None, "ann", "r1"),
        ("unregistered", "a", None, "ann", "r1"),
    ]
    assert "db.example.com" not in log.read_text()
    assert "hunter2" not in log.read_text()


async def test_each_source_that_fails_to_be_registered_is_told(log: Path) -> None:
    async with registry_of(MemoryConnector) as registry:
        registry.plugins.register_plugin(AuditLog(log))
        with pytest.raises(OptionError, match="source 'b'"):
            await registry.register_data_sources([source("a"), source("b", colour="red")])
        with pytest.raises(OptionError, match="source 'b'"):
            await registry.register_data_source(source("b", colour="red"))
    assert [(line["operation"], line["source"], line["outcome"]) for line in lines(log)] == [
        ("register", "a", "OptionError"),
        ("register", "b", "OptionError"),
        ("register", "b", "OptionError"),
    ]


async def test_failed_cancelled_and_timed_out_operations_are_told_apart(
    log: Path, tmp_path: Path
) -> None:
    config = PoolConfig(max_size=1, acquire_timeout=20)
    async with await audited(log, pool_config=config) as registry:
        task = asyncio.create_task(registry.fetch("s", "slow", tmp_path / "ws"))
        await wait_until(lambda: registry.get_pool_stats("s")["in_use"])
        listing = asyncio.create_task(registry.list_items("s"))  # the one connection is in use
        await wait_until(lambda: registry.get_pool_stats("s")["waiting"])
        with clock_ahead(20), pytest.raises(DataSourceError):
            await listing
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for identifier, seconds in {"missing": None, "slow": 0.1}.items():
            limits = Limits(timeout=seconds)
            with pytest.raises(DataSourceError):
                await registry.fetch("s", identifier, tmp_path / "ws", limits=limits)
    assert [(line["operation"], line["outcome"]) for line in lines(log)] == [
        ("list_items", "PoolTimeoutError"),
        ("fetch", "cancelled"),
        ("fetch", "ItemNotFoundError"),
        ("fetch", "LimitExceededError"),
    ]
    assert lines(log)[2]["error"] == "ItemNotFoundError: no item 'missing'"
    assert "not done within the limit of 0.1 seconds" in lines(log)[3]["error"]


async def test_an_iteration_left_early_is_stopped_and_not_a_failure(log: Path) -> None:
    async with await audited(log, fresh(AbleConnector)) as registry:
        items = registry.iter_items("s")
        await anext(items)
        await items.aclose()  # type: ignore[attr-defined]
    (line,) = lines(log)
    assert (line["outcome"], line["items"], "error" in line) == ("stopped", 1, False)


async def test_no_line_holds_a_secret_whoever_put_it_where(log: Path) -> None:
    class Leaky(AbleConnector):
        async def list_items(self, path: str | None = None) -> list[DataItem]:
            raise DataFetchError(path or "")

    texts = [(text.replace("@S@", s), s) for text in TEXTS for s in SECRETS]
    texts += [(f"see {shape} there", shape[8:]) for shape in SHAPES]
    async with await audited(log, Leaky) as registry:
        for text, _ in texts:
            with caller(user=text, request_id=text), pytest.raises(DataSourceError):
                await registry.list_items("s", text)
            with pytest.raises(DataSourceError):
                # As an id, one of several lines would be quoted in the error, out of shape.
                await registry.preview("nobody" if "\n" in text else text, text)
    written = lines(log)
    assert len(written) == 2 * len(texts)
    for index, (text, secret) in enumerate(texts):
        for line in written[2 * index : 2 * index + 2]:
            for value in line.values():
                assert secret not in str(value), (text, line)


@pytest.mark.parametrize("frame", ["{} postgresql://u:{}@h/d", "{}postgresql://u:{}@h/d"])
def test_no_cut_goes_through_a_secret_so_that_its_half_is_shown(frame: str) -> None:
    password = "".join(f"<{n}>" for n in range(9))
    for before in [*range(900, 1020), *range(3900, 4020)]:
        assert "<" not in redacted_excerpt(frame.format("x" * before, password))
        assert "<" not in redacted_excerpt(
            frame.format("x " * (before // 2), password) + " " + "y" * 9000
        )
    # Masked, the beginning may shrink until its own end comes into sight.
    block = f"password='{'z' * 3900}' "
    for before in range(100):
        assert "<" not in redacted_excerpt(
            block + "x" * before + frame.format("", password * 3) + "y" * 99
        )


async def test_a_whole_query_is_cut_and_a_huge_one_costs_no_more(log: Path) -> None:
    async with await audited(log) as registry:
        await registry.list_items("s", "select 1, " * 1_000_000)
    (line,) = lines(log)
    assert line["identifier"] == "select 1, " * 100


async def test_no_text_forges_a_line(log: Path) -> None:
    forged = 'a.csv"}\r\n{"operation": "fetch", "user": "root"}\n\x00\x1b[2K\x85\u2028\udcff'
    async with await audited(log) as registry:
        with caller(user=forged, request_id=forged):
            await registry.list_items("s", forged)
            with pytest.raises(DataSourceError):
                await registry.list_items(forged)
    first, second = lines(log)
    assert (first["identifier"], first["user"], first["request_id"]) == (forged,) * 3
    assert (second["source"], second["outcome"]) == (forged, "DataSourceNotFoundError")


WRITER = """
import sys, threading
from datasources import AuditLog
log = AuditLog(sys.argv[1])

def write(thread):
    for n in range(int(sys.argv[3])):
        name = f"{sys.argv[2]}-{thread}-{n}-"
        log.datasources_source_unregistered(source_id=name.ljust(20 + n % 450, "x"))

threads = [threading.Thread(target=write, args=[n]) for n in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_lines_of_several_processes_and_threads_stay_whole(log: Path) -> None:
    arguments = [[sys.executable, "-c", WRITER, str(log), str(n), "300"] for n in range(4)]
    processes = [subprocess.Popen(each) for each in arguments]
    assert [process.wait(60) for process in processes] == [0] * 4
    seen = {line["source"].rstrip("x") for line in lines(log)}
    assert len(lines(log)) == len(seen) == 4 * 4 * 300


def test_the_file_is_its_owners_alone_and_what_it_holds_stays(log: Path) -> None:
    before = os.umask(0)
    try:
        AuditLog(log)
    finally:
        os.umask(before)
    assert log.stat().st_mode & 0o777 == 0o600
    AuditLog(log).datasources_source_unregistered("a")
    AuditLog(log).datasources_source_unregistered("b")
    assert [line["source"] for line in lines(log)] == ["a", "b"]


def test_a_file_renamed_by_rotation_is_followed_by_a_new_one(log: Path, tmp_path: Path) -> None:
    audit = AuditLog(log)
    audit.datasources_source_unregistered("a")
    log.rename(tmp_path / "audit.jsonl.1")
    audit.datasources_source_unregistered("b")
    assert [line["source"] for line in lines(tmp_path / "audit.jsonl.1")] == ["a"]
    assert [line["source"] for line in lines(log)] == ["b"]


def test_a_relative_path_means_the_directory_at_the_start(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    audit = AuditLog(log.name)
    monkeypatch.chdir("/")
    audit.datasources_source_unregistered("a")
    assert len(lines(log)) == 1


def test_a_path_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # that nobody reads
    for path, reason in (
        (tmp_path / "missing" / "log", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "pipe", "No such device or address"),
        ("nul\0", ".*embedded null"),
    ):
        with pytest.raises(OptionError, match=rf"audit log '.*' cannot be written: {reason}"):
            AuditLog(path)


async def test_a_log_that_cannot_be_written_fails_no_operation_and_is_told_once(
    log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with await audited(log) as registry:
        log.unlink()
        log.mkdir()
        for _ in range(3):
            assert len(await registry.list_items("s")) == 2
        log.rmdir()
        await registry.list_items("s")
    logged = [r for r in caplog.records if r.name.startswith("datasources")]
    (record,) = [r for r in logged if r.levelno >= logging.WARNING]
    assert "failed in datasources_operation_finished: IsADirectoryError" in record.getMessage()
    assert len(lines(log)) == 1


def test_a_line_cut_by_a_full_disk_does_not_swallow_the_next(log: Path) -> None:
    program = """
import resource, sys
from datasources import AuditLog
audit = AuditLog(sys.argv[1])
audit.datasources_source_unregistered("a" * 100)
resource.setrlimit(resource.RLIMIT_FSIZE, (250, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        audit.datasources_source_unregistered("b" * 100)
    except OSError as exc:
        print(exc.filename or exc.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
audit.datasources_source_unregistered("c" * 100)
"""
    assert run_python(program, str(log)).splitlines() == [str(log), "File too large"]
    first, torn, last = log.read_text().splitlines()
    assert (json.loads(first)["source"], json.loads(last)["source"]) == ("a" * 100, "c" * 100)
    assert len(first) + len(torn) + 1 == 250


async def test_a_connectors_figures_may_be_anything(log: Path) -> None:
    class Odd(Counting):
        async def upload_file(self, *_: Any, **__: Any) -> DataItem:
            return DataItem("n", "n", size=Path("7"))  # type: ignore[arg-type]

    async with await audited(log, Odd) as registry:
        await registry.upload("s", "/tmp/x")
    (line,) = lines(log)
    assert line["bytes"] == "7"


async def test_an_error_without_a_text_of_its_own_is_recorded_and_raised_as_it_is(
    log: Path,
) -> None:
    class BrokenError(ConnectError):
        def __str__(self) -> str:
            raise ZeroDivisionError

    class Broken(MemoryConnector):
        async def list_items(self, path: str | None = None) -> list[DataItem]:
            raise BrokenError("x")

    async with await audited(log, Broken) as registry:
        with pytest.raises(BrokenError):
            await registry.list_items("s")
    (line,) = lines(log)
    assert (line["outcome"], line["error"]) == ("BrokenError", "BrokenError")


def test_threads_name_their_own_callers(log: Path) -> None:
    audit = AuditLog(log)

    def remove(user: str) -> None:
        with caller(user=user):
            audit.datasources_source_unregistered(user)

    threads = [threading.Thread(target=remove, args=[f"u{n}"]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(line["source"] == line["user"] for line in lines(log))
    assert len(lines(log)) == 8


def test_what_has_no_figures_is_passed_on_without_any() -> None:
    outcome = Outcome()
    assert outcome.record("text") == "text"
    assert outcome == Outcome()


def test_the_settings_name_the_log_beside_their_file_or_in_the_environment(
    tmp_path: Path,
) -> None:
    path = tmp_path / "datasources.toml"
    path.write_text('audit_log = "audit.jsonl"\n')
    variable = {"DATASOURCES_AUDIT_LOG": "/var/log/audit.jsonl"}
    assert read_settings(None, {}).audit_log is None
    assert read_settings(path, {}).audit_log == str(tmp_path / "audit.jsonl")
    assert read_settings(path, variable).audit_log == "/var/log/audit.jsonl"
    path.write_text('audit_log = "/srv/audit.jsonl"\n')
    assert read_settings(path, {}).audit_log == "/srv/audit.jsonl"
    path.write_text("audit_log = true\n")
    with pytest.raises(OptionError, match="'audit_log' must be a path"):
        read_settings(path, {})


def test_the_command_line_writes_the_log_under_the_name_of_who_runs_it(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "somebody else")
    monkeypatch.setenv("DATASOURCES__FILES__TYPE", "local_file")
    monkeypatch.setenv("DATASOURCES__FILES__PATH", str(tmp_path))
    monkeypatch.setenv("DATASOURCES_AUDIT_LOG", str(log))
    context = CliContext(store=None, config=None, key_file=None, environ=os.environ)
    for _ in range(2):  # one plugin, though each run has a registry of its own
        context.run(lambda registry: registry.list_items("files"), "files")
    monkeypatch.delenv("LOGNAME")
    for name in ("USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert [(line["operation"], line["source"], line["user"]) for line in lines(log)] == [
        ("list_items", "files", getpass.getuser())
    ] * 2
