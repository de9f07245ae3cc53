"""Checks of failures of the outside system, and of hostile identifiers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    DataFetchError,
    DataSourceConnector,
    DataSourceError,
    ItemNotFoundError,
    OptionError,
    Workspace,
)
from datasources.testing.base import Checks, Source
from datasources.testing.subject import Subject
from datasources.testing.watch import assert_unchanged, nothing_left

T = TypeVar("T")

_SENTINEL = b"this file of the machine is not an item of the source\n"
_TRAVERSALS = ["..", "./", "../", "../outside", "../../outside", "a/../../outside", "..\\outside"]
_ENCODED = ["%2e%2e/outside", "..%2foutside", "%00", "\\\\host\\share", "a?b#c", "a:b"]
_ODD_PATHS = ["", " ", ".", "/", "//", "~", "~/outside", ".hidden", "CON", "nul.txt"]
_CONTROLS = ["a\0b", "\0", "a\nb", "a\rb", "\x1b[2J", "\u202egpj.exe", "\ud800"]
_COMMANDS = ["-rf", "--help", "$HOME", "`id`", "$(id)", "|id", "*", "?", "[", "{", "}"]
_STATEMENTS = ["'", '"', "';--", '" OR ""="', "x'); DROP TABLE x; --"]
_LONG = ["a" * 300, "a/" * 200, "é" * 200]
_HOSTILE = [
    *_TRAVERSALS,
    *_ENCODED,
    *_ODD_PATHS,
    *_CONTROLS,
    *_COMMANDS,
    *_STATEMENTS,
    *_LONG,
]


class FailureChecks(Checks):
    """A failure raises the right error in time, in one sentence, and leaves nothing."""

    async def test_fetching_a_missing_item_is_item_not_found(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        with pytest.raises(ItemNotFoundError):
            await source.fetch(subject.missing, workspace)

    async def test_describing_a_missing_item_is_item_not_found(
        self, source: Source, subject: Subject
    ) -> None:
        with pytest.raises(ItemNotFoundError):
            await source.get_metadata(subject.missing)

    async def test_the_error_of_a_missing_item_names_it_in_one_sentence(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        with pytest.raises(DataSourceError) as caught:
            await source.fetch(subject.missing, workspace)
        assert subject.missing in str(caught.value), f"{caught.value} does not name the item"
        assert "\n" not in str(caught.value), "an error is one sentence on one line"

    async def test_a_missing_item_leaves_nothing_in_the_workspace(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        with pytest.raises(DataSourceError):
            await source.fetch(subject.missing, workspace)
        assert_unchanged(workspace, {}, "a fetch of a missing item")

    async def test_the_source_works_on_after_an_error(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        for _ in range(3):
            with pytest.raises(DataSourceError):
                await source.fetch(subject.missing, workspace)
        identifier, content = subject.largest()
        assert Path((await source.fetch(identifier, workspace)).path).read_bytes() == content

    async def test_wrong_credentials_are_an_authentication_error(self, subject: Subject) -> None:
        error = await _refusal(subject.connector(subject.refused()), subject)
        assert isinstance(error, AuthenticationError), (
            f"the system refused the credentials: AuthenticationError, not {error!r}"
        )

    async def test_an_unreachable_host_is_a_connect_error_in_time(self, subject: Subject) -> None:
        error = await _refusal(subject.connector(subject.unanswered()), subject)
        assert isinstance(error, ConnectError), f"nobody answers: ConnectError, not {error!r}"

    @pytest.mark.parametrize("way", ["refused", "unanswered"])
    async def test_a_failed_connect_leaves_nothing_open(self, subject: Subject, way: str) -> None:
        options = getattr(subject, way)()
        await _refusal(subject.connector(options), subject)
        async with nothing_left("a connect that failed"):
            await _refusal(subject.connector(options), subject)

    @pytest.mark.parametrize("way", ["refused", "unanswered"])
    async def test_testing_a_connection_that_failed_is_false(
        self, subject: Subject, way: str
    ) -> None:
        connector = subject.connector(getattr(subject, way)())
        await _refusal(connector, subject, disconnect=False)
        try:
            assert await connector.test_connection() is False, "test_connection must say False"
        finally:
            await connector.disconnect()

    @pytest.mark.parametrize("way", ["refused", "unanswered"])
    async def test_the_error_of_a_failed_connect_is_one_sentence(
        self, subject: Subject, way: str
    ) -> None:
        error = await _refusal(subject.connector(getattr(subject, way)()), subject)
        assert str(error).strip(), "the error says nothing"
        assert "\n" not in str(error).strip(), f"an error is one sentence on one line, not {error}"

    async def test_a_workspace_that_cannot_be_is_a_data_fetch_error(
        self, source: Source, subject: Subject, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(DataFetchError):
            await source.fetch(next(iter(subject.items)), tmp_path / "file")

    async def test_a_format_it_cannot_write_is_refused(
        self, connector: DataSourceConnector, subject: Subject, workspace: Path
    ) -> None:
        target = Workspace(workspace, file_format="no_such_format")
        try:
            await connector.fetch_data(next(iter(subject.items)), target)
        except (OptionError, DataFetchError):
            assert_unchanged(workspace, {}, "a fetch in a format that it cannot write")
        else:
            pytest.fail("a format was asked for and another written: see Workspace.require_format")

    async def test_hostile_identifiers_never_leave_the_workspace(
        self, source: Source, tmp_path: Path, outside: Path
    ) -> None:
        place = tmp_path / "workspace"
        for name in _hostile(outside):
            file = await _error_or(lambda each: source.fetch(each, place), name)
            assert_unchanged(outside.parent, {outside.name: _SENTINEL}, f"fetching {name!r}")
            there = {path.name for path in tmp_path.iterdir()}
            assert there <= {"workspace", "machine"}, f"fetching {name!r} wrote {there}"
            if file is not None:
                assert Path(file.path).resolve().is_relative_to(place.resolve())

    async def test_hostile_identifiers_bring_nothing_of_this_machine(
        self, source: Source, workspace: Path, outside: Path
    ) -> None:
        for name in _hostile(outside):
            file = await _error_or(lambda each: source.fetch(each, workspace), name)
            if file is not None:
                content = Path(file.path).read_bytes()
                assert _SENTINEL.strip() not in content, f"{name!r} brought a file of this machine"

    async def test_hostile_identifiers_are_described_or_refused(
        self, source: Source, outside: Path
    ) -> None:
        for name in _hostile(outside):
            await _error_or(source.get_metadata, name)

    async def test_hostile_paths_are_listed_or_refused(self, source: Source, outside: Path) -> None:
        for name in _hostile(outside):
            listed = await _error_or(source.list_items, name)
            strange = [item.path for item in listed or () if outside.name in item.path]
            assert not strange, f"listing {name!r} shows {strange} of this machine"

    async def test_planted_links_are_not_followed(
        self, source: Source, subject: Subject, tmp_path: Path, outside: Path
    ) -> None:
        identifier, content = subject.largest()
        there = Path((await source.fetch(identifier, tmp_path / "first")).path)
        relative = there.relative_to((tmp_path / "first").resolve())
        link = tmp_path / "second" / relative
        link.parent.mkdir(parents=True)
        link.symlink_to(outside)
        file = await _error_or(lambda name: source.fetch(name, tmp_path / "second"), identifier)
        assert outside.read_bytes() == _SENTINEL, "fetching wrote through a link in the workspace"
        if file is not None:
            assert Path(file.path).read_bytes() == content

    @pytest.fixture
    def outside(self, tmp_path: Path) -> Path:
        """A file of this machine that no connector may read or write."""
        path = tmp_path / "machine" / "outside-sentinel"
        path.parent.mkdir()
        path.write_bytes(_SENTINEL)
        return path


def _hostile(outside: Path) -> list[str]:
    way = "../" * 30 + str(outside).lstrip("/")
    return [*_HOSTILE, str(outside), f"file://{outside}", way, f"x/{way}", f"@{outside}"]


async def _error_or(call: Callable[[str], Awaitable[T]], name: str) -> T | None:
    try:
        return await call(name)
    except DataSourceError:
        return None
    except Exception as exc:  # noqa: BLE001  (shown in the failure)
        pytest.fail(f"{name!r} must be refused with a DataSourceError, not {exc!r}")


async def _refusal(
    connector: DataSourceConnector, subject: Subject, *, disconnect: bool = True
) -> DataSourceError:
    """Return the error of connecting, or of the first use if connecting sends nothing."""
    started = time.monotonic()
    try:
        await connector.connect()
        await connector.list_items()
    except DataSourceError as exc:
        return exc
    except Exception as exc:  # noqa: BLE001  (shown in the failure)
        pytest.fail(f"connecting must fail with a ConnectorError, not {exc!r}")
    else:
        pytest.fail("connecting with these options succeeded; it should have been refused")
    finally:
        if disconnect:
            await connector.disconnect()
        took = time.monotonic() - started
        assert took < subject.connect_within, f"connecting took {took:.1f} s to fail"
