"""Find the credentials of an S3 source, and renew them before they expire."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from hashlib import sha256
from time import time
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp

from datasources import AuthenticationError, ConnectError, PolicyError
from datasources.objects import ObjectHttp, ObjectSubject, TransientError
from datasources_object_store.s3_errors import error_from_response, xml_element
from datasources_object_store.s3_options import METADATA_HOST, S3Options
from datasources_object_store.s3_profiles import (
    process_credentials,
    read_profiles,
    sso_credentials,
)
from datasources_object_store.signing import Credentials, Signer

_RENEW_BEFORE_EXPIRY = 300.0  # seconds; half of what is left, for a shorter lifetime
_SESSION_NAME = "datasources"
_KEYS = ("access_key_id", "secret_access_key", "session_token")
# The addresses of EC2's metadata service, of ECS and of EKS.
_METADATA_ADDRESSES = ("169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23")


class CredentialSource:
    """Gives the current credentials of one source to all of its requests.

    Args:
        options: The options of the source.
        http: The session for requests to STS, whose addresses the policy checks.
        subject: The bucket, for messages.
        secret: As `DataSourceConnector.secret`: returns options with their references resolved now.
    """

    def __init__(
        self,
        options: S3Options,
        http: ObjectHttp,
        subject: ObjectSubject,
        secret: Callable[[str], Awaitable[str]] | None,
    ) -> None:
        self._options = options
        self._http = http
        self._subject = subject
        self._secret = secret
        self._lock = asyncio.Lock()
        self._credentials: Credentials | None = None
        self._renew_at = 0.0

    async def current(self) -> Credentials | None:
        """Return the credentials, renewed if it is time; None for anonymous access.

        Raises:
            AuthenticationError: There are none, or STS refuses.
            TransientError: A service that gives credentials did not answer.
        """
        if self._options.credential == "anonymous":
            return None
        if time() >= self._renew_at:
            async with self._lock:
                # Of the requests that wait here, the first one renews.
                if time() >= self._renew_at:
                    await self._renew()
        return self._credentials

    async def renew_after_refusal(self, refused: Credentials | None) -> bool:
        """Find the credentials anew; return True if they differ from the refused ones."""
        if refused is None:
            return False
        async with self._lock:
            if self._credentials == refused:
                await self._renew()
            return self._credentials != refused

    async def _renew(self) -> None:
        credentials = await self._base()
        if self._options.role_arn is not None:
            parameters = {"RoleArn": self._options.role_arn}
            if self._options.external_id is not None:
                parameters["ExternalId"] = self._options.external_id
            credentials = await self._assume("AssumeRole", parameters, credentials)
        self._credentials = credentials
        self._renew_at = _renewal(credentials)

    async def _base(self) -> Credentials:
        options = self._options
        if options.access_key_id is not None:
            return await self._keys()
        if options.profile is not None:
            return await self._profile(options.profile)
        ways: dict[str, Callable[[], Awaitable[Credentials | None]]] = {
            "environment": self._environment,
            "web_identity": self._web_identity,
            "instance": self._instance,
        }
        wanted = list(ways) if options.credential == "default" else [options.credential or ""]
        for name in wanted:
            if credentials := await ways[name]():
                return credentials
        reasons = {
            "environment": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set",
            "web_identity": "AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN are not set",
            "instance": "the machine has no role",
        }
        raise self._error(" and ".join(reasons[name] for name in wanted))

    async def _keys(self) -> Credentials:
        """Return the keys in the options, with their references resolved now."""
        values: dict[str, str | None] = {}
        for name in _KEYS:
            value = getattr(self._options, name)
            if value is None:
                values[name] = None
            elif self._secret is not None:
                values[name] = (await self._secret(name)).strip()
            else:
                values[name] = value if isinstance(value, str) else value.get_secret_value()
        return Credentials(
            values["access_key_id"] or "",
            values["secret_access_key"] or "",
            values["session_token"],
        )

    async def _environment(self) -> Credentials | None:
        key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
        if not key or not secret:
            return None
        return Credentials(key, secret, os.environ.get("AWS_SESSION_TOKEN"))

    async def _web_identity(self) -> Credentials | None:
        path, role = os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"), os.environ.get("AWS_ROLE_ARN")
        return await self._with_token_file(path, role) if path and role else None

    async def _with_token_file(self, path: str, role: str) -> Credentials:
        try:
            token = await asyncio.to_thread(_read_text, path)
        except OSError as exc:
            raise self._error(f"the token file {path!r} cannot be read: {exc.strerror}") from exc
        parameters = {"RoleArn": role, "WebIdentityToken": token.strip()}
        return await self._assume("AssumeRoleWithWebIdentity", parameters, None)

    async def _profile(self, name: str, seen: tuple[str, ...] = ()) -> Credentials:
        """Return the credentials of a profile, of which one may name another one's."""
        profiles = await asyncio.to_thread(read_profiles)
        values = profiles.get(name)
        if values is None:
            raise self._error(
                f"there is no profile {name!r} in ~/.aws/credentials and ~/.aws/config"
            )
        role = values.get("role_arn")
        if role and seen[-1:] != (name,):  # which a profile is that is its own source
            return await self._profile_role(role, name, values, seen)
        key, secret = values.get("aws_access_key_id"), values.get("aws_secret_access_key")
        if key and secret:
            return Credentials(key, secret, values.get("aws_session_token"))
        if values.get("sso_account_id"):
            return await sso_credentials(profiles, name, self._http, self._subject)
        if command := values.get("credential_process"):
            return await process_credentials(command, name, self._subject)
        raise self._error(
            f"the profile {name!r} has none of these: an access key, a role with a source_profile "
            "or a token file, single sign-on, a credential_process"
        )

    async def _profile_role(
        self, role: str, name: str, values: Mapping[str, str], seen: tuple[str, ...]
    ) -> Credentials:
        """Return the credentials of a profile's role; those of the profile itself are no substitute."""
        if path := values.get("web_identity_token_file"):
            return await self._with_token_file(path, role)
        source = values.get("source_profile")
        if not source or source in seen:
            raise self._error(
                f"the profile {name!r} has a role_arn, and neither a web_identity_token_file nor a "
                "source_profile with credentials to assume it"
            )
        base = await self._profile(source, (*seen, name))
        external = values.get("external_id")
        parameters = {"RoleArn": role, **({"ExternalId": external} if external else {})}
        return await self._assume("AssumeRole", parameters, base)

    async def _instance(self) -> Credentials | None:
        """Return the credentials of the container's or machine's role; None if it has none."""
        try:
            return await instance_credentials(self._options, self._subject)
        except PolicyError as exc:
            raise self._error(str(exc)) from exc
        except OSError as exc:
            reason = f"the token file {exc.filename!r} cannot be read: {exc.strerror}"
            raise self._error(reason) from exc

    async def _assume(
        self, action: str, parameters: Mapping[str, str], base: Credentials | None
    ) -> Credentials:
        """Return the credentials that STS gives for a role.

        https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
        """
        form = {"Action": action, "Version": "2011-06-15", "RoleSessionName": _SESSION_NAME}
        body = urlencode({**form, **parameters}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        url = f"{self._options.sts_url}/"
        if base is not None:
            signer = Signer(self._options.region, "sts")
            digest = sha256(body).hexdigest()
            headers = signer.headers(base, "POST", url, {}, headers, digest)
        response = await self._http.request("POST", url, self._subject, headers=headers, data=body)
        if response.status != 200:
            text = await self._http.read_error(response)
            error = error_from_response(self._subject, response.status, response.headers, text)
            if isinstance(error, TransientError):
                raise error
            reason = f"STS does not give those of the role; it says: {error}"
            raise self._error(reason, error.code)
        xml = (await self._http.read(response, self._subject)).decode(errors="replace")
        key, secret = xml_element("AccessKeyId", xml), xml_element("SecretAccessKey", xml)
        if not key or not secret:
            reason = "the answer of STS holds no credentials"
            raise TransientError(self._subject.error(ConnectError, reason))
        return Credentials(
            key,
            secret,
            xml_element("SessionToken", xml),
            _unix_time(xml_element("Expiration", xml)),
        )

    def _error(self, reason: str, code: str | None = None) -> Exception:
        return self._subject.error(
            AuthenticationError, f"no credentials were found; {reason}", code=code
        )


async def instance_credentials(options: S3Options, subject: ObjectSubject) -> Credentials | None:
    """Return the credentials of this container's or machine's role; None if there is none.

    The session reaches the addresses of metadata services alone, whatever the policy says of
    networks: it is only opened for sources that `allow_ambient` admits.
    """
    base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{METADATA_HOST}")
    base = base.rstrip("/")
    path = os.environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    container = f"http://169.254.170.2{path}" if path else None
    container = container or os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if not container and os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    host = urlsplit(container or base).hostname
    allowed = {*_METADATA_ADDRESSES, host}
    if host == "localhost":
        allowed |= {"127.0.0.1", "::1"}

    def check_address(address: str) -> None:
        if address not in allowed:
            raise PolicyError(f"{address} is no address of a metadata service")

    http = ObjectHttp(
        options, connections=1, check_address=check_address, service="a metadata service"
    )
    await http.open(container or base, subject)
    try:
        if container:
            headers = await asyncio.to_thread(_container_headers)
            return _from_json(await _get(http, container, subject, headers), subject)
        token = await _imds_token(http, base, subject)
        if token is None:
            return None
        headers = {"X-aws-ec2-metadata-token": token}
        roles = f"{base}/latest/meta-data/iam/security-credentials/"
        role = (await _get(http, roles, subject, headers)).strip()
        if not role:
            return None
        return _from_json(await _get(http, roles + role, subject, headers), subject)
    finally:
        await http.close()


async def _imds_token(http: ObjectHttp, base: str, subject: ObjectSubject) -> str | None:
    """Return the token of a session with the machine's metadata service; None where there is none."""
    headers = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
    try:
        response = await http.request("PUT", f"{base}/latest/api/token", subject, headers=headers)
    except TransientError:
        return None  # no such service: the machine is none of AWS
    token = await http.read(response, subject)
    return token.decode() if response.status == 200 else None


async def _get(
    http: ObjectHttp, url: str, subject: ObjectSubject, headers: Mapping[str, str]
) -> str:
    response = await http.request("GET", url, subject, headers=headers)
    body = await http.read(response, subject)
    if response.status == 404:
        return ""
    if response.status != 200:
        raise TransientError(
            subject.error(ConnectError, f"the metadata service answers {response.status}")
        )
    return body.decode()


def _container_headers() -> dict[str, str]:
    token = os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
    if path := os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        token = _read_text(path).strip()
    return {aiohttp.hdrs.AUTHORIZATION: token} if token else {}


def _from_json(text: str, subject: ObjectSubject) -> Credentials | None:
    if not text:
        return None
    try:
        values: dict[str, Any] = json.loads(text)
        return Credentials(
            values["AccessKeyId"],
            values["SecretAccessKey"],
            values.get("Token"),
            _unix_time(values.get("Expiration", "")),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        reason = "the answer of the metadata service holds no credentials"
        raise TransientError(subject.error(ConnectError, reason)) from None


def _read_text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _unix_time(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _renewal(credentials: Credentials) -> float:
    """Return the time at which credentials are to be renewed, in Unix seconds."""
    if credentials.expires_at is None:
        return float("inf")
    now = time()
    lifetime = credentials.expires_at - now
    return now + max(lifetime - _RENEW_BEFORE_EXPIRY, lifetime / 2)
