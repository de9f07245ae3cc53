"""Suggest the names that a mistyped one could mean."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Iterable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, TypeVar, cast

import click

from datasources.errors import DataSourceError, ItemNotFoundError

if TYPE_CHECKING:
    from datasources.models import DataItem
    from datasources.registry import DataSourceRegistry

T = TypeVar("T")

_PATIENCE = 3.0  # seconds that somebody waits for a suggestion
_MAX_ITEMS = 2000  # that are compared; more take longer than a second
_MAX_NAME = 200  # characters of a name; a query is longer


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a question that names up to three close names; empty if none is close."""
    from difflib import get_close_matches

    # A third of the letters may differ: `lst` is close to `list`, but not to `test`.
    close = get_close_matches(name.lower(), names, n=3, cutoff=0.65)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""


async def suggest_items(
    registry: DataSourceRegistry, source_id: str, identifier: str, operation: Awaitable[T]
) -> T:
    """Return the result of an operation on an item; suggest other names if there is no such item.

    Args:
        registry: The registry.
        source_id: The source.
        identifier: The item.
        operation: What is done with the item.

    Raises:
        ItemNotFoundError: There is no such item; the names that are close are in the message.
    """
    try:
        return await operation
    except ItemNotFoundError as exc:
        raise await name_close_items(registry, source_id, identifier, exc) from None


async def name_close_items(
    registry: DataSourceRegistry, source_id: str, identifier: str, error: ItemNotFoundError
) -> ItemNotFoundError:
    """Return an error with the names of close items, of the same folder where there are such."""
    import asyncio

    names: list[str] = []
    folder = identifier.rpartition("/")[0]
    for path in (f"{folder}/", None) if len(identifier) <= _MAX_NAME else ():
        # A source without folders refuses the first path, and may list all.
        with suppress(DataSourceError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                listed = cast("AsyncGenerator[DataItem]", registry.iter_items(source_id, path))
                async with aclosing(listed) as items:
                    async for item in items:
                        names.append(item.path)
                        if len(names) >= _MAX_ITEMS:
                            break
        if question := did_you_mean(identifier, names):
            return ItemNotFoundError(f"{error}; {question}")
    return error


class SuggestingGroup(click.Group):
    """A group whose error for an unknown command names those that are close."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; UsageError if there is none."""
        name = args[0]
        if not (name.startswith("-") or ctx.resilient_parsing or self.get_command(ctx, name)):
            question = did_you_mean(name, self.list_commands(ctx))
            raise click.UsageError(f"there is no command {name!r}; {question}".rstrip("; "), ctx)
        return super().resolve_command(ctx, args)
