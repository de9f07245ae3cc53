"""Credentials of S3 sources: found, renewed before they expire, and sent nowhere else."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    DataSourceConfig,
    Policy,
    PolicyError,
    PoolConfig,
)
from datasources_object_store import S3Connector, s3_profiles
from tests.core.fakes import registry_of
from tests.listeners import listening
from tests.object_store.conftest import KEYS, Connect
from tests.resolvers import DENIED, NAME, ChangingResolver
from tests.servers.scripted import Answer, Received, scripted
from tests.waiting import wait_until

ROLE = "arn:aws:iam::123456789012:role/reader"
EMPTY = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
VARIABLES = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
]


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without credentials, and without a metadata service that answers."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv(s3_profiles.ALLOW_PROCESS, raising=False)
    monkeypatch.setattr(s3_profiles, "_SSO_CACHE", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def role_answer(key: str, *, expires: str = "2099-01-01T00:00:00Z") -> Answer:
    xml = (
        f"<Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
        f"<SessionToken>token-of-{key}</SessionToken><Expiration>{expires}</Expiration>"
    )
    return 200, {}, xml.encode()


def keys_of(requests: list[Received]) -> list[str]:
    """Return the access keys of the requests to the bucket."""
    signed = [r.headers.get("authorization", "=none/") for r in requests if "list-type" in r.target]
    return [text.partition("=")[2].partition("/")[0] for text in signed]


async def listed(connect: Connect, port: int, **options: Any) -> None:
    connector = await connect({"bucket": "data", "endpoint": f"http://127.0.0.1:{port}", **options})
    assert await connector.list_items() == []


async def test_keys_of_the_environment_are_used(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-token")
    async with scripted(lambda _: (200, {}, EMPTY)) as (port, requests):
        for credential in ("environment", "default"):
            await listed(connect, port, credential=credential)
    assert set(keys_of(requests)) == {"ENVKEY"}
    assert requests[0].headers["x-amz-security-token"] == "the-token"


async def test_anonymous_requests_have_no_signature(connect: Connect) -> None:
    async with scripted(lambda _: (200, {}, EMPTY)) as (port, requests):
        await listed(connect, port, credential="anonymous")
    assert set(keys_of(requests)) == {"none"}


async def test_profile_is_read_from_both_files(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile work]\nregion = eu-west-1\n[default]\n")
    (tmp_path / "credentials").write_text(
        "[work]\naws_access_key_id = WORK\naws_secret_access_key = s\n"
    )
    async with scripted(lambda _: (200, {}, EMPTY)) as (port, requests):
        await listed(connect, port, profile="work")
        for name in ("default", "other"):
            with pytest.raises(
                AuthenticationError, match=f"no credentials were found; .*profile '{name}'"
            ):
                await listed(connect, port, profile=name)
    assert set(keys_of(requests)) == {"WORK"}


async def test_role_of_a_profile_is_assumed_with_its_source(
    connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        f"[profile work]\nrole_arn = {ROLE}\nsource_profile = base\n"
        "[profile base]\naws_access_key_id = BASE\naws_secret_access_key = s\n"
    )

    def answer(request: Received) -> Answer:
        return role_answer("ROLE") if request.method == "POST" else (200, {}, EMPTY)

    async with scripted(answer) as (port, requests):
        url = f"http://127.0.0.1:{port}"
        await listed(connect, port, profile="work", role_arn=ROLE, sts_endpoint=url)
    assert set(keys_of(requests)) == {"ROLE"}
    assert "Credential=BASE/" in requests[0].headers["authorization"]


SSO = {
    "config": "[profile work]\nsso_session = corp\nsso_account_id = 1\nsso_role_name = reader\n"
    "[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.example.com\n",
    "legacy": "[profile work]\nsso_start_url = corp\nsso_region = eu-west-1\n"
    "sso_account_id = 1\nsso_role_name = reader\n",
}


def log_in(folder: Path, *, seconds: float = 3600) -> None:
    """Leave a token as `aws sso login` does."""
    name = sha1(b"corp", usedforsecurity=False).hexdigest()
    document = {"accessToken": "the-login", "expiresAt": in_seconds(seconds)}
    (folder / f"{name}.json").write_text(json.dumps(document))


@pytest.mark.parametrize("kind", SSO)
async def test_profile_with_single_sign_on_gets_the_role_of_its_login(
    kind: str, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(SSO[kind])
    log_in(tmp_path)
    keys = {"accessKeyId": "SSO", "secretAccessKey": "s", "sessionToken": "t"}
    document = {"roleCredentials": {**keys, "expiration": 4_070_908_800_000}}

    def answer(request: Received) -> Answer:
        portal = request.target.startswith("/eu-west-1?")
        return 200, {}, json.dumps(document).encode() if portal else EMPTY

    async with scripted(answer) as (port, requests):
        url = f"http://127.0.0.1:{port}/{{region}}{{ending}}"
        monkeypatch.setattr(s3_profiles, "_PORTAL_URL", url)
        await listed(connect, port, profile="work")
    assert requests[0].headers["x-amz-sso_bearer_token"] == "the-login"
    assert requests[0].target == "/eu-west-1?role_name=reader&account_id=1"
    assert set(keys_of(requests[1:])) == {"SSO"}
    assert requests[1].headers["x-amz-security-token"] == "t"


@pytest.mark.parametrize(
    ("seconds", "status", "reason"),
    [
        (-5, 200, "is not logged in; `aws sso login --profile work` does so"),
        (3600, 401, "is not logged in; `aws sso login --profile work` does so"),
        (3600, 403, "single sign-on does not give the role of the profile 'work' to this login"),
    ],
)
async def test_login_that_ended_says_how_to_log_in(
    seconds: float,
    status: int,
    reason: str,
    connect: Connect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "config").write_text(SSO["config"])
    log_in(tmp_path, seconds=seconds)
    async with scripted(lambda _: (status, {}, b"the-login")) as (port, _):
        monkeypatch.setattr(s3_profiles, "_PORTAL_URL", f"http://127.0.0.1:{port}/")
        with pytest.raises(AuthenticationError, match=re.escape(reason)) as caught:
            await listed(connect, port, profile="work")
    assert "the-login" not in str(caught.value)


def profile_with_process(folder: Path, program: str) -> None:
    command = shlex.join([sys.executable, "-c", program])
    (folder / "config").write_text(f"[profile work]\ncredential_process = {command}\n")


async def test_command_of_a_profile_is_run_where_the_host_permits_it(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"Version": 1, "AccessKeyId": "OUT", "SecretAccessKey": "s", "SessionToken": "t"}
    program = f"open({str(tmp_path / 'ran')!r}, 'a').write('x'); print({json.dumps(keys)!r})"
    profile_with_process(tmp_path, program)
    async with scripted(lambda _: (200, {}, EMPTY)) as (port, requests):
        with pytest.raises(AuthenticationError, match="DATASOURCES_ALLOW_CREDENTIAL_PROCESS is 1"):
            await listed(connect, port, profile="work")
        assert not (tmp_path / "ran").exists()
        monkeypatch.setenv(s3_profiles.ALLOW_PROCESS, "1")
        await listed(connect, port, profile="work")
    assert set(keys_of(requests)) == {"OUT"}


@pytest.mark.parametrize(
    "program", ["print('the-secret')", "print('{\"the-secret\": 1}')", "raise SystemExit(1)"]
)
async def test_command_that_gives_none_is_an_error_without_what_it_prints(
    program: str, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile_with_process(tmp_path, program)
    monkeypatch.setenv(s3_profiles.ALLOW_PROCESS, "1")
    with pytest.raises(AuthenticationError, match="gives none; run it to see why") as caught:
        await listed(connect, 1, profile="work")
    assert "the-secret" not in str(caught.value)


async def test_command_that_does_not_end_is_stopped(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile_with_process(tmp_path, "import time; time.sleep(600)")
    monkeypatch.setenv(s3_profiles.ALLOW_PROCESS, "1")
    monkeypatch.setattr(s3_profiles, "_PROCESS_TIMEOUT", 0.2)
    with pytest.raises(AuthenticationError, match="gives none"):
        await listed(connect, 1, profile="work")


async def test_pipe_of_a_command_that_is_stopped_is_closed_though_another_process_has_it(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, told = tmp_path / "started", tmp_path / "told"
    prints_on = f"""
try:
    while True:
        print("x", flush=True)
        open({str(started)!r}, "w").close()
except BrokenPipeError:
    open({str(told)!r}, "w").close()
"""
    start = f"subprocess.Popen([sys.executable, '-c', {prints_on!r}])"
    profile_with_process(tmp_path, f"import subprocess, sys, time; {start}; time.sleep(600)")
    monkeypatch.setenv(s3_profiles.ALLOW_PROCESS, "1")
    listing = asyncio.ensure_future(listed(connect, 1, profile="work"))
    await wait_until(started.exists)
    listing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listing
    await wait_until(told.exists)


async def test_role_is_assumed_and_renewed_before_its_end(connect: Connect) -> None:
    number = 0

    def answer(request: Received) -> Answer:
        nonlocal number
        if request.method != "POST":
            return 200, {}, EMPTY
        number += 1
        return role_answer(f"ROLE{number}", expires=in_seconds(-1 if number == 1 else 3600))

    async with scripted(answer) as (port, requests):
        url = f"http://127.0.0.1:{port}"
        more = {"role_arn": ROLE, "external_id": "partner-7", "sts_endpoint": url}
        await listed(connect, port, **KEYS, **more)
    assert keys_of(requests) == ["ROLE1", "ROLE2"]
    form = parse_qs(requests[0].body.decode())
    assert (form["RoleArn"], form["ExternalId"]) == ([ROLE], ["partner-7"])
    assert f"Credential={KEYS['access_key_id']}/" in requests[0].headers["authorization"]


async def test_role_that_is_refused_is_an_authentication_error(connect: Connect) -> None:
    body = (
        b"<Error><Code>AccessDenied</Code><Message>not authorized: sts:AssumeRole</Message></Error>"
    )
    async with scripted(lambda _: (403, {}, body)) as (port, _):
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(
            AuthenticationError, match="STS does not give those of the role"
        ) as caught:
            await listed(connect, port, **KEYS, role_arn=ROLE, sts_endpoint=url)
    assert caught.value.code == "AccessDenied"


async def test_web_identity_is_exchanged_at_sts(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("the-jwt\n")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)

    def answer(request: Received) -> Answer:
        return role_answer("WEB") if request.method == "POST" else (200, {}, EMPTY)

    async with scripted(answer) as (port, requests):
        url = f"http://127.0.0.1:{port}"
        await listed(connect, port, credential="web_identity", sts_endpoint=url)
    form = parse_qs(requests[0].body.decode())
    assert form["WebIdentityToken"] == ["the-jwt"]
    assert "authorization" not in requests[0].headers


async def test_role_of_the_machine_is_read_with_a_session_of_the_metadata_service(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {"AccessKeyId": "INSTANCE", "SecretAccessKey": "s", "Token": "t"}

    def metadata(request: Received) -> Answer:
        if request.method == "PUT":
            return 200, {}, b"session"
        assert request.headers["x-aws-ec2-metadata-token"] == "session"
        is_list = request.target.endswith("/")
        return 200, {}, b"reader" if is_list else json.dumps(document).encode()

    async with (
        scripted(metadata) as (metadata_port, _),
        scripted(lambda _: (200, {}, EMPTY)) as (port, requests),
    ):
        url = f"http://127.0.0.1:{metadata_port}"
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        await listed(connect, port, credential="instance")
    assert set(keys_of(requests)) == {"INSTANCE"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_role_of_a_container_is_read_with_its_token(
    host: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {"AccessKeyId": "CONTAINER", "SecretAccessKey": "s", "Token": "t"}
    document["Expiration"] = in_seconds(3600)
    answer = json.dumps(document).encode()
    async with (
        scripted(lambda _: (200, {}, answer)) as (metadata_port, asked),
        scripted(lambda _: (200, {}, EMPTY)) as (port, requests),
    ):
        url = f"http://{host}:{metadata_port}/v2/credentials"
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "the-token")
        await listed(connect, port, credential="default")
    assert set(keys_of(requests)) == {"CONTAINER"}
    assert [r.headers["authorization"] for r in asked] == ["the-token"]


async def test_machine_without_any_says_which_were_looked_for(connect: Connect) -> None:
    async with scripted(lambda _: (200, {}, EMPTY)) as (port, requests):
        with pytest.raises(AuthenticationError, match=r"AWS_ROLE_ARN are not set and .* no role"):
            await listed(connect, port, credential="default")
    assert requests == []


async def test_rotated_keys_are_used_after_a_refusal(tmp_path: Path) -> None:
    """A reference is resolved anew when the service says that the token has expired."""
    token = tmp_path / "token"
    token.write_text("old")

    def answer(request: Received) -> Answer:
        if request.headers["x-amz-security-token"] == "old":
            token.write_text("new")
            body = b"<Error><Code>ExpiredToken</Code><Message>expired</Message></Error>"
            return 400, {}, body
        return 200, {}, EMPTY

    async with scripted(answer) as (port, requests), registry_of(S3Connector) as registry:
        options = {**KEYS, "bucket": "data", "endpoint": f"http://127.0.0.1:{port}"}
        options["session_token"] = f"${{file:{token}}}"
        await registry.register_data_source(DataSourceConfig("s", "memory", "S", options))
        assert await registry.list_items("s") == []
    tokens = [request.headers["x-amz-security-token"] for request in requests]
    assert (tokens[0], tokens[-1]) == ("old", "new")


@pytest.mark.parametrize("credential", ["default", "environment", "web_identity", "instance"])
async def test_credentials_of_the_machine_need_leave_of_the_host(credential: str) -> None:
    policy = Policy(allow_ambient=False)
    async with registry_of(S3Connector, policy=policy) as registry:
        options = {"bucket": "data", "credential": credential}
        with pytest.raises(PolicyError, match="may not log in with an identity of this machine"):
            await registry.register_data_source(DataSourceConfig("s", "memory", "S", options))


@pytest.mark.parametrize("allowed_answers", [1, 0])
async def test_name_that_resolves_to_a_denied_address_meanwhile_gets_no_connection(
    monkeypatch: pytest.MonkeyPatch, allowed_answers: int
) -> None:
    pool = PoolConfig(connect_attempts=1)
    policy = Policy(denied_networks=(f"{DENIED}/32",))
    async with (
        listening() as listeners,
        registry_of(S3Connector, policy=policy, pool_config=pool) as registry,
    ):
        ChangingResolver(monkeypatch, allowed_answers=allowed_answers)
        options = {**KEYS, "bucket": "data", "retries": 0}
        options["endpoint"] = f"http://{NAME}:{listeners.port}"
        await registry.register_data_source(DataSourceConfig("s", "memory", "S", options))
        with pytest.raises(PolicyError, match=rf"may not use .*{DENIED}; denied"):
            await registry.list_items("s")
        assert listeners.connections == 0


async def test_bucket_in_a_denied_network_is_refused_though_credentials_are_the_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The metadata service is open to the search for credentials alone."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    policy = Policy(denied_networks=("169.254.0.0/16",))
    async with registry_of(S3Connector, policy=policy) as registry:
        options = {"bucket": "data", "credential": "default", "endpoint": "http://169.254.169.254"}
        await registry.register_data_source(DataSourceConfig("s", "memory", "S", options))
        with pytest.raises(PolicyError, match="denied: network 169"):
            await registry.list_items("s")


OWN_SOURCE = (
    f"[profile work]\nrole_arn = {ROLE}\nsource_profile = work\n"
    "aws_access_key_id = BASE\naws_secret_access_key = s\n"
)
WITHOUT_SOURCE = OWN_SOURCE.replace("source_profile = work\n", "")
LOOP = OWN_SOURCE.replace("source_profile = work", "source_profile = other") + OWN_SOURCE.replace(
    "profile work", "profile other"
)


async def test_profile_that_is_its_own_source_is_used_for_its_role_only(
    connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(OWN_SOURCE)

    def answer(request: Received) -> Answer:
        return role_answer("ROLE") if request.method == "POST" else (200, {}, EMPTY)

    async with scripted(answer) as (port, requests):
        url = f"http://127.0.0.1:{port}"
        await listed(connect, port, profile="work", sts_endpoint=url)
    assert set(keys_of(requests)) == {"ROLE"}
    assert "Credential=BASE/" in requests[0].headers["authorization"]


@pytest.mark.parametrize("profiles", [WITHOUT_SOURCE, LOOP], ids=["none", "loop"])
async def test_role_without_a_source_is_not_replaced_by_the_keys_beside_it(
    profiles: str, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(profiles)
    async with scripted(lambda _: (200, {}, EMPTY)) as (port, requests):
        with pytest.raises(AuthenticationError, match="has a role_arn, and neither a web_identity"):
            await listed(connect, port, profile="work", sts_endpoint=f"http://127.0.0.1:{port}")
    assert requests == []


async def test_throttling_of_sts_is_weathered(connect: Connect) -> None:
    throttling: Answer = (
        400,
        {},
        b"<Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error>",
    )
    answers = iter([throttling, role_answer("ROLE")])

    def answer(request: Received) -> Answer:
        return next(answers) if request.method == "POST" else (200, {}, EMPTY)

    async with scripted(answer) as (port, requests):
        url = f"http://127.0.0.1:{port}"
        await listed(connect, port, **KEYS, role_arn=ROLE, sts_endpoint=url)
    assert set(keys_of(requests)) == {"ROLE"}


NO_CREDENTIALS = [b"<html>Log in.</html>", b"{}", b'{"Code": "AssumeRoleUnauthorizedAccess"}']


@pytest.mark.parametrize("body", NO_CREDENTIALS)
@pytest.mark.parametrize("way", ["sts", "container", "sso"])
async def test_answer_without_credentials_is_a_connect_error(
    way: str, body: bytes, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(SSO["config"])
    log_in(tmp_path)
    async with scripted(lambda _: (200, {}, body)) as (port, _):
        url = f"http://127.0.0.1:{port}"
        monkeypatch.setattr(s3_profiles, "_PORTAL_URL", f"{url}/")
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/credentials")
        options: dict[str, Any] = {
            "sts": {**KEYS, "role_arn": ROLE, "sts_endpoint": url},
            "container": {"credential": "instance"},
            "sso": {"profile": "work"},
        }[way]
        with pytest.raises(ConnectError, match="holds no credentials"):
            await listed(connect, port, **options)


async def test_token_file_of_a_container_that_cannot_be_read_is_named(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(AuthenticationError, match=r"the token file .*none' cannot be read"):
        await listed(connect, 1, credential="instance")


async def test_metadata_service_that_the_host_disables_is_not_asked(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted(lambda _: (200, {}, b"{}")) as (port, requests):
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(AuthenticationError, match="the machine has no role"):
            await listed(connect, port, credential="default")
    assert requests == []


async def test_token_that_expires_before_a_head_request_is_renewed(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    body = b"<Error><Code>ExpiredToken</Code><Message>expired</Message></Error>"

    def answer(request: Received) -> Answer:
        if "list-type" in request.target:
            return 200, {}, EMPTY
        if request.headers["x-amz-security-token"] == "old":
            token.write_text("new")
            return 400, {}, body
        return 200, {"ETag": '"1"'}, b"content"

    async with scripted(answer) as (port, _), registry_of(S3Connector) as registry:
        options = {**KEYS, "bucket": "data", "endpoint": f"http://127.0.0.1:{port}"}
        options["session_token"] = f"${{file:{token}}}"
        await registry.register_data_source(DataSourceConfig("s", "memory", "S", options))
        assert (await registry.get_metadata("s", "a"))["size"] == 7
