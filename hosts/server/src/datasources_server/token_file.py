"""Tokens in a file that is beside the store and readable by its owner only.

The file is read again when it has changed, so that all processes of one machine see a change with
their next request.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from datasources import CredentialError, OptionError
from datasources_server.tokens import Token, TokenSnapshot, TokenStore, exists_error

_Stamp = tuple[int, int, int]
"""Parts of the status of a file, one of which changes with its content."""


class Tokens(TokenStore):
    """The tokens of a server, in a file of mode 0600.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        # Replaced as one, so that no thread sees the stamp of one file with the tokens of another.
        self._loaded: tuple[_Stamp, TokenSnapshot] | None = None

    def is_current(self) -> bool:
        return self._find_current() is not None

    def load(self) -> TokenSnapshot:
        """Return the tokens; the file is read if it has changed.

        Raises:
            CredentialError: The file cannot be read, is malformed, or others may use it.
        """
        current = self._find_current()
        if current is not None:
            return current
        try:
            with open(self.path, encoding="utf-8") as file:
                status = os.fstat(file.fileno())
                stamp = _stamp(status)
                if status.st_mode & 0o077:
                    raise CredentialError(
                        f"the file of tokens {self.path!r} may be used by others; "
                        "change its mode to 0600"
                    )
                entries = json.load(file).items()
                tokens = [Token.from_record(name, values) for name, values in entries]
        except FileNotFoundError:
            tokens, stamp = [], (0, 0, 0)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OptionError) as exc:
            raise CredentialError(
                f"the file of tokens {self.path!r} cannot be read: {type(exc).__name__}"
            ) from exc
        snapshot = TokenSnapshot(tokens)
        self._loaded = (stamp, snapshot)
        return snapshot

    def _find_current(self) -> TokenSnapshot | None:
        """Return the tokens that were read last; None if the file has changed since."""
        loaded = self._loaded  # read once, as another thread may replace it
        try:
            stamp = _stamp(os.stat(self.path))
        except OSError:
            return None
        return loaded[1] if loaded is not None and stamp == loaded[0] else None

    def insert(self, token: Token) -> None:
        with self._lock():
            tokens = self.list()
            if any(other.name == token.name for other in tokens):
                raise exists_error(token.name)
            self._write([*tokens, token])

    def revoke(self, name: str) -> bool:
        with self._lock():
            tokens = self.list()
            others = [token for token in tokens if token.name != name]
            if len(others) == len(tokens):
                return False
            self._write(others)
        return True

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the lock of writers, which is a file of its own as the other one is replaced."""
        try:
            os.makedirs(os.path.dirname(os.path.abspath(self.path)), mode=0o700, exist_ok=True)
            descriptor = os.open(f"{self.path}.lock", os.O_CREAT | os.O_WRONLY, 0o600)
        except OSError as exc:
            raise self._unwritable(exc) from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, tokens: Collection[Token]) -> None:
        document = {token.name: token.to_record() for token in tokens}
        try:
            write_private(self.path, json.dumps(document, indent=1))
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def _unwritable(self, exc: OSError) -> CredentialError:
        return CredentialError(
            f"the file of tokens {self.path!r} cannot be written: {exc.strerror}"
        )


def write_private(path: str, text: str) -> None:
    """Write a file of mode 0600 in one step; raises OSError."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with suppress(FileNotFoundError):
        os.unlink(temporary)  # of a process that was killed
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _stamp(status: os.stat_result) -> _Stamp:
    return (status.st_ino, status.st_ctime_ns, status.st_size)
