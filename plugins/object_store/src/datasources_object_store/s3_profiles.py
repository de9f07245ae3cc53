"""Read the profiles of AWS, and get the credentials of those that log in elsewhere."""

from __future__ import annotations

import asyncio
import configparser
import json
import os
import shlex
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha1
from time import time
from typing import Any
from urllib.parse import urlencode

from datasources import AuthenticationError, ConnectError
from datasources.objects import ObjectHttp, ObjectSubject, TransientError
from datasources_object_store.s3_errors import error_from_response
from datasources_object_store.signing import Credentials

Profiles = Mapping[str, Mapping[str, str]]
ALLOW_PROCESS = "DATASOURCES_ALLOW_CREDENTIAL_PROCESS"
"""The environment variable with which a host permits the commands in profiles."""
_PROCESS_TIMEOUT = 60.0  # seconds
_PORTAL_URL = "https://portal.sso.{region}.amazonaws.com{ending}/federation/credentials"
_SSO_CACHE = "~/.aws/sso/cache"


def read_profiles() -> dict[str, dict[str, str]]:
    """Return the profiles of the two files, by name; keys of `credentials` go before `config`.

    A session of single sign-on has the name `sso-session NAME`.
    """
    profiles: dict[str, dict[str, str]] = {}
    for variable, default in (
        ("AWS_CONFIG_FILE", "~/.aws/config"),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ):
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(os.path.expanduser(os.environ.get(variable, default)))
        except configparser.Error:
            continue  # a file that is none has no profile
        for section in parser.sections():
            name = section.removeprefix("profile ").strip()
            profiles.setdefault(name, {}).update(parser[section])
    return profiles


async def sso_credentials(
    profiles: Profiles, name: str, http: ObjectHttp, subject: ObjectSubject
) -> Credentials:
    """Return the credentials that single sign-on gives to a profile that is logged in.

    https://docs.aws.amazon.com/singlesignon/latest/PortalAPIReference/API_GetRoleCredentials.html

    Raises:
        AuthenticationError: It is not logged in, or may not have the role.
        TransientError: The portal did not answer.
    """
    values = profiles[name]
    session = values.get("sso_session")
    values = {**(profiles.get(f"sso-session {session}", {}) if session else {}), **values}
    login = f"the profile {name!r} is not logged in; `aws sso login --profile {name}` does so"
    token = await asyncio.to_thread(_sso_token, session or values.get("sso_start_url", ""))
    region = values.get("sso_region", "")
    if token is None or not region.replace("-", "").isalnum():
        raise _error(subject, login)
    query = {"role_name": values.get("sso_role_name", "")}
    query["account_id"] = values.get("sso_account_id", "")
    url = _PORTAL_URL.format(region=region, ending=".cn" if region.startswith("cn-") else "")
    response = await http.request(
        "GET", f"{url}?{urlencode(query)}", subject, headers={"x-amz-sso_bearer_token": token}
    )
    body = await http.read(response, subject)
    if response.status == 200:
        try:
            return _credentials(json.loads(body)["roleCredentials"])
        except (AttributeError, KeyError, TypeError, ValueError):
            reason = "the answer of single sign-on holds no credentials"
            raise TransientError(subject.error(ConnectError, reason)) from None
    error = error_from_response(subject, response.status, response.headers, b"")
    if isinstance(error, TransientError):
        raise error
    reason = f"single sign-on does not give the role of the profile {name!r} to this login"
    raise _error(subject, login if response.status == 401 else reason)


async def process_credentials(command: str, name: str, subject: ObjectSubject) -> Credentials:
    """Return the credentials that the command of a profile prints.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html

    Raises:
        AuthenticationError: The host does not permit commands, or it fails.
    """
    if os.environ.get(ALLOW_PROCESS) != "1":
        raise _error(
            subject,
            f"the profile {name!r} has a credential_process, a command that is run only where the "
            f"environment variable {ALLOW_PROCESS} is 1",
        )
    try:
        async with asyncio.timeout(_PROCESS_TIMEOUT):
            return _credentials(json.loads(await _output(shlex.split(command))))
    except (OSError, ValueError, KeyError, TypeError):  # TimeoutError is an OSError
        reason = f"the credential_process of the profile {name!r} gives none; run it to see why"
        raise _error(subject, reason) from None  # the cause may hold what the command printed


async def _output(command: list[str]) -> bytes:
    """Return what a command prints, whatever it writes to the error output."""
    transport, output = await asyncio.get_running_loop().subprocess_exec(
        _Output,
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await output.ended.wait()
        return bytes(output.content)
    finally:
        # This kills a command that still runs, and closes the pipe, which what it has started may
        # hold open.
        transport.close()
        await output.ended.wait()


class _Output(asyncio.SubprocessProtocol):
    def __init__(self) -> None:
        self.content = bytearray()
        self.ended = asyncio.Event()
        """Set when the command has ended and the pipe of its output is closed."""

    def pipe_data_received(self, _fd: int, data: bytes) -> None:
        self.content += data

    def connection_lost(self, _exc: Exception | None) -> None:
        self.ended.set()


def _sso_token(cached_as: str) -> str | None:
    """Return the token that `aws sso login` has left; None if there is none, or it has ended."""
    name = sha1(cached_as.encode(), usedforsecurity=False).hexdigest()
    try:
        with open(os.path.expanduser(f"{_SSO_CACHE}/{name}.json"), encoding="utf-8") as file:
            document = json.load(file)
        ends_at = datetime.fromisoformat(document["expiresAt"]).timestamp()
        return str(document["accessToken"]) if ends_at > time() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _credentials(document: Mapping[str, Any]) -> Credentials:
    """Return the credentials in a document of the portal or of a command.

    The one begins its names with small letters, and has the end in milliseconds.
    """
    values = {key[:1].lower() + key[1:]: value for key, value in document.items()}
    expiration = values.get("expiration")
    if isinstance(expiration, str):
        expiration = datetime.fromisoformat(expiration).timestamp() * 1000
    return Credentials(
        values["accessKeyId"],
        values["secretAccessKey"],
        values.get("sessionToken"),
        None if expiration is None else expiration / 1000,
    )


def _error(subject: ObjectSubject, reason: str) -> Exception:
    return subject.error(AuthenticationError, f"no credentials were found; {reason}")
