"""Google Cloud Storage: options, tokens, faults and names."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataFetchError,
    DataSourceConfig,
    ItemNotFoundError,
    OptionError,
    PermissionDeniedError,
    Policy,
    PolicyError,
    PoolConfig,
)
from datasources_object_store import (
    GCSConnector,
    GCSOptions,
    gcs_federation,
    gcs_tokens,
    gcs_upload,
)
from tests.core.fakes import registry_of
from tests.listeners import listening
from tests.resolvers import DENIED, NAME, ChangingResolver
from tests.servers.gcs import FakeGCSServer, TokenService, service_account, token_service
from tests.servers.scripted import Answer, Received, scripted

EMAIL = "reader@my-project.iam.gserviceaccount.com"
KEY = service_account(EMAIL)
EMPTY: Answer = (200, {}, b"{}")


@pytest.fixture(scope="module")
def server() -> Iterator[FakeGCSServer]:
    with FakeGCSServer() as server:
        server.create_bucket("data")
        yield server


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenService]:
    with token_service(EMAIL) as service:
        monkeypatch.setattr(gcs_tokens, "TOKEN_URL", service.url)
        yield service


def make(**options: Any) -> GCSConnector:
    options = {"bucket": "data", "credential": "anonymous", "retries": 2, **options}
    if options.get("service_account"):
        del options["credential"]
    return GCSConnector(DataSourceConfig("lake", "gcs", "Lake", options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"service_account": KEY, "credential": "anonymous"},
        {"service_account": "{}"},
        {"service_account": "not JSON"},
        {"service_account": json.dumps({"type": "authorized_user"})},
        {"credential": "anonymous", "project": "p", "requester_pays": True},
        {"service_account": KEY, "requester_pays": True},
        {"service_account": KEY, "endpoint": "http://gcs.example.com"},
        {"credential": "default", "endpoint": "https://gcs.example.com"},
        {"credential": "anonymous", "bucket": "Data"},
        {"credential": "anonymous", "bucket": "a/b"},
    ],
)
def test_wrong_combination_is_refused_without_its_values(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as caught:
        GCSOptions.load({"bucket": "data", **options})
    assert "PRIVATE" not in str(caught.value)


def test_parts_of_the_private_key_are_secrets() -> None:
    options = GCSOptions.load({"bucket": "data", "service_account": KEY})
    line = json.loads(KEY)["private_key"].splitlines()[3]
    assert line in options.secret_values()


async def test_token_is_asked_for_once_and_renewed_before_its_end(tokens: TokenService) -> None:
    async with scripted(lambda _: EMPTY) as (port, requests):
        connector = make(endpoint=f"http://127.0.0.1:{port}", service_account=KEY)
        await connector.connect()
        await connector.list_items()
        assert len(tokens.forms) == 1
        tokens.lifetime = 0
        connector._service._tokens._renew_at = 0.0
        await connector.list_items()
        await connector.list_items()
        await connector.disconnect()
    sent = [request.headers["authorization"] for request in requests]
    assert (sent[0], sent[-1]) == ("Bearer token-1", "Bearer token-3")
    assert {form["grant_type"] for form in tokens.forms} == {
        "urn:ietf:params:oauth:grant-type:jwt-bearer"
    }


async def test_refusal_that_comes_after_the_renewal_is_not_final(
    tokens: TokenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed, refusals = asyncio.Event(), 0

    def answers(request: Received) -> Answer:
        if request.headers["authorization"] != "Bearer token-1":
            renewed.set()
        return EMPTY if not is_revoked or renewed.is_set() else refusal(401, "authError")

    async def read_error(response: Any) -> bytes:
        nonlocal refusals
        refusals += 1
        if refusals == 1:
            await renewed.wait()
        return await read(response)

    is_revoked = False
    async with scripted(answers) as (port, _):
        connector = make(endpoint=f"http://127.0.0.1:{port}", service_account=KEY)
        await connector.connect()
        is_revoked, connector._service._tokens._received_at = True, 0.0
        read = connector._service.http.read_error
        monkeypatch.setattr(connector._service.http, "read_error", read_error)
        assert await asyncio.gather(*(connector.list_items() for _ in range(2))) == [[], []]
        await connector.disconnect()
    assert (refusals, len(tokens.forms)) == (2, 2)


async def test_account_that_gets_no_token_is_an_authentication_error(tokens: TokenService) -> None:
    tokens.email = "another"
    connector = make(endpoint="http://127.0.0.1:1", service_account=KEY)
    with pytest.raises(
        AuthenticationError, match=r"Google gives no token; .* Invalid JWT"
    ) as caught:
        await connector.connect()
    assert caught.value.code == "invalid_grant"


async def test_application_default_credentials_are_found(
    tokens: TokenService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    user = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"}
    (tmp_path / "adc.json").write_text(json.dumps(user))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "adc.json"))
    async with scripted(lambda _: EMPTY) as (port, requests):
        monkeypatch.setattr(
            GCSOptions, "service_url", property(lambda _: f"http://127.0.0.1:{port}")
        )
        connector = make(credential="default")
        await connector.connect()
        await connector.disconnect()
    assert requests[0].headers["authorization"] == "Bearer token-1"
    assert tokens.forms[0]["refresh_token"] == "r"


EXTERNAL = {
    "type": "external_account",
    "audience": "//iam.googleapis.com/pool",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://evil.example.com",
}
IMPERSONATED = "https://evil.example.com/v1/projects/-/serviceAccounts/a@b.c:generateAccessToken"


@pytest.fixture
def federate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[int, dict[str, Any]], GCSConnector]:
    """Make a connector with a file of federation, whose services are at a port."""

    def federate(port: int, document: dict[str, Any]) -> GCSConnector:
        url = f"http://127.0.0.1:{port}"
        (tmp_path / "adc.json").write_text(json.dumps({**EXTERNAL, **document}))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "adc.json"))
        monkeypatch.setattr(gcs_federation, "STS_URL", f"{url}/sts")
        monkeypatch.setattr(gcs_federation, "IAM_URL", url)
        monkeypatch.setattr(GCSOptions, "service_url", property(lambda _: url))
        return make(credential="default", retries=0)

    return federate


@pytest.mark.parametrize("impersonated", [False, True])
@pytest.mark.parametrize("source", ["file", "url"])
async def test_token_of_another_provider_is_exchanged(
    source: str, impersonated: bool, federate: Any, tmp_path: Path
) -> None:
    def answer(request: Received) -> Answer:
        if request.target == "/provider":
            return 200, {}, b'{"value": "theirs"}'
        if request.target == "/sts":
            return 200, {}, b'{"access_token": "federated"}'
        if request.target.endswith(":generateAccessToken"):
            return 200, {}, b'{"accessToken": "of-account", "expireTime": "2099-01-01T00:00:00Z"}'
        return EMPTY

    (tmp_path / "token").write_text("theirs\n")
    async with scripted(answer) as (port, requests):
        sources = {
            "file": {"file": str(tmp_path / "token")},
            "url": {
                "url": f"http://127.0.0.1:{port}/provider",
                "headers": {"Authorization": "bearer of-the-job"},
                "format": {"type": "json", "subject_token_field_name": "value"},
            },
        }
        document: dict[str, Any] = {"credential_source": sources[source]}
        if impersonated:
            document["service_account_impersonation_url"] = IMPERSONATED
        connector = federate(port, document)
        await connector.connect()
        await connector.disconnect()
    exchange = next(request for request in requests if request.target == "/sts")
    assert json.loads(exchange.body)["subjectToken"] == "theirs"
    token = "of-account" if impersonated else "federated"
    assert requests[-1].headers["authorization"] == f"Bearer {token}"
    if impersonated:
        assert requests[-2].target.endswith("/serviceAccounts/a@b.c:generateAccessToken")
        assert requests[-2].headers["authorization"] == "Bearer federated"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({}, "is damaged"),
        ({"credential_source": {"file": "/nowhere/token"}}, "'/nowhere/token' cannot be read"),
        ({"credential_source": {"executable": {"command": "x"}}}, "from a file or a URL, not from"),
        ({"credential_source": {"environment_id": "aws1"}}, "from a file or a URL, not from"),
        (
            {"credential_source": {"file": "/"}, "service_account_impersonation_url": "https://x"},
            "is damaged",
        ),
    ],
)
async def test_federation_that_cannot_be_used_is_an_authentication_error(
    document: dict[str, Any], reason: str, federate: Any
) -> None:
    with pytest.raises(AuthenticationError, match=reason):
        await federate(1, document).connect()


async def test_token_of_the_machine_is_that_of_the_metadata_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setattr(gcs_tokens, "_WELL_KNOWN_FILE", str(tmp_path / "none"))

    def metadata(request: Received) -> Answer:
        assert request.headers["metadata-flavor"] == "Google"
        return 200, {}, b'{"access_token": "of-the-machine", "expires_in": 3600}'

    async with (
        scripted(metadata) as (metadata_port, _),
        scripted(lambda _: EMPTY) as (port, requests),
    ):
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{metadata_port}")
        url = f"http://127.0.0.1:{port}"
        monkeypatch.setattr(GCSOptions, "service_url", property(lambda _: url))
        connector = make(credential="default")
        await connector.connect()
        await connector.disconnect()
    assert requests[0].headers["authorization"] == "Bearer of-the-machine"


async def test_metadata_service_at_another_address_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setattr(gcs_tokens, "_WELL_KNOWN_FILE", str(tmp_path / "none"))
    async with scripted(lambda _: EMPTY) as (port, requests):
        monkeypatch.setenv("GCE_METADATA_HOST", f"localhost:{port}")
        with pytest.raises(AuthenticationError, match="is no address of a metadata service"):
            await make(credential="default").connect()
    assert requests == []


async def test_credentials_of_the_machine_need_leave_of_the_host() -> None:
    async with registry_of(GCSConnector, policy=Policy(allow_ambient=False)) as registry:
        options = {"bucket": "data", "credential": "default"}
        with pytest.raises(PolicyError, match="may not log in with an identity of this machine"):
            await registry.register_data_source(DataSourceConfig("s", "memory", "S", options))


@pytest.mark.parametrize("allowed_answers", [1, 0])
async def test_name_that_resolves_to_a_denied_address_meanwhile_gets_no_connection(
    monkeypatch: pytest.MonkeyPatch, allowed_answers: int
) -> None:
    policy = Policy(denied_networks=(f"{DENIED}/32",))
    pool = PoolConfig(connect_attempts=1)
    async with (
        listening() as listeners,
        registry_of(GCSConnector, policy=policy, pool_config=pool) as registry,
    ):
        ChangingResolver(monkeypatch, allowed_answers=allowed_answers)
        options = {"bucket": "data", "credential": "anonymous", "retries": 0}
        options["endpoint"] = f"http://{NAME}:{listeners.port}"
        await registry.register_data_source(DataSourceConfig("s", "memory", "S", options))
        with pytest.raises(PolicyError, match=rf"may not use .*{DENIED}; denied"):
            await registry.list_items("s")
        assert listeners.connections == 0


def refusal(status: int, reason: str, message: str = "") -> Answer:
    error = {"code": status, "message": message, "errors": [{"reason": reason}]}
    return status, {}, json.dumps({"error": error}).encode()


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (refusal(401, "authError", "Invalid Credentials"), AuthenticationError, "Invalid Cred"),
        (refusal(403, "forbidden", "no storage.objects.get"), PermissionDeniedError, "no storage"),
        (refusal(404, "notFound", "No such object: data/a"), ItemNotFoundError, "does not exist"),
        (
            refusal(404, "notFound", "The specified bucket does not exist."),
            ConnectError,
            "the bucket does not exist",
        ),
        (refusal(412, "conditionNotMet"), DataFetchError, "it changed while it was read"),
        (refusal(503, "backendError", "Backend Error"), DataFetchError, "Backend Error"),
        ((400, {}, b"<html>"), DataFetchError, "status 400"),
    ],
)
async def test_refusals_are_told_apart(
    answer: Answer, kind: type[ConnectorError], reason: str, tmp_path: Path
) -> None:
    def answers(request: Received) -> Answer:
        return answer if "/o/" in request.target else EMPTY

    async with scripted(answers) as (port, _):
        connector = make(endpoint=f"http://127.0.0.1:{port}")
        await connector.connect()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: connector.get_metadata("a"),
            lambda: connector.fetch_data("a", str(tmp_path)),
        ]
        for call in calls:
            with pytest.raises(kind, match=f"object 'a' of bucket 'data': .*{reason}"):
                await call()
        await connector.disconnect()
    assert list(tmp_path.iterdir()) == []


async def test_unknown_bucket_is_told_from_a_missing_object(server: FakeGCSServer) -> None:
    connector = make(endpoint=server.endpoint, bucket="none")
    with pytest.raises(ConnectError, match="bucket 'none': the bucket does not exist"):
        await connector.connect()


@pytest.mark.parametrize(
    "name", ["é/🦆.csv", "a b+c%20d", "a//b", "/lead", "x/../y", "..", "q?x=1#f", "%2F", "e\x01"]
)
async def test_awkward_name_is_listed_described_and_fetched(
    name: str, server: FakeGCSServer, tmp_path: Path
) -> None:
    server.put("data", name, b"content")
    connector = make(endpoint=server.endpoint)
    await connector.connect()
    assert name in {item.path for item in await connector.list_items()}
    assert (await connector.get_metadata(name))["size"] == 7
    assert Path(await connector.fetch_data(name, str(tmp_path))).read_bytes() == b"content"
    await connector.disconnect()


async def test_object_that_changes_is_an_error_and_never_a_mixture(
    server: FakeGCSServer, tmp_path: Path
) -> None:
    server.put("data", "changing", bytes(1 << 20))
    connector = make(endpoint=server.endpoint, chunk_size=64 * 1024, concurrency=1)
    await connector.connect()
    stream = await connector.open_stream("changing")
    await anext(stream)
    server.put("data", "changing", b"\1" * (1 << 20))
    with pytest.raises(ConnectorError, match="object 'changing' of bucket 'data'"):
        async for _ in stream:
            pass
    await connector.disconnect()


async def test_chunk_whose_answer_is_lost_is_not_stored_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gcs_upload, "_MAX_SINGLE_PUT", 0)
    monkeypatch.setattr(gcs_upload, "_CHUNK_SIZE", 256 * 1024)
    content = os.urandom(600 * 1024)
    (tmp_path / "a").write_bytes(content)
    stored = bytearray()
    lost = False

    def answer(request: Received) -> Answer:
        nonlocal lost
        query = parse_qs(urlsplit(request.target).query)
        if request.method == "GET":
            return EMPTY
        if request.method == "POST":
            assert query["ifGenerationMatch"] == ["0"]
            return 200, {"Location": "http://169.254.169.254/?upload_id=7"}, b""
        span = request.headers["content-range"]
        if not span.startswith("bytes */"):
            assert int(span.split()[1].partition("-")[0]) == len(stored)
            stored.extend(request.body)
            if not lost:
                lost = True
                return 503, {}, b""
        if len(stored) == len(content):
            return 200, {}, b'{"generation": "9"}'
        return 308, {"Range": f"bytes=0-{len(stored) - 1}"}, b""

    async with scripted(answer) as (port, _):
        connector = make(endpoint=f"http://127.0.0.1:{port}")
        await connector.connect()
        item = await connector.upload_file(str(tmp_path / "a"), overwrite=False)
        await connector.disconnect()
    assert (bytes(stored), item.version) == (content, "9")


async def test_upload_that_arrived_damaged_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    answer = b'{"generation": "9", "md5Hash": "F4uoVwdHDEHPaA+zf/mffw=="}'
    async with scripted(lambda _: (200, {}, answer)) as (port, _):
        connector = make(endpoint=f"http://127.0.0.1:{port}")
        await connector.connect()
        with pytest.raises(DataFetchError, match="it arrived damaged at the service"):
            await connector.upload_file(str(tmp_path / "a"))
        await connector.disconnect()


@pytest.mark.parametrize("body", [b"<html>Log in.</html>", b"{}", b"[]"])
async def test_answer_of_the_token_service_without_a_token_is_a_connect_error(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted(lambda _: (200, {}, body)) as (port, _):
        monkeypatch.setattr(gcs_tokens, "TOKEN_URL", f"http://127.0.0.1:{port}/token")
        connector = make(endpoint=f"http://127.0.0.1:{port}", service_account=KEY)
        with pytest.raises(ConnectError, match="the answer of the token service holds no token"):
            await connector.connect()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [(503, b"", "the provider of the token answers 503"), (200, b"[]", "holds no token")],
)
async def test_service_of_federation_that_fails_in_passing_is_a_connect_error(
    status: int, body: bytes, reason: str, federate: Any
) -> None:
    async with scripted(lambda _: (status, {}, body)) as (port, _):
        source = {"url": f"http://127.0.0.1:{port}/provider"}
        with pytest.raises(ConnectError, match=reason):
            await federate(port, {"credential_source": source}).connect()


async def test_object_whose_description_tells_no_size_is_an_error(server: FakeGCSServer) -> None:
    async with scripted(lambda _: EMPTY) as (port, _):
        connector = make(endpoint=f"http://127.0.0.1:{port}")
        await connector.connect()
        with pytest.raises(DataFetchError, match="does not tell its length and generation"):
            await connector.get_metadata("a")
        await connector.disconnect()


async def test_list_of_versions_that_does_not_go_on_ends() -> None:
    answer = {"size": "7", "generation": "9", "nextPageToken": "again"}
    async with scripted(lambda _: (200, {}, json.dumps(answer).encode())) as (port, _):
        connector = make(endpoint=f"http://127.0.0.1:{port}")
        await connector.connect()
        with pytest.raises(ConnectError, match="the listing does not go on after a page"):
            await connector.list_versions("a")
        await connector.disconnect()


@pytest.mark.parametrize("answer", [(308, {}, b""), (200, {}, b"<html>")])
async def test_upload_of_which_nothing_is_stored_ends_after_the_attempts_allowed(
    answer: Answer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gcs_upload, "_MAX_SINGLE_PUT", 0)
    (tmp_path / "a").write_bytes(b"content")

    def answers(request: Received) -> Answer:
        if request.method == "POST":
            return 200, {"Location": "/?upload_id=7"}, b""
        return answer if request.method == "PUT" else EMPTY

    async with scripted(answers) as (port, requests):
        connector = make(endpoint=f"http://127.0.0.1:{port}")
        await connector.connect()
        with pytest.raises(ConnectorError, match=r"stores nothing of what|no document of the"):
            await connector.upload_file(str(tmp_path / "a"))
        await connector.disconnect()
    assert len([request for request in requests if request.method == "PUT"]) < 10
