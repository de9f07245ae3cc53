"""A full disk, a store that goes away and a server killed in a write lose nothing."""

from __future__ import annotations

import http.client
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.client import Client
from tests.server.conftest import ApiServer

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def fill(disk: Path) -> Path:
    """Write a file until the disk is full, and return it."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


def test_full_disk_of_the_store_is_a_clear_answer_and_needs_no_restart(disk: Path) -> None:
    with ApiServer(store=str(disk / "sources.db")) as server:
        server.admin.create("lake", path=str(server.data))
        filler = fill(disk)
        body = {"type": "local_file", "options": {"path": str(server.data)}}
        body["options"] |= {"hidden": True}  # type: ignore[operator]
        headers = {"If-None-Match": "*"}
        refused = server.admin("PUT", "/sources/more", body, headers=headers)
        assert (refused.status, refused.slug) == (503, "store-failed")
        assert [item["id"] for item in server.admin("GET", "/sources").json["items"]] == ["lake"]
        assert server.admin("GET", "/sources/lake/items").status == 200
        filler.unlink()
        assert server.admin("PUT", "/sources/more", body, headers=headers).status == 201


class SmallServer(ApiServer):
    """A server whose temporary files are on a small disk."""

    def __init__(self, disk: Path) -> None:
        super().__init__()
        self._disk = disk

    @property
    def temporary(self) -> Path:
        return self._disk / "tmp"


def test_full_disk_of_downloads_and_uploads_leaves_nothing(disk: Path) -> None:
    with SmallServer(disk) as server:
        (server.data / "large").write_bytes(bytes(16 * MIB))
        (server.data / "small").write_bytes(b"n\n1\n")
        server.admin.create("lake", path=str(server.data), writable=True)
        refused = server.admin("POST", "/sources/lake/content", {"item": "large"})
        assert (refused.status, refused.slug) == (502, "fetch-failed")
        assert "No space left" in refused.json["detail"]
        path = "/sources/lake/upload"
        refused = server.admin("POST", path, bytes(16 * MIB), item="new")
        assert (refused.status, refused.slug) == (507, "disk-full")
        assert not (server.data / "new").exists()
        assert server.admin("POST", "/sources/lake/content", {"item": "small"}).status == 200
        assert server.admin("POST", path, b"n\n", item="new").status == 201


def test_server_killed_in_a_write_has_all_that_it_has_confirmed() -> None:
    with ApiServer() as server:
        server.admin.create("lake", path=str(server.data))
        confirmed = 0
        killed = threading.Event()

        def write() -> None:
            nonlocal confirmed
            number = 0
            while not killed.is_set():
                number += 1
                changes = {"name": f"name {number}"}
                headers = {"If-Match": "*"}
                try:
                    answer = server.admin("PATCH", "/sources/lake", changes, headers=headers)
                except (OSError, http.client.HTTPException):  # killed before it has answered
                    return
                assert answer.status == 200
                confirmed = number
                if number == 20:
                    killer.start()

        killer = threading.Thread(target=server.kill)
        writer = threading.Thread(target=write)
        writer.start()
        writer.join(60)
        killer.join(60)
        killed.set()
        server.start()
        name = Client(server.port, "root")("GET", "/sources/lake").json["name"]
        assert confirmed >= 20
        assert name in (f"name {confirmed}", f"name {confirmed + 1}")
