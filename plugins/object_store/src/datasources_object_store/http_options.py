"""Define the options of a source of files behind a URL."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from datasources.objects import ObjectStoreOptions
from datasources_object_store.urls import check_url

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Headers of the requests themselves.
_OWN = {"accept-encoding", "connection", "content-length", "depth", "host", "if-match", "range"}


class HTTPFilesOptions(ObjectStoreOptions):
    """The URL of the topmost folder, how it is listed, and the credentials."""

    sample_identifiers: ClassVar[tuple[tuple[str, str], ...]] = (
        ("2024/january.csv", "one file, by its path below the URL"),
    )
    requires: ClassVar[Mapping[str | tuple[str, Any], tuple[str, ...]]] = {
        "user": ("password",),
        "password": ("user",),
    }

    url: str = Field(
        description="The topmost folder; nothing above it is read.",
        examples=["https://files.example.com/reports"],
    )
    listing: Literal["links", "webdav", "none"] = Field(
        "links",
        description="How folders are listed: 'links' reads the links of the page that the server "
        "shows for a folder, 'webdav' asks by PROPFIND, 'none' lists nothing: files are fetched "
        "by their paths.",
        examples=["webdav"],
    )
    user: str | None = Field(
        None, description="Name for basic authentication.", examples=["reader"]
    )
    password: SecretStr | None = Field(
        None, description="Password for basic authentication.", examples=["a password"]
    )
    token: SecretStr | None = Field(
        None, description="Token for bearer authentication.", examples=["a token"]
    )
    headers: dict[str, SecretStr] = Field(
        default={},
        description="Further headers of every request, such as an API key.",
        examples=[{"X-Api-Key": "a key"}],
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        url = check_url(value, "https://files.example.com/reports")
        if not {".", ".."}.isdisjoint(urlsplit(url).path.split("/")):
            raise ValueError("it must have no '.' or '..' between slashes")
        return url

    @field_validator("token")
    @classmethod
    def _check_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and re.search(r"[\r\n\0]", value.get_secret_value().strip()):
            raise ValueError("it has a line break")
        return value

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            if not _HEADER.fullmatch(name) or name.lower() in _OWN:
                raise ValueError("a name in it is none of a header that may be set")
            if re.search(r"[\r\n\0]", secret.get_secret_value()):
                raise ValueError(f"the value of {name!r} has a line break")
        return value

    @model_validator(mode="after")
    def _check_one_credential(self) -> Self:
        ways = [self.user is not None, self.token is not None]
        ways.append(any(name.lower() == "authorization" for name in self.headers))
        if sum(ways) > 1:
            raise ValueError("'user', 'token' and a header 'Authorization' exclude one another")
        return self

    def request_headers(self) -> dict[str, str]:
        """Return the headers that authorize every request."""
        headers = {name: secret.get_secret_value() for name, secret in self.headers.items()}
        if self.user is not None and self.password is not None:
            pair = f"{self.user}:{self.password.get_secret_value()}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token.get_secret_value().strip()}"
        return headers

    def hosts(self) -> Iterable[str]:
        """Return the host of the URL."""
        return [urlsplit(self.url).hostname or ""]

    def destination(self) -> Mapping[str, Any]:
        """Return the URL and the user; whoever owns a part of a server may read what others sent."""
        return {"url": self.url, "user": self.user}

    def secret_values(self) -> list[str]:
        """Return all secrets, also the encoded header of basic authentication."""
        encoded = [text.partition(" ")[2] for text in self.request_headers().values()]
        return [*super().secret_values(), *filter(None, encoded)]
