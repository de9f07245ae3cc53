"""Look into a source without fetching: `items`, `info`, `preview`, `stats`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

import click

from datasources.cli import output, stdin, tables
from datasources.cli.completers import complete
from datasources.cli.context import CliContext
from datasources.cli.suggestions import suggest_items
from datasources.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from datasources.models import ColumnStatistics, DataItem, Preview
    from datasources.registry import DataSourceRegistry

_PAGE = 1000  # items that a table collects before it prints them; its columns fit one page


def read_identifier(text: str) -> str:
    """Return an identifier of the command line; `-` reads it from stdin.

    Raises:
        OptionError: Standard input is empty.
    """
    if text != "-":
        return text
    if identifier := stdin.read().strip():
        return identifier
    raise OptionError("standard input holds no identifier")


def read_parameters(given: Sequence[str]) -> dict[str, str]:
    """Return the parameters of a stored query that the command line gives as `NAME=VALUE`.

    Raises:
        OptionError: One has no `=`, or is given twice; no value is repeated.
    """
    parameters: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise OptionError("a parameter is given as NAME=VALUE")
        if name in parameters:
            raise OptionError(f"parameter {name!r} is given twice")
        parameters[name] = value
    return parameters


@click.command("items")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.argument("path", required=False, shell_complete=complete("items"))
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def items_command(
    context: CliContext, source_id: str, path: str | None, limit: int | None, as_json: bool
) -> None:
    """List what a source holds, all of it or below PATH.

    A PATH that ends in '/' shows one folder, '/' the topmost.
    """
    printer = _JsonPrinter() if as_json else _TablePrinter()

    async def print_items(registry: DataSourceRegistry) -> bool:
        """Return True if the limit ended the list."""
        count = 0
        # Annotated as an iterator, but a generator; it is closed when the limit ends the loop.
        generator = cast("AsyncGenerator[DataItem]", registry.iter_items(source_id, path))
        async with aclosing(generator) as items:
            async for item in items:
                if count == limit:
                    return True
                count += 1
                printer.add(item)
        return False

    limited = context.run(print_items, source_id)
    printer.end()
    if limited:
        output.echo_err(f"There are more; --limit {limit} ended the list.")


@click.command("info")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.argument("item", shell_complete=complete("items"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def info_command(context: CliContext, source_id: str, item: str, as_json: bool) -> None:
    """Describe one item without fetching it."""
    identifier = read_identifier(item)

    async def get_metadata(registry: DataSourceRegistry) -> dict[str, Any]:
        return await suggest_items(
            registry, source_id, identifier, registry.get_metadata(source_id, identifier)
        )

    metadata = context.run(get_metadata, source_id)
    times = {
        name: value
        for name, value in metadata.items()
        if name.endswith("_at") and isinstance(value, (int, float))
    }
    if as_json:
        output.print_json(
            metadata | {name: output.to_iso_time(value) for name, value in times.items()}
        )
        return
    metadata |= {name: output.format_time(value) for name, value in times.items()}
    size = metadata.get("size")
    if isinstance(size, int):
        metadata["size"] = tables.describe_size(size)
    tables.print_fields({name: value for name, value in metadata.items() if value is not None})


@click.command("preview")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.argument("item", shell_complete=complete("items"))
@click.option(
    "-n", "--rows", type=click.IntRange(min=1), default=10, show_default=True, help="Rows."
)
@click.option(
    "-p",
    "--parameter",
    "given",
    metavar="NAME=VALUE",
    multiple=True,
    help="A parameter of a stored query.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def preview_command(
    context: CliContext,
    source_id: str,
    item: str,
    rows: int,
    given: Sequence[str],
    as_json: bool,
) -> None:
    """Show the first rows of an item; '-' reads a long query from standard input."""
    identifier = read_identifier(item)
    parameters = read_parameters(given)

    async def get_preview(registry: DataSourceRegistry) -> Preview:
        return await suggest_items(
            registry,
            source_id,
            identifier,
            registry.preview(source_id, identifier, rows, parameters=parameters),
        )

    preview = context.run(get_preview, source_id)
    if as_json:
        output.print_json(preview.to_dict())
    else:
        # The rows of a CSV file may be shorter or longer than its header.
        width = max([len(preview.columns), *map(len, preview.rows)])
        rows_of_cells = [_pad(row, width) for row in preview.rows]
        tables.print_table(_pad(preview.columns, width), rows_of_cells)
        for note in preview.notes:
            output.echo_err(f"Note: {note}.")
    if preview.truncated:
        output.echo_err(f"There are more rows; -n {rows} ended the preview.")


@click.command("stats")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.argument("item", shell_complete=complete("items"))
@click.option(
    "-p",
    "--parameter",
    "given",
    metavar="NAME=VALUE",
    multiple=True,
    help="A parameter of a stored query.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def stats_command(
    context: CliContext, source_id: str, item: str, given: Sequence[str], as_json: bool
) -> None:
    """Show figures of an item's numeric columns, where the connector can compute them."""
    identifier = read_identifier(item)
    parameters = read_parameters(given)

    async def get_statistics(registry: DataSourceRegistry) -> dict[str, ColumnStatistics]:
        return await suggest_items(
            registry,
            source_id,
            identifier,
            registry.statistics(source_id, identifier, parameters=parameters),
        )

    statistics = context.run(get_statistics, source_id)
    if as_json:
        output.print_json(statistics)
    elif statistics:
        rows = [
            [name, figures.count, figures.nulls, figures.min, figures.max, figures.mean]
            for name, figures in statistics.items()
        ]
        tables.print_table(["column", "count", "nulls", "min", "max", "mean"], rows)
        if any(figures.sampled for figures in statistics.values()):
            output.echo_err("These figures come from a sample.")
    else:
        output.echo_err(f"{identifier!r} has no numeric columns.")


class _JsonPrinter:
    """Prints a JSON array, item by item."""

    def __init__(self) -> None:
        self._separator = "["

    def add(self, item: DataItem) -> None:
        output.echo_raw(f"{self._separator}\n  {output.to_json(item)}", newline=False)
        self._separator = ","

    def end(self) -> None:
        output.echo_raw("[]" if self._separator == "[" else "\n]")


class _TablePrinter:
    """Prints a table, a page at a time."""

    def __init__(self) -> None:
        self._page: list[DataItem] = []
        self._header = True

    def add(self, item: DataItem) -> None:
        self._page.append(item)
        if len(self._page) == _PAGE:
            self.end()

    def end(self) -> None:
        if self._page:
            rows = [
                [
                    item.path,
                    tables.size(item.size),
                    output.format_time(item.modified_at),
                    _kind(item),
                ]
                for item in self._page
            ]
            tables.print_table(["path", "size", "modified", "kind"], rows, header=self._header)
        self._page.clear()
        self._header = False


def _kind(item: DataItem) -> object:
    return item.metadata.get("kind") or item.metadata.get("content_type")


def _pad(cells: Sequence[Any], width: int) -> list[Any]:
    """Return a row of `width` cells; None as `NULL`, cells that are missing as empty."""
    return ["NULL" if cell is None else cell for cell in cells] + [""] * (width - len(cells))
