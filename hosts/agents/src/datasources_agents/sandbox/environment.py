"""Environments for code that a host starts, without anything of the host's own."""

from __future__ import annotations

import os
from collections.abc import Mapping

_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "TZ")
_PATH = "/usr/local/bin:/usr/bin:/bin"


def scrubbed_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment for a program that a host starts, made from nothing.

    It has a search path, a home directory that is none, and the language and time zone of the host.
    Nothing else is taken over: any other variable may hold a key, a token, an address with a
    password, or the path of one of these.

    Args:
        extra: Variables to add, such as `DATASOURCES_SOCKET`.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {"PATH": _PATH, "HOME": "/nonexistent", "LANG": "C.UTF-8", **kept, **(extra or {})}
