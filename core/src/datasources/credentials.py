"""Encrypt options at rest, resolve references to secrets, and make copies safe to show."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from datasources.errors import DecryptionError, MissingKeyError, OptionError, SecretNotFoundError
from datasources.redaction import REFERENCE, redact

KEY_VARIABLE = "DATASOURCE_ENCRYPTION_KEY"
KEY_FILE_VARIABLE = "DATASOURCE_ENCRYPTION_KEY_FILE"

Key = str | bytes

_FINGERPRINT = re.compile(r"[0-9a-f]{12}")
_TOKEN = re.compile(r"[\w-]+={0,2}", re.ASCII)  # URL-safe base64
_TO_STANDARD_BASE64 = bytes.maketrans(b"-_", b"+/")
_KEY_FILE_LIMIT = 64 * 1024  # characters; some files have no end
_SECRET_LIMIT = 1024 * 1024


class CredentialManager:
    """Encrypts with the first of its keys and decrypts with all of them.

    A ciphertext is `<fingerprint>:<Fernet token>`; the fingerprint names the key, so that a wrong
    key is told from damage.  Fernet is AES-128-CBC with HMAC-SHA256; it has no associated data,
    so the source's id is part of the plaintext and a ciphertext moved to another source does not
    open.

    Args:
        encryption_key: A Fernet key, several (a sequence, or separated by commas), or None: then
            they come from `DATASOURCE_ENCRYPTION_KEY`, or the file that
            `DATASOURCE_ENCRYPTION_KEY_FILE` names, or a key is generated, which dies with this
            object.

    Raises:
        MissingKeyError: A key is malformed, or the file cannot be read.
    """

    def __init__(self, encryption_key: Key | Sequence[Key] | None = None) -> None:
        keys = _keys_of_environment() if encryption_key is None else _split(encryption_key)
        self.generated = not keys and encryption_key is None
        """True if nobody else has the key: good for memory, not for a store on disk."""
        if self.generated:
            keys = [self.generate_key()]
        if not keys:
            raise MissingKeyError("an empty encryption key was given; make one with generate_key()")
        self._fernets: dict[str, Fernet] = {}
        for key in keys:
            if not self.validate_key(key):  # before anything else could quote it
                raise MissingKeyError(
                    "an encryption key is malformed; one is 32 bytes in URL-safe base64, "
                    "as generate_key() makes"
                )
            self._fernets[fingerprint(key)] = Fernet(base64.urlsafe_b64encode(_key_bytes(key)))

    def __repr__(self) -> str:
        return f"CredentialManager(keys={self.fingerprints})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a CredentialManager holds keys and cannot be pickled or copied")

    @property
    def fingerprints(self) -> list[str]:
        """The keys' names, the one that encrypts first: 12 hexadecimal digits of their SHA-256."""
        return list(self._fernets)

    @staticmethod
    def generate_key() -> str:
        """Return a new random key."""
        return Fernet.generate_key().decode()

    @staticmethod
    def validate_key(key: Key) -> bool:
        """Tell whether `key` has the form of a Fernet key."""
        try:
            return len(_key_bytes(key)) == 32
        except (ValueError, TypeError):
            return False

    def encrypt_credentials(self, credentials: Mapping[str, Any], *, source_id: str = "") -> str:
        """Encrypt options for one source.

        Raises:
            OptionError: A value is not one that JSON can hold.
        """
        try:
            plain = json.dumps({"source": source_id, "options": dict(credentials)}, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            plain = ""
        if not plain:  # raised here: the error of json would be its context, and quotes the value
            raise OptionError(
                f"the options of source {source_id!r} must be text, numbers, booleans, lists and "
                "tables, as JSON holds them"
            )
        name, fernet = next(iter(self._fernets.items()))
        return f"{name}:{fernet.encrypt(plain.encode()).decode()}"

    def decrypt_credentials(self, encrypted: str, *, source_id: str = "") -> dict[str, Any]:
        """Return the options that `encrypt_credentials` was given for the same source.

        Raises:
            DecryptionError: The key is not among ours, or the text is damaged, or it was
                encrypted for another source.
        """
        name, token = _parts(encrypted)
        fernet = self._fernets.get(name)
        held = ", ".join(self._fernets)
        if not name:
            raise DecryptionError(
                f"the credentials of source {source_id!r} are damaged: they name no key; the keys "
                f"given: {held}"
            )
        if fernet is None:
            raise DecryptionError(
                f"the credentials of source {source_id!r} are encrypted with the key {name!r}, "
                f"which is not among those given: {held}"
            )
        try:
            # Fernet skips characters that are not base64, and some Pythons take missing padding.
            if len(token) % 4 or not _TOKEN.fullmatch(token):
                raise InvalidToken
            content = json.loads(fernet.decrypt(token.encode()))
            owner, options = content["source"], content["options"]
        except (InvalidToken, ValueError, KeyError, TypeError):
            raise DecryptionError(
                f"the credentials of source {source_id!r}, encrypted with the key {name!r}, "
                "are damaged; register the source again"
            ) from None
        if owner != source_id:
            raise DecryptionError(
                f"the credentials found at source {source_id!r}, encrypted with the key {name!r}, "
                "belong to another source"
            )
        return dict(options)

    def is_current(self, encrypted: str) -> bool:
        """Tell whether a ciphertext is under the key that encrypts now."""
        return key_of(encrypted) == self.fingerprints[0]

    def sanitize_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Copy options with everything that could be a secret masked as `***REDACTED***`."""
        copy: dict[str, Any] = redact(config)
        return copy


def fingerprint(key: Key) -> str:
    """Return the public name of a key."""
    return hashlib.sha256(_key_bytes(key)).hexdigest()[:12]


def _key_bytes(key: Key) -> bytes:
    """Return the bytes of a key in base64, URL-safe or not.

    Raises:
        ValueError: It is not base64.
        TypeError: It is not text.
    """
    raw = key.encode() if isinstance(key, str) else key
    # From 3.15 on, Python's decoders warn of characters outside the alphabet asked for.
    return base64.b64decode(bytes.translate(raw, _TO_STANDARD_BASE64), validate=True)


def key_of(encrypted: str) -> str:
    """Return the fingerprint of the key that a ciphertext is under; empty where it names none."""
    return _parts(encrypted)[0]


def read_key_file(path: str | os.PathLike[str]) -> list[str]:
    """Return the keys of a file, one a line, the one that encrypts first.

    Raises:
        MissingKeyError: The file cannot be read or holds no key.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            lines = [line.strip() for line in file.read(_KEY_FILE_LIMIT).splitlines()]
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not a path"
        raise MissingKeyError(f"the key file {str(path)!r} cannot be read: {reason}") from exc
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise MissingKeyError(f"the key file {str(path)!r} holds no key")
    return keys


def write_key_file(path: str | os.PathLike[str], keys: Iterable[str]) -> None:
    """Write a key file readable by its owner only, in one step: the old file whole, or the new.

    Raises:
        MissingKeyError: The file cannot be written.
    """
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.writelines(f"{key}\n" for key in keys)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as exc:
        reason = f"the key file {str(path)!r} cannot be written: {exc.strerror}"
        raise MissingKeyError(reason) from exc


Resolver = Callable[[str, str], str | None]


def resolve_references(value: Any, resolve: Resolver) -> Any:
    """Copy options with every `${scheme:name}` replaced by what `resolve(scheme, name)` returns.

    Raises:
        SecretNotFoundError: Nobody knows the scheme, or the name leads nowhere.
    """
    if isinstance(value, str):
        return REFERENCE.sub(lambda match: _resolved(match[1], match[2], resolve), value)
    if isinstance(value, Mapping):
        return {key: resolve_references(item, resolve) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolve_references(item, resolve) for item in value]
    return value


def _resolved(scheme: str, name: str, resolve: Resolver) -> str:
    reference = f"${{{scheme}:{name}}}"
    if scheme == "env":
        hidden = name.startswith(KEY_VARIABLE) or not name.isprintable()
        secret = None if hidden else os.environ.get(name)
        if secret is None:
            raise SecretNotFoundError(f"{reference}: the environment has no such variable to give")
        return secret
    if scheme == "file":
        return _file(reference, name)
    found = resolve(scheme, name)
    if not isinstance(found, str):
        raise SecretNotFoundError(
            f"{reference}: no plugin resolves the scheme {scheme!r}; built in: env, file"
        )
    return found


def _file(reference: str, path: str) -> str:
    try:
        if _holds_keys(path):
            raise SecretNotFoundError(f"{reference}: the file holds keys, and is not given")
        with open(path, encoding="utf-8") as file:
            secret = file.read(_SECRET_LIMIT + 1)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise SecretNotFoundError(f"{reference}: the file cannot be read: {reason}") from exc
    if len(secret) > _SECRET_LIMIT:
        raise SecretNotFoundError(f"{reference}: the file is longer than {_SECRET_LIMIT} bytes")
    if any(map(CredentialManager.validate_key, secret.split())):
        # Wherever it lies: the command line keeps its own beside the store.
        raise SecretNotFoundError(f"{reference}: the file holds encryption keys, and is not given")
    return secret.rstrip("\r\n")


def _holds_keys(path: str) -> bool:
    """Tell whether a file is the key file, or shows a process's environment."""
    real = os.path.realpath(path)
    key_file = os.environ.get(KEY_FILE_VARIABLE)
    return real.startswith("/proc/") or bool(key_file and real == os.path.realpath(key_file))


def _parts(encrypted: object) -> tuple[str, str]:
    """Return fingerprint and token; no fingerprint where there is none, whatever else there is."""
    name, _, token = encrypted.partition(":") if isinstance(encrypted, str) else ("", "", "")
    return (name, token) if _FINGERPRINT.fullmatch(name) else ("", "")


def _split(keys: object) -> list[Key]:
    if isinstance(keys, bytes):
        keys = keys.decode("ascii", errors="replace")
    if isinstance(keys, str):
        return [key.strip() for key in keys.split(",") if key.strip()]
    if isinstance(keys, Iterable):
        return [part for key in keys for part in _split(key)]
    return [""]  # malformed, whatever it is


def _keys_of_environment() -> list[Key]:
    if keys := _split(os.environ.get(KEY_VARIABLE, "")):
        return keys
    path = os.environ.get(KEY_FILE_VARIABLE)
    return _split(read_key_file(path)) if path else []
