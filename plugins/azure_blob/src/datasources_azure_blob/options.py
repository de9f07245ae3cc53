"""Define the options of an Azure Blob source, and the account and credential they describe."""

from __future__ import annotations

import base64
import binascii
import importlib.util
import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from datasources import ConnectorOptions

# Rules of the service, and the containers that it makes itself.
# https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
_CONTAINER = re.compile(r"(?=.{3,63}$)[a-z0-9]+(?:-[a-z0-9]+)*|\$root|\$web|\$logs")
# The account of every Azurite, and its published key, for `UseDevelopmentStorage=true`.
# https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string
_DEVELOPMENT_URL = "http://127.0.0.1:10000/devstoreaccount1"
_DEVELOPMENT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_LOGIN_HOST = "login.microsoftonline.com"  # azure-identity's default authority
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Account:
    """A storage account and its key or SAS; with neither, identity or anonymous access is used."""

    url: str
    """The URL of the blob endpoint, without a slash at the end."""
    name: str | None
    key: bytes | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)
    """The query string of a shared access signature, without its question mark."""


class AzureBlobOptions(ConnectorOptions):
    """One container, and one way to authorize requests to it.

    Either `connection_string`, or `account_url` with exactly one of `account_key`, `sas_token`,
    `credential` and `client_secret`.
    """

    sample_identifiers: ClassVar[tuple[tuple[str, str], ...]] = (
        ("sales.csv", "a blob at the top of the container"),
        ("2024/january/sales.csv", "a blob in a folder; it lands in the same folders"),
    )

    container: str = Field(
        description="The container that holds the blobs.",
        examples=["data-files"],
        validation_alias=AliasChoices("container", "container_name"),
    )
    connection_string: SecretStr | None = Field(
        None,
        description="The connection string from the portal's page of access keys, or one with a "
        "SharedAccessSignature. Names the account and the credential at once.",
        examples=["DefaultEndpointsProtocol=https;AccountName=myaccount;AccountKey=YSBrZXk="],
    )
    account_url: str | None = Field(
        None,
        description="The blob endpoint of the account, instead of a connection string. It may "
        "end with a SAS as its query.",
        examples=["https://myaccount.blob.core.windows.net"],
    )
    account_name: str | None = Field(
        None,
        description="The account's name, where account_url does not tell it, as with a domain "
        "of one's own.",
        examples=["myaccount"],
    )
    account_key: SecretStr | None = Field(
        None,
        description="One of the two access keys of the account.",
        examples=["YSBrZXk="],
    )
    sas_token: SecretStr | None = Field(
        None,
        description="A shared access signature for the account or the container. To list it "
        "needs the right 'l', to read 'r', to upload 'c' and 'w'.",
        examples=["sv=2024-11-04&sr=c&sp=rl&sig=YSBzaWduYXR1cmU%3D"],
    )
    credential: Literal["default", "anonymous"] | None = Field(
        None,
        description="'default' takes what azure-identity finds (environment, workload or managed "
        "identity, az login); 'anonymous' reads a public container.",
        examples=["default"],
    )
    tenant_id: str | None = Field(
        None,
        description="The tenant of a service principal; goes with client_id and client_secret.",
        examples=["00000000-0000-0000-0000-000000000000"],
    )
    client_id: str | None = Field(
        None,
        description="The application id of a service principal.",
        examples=["00000000-0000-0000-0000-000000000000"],
    )
    client_secret: SecretStr | None = Field(
        None,
        description="The secret of a service principal.",
        examples=["a client secret"],
    )
    prefix: str = Field(
        "",
        description="A folder of the container: the source is what lies below it, and names "
        "start there.",
        examples=["exports/2024"],
    )
    connect_timeout: float = Field(
        10.0, gt=0, description="Seconds to reach the service.", examples=[10]
    )
    read_timeout: float = Field(
        30.0, gt=0, description="Seconds without a byte after which a read fails.", examples=[30]
    )
    retries: int = Field(
        6,
        ge=0,
        le=100,
        description="Further attempts of one request that failed in passing; the pause doubles, "
        "from 0.1 s on.",
        examples=[6],
    )
    retry_timeout: float = Field(
        60.0,
        ge=0,
        description="Seconds after which one request is not attempted again.",
        examples=[60],
    )
    concurrency: int = Field(
        4, ge=1, le=64, description="Parts of one large blob on their way at once.", examples=[4]
    )
    chunk_size: int = Field(
        8 * MIB,
        ge=64 * 1024,
        le=1024 * MIB,
        description="Bytes of one part; a blob of this size or less is a single request.",
        examples=[8 * MIB],
    )

    @model_validator(mode="before")
    @classmethod
    def _move_sas_out_of_url(cls, values: Any) -> Any:
        """Move a SAS in `account_url` to `sas_token`, which is stored and shown as a secret."""
        url = values.get("account_url") if isinstance(values, Mapping) else None
        if not isinstance(url, str) or "sig=" not in url.partition("?")[2]:
            return values
        if values.get("sas_token") is not None:
            raise ValueError("'account_url' carries a SAS already; leave 'sas_token' out")
        bare, _, sas = url.partition("?")
        return {**values, "account_url": bare, "sas_token": sas}

    @field_validator("container")
    @classmethod
    def _check_container(cls, value: str) -> str:
        if not _CONTAINER.fullmatch(value):
            raise ValueError(
                "a container's name is 3 to 63 lower-case letters, digits and single hyphens"
            )
        return value

    @field_validator("connection_string")
    @classmethod
    def _check_connection_string(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_connection_string(value.get_secret_value())
        return value

    @field_validator("account_url")
    @classmethod
    def _check_account_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = _split_url(value)
        depth = len([part for part in parts.path.split("/") if part])
        if parts.query or parts.fragment:
            raise ValueError("its query must be a SAS, with 'sig='; nothing else can follow")
        if depth > _account_depth(parts.hostname or ""):
            raise ValueError("give the account's URL alone, and the container as 'container'")
        return value.rstrip("/")

    @field_validator("account_key")
    @classmethod
    def _check_account_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _decode_key(value.get_secret_value())
        return value

    @field_validator("sas_token")
    @classmethod
    def _check_sas(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        return SecretStr(_clean_sas(value.get_secret_value()))

    @field_validator("prefix")
    @classmethod
    def _end_prefix(cls, value: str) -> str:
        return f"{value.rstrip('/')}/" if value else ""

    @model_validator(mode="after")
    def _check_one_credential(self) -> Self:
        credentials = ("account_key", "sas_token", "credential", "client_secret")
        given = [name for name in credentials if getattr(self, name) is not None]
        if (self.connection_string is None) == (self.account_url is None):
            raise ValueError("give exactly one of 'connection_string' and 'account_url'")
        if self.connection_string is not None and (given or self.account_name):
            surplus = [*given, *(["account_name"] if self.account_name else [])]
            raise ValueError(
                f"'connection_string' brings its own credential; leave out {', '.join(surplus)}"
            )
        if self.account_url is not None and len(given) != 1:
            raise ValueError(
                f"with 'account_url' give exactly one of {', '.join(credentials)}; "
                f"given: {', '.join(given) or 'none'}"
            )
        self._check_identity()
        return self

    def _check_identity(self) -> None:
        principal = (self.tenant_id, self.client_id, self.client_secret)
        if any(part is not None for part in principal) and None in principal:
            raise ValueError("'tenant_id', 'client_id' and 'client_secret' go together")
        if self.account_key is not None and self.account().name is None:
            raise ValueError("'account_url' does not tell the account; give 'account_name' too")
        if not self.uses_identity:
            return
        if not (self.account_url or "").lower().startswith("https:"):
            raise ValueError("a token is sent over https only; 'account_url' must start with it")
        if importlib.util.find_spec("azure.identity") is None:
            raise ValueError(
                "'credential' and 'client_secret' need azure-identity; "
                "pip install 'datasources-azure-blob[identity]'"
            )

    @property
    def uses_identity(self) -> bool:
        """True if requests are authorized by tokens of azure-identity."""
        return self.credential == "default" or self.client_secret is not None

    def account(self) -> Account:
        """Return the account and its credential."""
        if self.connection_string is not None:
            return parse_connection_string(self.connection_string.get_secret_value())
        url = self.account_url or ""
        return Account(
            url,
            self.account_name or _account_name(url),
            _decode_key(self.account_key.get_secret_value()) if self.account_key else None,
            self.sas_token.get_secret_value() if self.sas_token else None,
        )

    def hosts(self) -> Iterable[str]:
        """Return the account's host and, with azure-identity, that of the authority."""
        hosts = [urlsplit(self.account().url).hostname or ""]
        if self.uses_identity:
            authority = os.environ.get("AZURE_AUTHORITY_HOST", _LOGIN_HOST)
            hosts.append(urlsplit(f"//{authority.partition('://')[2] or authority}").hostname or "")
        return hosts

    def secret_values(self) -> list[str]:
        """Return all secrets, also the key or SAS in a connection string and a SAS's signature."""
        account = self.account()
        secrets = super().secret_values()
        if account.key is not None:
            secrets.append(base64.b64encode(account.key).decode())
        if account.sas is not None:
            signature = re.search(r"(?:^|&)sig=([^&]*)", account.sas)
            encoded = signature[1] if signature else ""
            secrets += [account.sas, encoded, unquote(encoded)]
        return list(dict.fromkeys(filter(None, secrets)))


def parse_connection_string(text: str) -> Account:
    """Return the account that a connection string names.

    Raises:
        ValueError: It is not a connection string, or names no account or credential.
    """
    pairs = [part.partition("=") for part in text.split(";") if part.strip()]
    if not pairs or not all(key.strip() and equals for key, equals, _ in pairs):
        raise ValueError("not a connection string; one looks like AccountName=…;AccountKey=…")
    values = {key.strip().lower(): value.strip() for key, _, value in pairs}
    if values.get("usedevelopmentstorage", "").lower() == "true":
        return Account(_DEVELOPMENT_URL, "devstoreaccount1", _decode_key(_DEVELOPMENT_KEY))
    name = values.get("accountname")
    url = values.get("blobendpoint", "").rstrip("/") or _default_url(name, values)
    _split_url(url)
    if "accountkey" in values:
        name = name or _account_name(url)
        if name is None:
            raise ValueError("it names no account; AccountName is missing")
        return Account(url, name, _decode_key(values["accountkey"]))
    if "sharedaccesssignature" in values:
        return Account(url, name, sas=_clean_sas(values["sharedaccesssignature"]))
    raise ValueError("it holds no credential; AccountKey or SharedAccessSignature is missing")


def _default_url(name: str | None, values: Mapping[str, str]) -> str:
    if name is None:
        raise ValueError("it names no account; AccountName or BlobEndpoint is missing")
    protocol = values.get("defaultendpointsprotocol", "https")
    return f"{protocol}://{name}.blob.{values.get('endpointsuffix', 'core.windows.net')}"


def _split_url(url: str) -> Any:
    try:
        parts = urlsplit(url)
        is_http_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a bad port, or a bracket that is not closed
        is_http_url = False
    if not is_http_url:
        raise ValueError("not a URL such as https://myaccount.blob.core.windows.net")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with a user or password is not one of Azure Storage")
    return parts


def _account_depth(host: str) -> int:
    """Return the number of path segments that name the account: one for an address, as Azurite."""
    return 0 if ".blob." in host else 1


def _account_name(url: str) -> str | None:
    """Return the account that a URL names by its path or its first label, or None."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    path = [part for part in parts.path.split("/") if part]
    if path:
        return path[0]
    return host.partition(".")[0].removesuffix("-secondary") if _is_account_host(host) else None


def _is_account_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return ".blob." in host
    return False


def _decode_key(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("the account key is not base64")
    return key


def _clean_sas(text: str) -> str:
    text = text.strip().lstrip("?").strip("&")
    if not parse_qs(text).get("sig"):
        raise ValueError("not a shared access signature; one is a query string with 'sig='")
    return text
