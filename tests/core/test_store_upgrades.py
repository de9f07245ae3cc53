"""SQLite stores of 0.1.0 go on working: read, written, and upgraded where the file can be written."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from datasources import CredentialManager, SQLiteStore, StoredSource
from tests.core.fakes import MemoryConnector, registry_of

# As 0.1.0 made it; never to be changed.
SCHEMA = """
CREATE TABLE sources (
    id TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at REAL NOT NULL,
    metadata TEXT NOT NULL,
    limits TEXT,
    options TEXT,
    credentials TEXT NOT NULL,
    version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX sources_version ON sources (version);
CREATE TABLE removed (id TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE UNIQUE INDEX removed_version ON removed (version);
PRAGMA application_id = 1146311235;
PRAGMA user_version = 1;
"""
PASSWORD = "kept-since-0.1.0"


@pytest.fixture
def key() -> str:
    return CredentialManager.generate_key()


@pytest.fixture
def old_file(tmp_path: Path, key: str) -> Path:
    """A file with one source, `s`, of version 7."""
    path = tmp_path / "old.db"
    options = {"host": "h", "password": PASSWORD}
    ciphertext = CredentialManager(key).encrypt_credentials(options, source_id="s")
    masked = '{"host": "h", "password": "***REDACTED***"}'
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
        row = ("s", "memory", "S", 12.5, "{}", None, masked, ciphertext, 7)
        connection.execute("INSERT INTO sources VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        connection.commit()
    return path


async def test_source_and_secret_of_an_old_store_go_on_working(old_file: Path, key: str):
    async with registry_of(
        MemoryConnector, credential_manager=CredentialManager(key), store=old_file
    ) as registry:
        config = registry.get_config("s", decrypt=True, sanitize=False)
        assert config.config == {"host": "h", "password": PASSWORD}
        assert (config.version, config.paused) == (7, None)
        assert len(await registry.list_items("s")) == 2
        await registry.pause("s", "moving")
        await registry.update_data_source("s", {"name": "T"}, expected=8)
        assert registry.get_config("s").paused == "moving"


@pytest.fixture
def read_only(old_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SQLiteStore]:
    """The store of a process that cannot write the file, as on a read-only disk."""

    def refuse(_: SQLiteStore) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(SQLiteStore, "_prepare", refuse)
        store = SQLiteStore(old_file)
    yield store
    store.close()


def test_old_store_that_cannot_be_written_is_read_while_another_process_upgrades_it(
    read_only: SQLiteStore, old_file: Path
):
    (record,) = read_only.list()
    assert (record.id, record.version, record.paused) == ("s", 7, None)
    writer = SQLiteStore(old_file)
    try:
        assert writer.list() == [record]
        writer.update(replace(record, paused="why"))
        assert read_only.list() == writer.list() == [replace(record, paused="why", version=8)]
    finally:
        writer.close()


def test_row_of_0_1_0_is_a_record_that_is_not_paused():
    record = StoredSource("s", "custom", "S", 1.0, {}, None, None, "c", 3, paused="why")
    assert len(record.to_row()) == 9
    assert StoredSource.from_row(record.to_row()) == replace(record, paused=None)
    assert StoredSource.from_row((*record.to_row(), "why")) == record
