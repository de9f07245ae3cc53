"""Where the command line finds its encryption keys, and how it makes them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from datasources.credentials import (
    KEY_FILE_VARIABLE,
    KEY_VARIABLE,
    CredentialManager,
    read_key_file,
    write_key_file,
)
from datasources.errors import MissingKeyError


class KeyFile:
    """The keys of one store.

    They come from the file named on the command line; else from `DATASOURCE_ENCRYPTION_KEY`; else
    from the file that `DATASOURCE_ENCRYPTION_KEY_FILE` names; else from the file beside the store.
    """

    def __init__(self, option: str | None, beside: str, environ: Mapping[str, str]) -> None:
        held = environ.get(KEY_VARIABLE, "").strip()
        self.path = None if held and not option else self._path(option, beside, environ)
        """The file; `None` where the environment holds the keys themselves."""

    @staticmethod
    def _path(option: str | None, beside: str, environ: Mapping[str, str]) -> str:
        return option or environ.get(KEY_FILE_VARIABLE) or os.path.join(beside, "key")

    @property
    def exists(self) -> bool:
        """True if there are keys, of the environment or in the file."""
        return self.path is None or os.path.exists(self.path)

    def manager(self) -> CredentialManager:
        """Return the keys; without any, one that dies with the process.

        Raises:
            MissingKeyError: A key is malformed, or the file cannot be read.
        """
        if self.path is None:
            return CredentialManager()
        if not self.exists:
            return _ephemeral()
        keys = self.read()
        try:
            return CredentialManager(keys)
        except MissingKeyError as exc:
            raise MissingKeyError(f"the key file {self.path!r} cannot be used: {exc}") from None

    def read(self) -> list[str]:
        """Return the keys of the file."""
        return read_key_file(self.file())

    def write(self, keys: Sequence[str]) -> None:
        """Replace the keys of the file; hold `locked` meanwhile."""
        write_key_file(self.file(), keys)

    def create(self) -> bool:
        """Make a key, and write it down, if there is none; return whether it did."""
        if self.path is None:
            return False
        with self.locked():
            if os.path.exists(self.path):
                return False
            self.write([CredentialManager.generate_key()])
        return True

    def file(self) -> str:
        """Return the path.

        Raises:
            MissingKeyError: The environment holds the keys, where nothing can be written.
        """
        if self.path is None:
            raise MissingKeyError(
                f"the keys come from {KEY_VARIABLE}; change them there, the one that encrypts first"
            )
        return self.path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the file: a key lost is every source lost."""
        directory = os.path.dirname(os.path.abspath(self.file()))
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
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


def _ephemeral() -> CredentialManager:
    manager = CredentialManager(CredentialManager.generate_key())
    manager.generated = True  # nobody wrote it down: a store on disk must refuse it
    return manager
