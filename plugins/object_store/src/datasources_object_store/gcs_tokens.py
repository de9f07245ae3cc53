"""Get the tokens of Google Cloud, and renew them before they expire."""

from __future__ import annotations

import asyncio
import json
import os
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any
from urllib.parse import urlencode

from datasources import AuthenticationError, ConnectError, PolicyError
from datasources.objects import ObjectHttp, ObjectSubject, TransientError
from datasources_object_store.gcs_errors import error_from_response
from datasources_object_store.gcs_federation import Federation
from datasources_object_store.gcs_options import (
    METADATA_HOST,
    TOKEN_URL,
    GCSOptions,
    read_service_account,
)

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_LIFETIME = 3600  # seconds of a token, the longest that is given
_RENEW_BEFORE_EXPIRY = 300.0  # seconds; half of what is left, for a shorter lifetime
# Seconds. A token younger than this is not renewed after a 401: a new one would be refused too.
_MIN_AGE_TO_RENEW = 60.0
_WELL_KNOWN_FILE = "~/.config/gcloud/application_default_credentials.json"


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    expires_at: float


class TokenSource:
    """Gives the current token of one source to all of its requests.

    Args:
        options: The options of the source.
        http: The session for requests to the token service, whose addresses the policy checks.
        subject: The bucket, for messages.
        secret: As `DataSourceConnector.secret`: returns options with their references resolved now.
    """

    def __init__(
        self,
        options: GCSOptions,
        http: ObjectHttp,
        subject: ObjectSubject,
        secret: Callable[[str], Awaitable[str]] | None,
    ) -> None:
        self._options = options
        self._http = http
        self._subject = subject
        self._secret = secret
        self._lock = asyncio.Lock()
        self._header = ""
        self._received_at = 0.0
        self._renew_at = 0.0

    async def headers(self) -> dict[str, str]:
        """Return the header that authorizes a request; none for anonymous access.

        Raises:
            AuthenticationError: There are no credentials, or no token is given for them.
            TransientError: The service that gives tokens did not answer.
        """
        if self._options.credential == "anonymous":
            return {}
        if time() >= self._renew_at:
            async with self._lock:
                # Of the requests that wait here, the first one renews.
                if time() >= self._renew_at:
                    await self._renew()
        return {"Authorization": self._header}

    def renew_after_refusal(self, refused: Mapping[str, str]) -> bool:
        """Have the next request renew the token, unless it is new.

        Args:
            refused: What `headers` returned for the request that was refused.

        Returns:
            True if the next request has another token than that one.
        """
        if refused.get("Authorization", "") != self._header:  # another request was faster
            return True
        if not self._header or time() - self._received_at < _MIN_AGE_TO_RENEW:
            return False
        self._renew_at = 0.0
        return True

    async def _renew(self) -> None:
        token = await self._token()
        now = time()
        lifetime = token.expires_at - now
        self._header, self._received_at = f"Bearer {token.value}", now
        self._renew_at = now + max(lifetime - _RENEW_BEFORE_EXPIRY, lifetime / 2)

    async def _token(self) -> _Token:
        if self._options.service_account is not None:
            text = self._options.service_account.get_secret_value()
            if self._secret is not None:
                text = await self._secret("service_account")
            try:
                return await self._for_account(read_service_account(text))
            except ValueError as exc:
                raise self._error(f"option 'service_account': {exc}") from None
        path = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        document = await asyncio.to_thread(_read_document, path or _WELL_KNOWN_FILE)
        if document is not None:
            return await self._from_document(document)
        if path:
            raise self._error(
                f"the file {path!r} of GOOGLE_APPLICATION_CREDENTIALS cannot be read as JSON"
            )
        return await self._from_metadata()

    async def _for_account(self, account: Mapping[str, Any]) -> _Token:
        # In a thread, because reading and using the private key takes tens of milliseconds.
        return await self._exchange(await asyncio.to_thread(_assertion_form, account))

    async def _from_document(self, document: dict[str, Any]) -> _Token:
        """Return the token for a file of application default credentials."""
        kind = document.get("type")
        try:
            if kind == "service_account":
                return await self._for_account(document)
            if kind == "authorized_user":
                names = ("client_id", "client_secret", "refresh_token")
                form = {name: str(document[name]) for name in names}
                return await self._exchange({**form, "grant_type": "refresh_token"})
            if kind == "external_account":
                federation = Federation(document, _SCOPE, self._http, self._subject)
                value, expires_at = await federation.token()
                return _Token(value, expires_at or time() + _LIFETIME)
        except OSError as exc:
            reason = f"the token file {exc.filename!r} cannot be read: {exc.strerror}"
            raise self._error(reason) from exc
        except (AttributeError, KeyError, TypeError, ValueError):
            reason = "the file of application default credentials is damaged"
            raise self._error(reason) from None  # the cause may hold a token
        raise self._error(
            f"application default credentials of the type {kind!r} are not supported; possible: "
            "service_account, authorized_user, external_account, and those of the machine"
        )

    async def _exchange(self, form: Mapping[str, str]) -> _Token:
        """Return the token that Google gives for an assertion or a refresh token.

        https://developers.google.com/identity/protocols/oauth2/service-account#httprest
        """
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(form).encode()
        response = await self._http.request(
            "POST", TOKEN_URL, self._subject, headers=headers, data=body
        )
        text = await self._http.read(response, self._subject)
        if response.status != 200:
            error = error_from_response(self._subject, response.status, response.headers, text)
            if isinstance(error, TransientError):
                raise error
            raise self._error(f"Google gives no token; it says: {error}", error.code)
        return self._token_in(text)

    async def _from_metadata(self) -> _Token:
        """Return the token of the machine's service account.

        The session reaches the address of the metadata service alone, whatever the policy says of
        networks: it is only opened for sources that `allow_ambient` admits.
        """
        host = os.environ.get("GCE_METADATA_HOST", METADATA_HOST)
        allowed = {METADATA_HOST, host.partition(":")[0]}

        def check_address(address: str) -> None:
            if address not in allowed:
                raise PolicyError(f"{address} is no address of a metadata service")

        url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
        http = ObjectHttp(
            self._options, connections=1, check_address=check_address, service="a metadata service"
        )
        await http.open(url, self._subject)
        try:
            response = await http.request(
                "GET", url, self._subject, headers={"Metadata-Flavor": "Google"}
            )
            body = await http.read(response, self._subject)
        except PolicyError as exc:
            raise self._error(str(exc)) from exc
        except TransientError:
            raise self._error(
                "GOOGLE_APPLICATION_CREDENTIALS is not set, gcloud has none, and the machine has no "
                "service account"
            ) from None
        finally:
            await http.close()
        if response.status != 200:
            reason = f"the metadata service answers {response.status}"
            raise TransientError(self._subject.error(ConnectError, reason))
        return self._token_in(body)

    def _token_in(self, body: bytes) -> _Token:
        try:
            values = json.loads(body)
            lifetime = float(values.get("expires_in", _LIFETIME))
            return _Token(values["access_token"], time() + lifetime)
        except (AttributeError, KeyError, TypeError, ValueError):
            reason = "the answer of the token service holds no token"
            raise TransientError(self._subject.error(ConnectError, reason)) from None

    def _error(self, reason: str, code: str | None = None) -> Exception:
        return self._subject.error(
            AuthenticationError, f"no credentials were found; {reason}", code=code
        )


def _assertion_form(account: Mapping[str, Any]) -> dict[str, str]:
    """Return the form with a signed assertion of a service account (RFC 7523).

    Raises:
        ValueError: The private key cannot be used.
    """
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    now = int(time())
    header = {"alg": "RS256", "typ": "JWT", "kid": account.get("private_key_id", "")}
    claims = {"iss": account["client_email"], "scope": _SCOPE, "aud": TOKEN_URL}
    claims |= {"iat": now, "exp": now + _LIFETIME}
    signed = f"{_base64(json.dumps(header).encode())}.{_base64(json.dumps(claims).encode())}"
    try:
        # The key is the owner's own: one that is no prime's only spoils the signature. Its check
        # takes 50 ms, in which no other thread runs.
        key = serialization.load_pem_private_key(
            account["private_key"].encode(), None, unsafe_skip_rsa_key_validation=True
        )
    except ValueError:
        raise ValueError("its 'private_key' is no PEM document") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("its 'private_key' is no RSA key")  # noqa: TRY004  (of a document)
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": f"{signed}.{_base64(signature)}",
    }


def _read_document(path: str) -> dict[str, Any] | None:
    """Return a JSON file, or None if there is none that can be read."""
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            document = json.load(file)
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
