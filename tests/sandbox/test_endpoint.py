"""The socket of a workspace session: who may use it, what it serves, and when it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import pwd
import shutil
import socket
import stat
import sys
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from datasources import (
    DataSourceRegistry,
    Grant,
    Limits,
    OptionError,
    Principal,
    WorkspaceSession,
)
from datasources_client import (
    Client,
    DataSourceError,
    DataSourceNotFoundError,
    LimitExceededError,
    ServerUnreachableError,
)
from datasources_server import WorkspaceEndpoint, serve_workspace
from tests.core.fakes import AbleConnector, fresh, source
from tests.sandbox.conftest import Calls, call, failure, reachable_python
from tests.sandbox.hosts import ORDINARY, as_user, python_path
from tests.waiting import wait_until

STRANGER = 1_888_000_001
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")

# Imported before the files of root's Python cannot be read any more.
REQUEST = """
import os, socket, sys
user = int(sys.argv[2])
os.setgroups([]); os.setgid(user); os.setuid(user)
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
try:
    connection.sendall(b"GET /v1/sources HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
except BrokenPipeError:
    pass  # the answer was there before the request
print(connection.recv(1000).split(b"\\r\\n")[0].decode())
"""


async def status_for(user: int, path: str) -> str:
    """Return the first line of a response to a user, or the last one of the error."""
    command = [sys.executable, "-c", REQUEST, path, str(user)]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    output, errors = await process.communicate()
    return (output or errors).decode().splitlines()[-1]


async def test_socket_is_alone_in_a_private_directory_outside_the_workspace(
    session: WorkspaceSession, endpoint: WorkspaceEndpoint
) -> None:
    status = os.stat(endpoint.directory)
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert status.st_uid == os.geteuid()
    assert os.listdir(endpoint.directory) == ["api.sock"]
    assert not endpoint.directory.startswith(str(session.path))
    assert stat.S_IMODE(os.stat(endpoint.socket).st_mode) == 0o600


async def test_data_routes_are_served_without_a_token(endpoint: WorkspaceEndpoint) -> None:
    (only,) = await call(endpoint, lambda client: list(client.sources()))
    assert (only.id, only.rights, only.options) == ("lake", ("read",), None)
    assert [
        item.path for item in await call(endpoint, lambda c: list(c.items("lake", "public/")))
    ] == ["public/orders.csv"]
    preview = await call(endpoint, lambda c: c.preview("lake", "public/orders.csv", 1))
    assert preview.rows == (("1", "9.5"),)
    with_content = await call(
        endpoint, lambda c: b"".join(c.open_content("lake", "public/orders.csv"))
    )
    assert with_content.startswith(b"id,total")


@pytest.mark.parametrize(
    "request_one",
    [
        lambda c: c.tokens(),
        lambda c: c.types(),
        lambda c: list(c.audit()),
        lambda c: c.make_workspace("lake"),
        lambda c: c.make_link("lake", "big.bin"),
        lambda c: c.pause_source("lake", "why"),
        lambda c: c.delete_source("lake"),
        lambda c: c.check_source("lake"),
        lambda c: c.create_source("new", "local_file", {"path": "/etc"}),
        lambda c: c._json("GET", "/openapi.json"),
        lambda c: c._json("GET", "/docs"),
    ],
)
async def test_nothing_but_the_data_routes_is_served(
    endpoint: WorkspaceEndpoint, request_one: Callable[[Client], Any]
) -> None:
    error = await failure(endpoint, request_one)
    assert isinstance(error, DataSourceError)
    assert error.status in (404, 405)


@pytest.mark.parametrize(
    "operation",
    [
        lambda c, source_id: list(c.items(source_id)),
        lambda c, source_id: c.describe(source_id, "big.bin"),
        lambda c, source_id: c.preview(source_id, "big.bin"),
        lambda c, source_id: c.statistics(source_id, "big.bin"),
        lambda c, source_id: c.source(source_id),
        lambda c, source_id: c.fetch_here(source_id, "big.bin", "/"),
        lambda c, source_id: c.open_content(source_id, "big.bin"),
    ],
)
async def test_source_without_a_grant_looks_like_one_that_does_not_exist(
    endpoint: WorkspaceEndpoint, operation: Callable[[Client, str], Any]
) -> None:
    errors = [
        await failure(endpoint, lambda c: operation(c, "hidden")),
        await failure(endpoint, lambda c: operation(c, "nothing")),
    ]
    assert all(isinstance(error, DataSourceNotFoundError) for error in errors)
    assert str(errors[0]) == str(errors[1])


async def test_fetch_writes_into_the_workspace_and_answers_with_path_and_receipt(
    session: WorkspaceSession, endpoint: WorkspaceEndpoint
) -> None:
    receipt = await call(
        endpoint, lambda c: c.fetch_here("lake", "public/orders.csv", "/workspace")
    )
    assert receipt.path == "/workspace/public/orders.csv"
    content = (Path(session.path) / "public/orders.csv").read_bytes()
    assert (receipt.size, receipt.content is not None) == (len(content), True)


async def test_fetch_keeps_to_quota_and_limits_of_the_session(
    registry: DataSourceRegistry, session: WorkspaceSession
) -> None:
    grants = [Grant("lake", {"read"})]
    narrow = registry.access(Principal("ann", grants=grants), limits=Limits(max_bytes=50_000))
    wide = registry.access(Principal("ann", grants=grants))
    for opened in (narrow.workspace("narrow"), wide.workspace("quota", quota=50_000)):
        async with opened as other, serve_workspace(other) as endpoint:
            errors = [
                await failure(endpoint, lambda c: c.fetch_here("lake", "big.bin", "/")),
                await failure(endpoint, lambda c: c.open_content("lake", "big.bin")),
            ]
            assert [type(error) for error in errors] == [LimitExceededError] * 2
            assert os.listdir(other.path) == []


@as_root
async def test_another_user_is_refused_even_where_the_socket_can_be_reached(
    session: WorkspaceSession, endpoint: WorkspaceEndpoint, tmp_path: Path
) -> None:
    assert "PermissionError" in await status_for(STRANGER, endpoint.socket)
    os.chmod(endpoint.directory, 0o755)
    os.chmod(endpoint.socket, 0o666)
    with reachable(endpoint.directory):
        assert await status_for(STRANGER, endpoint.socket) == "HTTP/1.1 403 Forbidden"
        assert await status_for(0, endpoint.socket) == "HTTP/1.1 200 OK"


@as_root
async def test_user_that_is_allowed_may_connect_and_no_third_one(
    session: WorkspaceSession,
) -> None:
    async with serve_workspace(session, allow_uid=STRANGER) as endpoint:
        with reachable(endpoint.directory):
            assert await status_for(STRANGER, endpoint.socket) == "HTTP/1.1 200 OK"
            assert await status_for(0, endpoint.socket) == "HTTP/1.1 200 OK"
            assert "PermissionError" in await status_for(STRANGER + 1, endpoint.socket)
        assert stat.S_IMODE(os.stat(endpoint.directory).st_mode) == 0o700


SERVES = """
import asyncio, json, os, sys
from datasources import DataSourceError, DataSourceRegistry
from datasources_server import serve_workspace

async def main():
    async with DataSourceRegistry() as registry:
        session = registry.workspace("work", sources=["none"])
        async with session, serve_workspace(session, allow_uid=int(sys.argv[1])) as endpoint:
            print(endpoint.socket, flush=True)
            await asyncio.to_thread(sys.stdin.read)

try:
    asyncio.run(main())
except DataSourceError as error:
    print(error)
"""


@as_root
async def test_user_whose_group_the_host_is_in_may_connect_to_a_host_that_is_not_root() -> None:
    allowed = pwd.getpwnam("nobody")
    async with served_by_ordinary(allowed.pw_uid, [allowed.pw_gid]) as path:
        modes = [stat.S_IMODE(os.stat(one).st_mode) for one in (os.path.dirname(path), path)]
        assert modes == [0o710, 0o660]
        assert await status_for(allowed.pw_uid, path) == "HTTP/1.1 200 OK"
        assert "PermissionError" in await status_for(STRANGER, path)
    async with served_by_ordinary(allowed.pw_uid, []) as refusal:
        assert refusal == (
            f"this process cannot give the socket to user {allowed.pw_uid}: run it as root, or as a "
            "member of the group of that user"
        )


@asynccontextmanager
async def served_by_ordinary(allow_uid: int, groups: list[int]) -> AsyncIterator[str]:
    """Yield the first line of a host that is not root, which ends with the block."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chown(folder, ORDINARY, -1)
        os.chmod(folder, 0o711)
        process = await asyncio.create_subprocess_exec(
            *(reachable_python(), "-B", "-c", SERVES, str(allow_uid)),
            env={"PATH": os.defpath, "TMPDIR": folder, "PYTHONPATH": python_path()},
            stdin=PIPE,
            stdout=PIPE,
            cwd="/",
            **(as_user(ORDINARY) | {"extra_groups": groups}),
        )
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield (await process.stdout.readline()).decode().rstrip()
        finally:
            process.stdin.close()
            await process.communicate()  # to the end of its output, which closes the pipe


async def test_directory_of_a_host_that_was_killed_is_deleted_by_the_next_one(
    session: WorkspaceSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("abandoned", "new"):
        (tmp_path / f"datasources-socket-{name}").mkdir()
    (tmp_path / "datasources-socket-abandoned/api.sock").touch()
    async with serve_workspace(session) as first:
        for path in (first.directory, tmp_path / "datasources-socket-abandoned"):
            os.utime(path, (0, 0))
        async with serve_workspace(session) as second:
            kept = {first.directory, second.directory, str(tmp_path / "datasources-socket-new")}
            assert {str(path) for path in tmp_path.glob("datasources-*")} == kept


@as_root
async def test_files_for_an_allowed_user_can_be_read_whatever_the_umask(
    session: WorkspaceSession,
) -> None:
    before = os.umask(0o077)
    try:
        async with serve_workspace(session, allow_uid=STRANGER) as endpoint:
            await call(endpoint, lambda c: c.fetch_here("lake", "public/orders.csv", "/"))
    finally:
        os.umask(before)
    modes = [os.stat(f"{session.path}/{name}").st_mode for name in ("public", "public/orders.csv")]
    assert [stat.S_IMODE(mode) & 0o077 for mode in modes] == [0o055, 0o044]


def reachable(directory: str) -> ExitStack:
    """Let other users pass the folders above a directory until the block ends."""
    stack = ExitStack()
    for folder in Path(directory).parents:
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o011)
            stack.callback(folder.chmod, mode)
    return stack


async def test_every_request_is_observed_with_the_user_and_an_id_of_its_own(
    endpoint: WorkspaceEndpoint, calls: Calls
) -> None:
    await call(endpoint, lambda c: c.preview("lake", "public/orders.csv"))
    await call(endpoint, lambda c: c.fetch_here("lake", "big.bin", "/"))
    await failure(endpoint, lambda c: c.preview("hidden", "big.bin"))
    seen = [(one.name, one.source_id, one.user) for one in calls.operations]
    assert seen == [
        ("preview", "lake", "ann"),
        ("fetch", "lake", "ann"),
        ("preview", "hidden", "ann"),
    ]
    assert len({one.request_id for one in calls.operations}) == 3


class Endless(AbleConnector):
    async def fetch_data(self, identifier: str, workspace: str) -> str:
        await asyncio.Event().wait()
        return ""

    preview = None


async def test_endpoint_ends_with_the_session_and_so_do_its_requests(
    registry: DataSourceRegistry, calls: Calls
) -> None:
    registry.register_connector_class("endless", fresh(Endless))
    await registry.register_data_source(source("slow", "endless"))
    async with registry.workspace("work", sources=["slow"]) as session:
        context = serve_workspace(session)
        endpoint = await context.__aenter__()
        waiting = asyncio.create_task(
            failure(endpoint, lambda c: c.fetch_here("slow", "a.csv", "/"))
        )
        await wait_until(lambda: calls.operations)
        path = str(session.path)
    assert isinstance(await waiting, DataSourceError)
    assert isinstance(await failure(endpoint, lambda c: list(c.sources())), ServerUnreachableError)
    assert not os.path.exists(endpoint.directory)
    assert not os.path.exists(path)
    await context.__aexit__(None, None, None)


async def test_session_of_all_sources_and_one_that_is_not_open_are_refused(
    registry: DataSourceRegistry,
) -> None:
    async with registry.workspace("all") as session:
        with pytest.raises(OptionError, match="has every source; name its sources"):
            await serve_workspace(session).__aenter__()
    with pytest.raises(OptionError, match="is not open"):
        await serve_workspace(session).__aenter__()


async def test_connections_beyond_the_bound_are_refused_and_hold_nothing(
    endpoint: WorkspaceEndpoint,
) -> None:
    with ExitStack() as stack:
        for _ in range(64):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(endpoint.socket)
            await asyncio.sleep(0)
        await wait_until(lambda: len(endpoint._state.connections) == 64)
        error = await failure(endpoint, lambda c: list(c.sources()))
        assert isinstance(error, DataSourceError)
        assert error.status == 503
    await wait_until(lambda: not endpoint._state.connections)
    assert await call(endpoint, lambda c: [one.id for one in c.sources()]) == ["lake"]


async def test_host_is_not_led_out_by_what_is_planted_or_swapped_during_fetches(
    session: WorkspaceSession, endpoint: WorkspaceEndpoint, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "public").mkdir(parents=True)
    kept = outside / "public/orders.csv"
    kept.write_text("kept")
    before = kept.stat()
    ended = threading.Event()
    swapping = asyncio.create_task(asyncio.to_thread(swap, str(session.path), outside, ended))
    try:
        results = [
            await outcome(endpoint, lambda c: c.fetch_here("lake", "public/orders.csv", "/"))
            for _ in range(200)
        ]
    finally:
        ended.set()
        await swapping
    assert len(results) == 200
    assert (kept.read_text(), kept.stat().st_mode) == ("kept", before.st_mode)
    assert sorted(path.name for path in outside.rglob("*")) == ["orders.csv", "public"]


async def outcome(endpoint: WorkspaceEndpoint, function: Callable[[Client], Any]) -> Any:
    try:
        return await call(endpoint, function)
    except DataSourceError as error:
        return error


def swap(workspace: str, outside: Path, ended: threading.Event) -> None:
    """Put links, a device's place, pipes and sockets where the host writes, until it is told."""
    folder, file = os.path.join(workspace, "public"), os.path.join(workspace, "public/orders.csv")

    def link_folder() -> None:
        os.symlink(outside / "public", folder)

    def link_file() -> None:
        os.mkdir(folder)
        os.symlink(outside / "public/orders.csv", file)

    def pipe() -> None:
        os.mkdir(folder)
        os.mkfifo(file)

    def bound_socket() -> None:
        os.mkdir(folder)
        os.mknod(file, stat.S_IFSOCK | 0o666)

    def device() -> None:  # only root can make one
        os.mkdir(folder)
        os.mknod(file, stat.S_IFCHR | 0o666, os.makedev(1, 3))

    def hard_link() -> None:
        os.mkdir(folder)
        os.link(outside / "public/orders.csv", file)

    while not ended.is_set():
        for plant in (link_folder, link_file, pipe, bound_socket, device, hard_link):
            with suppress(OSError):
                plant()
            with suppress(OSError):
                os.rename(folder, f"{workspace}/away")
            with suppress(OSError):
                os.unlink(f"{workspace}/away")
            shutil.rmtree(f"{workspace}/away", ignore_errors=True)


async def test_endpoint_that_has_ended_is_not_kept_until_its_session_ends(
    session: WorkspaceSession,
) -> None:
    async with serve_workspace(session) as endpoint:
        reference = weakref.ref(endpoint)
    del endpoint
    gc.collect()
    assert reference() is None
