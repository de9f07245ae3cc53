"""Encrypt options at rest, read and write keys, resolve references to secrets."""

from __future__ import annotations

import base64
import errno
import hashlib
import hmac
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from datasources.errors import (
    DecryptionError,
    MissingKeyError,
    OptionError,
    PluginError,
    SecretNotFoundError,
)
from datasources.files import make_private_directory
from datasources.nested import leaves, map_leaves
from datasources.redaction import REFERENCE, redact

KEY_VARIABLE = "DATASOURCE_ENCRYPTION_KEY"
KEY_FILE_VARIABLE = "DATASOURCE_ENCRYPTION_KEY_FILE"

Key = str | bytes

_FINGERPRINT = re.compile(r"[0-9a-f]{12}")
# Characters that are read of a file of keys, and bytes of a file with one secret, such as a
# certificate's key: some files, such as /dev/zero, have no end.
_KEY_FILE_LIMIT = 64 * 1024
_SECRET_LIMIT = 1024 * 1024
_TOKEN = re.compile(r"[\w-]+={0,2}", re.ASCII)  # URL-safe base64
_TO_STANDARD_BASE64 = bytes.maketrans(b"-_", b"+/")


class CredentialManager:
    """Encrypts with the first of its keys and decrypts with any of them.

    A ciphertext is `<fingerprint>:<Fernet token>`. The fingerprint names the key, which tells a
    wrong key from damage. Fernet is AES-128-CBC with HMAC-SHA256. It has no associated data, so
    the id of the source is part of the plaintext: a ciphertext that was moved to another source is
    refused. Instances are safe to share among threads.

    Args:
        encryption_key: A Fernet key, or several as a sequence or separated by commas. By default
            the keys come from the variable `DATASOURCE_ENCRYPTION_KEY`, else from the file that
            `DATASOURCE_ENCRYPTION_KEY_FILE` names, else one is generated that exists in this
            object only.

    Raises:
        MissingKeyError: A key is malformed, or the file cannot be read.
    """

    def __init__(self, encryption_key: Key | Sequence[Key] | None = None) -> None:
        keys = _keys_of_environment() if encryption_key is None else _split_keys(encryption_key)
        self.generated = not keys and encryption_key is None
        """True if the key was generated here: what it encrypts is lost when the process ends."""
        if self.generated:
            keys = [self.generate_key()]
        if not keys:
            raise MissingKeyError("an empty encryption key was given; make one with generate_key()")
        self._fernets: dict[str, Fernet] = {}
        for key in keys:
            if not self.validate_key(key):  # first, as errors of other functions quote the key
                raise MissingKeyError(
                    "an encryption key is malformed; one is 32 bytes in URL-safe base64, "
                    "as generate_key() makes"
                )
            self._fernets[fingerprint(key)] = Fernet(base64.urlsafe_b64encode(_key_bytes(key)))
        self._derivations = [_derivation(_key_bytes(key)) for key in keys]
        self._derived: dict[str, MultiFernet] = {}

    def __repr__(self) -> str:
        return f"CredentialManager(keys={self.fingerprints})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a CredentialManager holds keys and cannot be pickled or copied")

    @property
    def fingerprints(self) -> list[str]:
        """Names of the keys, the encrypting one first: 12 hexadecimal digits of their SHA-256."""
        return list(self._fernets)

    @staticmethod
    def generate_key() -> str:
        """Return a new random key."""
        return Fernet.generate_key().decode()

    @staticmethod
    def validate_key(key: Key) -> bool:
        """Return True if `key` has the form of a Fernet key."""
        try:
            return len(_key_bytes(key)) == 32
        except (ValueError, TypeError):
            return False

    def encrypt_credentials(
        self, credentials: Mapping[str, Any], *, source_id: str = "", options_version: int = 1
    ) -> str:
        """Encrypt the options of a source, with the version that its connector gives them.

        Raises:
            OptionError: A value is not one that JSON can hold.
        """
        try:
            document: dict[str, Any] = {"source": source_id, "options": dict(credentials)}
            if options_version != 1:  # documents without it are of the first version
                document["options_version"] = options_version
            plain = json.dumps(document, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            plain, document = "", {}
        if not plain:  # raised here: the error of json would be its context, and quotes the value
            del credentials, document
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
        return self.decrypt_with_version(encrypted, source_id=source_id)[0]

    def decrypt_with_version(
        self, encrypted: str, *, source_id: str = ""
    ) -> tuple[dict[str, Any], int]:
        """Return the options, and the version that they were encrypted with.

        Raises:
            DecryptionError: As `decrypt_credentials`.
        """
        name, token = _split_ciphertext(encrypted)
        fernet = self._fernets.get(name)
        fingerprints = ", ".join(self._fernets)
        if not name:
            raise DecryptionError(
                f"the credentials of source {source_id!r} are damaged: they name no key; the keys "
                f"given: {fingerprints}"
            )
        if fernet is None:
            raise DecryptionError(
                f"the credentials of source {source_id!r} are encrypted with the key {name!r}, "
                f"which is not among those given: {fingerprints}"
            )
        decrypted, fault = _decrypt(fernet, token, source_id)
        if decrypted is None:
            raise DecryptionError(
                f"the credentials of source {source_id!r}, encrypted with the key {name!r}, {fault}"
            )
        return decrypted

    def seal(self, purpose: str, content: bytes) -> str:
        """Return content encrypted and authenticated, under a key derived for a purpose."""
        return self._derive(purpose).encrypt(content).decode()

    def unseal(self, purpose: str, token: str, *, max_age: int) -> bytes | None:
        """Return the content of a token of `seal`; None if it is forged or damaged, or too old.

        Args:
            purpose: As it was given to `seal`; the keys of another purpose do not open it.
            token: The token.
            max_age: Seconds since it was made.
        """
        try:
            if len(token) % 4 or not _TOKEN.fullmatch(token):
                return None
            return self._derive(purpose).decrypt(token.encode(), ttl=max_age)
        except InvalidToken:
            return None

    def digest(self, purpose: str, content: bytes) -> str:
        """Return the HMAC-SHA256 of content in hexadecimal, under a key derived for a purpose.

        It is the same in every process whose first key is the same, and changes with that key.
        """
        return hmac.digest(self._derivations[0](purpose), content, "sha256").hex()

    def _derive(self, purpose: str) -> MultiFernet:
        """Return the keys for a purpose: of each key of ours, one by HKDF (RFC 5869)."""
        if purpose not in self._derived:
            keys = [derive(purpose) for derive in self._derivations]
            self._derived[purpose] = MultiFernet(
                [Fernet(base64.urlsafe_b64encode(key)) for key in keys]
            )
        return self._derived[purpose]

    def is_current(self, encrypted: str) -> bool:
        """Return True if the first key encrypted a ciphertext."""
        return key_of(encrypted) == self.fingerprints[0]

    def sanitize_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Copy options with everything that could be a secret masked as `***REDACTED***`."""
        masked: dict[str, Any] = redact(config)
        return masked


def _derivation(key: bytes) -> Callable[[str], bytes]:
    """Return a function that derives 32 bytes for a purpose; its `repr` does not show the key."""

    def derive(purpose: str) -> bytes:
        from cryptography.hazmat.primitives.hashes import SHA256  # few hosts need these
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return HKDF(SHA256(), 32, None, f"datasources {purpose}".encode()).derive(key)

    return derive


def _decrypt(
    fernet: Fernet, token: str, source_id: str
) -> tuple[tuple[dict[str, Any], int] | None, str]:
    """Return the options of a token and their version, or None and why it does not open."""
    try:
        # Fernet skips characters that are not base64, and some Pythons take missing padding.
        if len(token) % 4 or not _TOKEN.fullmatch(token):
            raise InvalidToken
        content = json.loads(fernet.decrypt(token.encode()))
        if content["source"] != source_id:
            return None, "belong to another source"
        return (dict(content["options"]), int(content.get("options_version", 1))), ""
    except (InvalidToken, ValueError, KeyError, TypeError):
        return None, "are damaged; register the source again"


def fingerprint(key: Key) -> str:
    """Return the name of a key, which may be shown: 12 hexadecimal digits of its SHA-256."""
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
    """Return the fingerprint of the key that encrypted a ciphertext; "" if it has none."""
    return _split_ciphertext(encrypted)[0]


def read_key_file(path: str | os.PathLike[str]) -> list[str]:
    """Return the keys of a file, in its order; the first one encrypts.

    The file has one key a line; empty lines and lines that begin with `#` are skipped.

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
    """Write keys to a file, one a line, readable by its owner only.

    The file is replaced in one step: a reader sees all old keys or all new ones. A symbolic link
    stays one, and the file that it leads to is replaced.

    Raises:
        MissingKeyError: The file cannot be written.
    """
    try:
        target = os.path.realpath(path)
        if os.path.islink(target):  # a link in a circle
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        make_private_directory(os.path.dirname(target))
        temporary = f"{target}.{os.getpid()}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                os.fchmod(descriptor, 0o600)  # whatever the umask
                file.writelines(f"{key}\n" for key in keys)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as exc:
        reason = f"the key file {str(path)!r} cannot be written: {exc.strerror}"
        raise MissingKeyError(reason) from exc


Resolver = Callable[[str, str], str | None]


def resolve_references(value: Any, resolve: Resolver) -> Any:
    """Copy options with every `${scheme:name}` replaced by the secret that it refers to.

    Args:
        value: Nested options.
        resolve: Called as `resolve(scheme, name)` for schemes other than `env` and `file`; returns
            None if it does not know the scheme.

    Raises:
        SecretNotFoundError: A scheme is unknown, there is no secret of that name, or the plugin
            that has it failed.
    """
    try:
        texts = (leaf for leaf in leaves(value) if isinstance(leaf, str))
        references = {reference for text in texts for reference in REFERENCE.findall(text)}
        secrets = {
            (scheme, name): _resolved(scheme, name, resolve) for scheme, name in sorted(references)
        }
    except BaseException:
        del value  # tools that report errors show the local variables of frames
        raise

    def resolved(leaf: Any) -> Any:
        if not isinstance(leaf, str):
            return leaf
        return REFERENCE.sub(lambda match: secrets[match[1], match[2]], leaf)

    return map_leaves(value, resolved)


def _resolved(scheme: str, name: str, resolve: Resolver) -> str:
    reference = f"${{{scheme}:{name}}}"
    if scheme == "env":
        hidden = name.startswith(KEY_VARIABLE) or not name.isprintable()
        secret = None if hidden else os.environ.get(name)
        if secret is None:
            raise SecretNotFoundError(f"{reference}: the environment has no such variable to give")
        return secret
    if scheme == "file":
        return _read_secret(reference, os.path.expanduser(name))
    try:
        resolved = resolve(scheme, name)
    except PluginError as exc:
        raise SecretNotFoundError(f"{reference}: {exc}") from exc
    if not isinstance(resolved, str):
        raise SecretNotFoundError(
            f"{reference}: no plugin resolves the scheme {scheme!r}; built in: env, file"
        )
    return resolved


def _read_secret(reference: str, path: str) -> str:
    try:
        if _holds_keys(path):
            raise SecretNotFoundError(f"{reference}: the file holds keys, and is not given")
        with open(path, encoding="utf-8-sig") as file:
            secret = file.read(_SECRET_LIMIT + 1)
    except OSError as exc:
        raise SecretNotFoundError(f"{reference}: the file cannot be read: {exc.strerror}") from exc
    except ValueError:
        # Not chained: a UnicodeDecodeError holds the bytes that it could not decode.
        raise SecretNotFoundError(f"{reference}: the file cannot be read: it is not text") from None
    fault = ""
    if len(secret) > _SECRET_LIMIT:
        fault = f"the file is longer than {_SECRET_LIMIT} bytes"
    elif any(map(CredentialManager.validate_key, secret.split())):
        # Any file of keys, as that of the command line is beside the store, not in a variable.
        fault = "the file holds encryption keys, and is not given"
    if fault:
        del secret
        raise SecretNotFoundError(f"{reference}: {fault}")
    return secret.rstrip("\r\n")


def _holds_keys(path: str) -> bool:
    """Return True for the key file, and for files that show the environment of a process."""
    real = os.path.realpath(path)
    key_file = os.path.expanduser(os.environ.get(KEY_FILE_VARIABLE, ""))
    return real.startswith("/proc/") or bool(key_file and real == os.path.realpath(key_file))


def _split_ciphertext(encrypted: object) -> tuple[str, str]:
    """Split `<fingerprint>:<token>`; ("", "") if it is not of that form."""
    name, _, token = encrypted.partition(":") if isinstance(encrypted, str) else ("", "", "")
    return (name, token) if _FINGERPRINT.fullmatch(name) else ("", "")


def _split_keys(keys: object) -> list[Key]:
    if isinstance(keys, bytes):
        keys = keys.decode("ascii", errors="replace")
    if isinstance(keys, str):
        return [key.strip() for key in keys.split(",") if key.strip()]
    if isinstance(keys, Iterable):
        return [part for key in keys for part in _split_keys(key)]
    return [""]  # not a key; reported as malformed


def _keys_of_environment() -> list[Key]:
    if keys := _split_keys(os.environ.get(KEY_VARIABLE, "")):
        return keys
    path = os.environ.get(KEY_FILE_VARIABLE)
    return _split_keys(read_key_file(os.path.expanduser(path))) if path else []
