"""Connecting says so if nothing is allowed, and finds what is allowed below a prefix."""

from __future__ import annotations

from typing import Any

import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    PermissionDeniedError,
)
from tests.azure_blob.conftest import make
from tests.servers.scripted import EMPTY_LISTING, Answer, Received, refusal, scripted


async def connecting(port: int, **options: Any) -> None:
    connector = make(
        {
            "account_url": f"http://127.0.0.1:{port}/a",
            "container": "data",
            "sas_token": "sv=1&sp=rl&sig=c2ln",
            **options,
        }
    )
    try:
        await connector.connect()
    finally:
        await connector.disconnect()


async def test_sas_for_a_folder_connects_with_that_prefix() -> None:
    def for_exports_only(request: Received) -> Answer:
        listing = "comp=list" in request.target
        if "prefix=exports%2F" in request.target if listing else "/data/exports/" in request.target:
            return 200, {}, EMPTY_LISTING
        return refusal(
            403,
            "AuthenticationFailed",
            "Server failed to authenticate the request.",
            "Signed Directory Depth Invalid",
        )

    sas = "sv=2020-02-10&sr=d&sdd=1&sp=rl&sig=c2ln"
    async with scripted(for_exports_only) as (port, _):
        await connecting(port, sas_token=sas, prefix="exports")
        with pytest.raises(AuthenticationError):
            await connecting(port, sas_token=sas, prefix="other")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("AuthorizationSourceIPMismatch", "the SAS is for other addresses"),
        ("AuthorizationProtocolMismatch", "the SAS is for https only"),
        ("AuthorizationServiceMismatch", "needs the service 'b'"),
        ("AuthorizationResourceTypeMismatch", "needs the resource types 'c' and 'o'"),
        ("AuthorizationFailure", "This request is not .*; most likely the account's firewall"),
        ("AuthorizationPermissionMismatch", "may neither list nor read"),
        ("InsufficientAccountPermissions", "may neither list nor read"),
    ],
)
@pytest.mark.parametrize("sas", ["sv=1&sig=c2ln", "sv=1&sp=rl&sig=c2ln", "sv=1&sp=rcw&sig=c2ln"])
async def test_credentials_that_allow_nothing_do_not_connect(
    code: str, reason: str, sas: str
) -> None:
    message = "This request is not authorized to perform this operation."
    async with scripted(lambda _: refusal(403, code, message)) as (port, _):
        with pytest.raises(PermissionDeniedError, match=reason) as caught:
            await connecting(port, sas_token=sas)
    assert caught.value.code == code


@pytest.mark.parametrize("sas", ["sv=1&sp=cw&sig=c2ln", "sv=1&si=policy&sig=c2ln"])
async def test_sas_that_may_be_for_uploads_alone_connects(sas: str) -> None:
    denied = refusal(403, "AuthorizationPermissionMismatch")
    async with scripted(lambda _: denied) as (port, _):
        await connecting(port, sas_token=sas)


async def test_sas_that_may_only_read_connects() -> None:
    def read_only(request: Received) -> Answer:
        if "comp=list" in request.target:
            return refusal(403, "AuthorizationPermissionMismatch")
        return refusal(404, "BlobNotFound")

    async with scripted(read_only) as (port, _):
        await connecting(port, sas_token="sv=1&sp=r&sig=c2ln")


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_answer_that_fails_in_passing_does_not_fail_connecting(status: int) -> None:
    answers = [refusal(status, "ServerBusy"), (200, {}, EMPTY_LISTING)]
    async with scripted(lambda _: answers.pop(0)) as (port, requests):
        await connecting(port)
    assert len(requests) == 2


async def test_service_that_stays_busy_fails_connecting() -> None:
    async with scripted(lambda _: refusal(503, "ServerBusy")) as (port, requests):
        with pytest.raises(ConnectError) as caught:
            await connecting(port)
    assert caught.value.code == "ServerBusy"
    assert len(requests) == 3


async def test_identity_without_a_role_is_told_to_need_one() -> None:
    from datasources_azure_blob.authorization import NoAuthorization

    connector = make(
        {
            "account_url": "https://a.blob.core.windows.net",
            "container": "data",
            "credential": "default",
        }
    )
    async with scripted(lambda _: refusal(403, "AuthorizationPermissionMismatch")) as (port, _):
        from datasources_azure_blob.probe import check_access
        from datasources_azure_blob.service import BlobService

        service = BlobService(connector.options, connections=1)
        service._origin = f"http://127.0.0.1:{port}"
        await service.open()
        await service.authorization.close()
        service.authorization = NoAuthorization()
        try:
            with pytest.raises(ConnectorError, match="role such as 'Storage Blob Data Reader'"):
                await check_access(service)
        finally:
            await service.close()
