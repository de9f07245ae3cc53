"""A resolver that changes its answer, as one that an attacker controls does."""

from __future__ import annotations

import socket
from typing import Any

import pytest

ALLOWED, DENIED = "127.0.0.1", "127.0.0.2"
NAME = "rebinding.example"


class ChangingResolver:
    """Answers with an allowed address for the first questions about `NAME`, then with a denied one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, allowed_answers: int) -> None:
        self.questions = 0
        self._allowed_answers = allowed_answers
        self._resolve = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: Any, *arguments: Any, **keywords: Any) -> Any:
        if host in (NAME, NAME.encode()):
            self.questions += 1
            host = ALLOWED if self.questions <= self._allowed_answers else DENIED
        return self._resolve(host, *arguments, **keywords)
