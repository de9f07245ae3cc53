"""How to make a good connector bad in one respect."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

from datasources import (
    ConnectError,
    ConnectorOptions,
    DataFetchError,
    DataSourceConnector,
    Workspace,
)
from datasources.testing import Subject
from tests.testing.good import QUERIES, STORE, TOKEN, GoodConnector, GoodOptions, good_subject

Good = GoodConnector


CONTENTS = ChainMap(STORE, QUERIES)
"""What the source holds, by identifier or query."""
OPENED: list[Any] = []
"""What bad connectors leave open, so that nothing else closes it."""


@dataclasses.dataclass
class Bad:
    """What one check is to say."""

    says: str
    """A regular expression that its failure matches."""
    connector_class: type[DataSourceConnector] = GoodConnector
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Of the subject."""
    waived: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def subject(self) -> Subject:
        return dataclasses.replace(good_subject(self.connector_class), **self.changes)


def made(**members: Any) -> type[DataSourceConnector]:
    return type("BadConnector", (GoodConnector,), {"__module__": "datasources_kit", **members})


def after(name: str, change: Callable[..., Any]) -> type[DataSourceConnector]:
    """Return a class of which one method returns something else."""

    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return change(await getattr(GoodConnector, name)(self, *args, **kwargs))

    return made(**{name: method})


def before(name: str, act: Callable[..., Any]) -> type[DataSourceConnector]:
    """Return a class of which one method does something else first."""

    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        done = act(self, *args, **kwargs)
        if asyncio.iscoroutine(done):
            await done
        return await getattr(GoodConnector, name)(self, *args, **kwargs)

    return made(**{name: method})


def options(base: type[ConnectorOptions] = GoodOptions, /, **members: Any) -> Any:
    """Return a class with other options."""
    notes = {n: v[0] for n, v in members.items() if isinstance(v, tuple) and len(v) == 2}
    values = {n: v[1] if n in notes else v for n, v in members.items()}
    namespace = {"__module__": __name__, "__annotations__": notes, **values}
    return made(options_class=type("BadOptions", (base,), namespace))


def raising(error: Exception | type[Exception]) -> Callable[..., Any]:
    def act(*_: Any, **__: Any) -> None:
        raise error

    return act


def each(**changes: Any) -> type[DataSourceConnector]:
    """Return a class that lists its items with something else in them."""
    return after("list_items", lambda items: [dataclasses.replace(i, **changes) for i in items])


def stalls(name: str) -> type[DataSourceConnector]:
    return before(name, lambda *_: time.sleep(0.12))


def when_missing(error: Callable[[str], Exception]) -> type[DataSourceConnector]:
    async def _content(self: Any, identifier: str) -> bytes:
        found = await self._all()
        if identifier not in found:
            raise error(identifier)
        return bytes(found[identifier])

    return made(_content=_content)


def fetching(write: Callable[[Any, str, Workspace], Any]) -> type[DataSourceConnector]:
    """Return a class that fetches in its own way."""

    async def fetch_data(self: Any, identifier: str, workspace: str) -> Any:
        await self._content(identifier)
        done = write(self, identifier, Workspace.of(workspace))
        return await done if asyncio.iscoroutine(done) else done

    return made(fetch_data=fetch_data)


def by_hand(name: Callable[[str], str], pieces: int = 1, *, cut: bool = True) -> Any:
    """Write a file as an author in a hurry does."""

    async def write(_: Any, identifier: str, workspace: Workspace) -> str:
        path = os.path.join(workspace, name(identifier))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        content = CONTENTS[identifier]
        size = max(1, len(content) // pieces)
        with open(path, "wb") as file:  # noqa: ASYNC230  (that is the point)
            for start in range(0, len(content), size):
                file.write(content[start : start + size])
                file.flush()
                await asyncio.sleep(0)
        return path

    return write


def through(
    content: Callable[[bytes, Any], bytes], name: Callable[[str], str] = str, **facts: Any
) -> Any:
    """Write through the workspace, but something else."""

    def write(_: Any, identifier: str, workspace: Workspace) -> str:
        with workspace.create(name(identifier)) as file:
            file.write(content(CONTENTS[identifier], workspace.limits))
            for fact, value in facts.items():
                setattr(file, fact, value)
        return file.path

    return write


def rows(kept: Callable[[int], int], **facts: Any) -> Any:
    """Cut a table after another number of rows than the limit's."""

    def write(_: Any, identifier: str, workspace: Workspace) -> str:
        lines = CONTENTS[identifier].splitlines(keepends=True)
        most = workspace.limits.max_rows
        some = lines if most is None else lines[: 1 + kept(most)]
        with workspace.create(identifier) as file:
            file.write(b"".join(some))
            file.rows, file.truncated = len(some) - 1, len(some) < len(lines)
            for fact, value in facts.items():
                setattr(file, fact, value)
        return file.path

    return write


def keeps_open(*_: Any, **__: Any) -> None:
    OPENED.append(os.open(os.devnull, os.O_RDONLY))


def swallows(name: str) -> type[DataSourceConnector]:
    async def method(self: Any, *args: Any) -> Any:
        try:
            await asyncio.sleep(0.005)
            return await getattr(GoodConnector, name)(self, *args)
        except asyncio.CancelledError:
            raise DataFetchError("interrupted") from None

    return made(**{name: method})


def opener(*, when: str) -> type[DataSourceConnector]:
    """Return a class that forgets to close what a `connect` that fails has opened."""

    async def connect(self: Any) -> bool:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        try:
            await asyncio.sleep(0.002)
            done = await GoodConnector.connect(self)
        except Exception:
            if when == "failed":
                OPENED.append(descriptor)
            else:
                os.close(descriptor)
            raise
        except asyncio.CancelledError:
            OPENED.append(descriptor)
            raise
        os.close(descriptor)
        return done

    return made(connect=connect)


def busy(name: str) -> type[DataSourceConnector]:
    """Return a class that claims to be shareable, of which one method is not."""

    async def method(self: Any, *args: Any) -> Any:
        if getattr(self, "_busy", False):
            raise DataFetchError("another call is running")
        self._busy = True
        try:
            await asyncio.sleep(0.002)
            return await getattr(GoodConnector, name)(self, *args)
        finally:
            self._busy = False

    return made(**{name: method})


async def connect_loudly(self: Any) -> bool:
    token = self.options.token.get_secret_value()
    if token != TOKEN:
        raise ConnectError(f"refused: {token}")
    return await GoodConnector.connect(self)
