"""Export and import sources as JSON: without secrets, or encrypted with a passphrase.

A document is `{"format": "datasources-export", "version": 1, "sources": […]}`. An encrypted one has
`"encryption"`, the parameters of scrypt, and `"payload"`, a Fernet token, instead of `"sources"`.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from datasources.errors import DataSourceExistsError, DecryptionError, OptionError
from datasources.models import DataSourceConfig, Limits, check_keys, fill
from datasources.nested import leaves
from datasources.redaction import MARK
from datasources.stored_queries import read_queries

FORMAT = "datasources-export"
VERSION = 1  # of the format; a document of another version is refused

# The first choice of OWASP's Password Storage Cheat Sheet: 128 MiB of memory, about half a second.
_SCRYPT = {"n": 2**17, "r": 8, "p": 1}
_MAX_MEMORY = 2**28  # bytes that scrypt may use for the parameters of a document

_KEYS = (
    "id",
    "type",
    "name",
    "created_at",
    "metadata",
    "limits",
    "options",
    "left_out",
    "queries",
)


class Reads(Protocol):
    """The method of a registry that an export uses; the blocking registry has it as well."""

    def get_config(
        self, source_id: str, decrypt: bool = False, sanitize: bool = True
    ) -> DataSourceConfig: ...


class Registers(Protocol):
    """The methods of a registry that an import uses."""

    def exists(self, source_id: str) -> bool: ...

    async def register_data_sources(
        self, configs: Iterable[DataSourceConfig], *, replace: bool = False
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Imported:
    """One source of an export."""

    config: DataSourceConfig
    left_out: tuple[str, ...]
    """Options that the export has without their values, as these are secret."""


def export_sources(
    registry: Reads, source_ids: Iterable[str], passphrase: str | None = None
) -> dict[str, Any]:
    """Return an export of sources, as a document for `json.dump`.

    Args:
        registry: The registry that has the sources.
        source_ids: The sources to export.
        passphrase: Encrypts the sources with their secrets; without it, secrets are left out.

    Raises:
        DataSourceNotFoundError: There is no such source.
        DecryptionError: The credentials of a source cannot be decrypted.
        OptionError: The passphrase is empty.
    """
    head = {"format": FORMAT, "version": VERSION}
    if passphrase is None:
        return head | {
            "sources": [
                _without_secrets(registry.get_config(source_id)) for source_id in source_ids
            ]
        }
    configs = [
        registry.get_config(source_id, decrypt=True, sanitize=False) for source_id in source_ids
    ]
    salt = os.urandom(16)
    plain = json.dumps([_entry(config, config.config, ()) for config in configs])
    token = _fernet(passphrase, salt, **_SCRYPT).encrypt(plain.encode())
    kdf = {"kdf": "scrypt", "salt": base64.b64encode(salt).decode(), **_SCRYPT}
    return head | {"encryption": kdf, "payload": token.decode()}


def read_export(document: Any, passphrase: str | None = None) -> list[Imported]:
    """Return the sources of an export; their options are validated when they are registered.

    Raises:
        OptionError: The document is not an export, has unknown or wrong fields, or is encrypted
            and no passphrase was given.
        DecryptionError: The passphrase is wrong, or the document is damaged.
    """
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise OptionError(f"this is no export of sources: its 'format' is not {FORMAT!r}")
    if document.get("version") != VERSION:
        raise OptionError(
            f"this export was written by another version of datasources; readable: {VERSION}"
        )
    entries = (
        _decrypted(document, passphrase) if is_encrypted(document) else document.get("sources")
    )
    if not isinstance(entries, list):
        raise OptionError("this export is damaged: 'sources' is not a list")
    return [_imported(entry, index) for index, entry in enumerate(entries, 1)]


async def import_sources(
    registry: Registers, configs: Sequence[DataSourceConfig], *, replace: bool = False
) -> None:
    """Register all sources or none.

    Raises:
        DataSourceExistsError: Ids are taken and `replace` is False; the message names all of them.
        DataSourceError: As `register_data_sources`.
    """
    taken = [] if replace else [c.id for c in configs if registry.exists(c.id)]
    if taken:
        raise DataSourceExistsError(
            f"registered already: {', '.join(map(repr, taken))}; nothing was imported; "
            "unregister them first, or replace them"
        )
    await registry.register_data_sources(configs, replace=replace)


def is_encrypted(document: Any) -> bool:
    """Return True if reading a document needs a passphrase."""
    return isinstance(document, Mapping) and "encryption" in document


def _without_secrets(config: DataSourceConfig) -> dict[str, Any]:
    left_out = [name for name, value in config.config.items() if _masked(value)]
    options = {name: value for name, value in config.config.items() if name not in left_out}
    return _entry(config, options, left_out)


def _masked(value: Any) -> bool:
    return any(isinstance(leaf, str) and MARK in leaf for leaf in leaves(value))


def _entry(
    config: DataSourceConfig, options: dict[str, Any], left_out: Sequence[str]
) -> dict[str, Any]:
    return {
        "id": config.id,
        "type": config.type.value,
        "name": config.name,
        "created_at": config.created_at,
        "metadata": config.metadata,
        "limits": asdict(config.limits) if config.limits else None,
        "options": options,
        "left_out": list(left_out),
        "queries": {name: query.to_dict() for name, query in config.queries.items()},
    }


def _decrypted(document: Mapping[str, Any], passphrase: str | None) -> Any:
    if passphrase is None:
        raise OptionError("this export is encrypted; give its passphrase")
    parameters = document["encryption"]
    try:
        salt = base64.b64decode(parameters["salt"], validate=True)
        n, r, p = (int(parameters[name]) for name in ("n", "r", "p"))
        if parameters["kdf"] != "scrypt" or 128 * n * r * p > _MAX_MEMORY or min(n, r, p) < 1:
            raise ValueError(parameters["kdf"])
        fernet = _fernet(passphrase, salt, n=n, r=r, p=p)
        token = document["payload"].encode("ascii")
    except (TypeError, KeyError, ValueError, AttributeError, MemoryError):
        raise OptionError("this export is damaged: its encryption parameters are wrong") from None
    try:
        return json.loads(fernet.decrypt(token))
    except (InvalidToken, ValueError):
        raise DecryptionError(
            "the passphrase does not open this export, or the export is damaged"
        ) from None


def _fernet(passphrase: str, salt: bytes, *, n: int, r: int, p: int) -> Fernet:
    if not passphrase:
        raise OptionError("an empty passphrase protects nothing")
    key = Scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(
        passphrase.encode("utf-8", "surrogateescape")
    )
    return Fernet(base64.urlsafe_b64encode(key))


def _imported(entry: Any, index: int) -> Imported:
    where = f"source {index} of this export"
    if not isinstance(entry, dict) or not all(
        isinstance(entry.get(key), str) for key in ("id", "type", "name")
    ):
        raise OptionError(f"{where} lacks an 'id', a 'type' or a 'name'")
    where = f"source {entry['id']!r} of this export"
    check_keys(entry, _KEYS, where)
    left_out = entry.get("left_out", [])
    if not (isinstance(left_out, list) and all(isinstance(name, str) for name in left_out)):
        raise OptionError(f"{where}: 'left_out' must be a list of names")
    if not isinstance(options := entry.get("options", {}), dict):
        raise OptionError(f"{where}: 'options' must be an object")
    limits = entry.get("limits")
    config = DataSourceConfig(
        id=entry["id"],
        type=entry["type"],
        name=entry["name"],
        config=options,
        metadata=entry.get("metadata", {}),
        limits=None if limits is None else fill(Limits, limits, f"{where}: 'limits'"),
        queries=read_queries(entry.get("queries", {}), where),
        **({"created_at": entry["created_at"]} if "created_at" in entry else {}),
    )
    return Imported(config, tuple(left_out))
