"""Sign requests to AWS services by Signature Version 4.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from time import gmtime, strftime
from urllib.parse import quote, urlsplit

EMPTY_SHA256 = sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key; a temporary one has a session token and an end."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires_at: float | None = None
    """Unix seconds; None if it does not expire, or nobody tells."""


class Signer:
    """Signs requests to one service of one region; the signing key of a day is kept."""

    def __init__(self, region: str, service: str = "s3") -> None:
        self._region = region
        self._service = service
        self._key_for: tuple[str, Credentials] | None = None
        self._key = b""

    def headers(
        self,
        credentials: Credentials,
        method: str,
        url: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body_sha256: str = EMPTY_SHA256,
    ) -> dict[str, str]:
        """Return the headers of a request with those that sign it.

        Args:
            credentials: The access key.
            method: The HTTP method.
            url: The URL without its query, its path encoded as it is sent.
            query: The parameters, decoded.
            headers: Other headers; those that begin with `x-amz-` are signed.
            body_sha256: The SHA-256 of the body, in hexadecimal.
        """
        parts = urlsplit(url)
        now = gmtime()
        moment, day = strftime("%Y%m%dT%H%M%SZ", now), strftime("%Y%m%d", now)
        signed = {"host": parts.netloc, "x-amz-content-sha256": body_sha256, "x-amz-date": moment}
        if credentials.session_token:
            signed["x-amz-security-token"] = credentials.session_token
        signed |= {n.lower(): v for n, v in headers.items() if n.lower().startswith("x-amz-")}
        names = sorted(signed)
        lines = [method, parts.path or "/", encode_query(query)]
        lines += [f"{name}:{signed[name].strip()}" for name in names]
        lines += ["", ";".join(names), body_sha256]
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        digest = sha256("\n".join(lines).encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
        signature = hmac.new(self._day_key(day, credentials), to_sign.encode(), sha256).hexdigest()
        signed["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope},"
            f"SignedHeaders={';'.join(names)},Signature={signature}"
        )
        return {**headers, **signed}

    def _day_key(self, day: str, credentials: Credentials) -> bytes:
        if self._key_for != (day, credentials):
            key = f"AWS4{credentials.secret_access_key}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.new(key, part.encode(), sha256).digest()
            self._key, self._key_for = key, (day, credentials)
        return self._key


def encode_query(query: Mapping[str, str]) -> str:
    """Return parameters as a query string, encoded and sorted as the signature has them."""
    pairs = [(quote(name, safe="~"), quote(value, safe="~")) for name, value in query.items()]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))
