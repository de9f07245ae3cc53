"""Define the options of an Azure Blob source, and the account and credential they describe."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from datasources import Option, OptionError
from datasources.objects import ObjectStoreOptions
from datasources_azure_blob.account import (
    Account,
    account_depth,
    account_name,
    clean_sas,
    decode_key,
    is_address,
    parse_connection_string,
    split_url,
)

# Rules of the service, and the containers that it makes itself.
# https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
_CONTAINER = re.compile(
    r"(?=.{3,63}$)[a-z0-9]+(?:-[a-z0-9]+)*|\$root|\$web|\$logs|\$blobchangefeed"
)
_LOGIN_HOST = "login.microsoftonline.com"  # azure-identity's default authority


class AzureBlobOptions(ObjectStoreOptions):
    """One container, and one way to authorize requests to it.

    Either `connection_string`, or `account_url` with exactly one of `account_key`, `sas_token`,
    `credential` and `client_secret`.
    """

    sample_identifiers: ClassVar[tuple[tuple[str, str], ...]] = (
        ("sales.csv", "a blob at the top of the container"),
        ("2024/january/sales.csv", "a blob in a folder; it lands in the same folders"),
    )

    alternatives: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("connection_string",),
        ("account_url", "account_key"),
        ("account_url", "sas_token"),
        ("account_url", "credential"),
        ("account_url", "tenant_id", "client_id", "client_secret"),
    )

    # A SAS for a folder needs a prefix, and cannot list containers anyway.
    discover_defaults: ClassVar[Mapping[str, Any]] = {"container": "$root"}

    container: str = Option(
        help="The container that holds the blobs.",
        discovered=True,
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
        examples=[
            "https://myaccount.blob.core.windows.net",
            "https://myaccount.blob.core.windows.net?sv=2024-11-04&sr=c&sp=rl&sig=YSBzaWduYXR1cmU%3D",
        ],
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
        description="The application id of a service principal or, with credential = 'default', the "
        "client id of a user-assigned managed identity.",
        examples=["00000000-0000-0000-0000-000000000000"],
    )
    client_secret: SecretStr | None = Field(
        None,
        description="The secret of a service principal.",
        examples=["a client secret"],
    )
    check_md5: bool = Option(
        True,
        help="Check fetched block blobs against the MD5 that they are stored with. The "
        "service does not compute it: one that was set wrong is an error until this is off.",
        examples=[True],
        group="Transfer",
        advanced=True,
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
        parts = split_url(value)
        if parts.query or parts.fragment:
            raise ValueError(
                "its query must be a SAS, which has a signature; nothing else can follow"
            )
        return value.strip().rstrip("/")

    @field_validator("account_key")
    @classmethod
    def _check_account_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            decode_key(value.get_secret_value())
        return value

    @field_validator("sas_token")
    @classmethod
    def _check_sas(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        return SecretStr(clean_sas(value.get_secret_value()))

    @model_validator(mode="after")
    def _check_one_credential(self) -> Self:
        others = ("account_url", "account_name", "account_key", "sas_token", "credential")
        surplus = [name for name in others if getattr(self, name) is not None]
        if self.connection_string is not None and surplus:
            raise ValueError(
                "'connection_string' brings its own account and credential; leave out "
                f"{', '.join(surplus)}"
            )
        self._check_path()
        self._check_identity()
        return self

    def _check_path(self) -> None:
        """Refuse a container in the URL's path, which would be taken for the account, and the like."""
        parts = urlsplit(self.account().url)
        path = [segment for segment in parts.path.split("/") if segment]
        host = parts.hostname or ""
        # A domain of one's own has no path; an emulator has the account there, behind an address
        # or a name of its own.
        has_container = path[-1:] == [self.container] and "." in host and not is_address(host)
        if len(path) > account_depth(host) or has_container:
            raise ValueError("give the account's URL alone, and the container as 'container'")
        if not self.prefix and re.search(r"(?:^|&)sr=d(?:&|$)", self.account().sas or ""):
            raise ValueError("the SAS is for a folder; give that folder as 'prefix'")

    def _check_identity(self) -> None:
        principal = (self.tenant_id, self.client_id, self.client_secret)
        user_assigned = self.credential == "default" and principal[::2] == (None, None)
        if any(part is not None for part in principal) and None in principal and not user_assigned:
            raise ValueError(
                "'tenant_id', 'client_id' and 'client_secret' go together; with 'credential' = "
                "'default', 'client_id' alone names a managed identity"
            )
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
            self.account_name or account_name(url),
            decode_key(self.account_key.get_secret_value()) if self.account_key else None,
            self.sas_token.get_secret_value() if self.sas_token else None,
        )

    @property
    def credential_option(self) -> str | None:
        """The option that holds the account's key or SAS, or None if there is none."""
        names = ("connection_string", "account_key", "sas_token")
        return next((name for name in names if getattr(self, name) is not None), None)

    def renewed(self, account: Account, secret: str) -> Account:
        """Return an account with the key or SAS in a new value of its option `credential_option`.

        A connection string that names another URL leaves the account as it is: that URL has passed
        no check, and its credential is not meant for this one.

        Raises:
            OptionError: There is no key or SAS that can be used.
        """
        try:
            if self.credential_option == "account_key":
                return replace(account, key=decode_key(secret))
            if self.credential_option == "sas_token":
                return replace(account, sas=clean_sas(secret))
            renewed = parse_connection_string(secret)
        except ValueError as exc:
            raise OptionError(f"option {self.credential_option!r}: {exc}") from None
        return renewed if renewed.url == account.url else account

    def ambient(self) -> bool:
        """Return True if azure-identity looks for an identity on the machine."""
        return self.credential == "default"

    def hosts(self) -> Iterable[str]:
        """Return the account's host and, with azure-identity, that of the authority."""
        hosts = [urlsplit(self.account().url).hostname or ""]
        if self.uses_identity:
            authority = os.environ.get("AZURE_AUTHORITY_HOST", _LOGIN_HOST)
            hosts.append(urlsplit(f"//{authority.partition('://')[2] or authority}").hostname or "")
        return hosts

    def destination(self) -> Mapping[str, Any]:
        """Return the account's URL, and the identity whose tokens are sent there.

        A connection string is read for the URL; one that cannot be read before its references are
        resolved counts as a whole. Container and prefix are not part of it: whoever owns the
        account receives the credential, whichever of its containers is read. The proxy and the
        authority that gives tokens are taken from the environment, and are no options.
        """
        if self.connection_string is None:
            url = (self.account_url or "").partition("?")[0].strip().rstrip("/")
        else:
            text = self.connection_string.get_secret_value()
            try:
                url = parse_connection_string(text).url
            except ValueError:
                url = _reference_or_digest(text)
        return {
            "account_url": url,
            "account_name": self.account_name,
            "credential": self.credential,
            "tenant_id": self.tenant_id,
            "client_id": self.client_id,
        }

    def secret_values(self) -> list[str]:
        """Return all secrets, also the key or SAS in a connection string and a SAS's signature."""
        secrets = [*super().secret_values(), *account_secrets(self.account())]
        return list(dict.fromkeys(filter(None, secrets)))


def account_secrets(account: Account) -> list[str]:
    """Return the texts of a key or SAS that are masked; of a SAS, also its signature, encoded and not."""
    secrets = [] if account.key is None else [base64.b64encode(account.key).decode()]
    if account.sas is not None:
        signature = re.search(r"(?:^|&)sig=([^&]*)", account.sas)
        encoded = signature[1] if signature else ""
        secrets += filter(None, (account.sas, encoded, unquote(encoded)))
    return secrets


def _reference_or_digest(text: str) -> str:
    """Return the text of a reference, which is no secret, and a digest of any other text."""
    if re.fullmatch(r"\$\{[^{}]*\}", text):
        return text
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
