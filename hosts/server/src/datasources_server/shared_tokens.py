"""Tokens beside the sources of a store, for servers on several machines."""

from __future__ import annotations

import time

from datasources import ConflictError, OptionError, Record, Records, StoreError
from datasources.locks import ForkSafeLock
from datasources_server.tokens import Token, TokenSnapshot, TokenStore, exists_error

_KIND = "token"
_MAX_AGE = 0.5  # seconds for which tokens that were read are used
_BATCH = 1000  # records that are read at once


class SharedTokens(TokenStore):
    """The tokens of a server, as records of a store. A change acts everywhere within a second.

    Args:
        records: Those of the store, which stays open meanwhile.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._lock = ForkSafeLock()  # held while the tokens are read, so that one thread does so
        self._loaded: tuple[float, TokenSnapshot] | None = None

    def is_current(self) -> bool:
        loaded = self._loaded
        return loaded is not None and time.monotonic() < loaded[0] + _MAX_AGE

    def load(self) -> TokenSnapshot:
        with self._lock:
            loaded = self._loaded
            if loaded is None or not self.is_current():
                now = time.monotonic()  # before reading: a later change is read again in time
                loaded = self._loaded = (now, TokenSnapshot(self._read()))
        return loaded[1]

    def insert(self, token: Token) -> None:
        record = Record(_KIND, token.name, token.name, token.to_record())
        try:
            self._records.put(record, expected=0)
        except ConflictError:
            raise exists_error(token.name) from None
        self._forget_loaded()

    def revoke(self, name: str) -> bool:
        is_removed = self._records.remove(_KIND, name)
        self._forget_loaded()
        return is_removed

    def _forget_loaded(self) -> None:
        with self._lock:  # a thread that reads now may not have seen the change
            self._loaded = None

    def _read(self) -> list[Token]:
        tokens, after = [], ""
        while batch := self._records.list(_KIND, after=after, limit=_BATCH):
            for record in batch:
                try:
                    tokens.append(Token.from_record(record.id, record.data))
                except (KeyError, TypeError, AttributeError, OptionError) as exc:
                    raise StoreError(f"the token {record.id!r} in the store is malformed") from exc
            after = batch[-1].id
        return tokens
