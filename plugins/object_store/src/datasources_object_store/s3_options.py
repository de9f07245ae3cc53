"""Define the options of an S3 source, and the servers that they lead to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from datasources import Option
from datasources.objects import ObjectStoreOptions
from datasources_object_store.urls import check_url

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; other makes allow
# capital letters and underscores.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_REGION = re.compile(r"[A-Za-z0-9-]{1,40}")
_ROLE = re.compile(r"arn:[a-z-]+:iam::\d{12}:role/[\w+=,.@/-]+")
METADATA_HOST = "169.254.169.254"
Credential = Literal["default", "environment", "web_identity", "instance", "anonymous"]


class S3Options(ObjectStoreOptions):
    """One bucket, and one way to sign requests to it.

    Exactly one of: `access_key_id` with `secret_access_key`, `profile`, and `credential`.
    """

    sample_identifiers: ClassVar[tuple[tuple[str, str], ...]] = (
        ("sales.csv", "an object at the top of the bucket"),
        ("2024/january/sales.csv", "an object in a folder; it lands in the same folders"),
    )
    alternatives: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("access_key_id", "secret_access_key"),
        ("profile",),
        ("credential",),
    )
    requires: ClassVar[Mapping[str | tuple[str, Any], tuple[str, ...]]] = {
        "session_token": ("access_key_id",),
        "external_id": ("role_arn",),
    }
    discover_defaults: ClassVar[Mapping[str, Any]] = {"bucket": "any-bucket"}

    bucket: str = Option(
        help="The bucket that holds the objects.", discovered=True, examples=["data-lake"]
    )
    region: str = Field(
        "us-east-1",
        description="The region of the bucket; the one that the service expects in signatures.",
        examples=["eu-central-1"],
    )
    endpoint: str | None = Field(
        None,
        description="The URL of another service than AWS, such as MinIO, R2, Ceph or SeaweedFS.",
        examples=["https://minio.example.com:9000"],
    )
    addressing: Literal["auto", "virtual", "path"] = Field(
        "auto",
        description="Where URLs have the bucket: 'virtual' in the host name, 'path' in the path; "
        "'auto' is in the path for an endpoint and for a bucket with dots.",
        examples=["path"],
    )
    access_key_id: str | None = Field(
        None, description="The id of an access key.", examples=["AKIAIOSFODNN7EXAMPLE"]
    )
    secret_access_key: SecretStr | None = Field(
        None, description="The secret of the access key.", examples=["wJalrXUtnFEMI/K7MDENG"]
    )
    session_token: SecretStr | None = Field(
        None,
        description="The session token that comes with a temporary access key.",
        examples=["AQoDYXdzEJr"],
    )
    profile: str | None = Field(
        None,
        min_length=1,
        description="A profile of ~/.aws/credentials or ~/.aws/config: with an access key, with a role "
        "and the profile to assume it from, with single sign-on, or with a credential_process.",
        examples=["default"],
    )
    credential: Credential | None = Field(
        None,
        description="'environment' takes AWS_ACCESS_KEY_ID and the like; 'web_identity' the token "
        "file of a Kubernetes service account; 'instance' the role of the machine or container; "
        "'default' the first of these that there is; 'anonymous' reads a public bucket.",
        examples=["default"],
    )
    role_arn: str | None = Field(
        None,
        description="A role to assume with the credentials; its own ones are then used.",
        examples=["arn:aws:iam::123456789012:role/reader"],
    )
    external_id: str | None = Field(
        None, description="The external id that the role asks for.", examples=["partner-7"]
    )
    sts_endpoint: str | None = Field(
        None,
        description="The URL of the service that gives the role's credentials, where it is not "
        "the AWS one of the region.",
        examples=["https://sts.example.com"],
    )
    requester_pays: bool = Option(
        False,
        help="Agree to pay for requests to a bucket whose owner does not.",
        examples=[True],
        advanced=True,
    )
    check_md5: bool = Option(
        True,
        help="Check objects that were stored in one part against their ETag where it is an MD5. "
        "Off for a service whose ETags look like one and are none.",
        examples=[True],
        group="Transfer",
        advanced=True,
    )

    @field_validator("bucket")
    @classmethod
    def _check_bucket(cls, value: str) -> str:
        if not _BUCKET.fullmatch(value) or ".." in value:
            raise ValueError("a bucket's name is 3 to 63 letters, digits, hyphens and dots")
        return value

    @field_validator("region")
    @classmethod
    def _check_region(cls, value: str) -> str:
        if not _REGION.fullmatch(value):
            raise ValueError("a region is letters, digits and hyphens, such as eu-central-1")
        return value

    @field_validator("role_arn")
    @classmethod
    def _check_role(cls, value: str | None) -> str | None:
        if value is not None and not _ROLE.fullmatch(value):
            raise ValueError("it is no role, such as arn:aws:iam::123456789012:role/reader")
        return value

    @field_validator("endpoint", "sts_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        return None if value is None else check_url(value, "https://minio.example.com:9000")

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.credential == "anonymous" and (self.role_arn or self.requester_pays):
            raise ValueError(
                "'credential' = 'anonymous' has no identity to assume 'role_arn' or to pay with"
            )
        if self.sts_endpoint is not None and not self._uses_sts:
            raise ValueError("'sts_endpoint' goes with a role or 'credential' = 'web_identity'")
        if self.addressing == "virtual" and self.endpoint and "/" in self.endpoint[8:]:
            raise ValueError("an 'endpoint' with a path needs 'addressing' = 'path'")
        if self.addressing == "virtual" and "." in self.bucket and not self._plain_http:
            raise ValueError(
                "no certificate covers a bucket with dots in the host name; use 'addressing' = 'path'"
            )
        return self

    @property
    def _uses_sts(self) -> bool:
        has_role = self.role_arn is not None or self.profile is not None
        return has_role or self.credential in ("default", "web_identity")

    @property
    def _plain_http(self) -> bool:
        return (self.endpoint or "").startswith("http:")

    @property
    def service_url(self) -> str:
        """Return the URL of the service, without a slash at the end."""
        return self.endpoint or f"https://s3.{self.region}.{self._domain}"

    @property
    def bucket_url(self) -> str:
        """Return the URL of the bucket, without a slash at the end."""
        by_path = self.endpoint is not None or "." in self.bucket
        if self.addressing == "path" or (self.addressing == "auto" and by_path):
            return f"{self.service_url}/{self.bucket}"
        scheme, _, host = self.service_url.partition("://")
        return f"{scheme}://{self.bucket}.{host}"

    @property
    def sts_url(self) -> str:
        """Return the URL of the service that gives credentials of roles."""
        return self.sts_endpoint or f"https://sts.{self.region}.{self._domain}"

    @property
    def _domain(self) -> str:
        return "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"

    def ambient(self) -> bool:
        """Return True if the credentials are the machine's, or in files or variables of it."""
        return self.profile is not None or self.credential not in (None, "anonymous")

    def hosts(self) -> Iterable[str]:
        """Return the hosts of the bucket and, for roles, of the service that gives credentials.

        The metadata service of an instance and the portal of a profile's single sign-on are none of
        them: only credentials are read there.
        """
        urls = [self.service_url, self.bucket_url]
        if self._uses_sts:
            urls.append(self.sts_url)
        return list(dict.fromkeys(urlsplit(url).hostname or "" for url in urls))

    def destination(self) -> Mapping[str, Any]:
        """Return the service, and whose credentials are used.

        The bucket is part of it where it is in the host name. The region of AWS is not: whichever
        it is, AWS receives the signatures.
        """
        virtual = self.endpoint is not None and self.addressing == "virtual"
        return {
            "endpoint": self.endpoint and self.endpoint.rstrip("/"),
            "bucket": self.bucket if virtual else None,
            "access_key_id": self.access_key_id,
            "profile": self.profile,
            "credential": self.credential,
            "role_arn": self.role_arn,
            "sts_endpoint": self.sts_endpoint and self.sts_endpoint.rstrip("/"),
        }
