"""Exchange the token of another identity provider for one of Google (workload identity federation).

https://cloud.google.com/iam/docs/workload-identity-federation-with-other-providers
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import quote

from datasources import AuthenticationError, ConnectError
from datasources.objects import ObjectHttp, ObjectSubject, TransientError
from datasources_object_store.gcs_errors import error_from_response
from datasources_object_store.gcs_options import IAM_URL, STS_URL

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_ACCOUNT = re.compile(r"/serviceAccounts/([^/:?#]+):generateAccessToken$")


class Federation:
    """Gets tokens for a file of credentials of the type `external_account`.

    What the provider gives is sent to Google's own addresses, whatever the file names.

    Args:
        document: The file.
        scope: What the token is for.
        http: The session, whose addresses the policy checks.
        subject: The bucket, for messages.
    """

    def __init__(
        self, document: Mapping[str, Any], scope: str, http: ObjectHttp, subject: ObjectSubject
    ) -> None:
        self._document = document
        self._scope = scope
        self._http = http
        self._subject = subject

    async def token(self) -> tuple[str, float | None]:
        """Return a token, and its end in Unix seconds where it is told.

        Raises:
            AuthenticationError: The file cannot be used, or Google gives no token.
            TransientError: A service did not answer.
            KeyError, ValueError: The file is damaged.
        """
        email = None
        if url := self._document.get("service_account_impersonation_url"):
            match = _ACCOUNT.search(url)
            if match is None:
                raise ValueError(url)
            email = match[1]
        answer = await self._post(
            STS_URL,
            {
                "audience": self._document["audience"],
                "grantType": "urn:ietf:params:oauth:grant-type:token-exchange",
                "requestedTokenType": "urn:ietf:params:oauth:token-type:access_token",
                "scope": self._scope if email is None else _SCOPE,
                "subjectToken": await self._subject_token(self._document["credential_source"]),
                "subjectTokenType": self._document["subject_token_type"],
            },
            "access_token",
        )
        if email is None:
            return answer["access_token"], None
        url = (
            f"{IAM_URL}/v1/projects/-/serviceAccounts/{quote(email, safe='@')}:generateAccessToken"
        )
        authorization = {"Authorization": f"Bearer {answer['access_token']}"}
        answer = await self._post(url, {"scope": [self._scope]}, "accessToken", authorization)
        return answer["accessToken"], datetime.fromisoformat(answer["expireTime"]).timestamp()

    async def _subject_token(self, source: Mapping[str, Any]) -> str:
        """Return the token of the provider: from a file, or from a URL."""
        if path := source.get("file"):
            text = await asyncio.to_thread(_read_text, path)
        elif url := source.get("url"):
            headers = source.get("headers") or {}
            response = await self._http.request("GET", url, self._subject, headers=headers)
            text = (await self._http.read(response, self._subject)).decode()
            if response.status != 200:
                reason = f"the provider of the token answers {response.status}"
                if response.status == 429 or response.status >= 500:
                    raise TransientError(self._subject.error(ConnectError, reason))
                raise self._subject.error(AuthenticationError, reason)
        else:
            raise self._subject.error(
                AuthenticationError,
                "no credentials were found; workload identity federation takes the token of the "
                "provider from a file or a URL, not from a command or the machines of AWS",
            )
        form = source.get("format") or {}
        if form.get("type") == "json":
            return str(json.loads(text)[form["subject_token_field_name"]])
        return text.strip()

    async def _post(
        self,
        url: str,
        document: Mapping[str, Any],
        wanted: str,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a document; return the one that answers, which has the field `wanted`."""
        headers = {"Content-Type": "application/json", **(headers or {})}
        data = json.dumps(document).encode()
        response = await self._http.request("POST", url, self._subject, headers=headers, data=data)
        body = await self._http.read(response, self._subject)
        if response.status == 200:
            with suppress(ValueError):
                answer = json.loads(body)
                if isinstance(answer, dict) and isinstance(answer.get(wanted), str):
                    return answer
            reason = "the answer of the token service holds no token"
            raise TransientError(self._subject.error(ConnectError, reason))
        error = error_from_response(self._subject, response.status, response.headers, body)
        if isinstance(error, TransientError):
            raise error
        reason = f"no credentials were found; Google gives no token; it says: {error}"
        raise self._subject.error(AuthenticationError, reason, code=error.code)


def _read_text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
