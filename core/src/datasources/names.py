"""Names with rules: entry-point groups, connector types, ids of sources and workspaces.

Apart from `errors` this imports nothing of the package: discovery, which uses it, has to be fast.
"""

from __future__ import annotations

import re

from datasources.errors import OptionError

CONNECTORS_GROUP = "datasources.connectors"
"""Entry points of connectors; each bears the name of its type."""
PLUGINS_GROUP = "datasources.plugins"
"""Entry points of plugins that serve the host in other ways."""

TYPE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""Matches the name of a connector type, whole."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_id(id: object, noun: str) -> None:
    """Check the id of a source or a workspace; `noun` names which in the error.

    Raises:
        OptionError: It is not an id.
    """
    if not (isinstance(id, str) and _ID.fullmatch(id)):
        raise OptionError(
            f"{id!r} is not a {noun} id; one starts with a letter or digit and goes on with "
            "letters, digits, '.', '_' or '-', 128 characters at most"
        )
