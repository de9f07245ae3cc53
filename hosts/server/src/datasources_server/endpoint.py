"""The data routes for the code of one workspace session, on a Unix socket of its own.

The socket stands alone in a directory of mode 700, which a host binds into the sandbox of the code.
Who can connect may do what the session may do: nothing secret goes into the sandbox.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import pwd
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from datasources import OptionError, WorkspaceSession
from datasources_server.settings import ServerSettings
from datasources_server.workspace_app import make_workspace_app

SOCKET_NAME = "api.sock"
_PREFIX = "datasources-socket-"  # of its directory
_ABANDONED_SECONDS = 60.0  # after which a directory that nobody has locked is deleted
_MAX_CONNECTIONS = 64  # of one sandbox at once; more of them are refused
_CLOSE_SECONDS = 10.0  # that requests have to end once their connections are closed
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PEER = struct.Struct("3i")  # process, user and group, as SO_PEERCRED gives them
_REFUSAL = b"HTTP/1.1 %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

_log = logging.getLogger("datasources.server")


class WorkspaceEndpoint:
    """A socket that serves one workspace session.

    Args:
        session: The session, which is open.
        allow_uid: A user that may connect besides the user of this process.
        settings: Limits of requests; those of fetches are the session's.
    """

    def __init__(
        self, session: WorkspaceSession, allow_uid: int | None, settings: ServerSettings
    ) -> None:
        self.directory = ""
        """The directory to bind into the sandbox, read-only."""
        self._session = session
        self._allow_uid = allow_uid
        self._users = {os.geteuid(), os.geteuid() if allow_uid is None else allow_uid}
        self._config = Config(
            make_workspace_app(settings),
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            ws="none",
        )
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._folder = -1

    @property
    def socket(self) -> str:
        """The path of the socket."""
        return os.path.join(self.directory, SOCKET_NAME)

    async def open(self) -> None:
        """Listen.

        Raises:
            OptionError: The user of `allow_uid` cannot be given the socket.
            OSError: The socket cannot be made.
        """
        self._config.load()
        await asyncio.to_thread(_delete_abandoned, tempfile.gettempdir())
        self.directory = tempfile.mkdtemp(prefix=_PREFIX)
        try:
            self._folder = os.open(self.directory, _DIRECTORY)
            fcntl.flock(self._folder, fcntl.LOCK_EX)  # until the end of this process
            listener = _listen(self._folder, self._allow_uid)
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(
                self._make_protocol, sock=listener, start_serving=False
            )
            await self._server.start_serving()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End all requests, close the socket and delete its directory."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._folder >= 0:
            os.close(self._folder)
        self._folder = -1
        for connection in list(self._state.connections):
            connection.transport.abort()  # its request is cancelled, as its client has left
        if tasks := set(self._state.tasks):
            _, late = await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()

    def _make_protocol(self) -> _WorkspaceProtocol:
        state = {"session": self._session, "is_shared": len(self._users) > 1}
        return _WorkspaceProtocol(self._config, self._state, state, self._refusal_for)

    def _refusal_for(self, user: int) -> bytes | None:
        """Return the status for a connection that is refused, None for one that is admitted."""
        if user not in self._users:
            _log.warning("user %d is refused at the socket of a workspace", user)
            return b"403 Forbidden"
        if self._server is None or len(self._state.connections) >= _MAX_CONNECTIONS:
            return b"503 Service Unavailable"
        return None


class _WorkspaceProtocol(H11Protocol):
    """HTTP with a peer whose user is admitted, before a byte of it is read."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        app_state: dict[str, Any],
        refusal_for: Callable[[int], bytes | None],
    ) -> None:
        super().__init__(config, state, app_state)
        self._refusal_for = refusal_for
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = transport.get_extra_info("socket")
        content = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        _, user, _ = _PEER.unpack(content)
        status = self._refusal_for(user)
        if status is None:
            super().connection_made(transport)
            return
        self._is_refused = True
        transport.write(_REFUSAL % status)
        transport.close()

    def data_received(self, data: bytes) -> None:
        if not self._is_refused:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_refused:
            super().connection_lost(exc)

    def eof_received(self) -> None:
        if not self._is_refused:
            super().eof_received()


@asynccontextmanager
async def serve_workspace(
    session: WorkspaceSession,
    *,
    allow_uid: int | None = None,
    settings: ServerSettings | None = None,
) -> AsyncIterator[WorkspaceEndpoint]:
    """Serve the data routes of the API for the code of a workspace session.

    The routes do what the session may do, within its limits and quota: list sources and items,
    describe, preview, statistics, content, and fetches into the workspace. Observers see each
    operation with the session's principal as the user, and with the id of the request.

    The endpoint is closed at the end of the block, or earlier with the session. It runs on the
    event loop of the caller.

    Args:
        session: An open session, whose principal is no administrator.
        allow_uid: A user that may connect besides the user of this process. The directory of the
            socket is made its own if this process is root's. Otherwise it must be one of the users
            whose group this process is in.
        settings: Limits of requests.

    Raises:
        OptionError: The session is closed or has all sources, or the user of `allow_uid` cannot be
            given the socket.
    """
    if session.closed:
        raise OptionError(f"workspace {session.id!r} is not open; enter its block first")
    if session.granted.principal.is_admin:
        raise OptionError(
            f"workspace {session.id!r} has every source; name its sources, or give its principal "
            "grants, before code may use it"
        )
    endpoint = WorkspaceEndpoint(session, allow_uid, settings or ServerSettings())
    await endpoint.open()
    forget = session.call_at_close(endpoint.close)
    try:
        yield endpoint
    finally:
        forget()
        await endpoint.close()


def _delete_abandoned(root: str) -> None:
    """Delete the directories of sockets whose processes were killed, which have lost their locks."""
    for name in os.listdir(root):
        if not name.startswith(_PREFIX):
            continue
        with suppress(OSError):  # locked, or of somebody else
            folder = os.open(os.path.join(root, name), _DIRECTORY)
            try:
                is_new = os.fstat(folder).st_mtime > time.time() - _ABANDONED_SECONDS
                if is_new:  # and perhaps not locked yet
                    continue
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):
                    os.unlink(SOCKET_NAME, dir_fd=folder)
                os.rmdir(os.path.join(root, name))
            finally:
                os.close(folder)


def _listen(folder: int, allow_uid: int | None) -> socket.socket:
    """Return a socket that is bound, and that its user may use before anybody can connect."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # By way of the descriptor, as the path of a socket has 107 bytes at most.
        path = f"/proc/self/fd/{folder}/{SOCKET_NAME}"
        listener.bind(path)
        os.chmod(path, 0o600)
        if allow_uid is not None and allow_uid != os.geteuid():
            _give(folder, path, allow_uid)
        listener.listen(_MAX_CONNECTIONS)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _give(folder: int, path: str, user: int) -> None:
    """Let a user enter a directory and connect to the socket in it.

    Raises:
        OptionError: This process may not.
    """
    if os.geteuid() == 0:
        os.chown(path, user, -1)
        os.fchown(folder, user, -1)
        return
    group = None
    with suppress(KeyError):
        group = pwd.getpwuid(user).pw_gid
    if group not in {os.getegid(), *os.getgroups()}:
        raise OptionError(
            f"this process cannot give the socket to user {user}: run it as root, or as a member of "
            "the group of that user"
        )
    os.chown(path, -1, group)
    os.chmod(path, 0o660)
    os.fchown(folder, -1, group)
    os.fchmod(folder, 0o710)
