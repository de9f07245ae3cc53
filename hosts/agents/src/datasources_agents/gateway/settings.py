"""Settings of the gateway."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from datasources import OptionError, Plugins
from datasources.credentials import resolve_references
from datasources.models import fill
from datasources.redaction import REFERENCE
from datasources_agents.resolving import ResolveLimits

MODES = ("file_ids", "file_parts", "workspace")


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """The server of the model, and how it gets data.

    Raises:
        OptionError: A setting is not what it should be.
    """

    url: str
    """The address of its API, such as `https://models.example.com/v1`."""
    mode: str
    """`file_ids` uploads files and names them in the field `file_ids` of the message; `file_parts`
    uploads files and names them in parts of the message; `workspace` writes them where the server
    reads them."""
    key: str | None = field(default=None, repr=False)
    """The key of its API. In a configuration file, a reference such as `${env:MODEL_KEY}`."""
    root: str | None = None
    """The directory of the data. In mode `workspace`, the server reads them in it, in a folder with
    the id of the conversation; both run as one user then."""
    insecure: bool = False
    """True to send key and data to another machine without TLS."""
    purpose: str = "user_data"
    """The field `purpose` of uploads."""
    in_text: bool = False
    """True to take URIs in the text of the last message of the user for references, too."""
    references: int = 10
    """References of one request."""
    concurrency: int = 4
    """Fetches and uploads of one request at once."""
    timeout: float = 60.0
    """Seconds for all fetches of one request, and to wait for another one of its conversation."""
    quota: int = 1 << 30
    """Bytes of the files of one request or conversation."""
    conversations: int = 100
    """Conversations of one principal."""
    conversation_ttl: float = 86_400.0
    """Seconds after its last request until the data of a conversation are deleted."""
    connect_timeout: float = 10.0
    """Seconds to connect to the server, and to delete one of its files."""
    read_timeout: float = 600.0
    """Seconds to wait for the next piece of an answer."""
    heartbeat_timeout: float = 20.0
    """Seconds after which a gateway on the same store that gives no sign counts as dead, so that
    another one deletes what it has uploaded."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.type in ("int", "float") and not (
                isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
            ):
                raise OptionError(
                    f"{setting.name!r} of the gateway must be a number of more than 0"
                )
            if setting.type == "bool" and not isinstance(value, bool):
                raise OptionError(f"{setting.name!r} of the gateway must be true or false")
            if setting.type in ("str", "str | None") and not (
                isinstance(value, str) or (value is None and setting.type != "str")
            ):
                raise OptionError(f"{setting.name!r} of the gateway must be a text")
        if self.mode not in MODES:
            raise OptionError(f"'mode' of the gateway must be one of {', '.join(MODES)}")
        if self.root is not None and not os.path.isabs(self.root):
            raise OptionError("'root' of the gateway must be an absolute path")
        key = self.key
        if key is not None and not (key and key.isascii() and key.isprintable()):
            raise OptionError(
                "'key' of the gateway is empty, or has characters that no header can have"
            )
        self._check_url()

    def _check_url(self) -> None:
        try:
            url = urlsplit(self.url)
            secure = url.scheme == "https" or _is_loopback(url.hostname or "")
            if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
                raise ValueError
        except ValueError:
            raise OptionError(
                "'url' of the gateway must be a URL such as https://models.example.com/v1"
            ) from None
        if url.username is not None or url.password is not None:
            raise OptionError("'url' of the gateway may hold no password; 'key' is for the key")
        if not (secure or self.insecure):
            raise OptionError(
                "'url' of the gateway has no TLS, so that data and key would cross the network in "
                "clear; use https, or set 'insecure'"
            )

    @property
    def limits(self) -> ResolveLimits:
        """The bounds of the references of one request."""
        return ResolveLimits(self.references, self.concurrency, self.timeout)

    @classmethod
    def from_table(
        cls, table: Mapping[str, Any], root: str, plugins: Plugins | None = None
    ) -> GatewaySettings:
        """Return the settings of the table [gateway] of a configuration file.

        Args:
            table: The table. Its `key` must be a reference, which is resolved now.
            root: The directory of the data if the table names none.
            plugins: Those that resolve references other than `env` and `file`.

        Raises:
            OptionError: A key is unknown or missing, or a value is wrong.
            SecretNotFoundError: The key of the server cannot be resolved.
        """
        for name in ("url", "mode"):
            if name not in table:
                raise OptionError(f"[gateway]: {name!r} is missing")
        values = {"root": root, **table}
        key = values.get("key")
        if key is not None:
            if not isinstance(key, str) or not REFERENCE.fullmatch(key):
                raise OptionError("[gateway]: 'key' must be a reference such as ${env:MODEL_KEY}")
            values["key"] = resolve_references(key, _resolver(plugins))
        return fill(cls, values, "[gateway]")


def _resolver(plugins: Plugins | None) -> Any:
    def resolve(scheme: str, name: str) -> str | None:
        if plugins is None:
            return None
        secret: str | None = plugins.first("datasources_resolve_secret", scheme=scheme, name=name)
        return secret

    return resolve


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
