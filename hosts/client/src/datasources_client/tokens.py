"""Methods that manage tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from datasources_client.models import Grant, Token
from datasources_client.requests import Requests, member, segment


class TokenMethods(Requests):
    """The routes below `/tokens`, for administrators."""

    def tokens(self) -> tuple[Token, ...]:
        """Return who may do what with which source, by name."""
        return self._list(Token, "/v1/tokens")

    def add_token(
        self,
        name: str,
        *,
        admin: bool = False,
        grants: Iterable[Grant] = (),
        expires_days: int | None = 90,
    ) -> str:
        """Make a token and return it; the server keeps only its hash.

        Args:
            name: The id of its principal.
            admin: True for an administrator.
            grants: Of a token without that role.
            expires_days: None does not expire.
        """
        body = {
            "name": name,
            "admin": admin,
            "grants": [asdict(grant) for grant in grants],
            "expires_days": expires_days,
        }
        return member(self._json("POST", "/v1/tokens", body), "token", str)

    def revoke_token(self, name: str) -> None:
        """Revoke a token; what runs under it ends within seconds."""
        self._json("DELETE", f"/v1/tokens/{segment(name)}")
