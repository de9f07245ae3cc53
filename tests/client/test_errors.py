"""Errors of the server are exceptions of the core's names, and hold no token."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterator
from inspect import isclass

import pytest

import datasources
import datasources_client
from datasources_client import (
    AuthenticationError,
    Client,
    ConnectError,
    DataSourceError,
    FieldError,
    OptionError,
    ResponseError,
    SecretRequiredError,
    ServerError,
)
from tests.client.scripted import Answer, ScriptedServer, answer, problem

TOKEN = "ds_canary-4b1f"


def error_of(script: Answer) -> DataSourceError:
    """Return what a client raises for an answer."""
    with (
        ScriptedServer(script) as server,
        Client(server.url, token=TOKEN) as client,
        pytest.raises(DataSourceError) as caught,
    ):
        client.source("shop")
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    return caught.value


def tree(base: type[BaseException], exported: set[str]) -> dict[str, tuple[str, str]]:
    """Return base and slug of each exception by its name."""
    classes: dict[str, tuple[str, str]] = {}
    pending: list = [base]
    while pending:
        error_class = pending.pop()
        for subclass in error_class.__subclasses__():
            if subclass.__name__ in exported:
                classes[subclass.__name__] = (error_class.__name__, subclass.slug)
                pending.append(subclass)
    return classes


def test_tree_is_that_of_the_core_and_the_clients_own() -> None:
    core = tree(datasources.DataSourceError, set(datasources.__all__))
    ours = tree(DataSourceError, set(datasources_client.__all__))
    own = {name for name in ours if issubclass(getattr(datasources_client, name), ServerError)}
    assert own == {"ServerError", "ServerUnreachableError", "ServerTimeoutError", "ResponseError"}
    assert {name: entry for name, entry in ours.items() if name not in own} == core


def core_errors() -> Iterator[type[datasources.DataSourceError]]:
    for name in datasources.__all__:
        value = getattr(datasources, name)
        if isclass(value) and issubclass(value, datasources.DataSourceError):
            yield value


@pytest.mark.parametrize("error_class", list(core_errors()), ids=lambda cls: cls.__name__)
def test_problem_of_each_error_of_the_core_raises_its_namesake(
    error_class: type[datasources.DataSourceError],
) -> None:
    document = problem(error_class.slug, 409, detail="a sentence", retryable=True)
    error = error_of(document)
    assert type(error).__name__ == error_class.__name__
    assert (str(error), error.status) == ("a sentence", 409)
    assert error.retryable is True


def test_members_of_a_problem_are_attributes() -> None:
    document = problem(
        "secret-required",
        409,
        detail="give it again",
        instance="urn:uuid:11-22",
        errors=[{"pointer": "#/options/password", "detail": "must be given again"}, 3],
        setting="allowed_roots",
        code="28P01",
        headers=["Retry-After: 7"],
    )
    error = error_of(document)
    assert (error.slug, error.detail, error.request_id) == (
        "secret-required",
        "give it again",
        "11-22",
    )
    assert error.errors == (FieldError("#/options/password", "must be given again"),)
    assert (error.setting, error.code, error.retry_after) == ("allowed_roots", "28P01", 7.0)
    assert type(error) is SecretRequiredError
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("slug", ["brand-new", "server-unreachable", "response-invalid", ""])
def test_unknown_slug_becomes_the_base_class(slug: str) -> None:
    error = error_of(problem(slug, 418))
    assert type(error) is DataSourceError
    assert error.slug == (slug or "data-source-error")
    assert (error.status, error.retryable) == (418, False)


def test_error_of_a_connection_check_is_an_exception() -> None:
    error = {"slug": "source-login-refused", "message": "no", "http_status": 502, "code": "28P01"}
    check = {"ok": False, "seconds": 0.5, "error": error | {"retryable": False}}
    with ScriptedServer(answer(body=check)) as server, Client(server.url) as client:
        result = client.check_source("shop")
    assert not result
    assert isinstance(result.error, AuthenticationError)
    assert not isinstance(result.error, ConnectError)
    assert (str(result.error), result.error.code) == ("no", "28P01")


def test_control_characters_of_a_server_do_not_reach_a_terminal() -> None:
    document = problem("not-allowed", 403, detail="\x1b[2Ja\nb" + "x" * 5000)
    error = error_of(document)
    assert str(error).startswith(" [2Ja b")
    assert len(str(error)) < 2100


ECHOES = [
    problem("not-allowed", 403, detail=f"Authorization: Bearer {TOKEN}", instance=TOKEN),
    answer(302, headers=[f"Location: http://127.0.0.1:9/{TOKEN}"]),
    answer(500, f"Bearer {TOKEN}".encode()),
    Answer(f"Bearer {TOKEN}\r\n\r\n".encode(), close=True),
    Answer(b"", close=True),
    answer(200, TOKEN.encode()),
]


@pytest.mark.parametrize("script", ECHOES)
def test_no_exception_holds_the_token(script: Answer) -> None:
    error = error_of(script)
    described = traceback.TracebackException.from_exception(error, capture_locals=True)
    # The frames of the server and of this test are not those of the client.
    shown = "".join(line for line in described.format() if "tests/client" not in line)
    assert TOKEN not in shown
    assert TOKEN not in repr(vars(error))


def test_client_shows_no_token_and_cannot_be_pickled() -> None:
    client = Client("http://127.0.0.1:9", token=TOKEN)
    assert repr(client) == "Client('http://127.0.0.1:9')"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(client)


def test_broken_redirect_and_malformed_responses_are_response_errors() -> None:
    for script in ECHOES[1:]:
        assert type(error_of(script)) is ResponseError


def test_number_beyond_the_range_of_floats_is_a_response_error() -> None:
    body = {"ok": True, "seconds": 10**400, "error": None}
    with (
        ScriptedServer(answer(body=body)) as server,
        Client(server.url) as client,
        pytest.raises(ResponseError, match=r"ConnectionCheck\.seconds"),
    ):
        client.check_source("shop")


def test_arguments_that_cannot_be_sent_are_option_errors() -> None:
    with ScriptedServer() as server, Client(server.url) as client:
        for name in ("", ".", "..", "\ud800"):
            with pytest.raises(OptionError):
                client.source(name)
        for value in (object(), float("nan")):
            with pytest.raises(OptionError):
                client.create_source("shop", "local_file", {"path": value})
        with pytest.raises(OptionError):
            next(client.items("shop", "\ud800"))
        assert server.requests == []
