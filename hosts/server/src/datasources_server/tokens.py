"""Bearer tokens with roles and grants, of which only the SHA-256 is kept.

A token is random and long: its hash needs no salt, and cannot be guessed. Where the hashes are kept
is said by a subclass of `TokenStore`: in a file (`Tokens`), or in the store of the sources
(`SharedTokens`).
"""

from __future__ import annotations

import hashlib
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fastapi import Request

from datasources import Grant, OptionError, Principal
from datasources.json_values import to_iso_time
from datasources.names import check_id

_PREFIX = "ds_"  # by which scanners of repositories know a token
_RANDOM_BYTES = 32


class TokenExistsError(OptionError):
    """There is a token of the name already."""

    slug = "token-exists"
    http_status = 409


@dataclass(frozen=True)
class Token:
    """A token as it is kept."""

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

    def to_dict(self, used_at: float | None = None) -> dict[str, Any]:
        """Return what may be shown of the token, which was last used at a time (Unix seconds)."""
        if used_at is not None and used_at < self.created_at:  # one of the same name, revoked since
            used_at = None
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
            "last_used_at": to_iso_time(used_at),
        }

    def to_record(self) -> dict[str, Any]:
        """Return all fields as values of JSON; `from_record` makes a token of them."""
        described = self.to_dict()
        return {
            "sha256": self.sha256,
            "admin": self.admin,
            "grants": described["grants"],
            "created_at": self.created_at,
            "expires_at": self.expires_at,
        }

    @classmethod
    def from_record(cls, name: str, values: Mapping[str, Any]) -> Token:
        """Return the token that `to_record` describes.

        Raises:
            KeyError, TypeError, OptionError: The values are none of a token.
        """
        return cls(
            name,
            values["sha256"],
            values["admin"] is True,
            tuple(Grant(**grant) for grant in values["grants"]),
            values["created_at"],
            values["expires_at"],
        )

    def to_principal(self) -> Principal | None:
        """Return the principal of the token; None if it has expired."""
        if self.expires_at is not None and self.expires_at <= time.time():
            return None
        return self._principal

    @cached_property
    def _principal(self) -> Principal:
        return Principal(self.name, {"admin"} if self.admin else {"user"}, self.grants)


class TokenSnapshot:
    """The tokens at one moment, by name and by hash; never changed."""

    def __init__(self, tokens: Collection[Token]) -> None:
        self.tokens: Sequence[Token] = sorted(tokens, key=lambda token: token.name)
        self.by_name = {token.name: token for token in tokens}
        self.by_hash = {token.sha256: token for token in tokens}


class TokenStore(ABC):
    """The tokens of a server. Methods may block, and may be called from any thread."""

    @abstractmethod
    def is_current(self) -> bool:
        """Return True if `authenticate` and `find_principal` need no input or output now."""
        ...

    @abstractmethod
    def load(self) -> TokenSnapshot:
        """Return the tokens; raises CredentialError or StoreError if they cannot be read."""
        ...

    @abstractmethod
    def insert(self, token: Token) -> None:
        """Keep a new token.

        Raises:
            TokenExistsError: There is one of the name.
            CredentialError, StoreError: It cannot be written.
        """
        ...

    @abstractmethod
    def revoke(self, name: str) -> bool:
        """Remove a token; return True if there was one. Raises as `load` and `insert`."""
        ...

    def list(self) -> Sequence[Token]:
        """Return the tokens by name, those that have expired, too; raises as `load`."""
        return self.load().tokens

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
            CredentialError, StoreError: As `insert`.
        """
        check_id(name, "token")
        if seconds is not None and not 0 < seconds < 1e10:
            raise OptionError("the time until a token expires must be more than 0")
        token = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
        now = time.time()
        expires_at = None if seconds is None else now + seconds
        self.insert(Token(name, _hash(token), admin, tuple(grants), now, expires_at))
        return token

    def authenticate(self, request: Request) -> Principal | None:
        """Return the principal of a request's bearer token; None if there is no valid one."""
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret.startswith(_PREFIX):
            return None
        token = self.load().by_hash.get(_hash(secret))
        return None if token is None else token.to_principal()

    def find_principal(self, name: str) -> Principal | None:
        """Return the principal of a token as it is now; None if it was revoked or has expired."""
        token = self.load().by_name.get(name)
        return None if token is None else token.to_principal()


def exists_error(name: str) -> TokenExistsError:
    """Return the error of a name that is taken."""
    return TokenExistsError(f"there is a token {name!r} already; revoke it first")


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
