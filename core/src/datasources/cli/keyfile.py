"""Find the encryption keys of the command line, and make them."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from datasources.cli import paths
from datasources.credentials import (
    KEY_FILE_VARIABLE,
    KEY_VARIABLE,
    CredentialManager,
    read_key_file,
    write_key_file,
)
from datasources.errors import MissingKeyError
from datasources.files import make_private_directory


class KeyFile:
    """The encryption keys of one store.

    They come from the first of: the file of the option `--key-file`, the variable
    `DATASOURCE_ENCRYPTION_KEY`, the file that `DATASOURCE_ENCRYPTION_KEY_FILE` names, the file
    `key` beside the store.

    Args:
        option: The value of `--key-file`.
        beside: Returns the directory of the store; called only if that is where the key is.
        environ: The environment.
    """

    def __init__(
        self, option: str | None, beside: Callable[[], str], environ: Mapping[str, str]
    ) -> None:
        self._manager: CredentialManager | None = None
        self._stamp: tuple[int, int, int] | None = None
        self.path: str | None = None
        """The file; `None` if the environment holds the keys themselves."""
        if environ.get(KEY_VARIABLE, "").strip() and not option:
            return
        path = option or environ.get(KEY_FILE_VARIABLE)
        self.path = paths.expand(path) if path else os.path.join(beside(), "key")

    @property
    def exists(self) -> bool:
        """True if there are keys, in the environment or in the file.

        Raises:
            MissingKeyError: The file cannot be reached to see if it exists.
        """
        if self.path is None:
            return True
        try:
            return paths.exists(self.path)
        except OSError as exc:
            raise MissingKeyError(
                f"the key file {self.path!r} cannot be read: {exc.strerror}"
            ) from exc

    def manager(self) -> CredentialManager:
        """Return the keys; if there are none, a generated key that ends with the process.

        The file is read again if it has changed, as a command may wait for answers while another
        process drops a key. What is no regular file, such as `<(vault read …)`, is read once.

        Raises:
            MissingKeyError: A key is malformed, or the file cannot be read.
        """
        if self.path is None:
            return CredentialManager()
        stamp = self._find_stamp()
        if self._manager is None or stamp not in (None, self._stamp):
            if not self.exists:
                return _generated_manager()
            self._stamp = stamp
            keys = self.read()
            try:
                self._manager = CredentialManager(keys)
            except MissingKeyError as exc:
                raise MissingKeyError(f"the key file {self.path!r} cannot be used: {exc}") from None
        return self._manager

    def _find_stamp(self) -> tuple[int, int, int] | None:
        """Return what is another once the file has changed; None if it is no regular file."""
        with suppress(OSError):
            status = os.stat(self.require_path())
            if stat.S_ISREG(status.st_mode):
                return status.st_ino, status.st_mtime_ns, status.st_size
        return None

    def read(self) -> list[str]:
        """Return the keys of the file."""
        return read_key_file(self.require_path())

    def write(self, keys: Sequence[str]) -> None:
        """Replace the keys of the file; the caller holds `lock`."""
        write_key_file(self.require_path(), keys)
        self._manager = None

    def create(self) -> bool:
        """Write a file with a new key unless there are keys; return True if it did."""
        if self.path is None:
            return False
        with self.lock():
            if self.exists:
                return False
            self.write([CredentialManager.generate_key()])
        return True

    def require_path(self) -> str:
        """Return the path of the file.

        Raises:
            MissingKeyError: The environment holds the keys, and nothing can be written there.
        """
        if self.path is None:
            raise MissingKeyError(
                f"the keys come from {KEY_VARIABLE}; change them there, the one that encrypts first"
            )
        return self.path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from changing the file: a lost key is the loss of every source.

        The lock is on the directory, as the file itself is replaced when it is written.
        """
        directory = os.path.dirname(os.path.abspath(self.require_path()))
        try:
            make_private_directory(directory)
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as exc:
            raise MissingKeyError(
                f"the directory {directory!r} of the key file cannot be used: {exc.strerror}"
            ) from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _generated_manager() -> CredentialManager:
    manager = CredentialManager(CredentialManager.generate_key())
    # A store that outlives the process refuses a key that is saved nowhere.
    manager.generated = True
    return manager
