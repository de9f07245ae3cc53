"""Looking into a source: `items`, `info`, `preview`, `stats`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output
from datasources.cli.session import Session
from datasources.errors import OptionError

if TYPE_CHECKING:
    from datasources.models import DataItem

_PAGE = 1000  # items held before they are printed


def typed_identifier(text: str) -> str:
    """Return an identifier as given, or what stdin holds for `-`.

    Raises:
        OptionError: Standard input is empty.
    """
    if text != "-":
        return text
    if found := sys.stdin.read().strip():
        return found
    raise OptionError("standard input holds no identifier")


@click.command("items")
@click.argument("source_id", metavar="ID")
@click.argument("path", required=False)
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def items_command(
    session: Session, source_id: str, path: str | None, limit: int | None, as_json: bool
) -> None:
    """List what a source holds, all of it or below PATH.

    A PATH that ends in '/' shows one folder, '/' the topmost.
    """
    printer = _JsonItems() if as_json else _ItemTable()

    async def work(registry: Any) -> bool:
        count = 0
        async with aclosing(registry.iter_items(source_id, path)) as found:
            async for item in found:
                if count == limit:
                    return True
                count += 1
                printer.add(item)
        return False

    more = session.run(work, source_id)
    printer.end()
    if more:
        output.note(f"There are more; --limit {limit} ended the list.")


@click.command("info")
@click.argument("source_id", metavar="ID")
@click.argument("item")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def info_command(session: Session, source_id: str, item: str, as_json: bool) -> None:
    """Describe one item without fetching it."""
    identifier = typed_identifier(item)

    async def work(registry: Any) -> dict[str, Any]:
        metadata: dict[str, Any] = await registry.get_metadata(source_id, identifier)
        return metadata

    metadata = session.run(work, source_id)
    if as_json:
        output.document(metadata)
        return
    for name, value in metadata.items():
        if name.endswith("_at") and isinstance(value, (int, float)):
            metadata[name] = output.moment(value)
    output.fields({name: value for name, value in metadata.items() if value is not None})


@click.command("preview")
@click.argument("source_id", metavar="ID")
@click.argument("item")
@click.option(
    "-n", "--rows", type=click.IntRange(min=1), default=10, show_default=True, help="Rows."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def preview_command(session: Session, source_id: str, item: str, rows: int, as_json: bool) -> None:
    """Show the first rows of an item; '-' reads a long query from standard input."""
    identifier = typed_identifier(item)

    async def work(registry: Any) -> Any:
        return await registry.preview(source_id, identifier, rows)

    found = session.run(work, source_id)
    if as_json:
        document = asdict(found)
        if not found.notes:  # nothing was guessed
            del document["notes"], document["format"]
        output.document(document)
    else:
        # A file's rows may be shorter or longer than its header.
        width = max([len(found.columns), *map(len, found.rows)])
        output.table(_as_wide(found.columns, width), [_as_wide(row, width) for row in found.rows])
        for note in found.notes:
            output.note(f"Note: {note}.")


@click.command("stats")
@click.argument("source_id", metavar="ID")
@click.argument("item")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def stats_command(session: Session, source_id: str, item: str, as_json: bool) -> None:
    """Show figures of an item's numeric columns, where the connector can compute them."""
    identifier = typed_identifier(item)

    async def work(registry: Any) -> Any:
        return await registry.statistics(source_id, identifier)

    found = {name: asdict(figures) for name, figures in session.run(work, source_id).items()}
    if as_json:
        output.document(found)
    elif found:
        columns = ["count", "nulls", "min", "max", "mean"]
        rows = [[name, *(figures[each] for each in columns)] for name, figures in found.items()]
        output.table(["column", *columns], rows)
        if any(figures["sampled"] for figures in found.values()):
            output.note("These figures come from a sample.")
    else:
        output.note(f"{identifier!r} has no numeric columns.")


class _JsonItems:
    """Prints an array, item by item."""

    def __init__(self) -> None:
        self._before = "["

    def add(self, item: DataItem) -> None:
        click.echo(f"{self._before}\n  {output.json_text(asdict(item))}", nl=False)
        self._before = ","

    def end(self) -> None:
        click.echo("[]" if self._before == "[" else "\n]")


class _ItemTable:
    """Prints a table, page by page."""

    def __init__(self) -> None:
        self._page: list[DataItem] = []
        self._printed = False

    def add(self, item: DataItem) -> None:
        self._page.append(item)
        if len(self._page) == _PAGE:
            self.end()

    def end(self) -> None:
        if self._page:
            rows = [[i.path, i.size, output.moment(i.modified_at), _kind(i)] for i in self._page]
            output.table(["path", "size", "modified", "kind"], rows, header=not self._printed)
        self._page.clear()
        self._printed = True


def _kind(item: DataItem) -> object:
    return item.metadata.get("kind") or item.metadata.get("content_type")


def _as_wide(row: Sequence[Any], width: int) -> list[Any]:
    return ["NULL" if cell is None else cell for cell in row] + [""] * (width - len(row))
