"""Bearer tokens: a file of their SHA-256 hashes, with roles and grants.

The file is beside the store, is readable by its owner only, and is read again when it has changed, so
that all processes of one machine see a change with their next request. A token is random and long:
its hash needs no salt, and cannot be guessed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from datasources import CredentialError, Grant, OptionError, Principal
from datasources.json_values import to_iso_time
from datasources.names import check_id

_PREFIX = "ds_"  # by which scanners of repositories know a token
_RANDOM_BYTES = 32


class TokenExistsError(OptionError):
    """There is a token of the name already."""

    slug = "token-exists"
    http_status = 409


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the file holds it."""

    name: str
    """The id of its principal, and the user in the audit trail."""
    sha256: str
    """The SHA-256 of the token, in hexadecimal."""
    admin: bool
    grants: tuple[Grant, ...]
    created_at: float
    """Unix seconds."""
    expires_at: float | None
    """Unix seconds; None if it does not expire."""

    def to_dict(self) -> dict[str, Any]:
        """Return what may be shown of the token."""
        return {
            "name": self.name,
            "admin": self.admin,
            "grants": [
                {
                    "source": grant.source,
                    "rights": sorted(grant.rights),
                    "items": None if grant.items is None else list(grant.items),
                }
                for grant in self.grants
            ],
            "created_at": to_iso_time(self.created_at),
            "expires_at": to_iso_time(self.expires_at),
        }


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The content of the file, and what of its status tells that it has changed."""

    stamp: tuple[int, int, int]
    tokens: Sequence[Token]
    by_hash: dict[str, Token]


class Tokens:
    """The tokens of a server, in a file of mode 0600.

    Methods read and write a small local file, and may be called from any thread.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        # Replaced as one, so that no thread sees the stamp of one file with the tokens of another.
        self._snapshot: _Snapshot | None = None

    def list(self) -> Sequence[Token]:
        """Return the tokens by name, those that have expired, too.

        Raises:
            CredentialError: The file cannot be read, is malformed, or others may use it.
        """
        return self._load().tokens

    def add(
        self,
        name: str,
        *,
        admin: bool = False,
        grants: Collection[Grant] = (),
        seconds: float | None = None,
    ) -> str:
        """Make a token and return it; only its hash is kept.

        Args:
            name: The id of its principal.
            admin: True for the role `admin`.
            grants: Of a token without that role.
            seconds: Until it expires; None is never.

        Raises:
            TokenExistsError: There is a token of the name.
            OptionError: The name is malformed, or `seconds` is not positive.
            CredentialError: As `list`, or the file cannot be written.
        """
        check_id(name, "token")
        if seconds is not None and not 0 < seconds < 1e10:
            raise OptionError("the time until a token expires must be more than 0")
        token = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
        now = time.time()
        expires = None if seconds is None else now + seconds
        with self._lock():
            tokens = list(self.list())
            if any(other.name == name for other in tokens):
                raise TokenExistsError(f"there is a token {name!r} already; revoke it first")
            tokens.append(Token(name, _hash(token), admin, tuple(grants), now, expires))
            self._write(tokens)
        return token

    def revoke(self, name: str) -> bool:
        """Remove a token; return True if there was one. Raises as `add`."""
        with self._lock():
            tokens = self.list()
            others = [token for token in tokens if token.name != name]
            if len(others) == len(tokens):
                return False
            self._write(others)
        return True

    def authenticate(self, request: Request) -> Principal | None:
        """Return the principal of a request's bearer token; None if there is no valid one."""
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret.startswith(_PREFIX):
            return None
        return _principal(self._load().by_hash.get(_hash(secret)))

    def find_principal(self, name: str) -> Principal | None:
        """Return the principal of a token as it is now; None if it was revoked or has expired.

        Raises:
            CredentialError: As `list`.
        """
        tokens = self._load().tokens
        return _principal(next((token for token in tokens if token.name == name), None))

    def is_current(self) -> bool:
        """Return True if the file has not changed since it was read."""
        try:
            stamp = _stamp(os.stat(self.path))
        except OSError:
            return False
        return self._snapshot is not None and stamp == self._snapshot.stamp

    def _load(self) -> _Snapshot:
        """Return the content of the file, which is read if it has changed; raises as `list`."""
        try:
            with open(self.path, encoding="utf-8") as file:
                status = os.fstat(file.fileno())
                stamp = _stamp(status)
                if self._snapshot is not None and stamp == self._snapshot.stamp:
                    return self._snapshot
                if status.st_mode & 0o077:
                    raise CredentialError(
                        f"the file of tokens {self.path!r} may be used by others; "
                        "change its mode to 0600"
                    )
                tokens = [_read(name, entry) for name, entry in json.load(file).items()]
        except FileNotFoundError:
            tokens, stamp = [], (0, 0, 0)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OptionError) as exc:
            raise CredentialError(
                f"the file of tokens {self.path!r} cannot be read: {type(exc).__name__}"
            ) from exc
        tokens.sort(key=lambda token: token.name)
        self._snapshot = _Snapshot(stamp, tokens, {token.sha256: token for token in tokens})
        return self._snapshot

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

    def _write(self, tokens: Sequence[Token]) -> None:
        document = {
            token.name: token.to_dict()
            | {
                "sha256": token.sha256,
                "created_at": token.created_at,
                "expires_at": token.expires_at,
            }
            for token in tokens
        }
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


def _principal(token: Token | None) -> Principal | None:
    if token is None or (token.expires_at is not None and token.expires_at <= time.time()):
        return None
    return Principal(token.name, {"admin"} if token.admin else {"user"}, token.grants)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return (status.st_ino, status.st_ctime_ns, status.st_size)


def _read(name: str, entry: dict[str, Any]) -> Token:
    return Token(
        name,
        entry["sha256"],
        entry["admin"] is True,
        tuple(Grant(**grant) for grant in entry["grants"]),
        entry["created_at"],
        entry["expires_at"],
    )
