"""Methods that manage tokens, and read the audit trail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime

from datasources_client.models import AuditEntry, Grant, Token
from datasources_client.requests import Requests, all_items, member, segment


class TokenMethods(Requests):
    """The routes below `/tokens`, and `/audit`, for administrators."""

    def tokens(self) -> tuple[Token, ...]:
        """Return who may do what with which source, by name."""
        return self._list(Token, "/v1/tokens")

    def audit(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        user: str | None = None,
        source: str | None = None,
        operation: str | None = None,
        outcome: str | None = None,
    ) -> Iterator[AuditEntry]:
        """Yield the entries of the audit trail, the newest first, page by page.

        Args:
            since: Only entries of this time or later; in UTC if it has no zone.
            until: Only entries before this time.
            user: The id of a principal.
            source: The id of a source.
            operation: As in the entries.
            outcome: As in the entries.
        """
        query = {
            "since": None if since is None else since.isoformat(),
            "until": None if until is None else until.isoformat(),
            "user": user,
            "source": source,
            "operation": operation,
            "outcome": outcome,
        }
        return all_items(
            lambda cursor: self._page(AuditEntry, "/v1/audit", {**query, "cursor": cursor})
        )

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
