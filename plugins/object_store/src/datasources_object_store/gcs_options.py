"""Define the options of a Google Cloud Storage source."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from datasources import Option
from datasources.objects import ObjectStoreOptions
from datasources_object_store.urls import check_url

# https://cloud.google.com/storage/docs/buckets#naming
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
SERVICE_URL = "https://storage.googleapis.com"
TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105  (the address of a service)
# Of workload identity federation.
STS_URL = "https://sts.googleapis.com/v1/token"
IAM_URL = "https://iamcredentials.googleapis.com"
METADATA_HOST = "169.254.169.254"
_EXAMPLE_KEY = (
    '{"type": "service_account", "client_email": "reader@my-project.iam.gserviceaccount.com",'
    ' "private_key": "-----BEGIN PRIVATE KEY-----"}'
)
_ACCOUNT_FIELDS = ("client_email", "private_key")


class GCSOptions(ObjectStoreOptions):
    """One bucket, and one way to authorize requests to it: `service_account` or `credential`."""

    sample_identifiers: ClassVar[tuple[tuple[str, str], ...]] = (
        ("sales.csv", "an object at the top of the bucket"),
        ("2024/january/sales.csv", "an object in a folder; it lands in the same folders"),
    )
    alternatives: ClassVar[tuple[tuple[str, ...], ...]] = (("service_account",), ("credential",))
    discover_defaults: ClassVar[Mapping[str, Any]] = {"bucket": "any-bucket"}

    bucket: str = Option(
        help="The bucket that holds the objects.", discovered=True, examples=["data-lake"]
    )
    service_account: SecretStr | None = Field(
        None,
        description="The key of a service account: the JSON document, or a reference to its file.",
        examples=[_EXAMPLE_KEY],
    )
    credential: Literal["default", "anonymous"] | None = Field(
        None,
        description="'default' takes the file that GOOGLE_APPLICATION_CREDENTIALS or gcloud names, "
        "or the service account of the machine; 'anonymous' reads a public bucket.",
        examples=["default"],
    )
    project: str | None = Field(
        None,
        description="The project whose buckets are offered to choose from, and that pays for a "
        "bucket whose owner does not.",
        examples=["my-project"],
    )
    endpoint: str | None = Field(
        None,
        description="The URL of another service than Google's, such as an emulator.",
        examples=["http://127.0.0.1:9023"],
    )
    requester_pays: bool = Option(
        False,
        help="Have 'project' pay for requests to a bucket whose owner does not.",
        examples=[True],
        advanced=True,
    )
    check_md5: bool = Option(
        True,
        help="Check fetched objects against their MD5; one that is composed of others has none.",
        examples=[True],
        group="Transfer",
        advanced=True,
    )

    @field_validator("bucket")
    @classmethod
    def _check_bucket(cls, value: str) -> str:
        if not _BUCKET.fullmatch(value) or ".." in value:
            raise ValueError(
                "a bucket's name is 3 to 222 lower-case letters, digits, hyphens, dots and underscores"
            )
        return value

    @field_validator("service_account")
    @classmethod
    def _check_service_account(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            read_service_account(value.get_secret_value())
        return value

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        return None if value is None else check_url(value, "http://127.0.0.1:9023")

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.requester_pays and (self.project is None or self.credential == "anonymous"):
            raise ValueError("'requester_pays' needs 'project', and an identity of it")
        if self.endpoint is not None and self.credential == "default":
            raise ValueError(
                "'credential' = 'default' is for Google's own service; leave out 'endpoint'"
            )
        host = urlsplit(self.endpoint or "").hostname
        plain = (self.endpoint or "").startswith("http:") and host not in ("127.0.0.1", "::1")
        if plain and self.credential != "anonymous":
            raise ValueError("a token is sent over https only; 'endpoint' must start with it")
        return self

    @property
    def service_url(self) -> str:
        """Return the URL of the service, without a slash at the end."""
        return self.endpoint or SERVICE_URL

    def ambient(self) -> bool:
        """Return True if the credentials are the machine's, or in files of it."""
        return self.credential == "default"

    def hosts(self) -> Iterable[str]:
        """Return the hosts of the service and of those that give tokens.

        The metadata service of a machine is none of them, nor is the provider that a file of
        workload identity federation names: only tokens are read there.
        """
        urls = [self.service_url]
        if self.credential != "anonymous":
            urls.append(TOKEN_URL)
        if self.credential == "default":
            urls += [STS_URL, IAM_URL]
        return [urlsplit(url).hostname or "" for url in urls]

    def destination(self) -> Mapping[str, Any]:
        """Return the service, and whose tokens are sent there."""
        return {"endpoint": self.endpoint, "credential": self.credential, "project": self.project}

    def secret_values(self) -> list[str]:
        """Return all secrets, also the private key in the document of a service account."""
        secrets = super().secret_values()
        if self.service_account is not None:
            key = read_service_account(self.service_account.get_secret_value())["private_key"]
            secrets += [key, *(line for line in key.splitlines() if len(line) > 40)]
        return secrets


def read_service_account(text: str) -> dict[str, str]:
    """Return the key document of a service account.

    Raises:
        ValueError: It is none; its text is not shown.
    """
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("type") != "service_account":
        raise ValueError("it is no key of a service account, a JSON document with that 'type'")
    for field in _ACCOUNT_FIELDS:
        if not isinstance(document.get(field), str):
            raise ValueError(f"the key of the service account has no {field!r}")  # noqa: TRY004
    return document
