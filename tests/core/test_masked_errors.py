"""Errors of a connector hold none of its secrets, wherever they go."""

from __future__ import annotations

import logging
import traceback
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    AuditLog,
    ConnectError,
    ConnectorError,
    DataFetchError,
    DataItem,
    DataSourceConnector,
    DataSourceRegistry,
)
from tests.core.fakes import MemoryConnector, MemoryOptions, registry_of, source
from tests.core.tracebacks import local_variables

SECRET = "a/b+c d?e=f&g#h'i"


class LoudOptions(MemoryOptions):
    fail_at: str = "use"


class Loud(MemoryConnector):
    """Repeats its password in every error, also in the causes."""

    options_class = LoudOptions
    options: LoudOptions

    def fault(self, error: type[Exception] = DataFetchError) -> Exception:
        assert self.options.password is not None
        exc = error(f"refused {self.options.password.get_secret_value()}")
        cause: Any = ValueError({"password": self.options.password.get_secret_value()})
        cause.request = {"auth": ("me", self.options.password.get_secret_value())}
        exc.__cause__ = cause
        cause.__cause__ = ExceptionGroup(str(exc), [KeyError(str(exc))])
        header = b64encode(f"me:{self.options.password.get_secret_value()}".encode()).decode()
        exc.__context__ = ValueError(f"sent Basic {header}")
        exc.__context__.add_note(f"sent {cause.request}")
        return exc

    async def connect(self) -> bool:
        if self.options.fail_at == "connect":
            raise self.fault(ConnectError)
        return await super().connect()

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        raise self.fault()

    async def iter_items(self, path: str | None = None) -> AsyncIterator[DataItem]:
        yield DataItem("a", "a")
        raise self.fault()

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        raise self.fault(ValueError)

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        raise self.fault()


class Undeclared(DataSourceConnector):
    """Declares no options: its password is known by the name of the option alone."""

    async def connect(self) -> bool:
        return True

    async def disconnect(self) -> None:
        pass

    async def test_connection(self) -> bool:
        return True

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        raise DataFetchError(f"refused {self.config.config['password']}")

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        raise DataFetchError(f"refused {self.config.config['password']}")

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        raise DataFetchError(f"refused {self.config.config['password']}")


async def _drain(items: AsyncIterator[DataItem]) -> None:
    async for _ in items:
        pass


OPERATIONS: dict[str, Callable[[DataSourceRegistry, Path], Awaitable[object]]] = {
    "list_items": lambda registry, _: registry.list_items("s"),
    "iter_items": lambda registry, _: _drain(registry.iter_items("s")),
    "get_metadata": lambda registry, _: registry.get_metadata("s", "a"),
    "fetch": lambda registry, path: registry.fetch("s", "a", path / "workspace"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("connector", "fail_at"), [(Loud, "use"), (Loud, "connect"), (Undeclared, None)]
)
async def test_secrets_are_masked_in_errors_logs_and_audit(
    connector: type[DataSourceConnector],
    fail_at: str | None,
    operation: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = tmp_path / "audit.jsonl"
    options = {"password": SECRET} | ({"fail_at": fail_at} if fail_at else {})
    async with registry_of(connector) as registry:
        registry.plugins.register_plugin(AuditLog(log))
        await registry.register_data_source(source(**options))
        with caplog.at_level(logging.DEBUG), pytest.raises(Exception, match="refused") as caught:
            await OPERATIONS[operation](registry, tmp_path)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text + log.read_text()
    assert "refused" in log.read_text()
    for part in (SECRET, "a/b+c d", b64encode(f"me:{SECRET}".encode()).decode()):
        assert part not in shown
    linked: list[BaseException | None] = [caught.value]
    held = []
    while linked:
        if (error := linked.pop()) is not None:
            held.append(vars(error))
            linked += [error.__cause__, error.__context__]
    assert SECRET not in repr(held)
    assert ("request" in repr(held)) == (connector is Loud)


class OpaqueError(Exception):
    """Makes its message of what it holds, so that its arguments tell nothing."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self._parts = [message]

    def __str__(self) -> str:
        return self._parts[0]


class Stubborn(Loud):
    """Raises errors whose text cannot be changed."""

    def fault(self, error: type[Exception] = DataFetchError) -> Exception:
        plain = super().fault(error)
        if error is ValueError:
            return ExceptionGroup(str(plain), [plain])
        return OpaqueError(str(plain))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fail_at", ["use", "connect"])
async def test_error_whose_text_cannot_be_changed_becomes_another_one(
    fail_at: str, operation: str, tmp_path: Path
) -> None:
    log = tmp_path / "audit.jsonl"
    async with registry_of(Stubborn) as registry:
        registry.plugins.register_plugin(AuditLog(log))
        await registry.register_data_source(source(password=SECRET, fail_at=fail_at))
        with pytest.raises(ConnectorError, match=r"raised \w+: refused \*") as caught:
            await OPERATIONS[operation](registry, tmp_path)
    shown = "".join(traceback.format_exception(caught.value)) + log.read_text()
    assert SECRET not in shown


class HiddenError(OpaqueError):
    """Holds its message where no attribute leads to."""

    __slots__ = ("_hidden",)

    def __init__(self, message: str) -> None:
        super().__init__("")
        self._hidden = lambda: message

    def __str__(self) -> str:
        return self._hidden()

    __repr__ = __str__


class Hiding(Loud):
    """Raises errors that cannot be changed, alone, as causes, contexts and members of groups."""

    def fault(self, error: type[Exception] = DataFetchError) -> Exception:
        plain = str(super().fault())
        exc: Exception = (
            OpaqueError("refused") if self.options.fail_at == "cause" else HiddenError(plain)
        )
        if self.options.fail_at == "group":
            exc = ExceptionGroup("refused", [HiddenError(plain)])
        exc.add_note(f"noted {plain}")
        exc.__cause__ = HiddenError(plain)
        exc.__cause__.__context__ = ExceptionGroup("inner", [HiddenError(plain)])
        exc.__context__ = HiddenError(plain)
        return exc


def everything_linked(error: BaseException) -> list[BaseException]:
    """Return an error with all that its causes, contexts and groups lead to, shown or not."""
    linked: dict[int, BaseException] = {}
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in linked:
            continue
        linked[id(current)] = current
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
    return list(linked.values())


def require_no_secret(error: BaseException) -> None:
    for current in everything_linked(error):
        texts = [str(current), repr(current), repr(vars(current))]
        texts += getattr(current, "__notes__", [])
        texts += traceback.format_exception(current)
        texts.append(local_variables(current))
        assert SECRET not in "".join(texts)


@pytest.mark.parametrize("operation", [*OPERATIONS, "fetch_many", "check", "lease"])
@pytest.mark.parametrize("fail_at", ["use", "cause", "group", "connect"])
async def test_nothing_that_an_error_is_linked_to_holds_a_secret(
    fail_at: str, operation: str, tmp_path: Path
) -> None:
    error: BaseException | None
    async with registry_of(Hiding) as registry:
        await registry.register_data_source(source(password=SECRET, fail_at=fail_at))
        if operation == "fetch_many":
            ((_, error),) = [
                (result.request, result.error)
                for result in await registry.fetch_many([("s", "a")], tmp_path)
            ]
        elif operation == "check" and fail_at == "connect":
            error = (await registry.check_connection("s")).error
        else:
            call = OPERATIONS.get(operation, _lease)
            with pytest.raises(Exception, match="refused") as caught:
                await call(registry, tmp_path)
            error = caught.value
    assert error is not None
    require_no_secret(error)


async def _lease(registry: DataSourceRegistry, _: Path) -> None:
    async with registry.connection("s") as connector:
        await connector.list_items()


@pytest.mark.parametrize("place", ["hosts", "instance"])
async def test_nothing_that_an_error_of_a_class_is_linked_to_holds_a_secret(place: str) -> None:
    def fail(password: object) -> None:
        reveal = getattr(password, "get_secret_value", lambda: password)
        error = HiddenError(f"refused {reveal()}")
        error.__context__ = HiddenError(f"refused {reveal()}")
        raise error

    class FailingOptions(MemoryOptions):
        def hosts(self) -> list[str]:
            if place == "hosts":
                fail(self.password)
            return []

    class Failing(MemoryConnector):
        options_class = FailingOptions

        def __init__(self, config: Any) -> None:
            if place == "instance":
                fail(config.config["password"])
            super().__init__(config)

    async with registry_of(Failing) as registry:
        if place == "instance":
            error = (await registry.check_config(source(password=SECRET))).error
        else:
            with pytest.raises(ConnectorError, match="refused") as caught:
                await registry.check_config(source(password=SECRET))
            error = caught.value
    assert error is not None
    require_no_secret(error)


async def test_secrets_are_masked_in_errors_that_leave_a_lease() -> None:
    async with registry_of(Loud) as registry:
        await registry.register_data_source(source(password=SECRET))
        with pytest.raises(DataFetchError, match="refused") as caught:
            async with registry.connection("s") as connector:
                await connector.list_items()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_secrets_are_masked_in_the_errors_of_checks_and_batches(tmp_path: Path) -> None:
    async with registry_of(Loud) as registry:
        await registry.register_data_source(source(password=SECRET, fail_at="connect"))
        check = await registry.check_connection("s")
        (result,) = await registry.fetch_many([("s", "a")], tmp_path)
    for error in (check.error, result.error):
        assert str(error).startswith("refused")
        assert SECRET not in "".join(traceback.format_exception(error))
