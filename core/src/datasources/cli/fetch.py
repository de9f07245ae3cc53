"""Fetch items into a directory, upload files, delete leftovers: `fetch`, `upload`, `clean`."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

from datasources.cli import errors, output, paths, progress, tables
from datasources.cli.completers import complete
from datasources.cli.context import CliContext
from datasources.cli.items import read_identifier, read_parameters
from datasources.cli.suggestions import name_close_items
from datasources.errors import ItemNotFoundError
from datasources.models import DataItem, FetchReceipt, FetchRequest, FetchResult, Limits
from datasources.tabular import WILDCARDS

if TYPE_CHECKING:
    from datasources.registry import DataSourceRegistry

Number = TypeVar("Number", int, float)


def _parse_integer_limit(text: str) -> int | str:
    return _parse_limit(text, int)


def _parse_seconds_limit(text: str) -> float | str:
    return _parse_limit(text, float)


def _parse_limit(text: str, number_type: Callable[[str], Number]) -> Number | str:
    """Return a finite number of at least 0, or `none`."""
    if text == "none":
        return text
    try:
        limit = number_type(text)
    except ValueError:
        limit = number_type("-1")
    if not 0 <= limit < float("inf"):
        raise click.BadParameter("neither a number of at least 0 nor 'none'")
    return limit


@click.command("fetch")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.argument(
    "items", metavar="ITEM...", nargs=-1, required=True, shell_complete=complete("items")
)
@click.option(
    "--into",
    metavar="DIR",
    type=paths.expand,
    shell_complete=complete("directories"),
    default=".",
    help="Workspace, made if missing. [default: .]",
)
@click.option("--format", "file_format", help="Such as csv or parquet; default: the connector's.")
@click.option(
    "--max-bytes",
    type=_parse_integer_limit,
    metavar="N|none",
    help="Bytes of one file; over it the fetch fails.",
)
@click.option(
    "--max-rows",
    type=_parse_integer_limit,
    metavar="N|none",
    help="Rows of one result; more are cut off.",
)
@click.option(
    "--timeout", type=_parse_seconds_limit, metavar="N|none", help="Seconds for one fetch."
)
@click.option("--concurrency", type=click.IntRange(min=1), default=8, help="Fetches at once.")
@click.option(
    "--splits",
    type=click.IntRange(min=1),
    metavar="N",
    help="Write a directory of N Parquet files at most; a folder or pattern is one table then.",
)
@click.option("--no-glob", is_flag=True, help="Take '*', '?', '[' and a last '/' as they are.")
@click.option("--refresh", is_flag=True, help="Fetch again what a pattern finds there unchanged.")
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
def fetch_command(
    context: CliContext,
    /,
    source_id: str,
    items: Sequence[str],
    into: str,
    file_format: str | None,
    concurrency: int,
    splits: int | None,
    no_glob: bool,
    refresh: bool,
    given: Sequence[str],
    as_json: bool,
    **limits: float | str | None,
) -> None:
    """Bring items into a directory: each all of it, or nothing.

    Where the connector can, an ITEM may be a pattern: '*' within a folder, '**' across folders,
    a last '/' for all that a folder holds; of these, files that are there unchanged stay as they
    are. One that matches nothing is taken as the name of an item or folder, or as a
    query, if the source knows it.
    '-' reads one ITEM, such as a long query, from standard input. A stored query is the ITEM
    query:NAME; -p gives its parameters.
    """
    parameters = read_parameters(given)
    identifiers = [read_identifier(item) for item in items]

    async def fetch(registry: DataSourceRegistry) -> list[FetchResult]:
        versions = await _expand(
            registry, source_id, identifiers, literal=no_glob or splits is not None
        )
        requests = [
            FetchRequest(
                source_id, identifier, file_format, None if refresh else version, parameters, splits
            )
            for identifier, version in versions.items()
        ]
        _clean(into)
        with progress.show(requests) as callbacks:
            results = await registry.fetch_many(
                requests,
                into,
                concurrency=concurrency,
                limits=_merge_limits(registry, source_id, limits),
                progress=callbacks,
            )
        if len(results) == 1 and isinstance(error := results[0].error, ItemNotFoundError):
            (request,) = requests
            error = await name_close_items(registry, source_id, request.identifier, error)
            results = [FetchResult(request, error=error)]
        return results

    started = time.monotonic()
    results = context.run(fetch, source_id)
    _print_results(results, time.monotonic() - started, as_json=as_json)
    failed = [(result.request, result.error) for result in results if result.error is not None]
    if len(results) == 1 and failed:
        raise failed[0][1]
    if failed:
        reasons = "; ".join(
            f"{request.identifier!r}: {errors.describe(error)}" for request, error in failed
        )
        raise click.ClickException(f"{len(failed)} of {len(results)} fetches failed: {reasons}")


@click.command("upload")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.argument("file", type=paths.expand, shell_complete=complete("files"))
@click.option("--as", "name", metavar="NAME", help="Its name in the source; default: the file's.")
@click.option("--no-overwrite", is_flag=True, help="Fail if there is such an item already.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def upload_command(
    context: CliContext,
    source_id: str,
    file: str,
    name: str | None,
    no_overwrite: bool,
    as_json: bool,
) -> None:
    """Store a local file in a source, where the connector can."""
    _check_upload(file)

    async def upload(registry: DataSourceRegistry) -> DataItem:
        return await registry.upload(source_id, file, name, overwrite=not no_overwrite)

    item = context.run(upload, source_id)
    if as_json:
        output.print_json(item)
    else:
        output.echo(item.path)


@click.command("clean")
@click.argument(
    "directories",
    metavar="DIR...",
    type=paths.expand,
    nargs=-1,
    required=True,
    shell_complete=complete("directories"),
)
def clean_command(directories: Sequence[str]) -> None:
    """Delete the temporary files that killed fetches have left in workspaces.

    Those of fetches that are under way stay.
    """
    from datasources.workspace import Workspace

    for directory in directories:
        _check_directory(directory)
        for name in Workspace(directory).clean():
            output.echo(os.path.join(directory, name))


def _check_upload(file: str) -> None:
    """Raise if there is no file to upload; OSError if it cannot be reached."""
    if not paths.exists(file):
        raise click.ClickException(f"there is no file {file!r}")
    if not os.path.isfile(file):
        raise click.ClickException(f"{file!r} is not a regular file")


def _check_directory(directory: str) -> None:
    """Raise if there is no such directory; OSError if it cannot be reached."""
    if not paths.exists(directory):
        raise click.ClickException(f"there is no directory {directory!r}")
    if not os.path.isdir(directory):
        raise click.ClickException(f"{directory!r} is not a directory")


async def _expand(
    registry: DataSourceRegistry, source_id: str, identifiers: Iterable[str], *, literal: bool
) -> dict[str, str | None]:
    """Return the items that folders and patterns stand for, once each, with the listed version.

    The version is None for an item that is named. With `literal`, every identifier is a name.
    """
    versions: dict[str, str | None] = {}
    for identifier in identifiers:
        is_pattern = identifier.endswith("/") or not WILDCARDS.isdisjoint(identifier)
        if is_pattern and not literal:
            items = await registry.expand(source_id, identifier)
            versions |= {
                item.path: None if item.path == identifier else item.version for item in items
            }
        else:
            versions[identifier] = None
    return versions


def _merge_limits(
    registry: DataSourceRegistry, source_id: str, given: Mapping[str, float | str | None]
) -> Limits:
    """Return the limits of the command line, and those of the source where none are given."""
    changes: dict[str, Any] = {
        name: None if value == "none" else value
        for name, value in given.items()
        if value is not None
    }
    return dataclasses.replace(registry.limits(source_id), **changes)


def _clean(into: str) -> None:
    """Delete the temporary files that killed fetches have left."""
    from datasources.workspace import Workspace

    with suppress(OSError):  # the fetch reports what is wrong with the directory
        Workspace(into).clean()


def _print_results(results: Sequence[FetchResult], seconds: float, *, as_json: bool) -> None:
    """Print a line for each file and the sum; for many files at a terminal the sum alone.

    Args:
        results: Of the fetch; errors are left out.
        seconds: How long all of it took.
        as_json: Print JSON instead, errors included.
    """
    if as_json:
        output.print_json([_to_dict(result) for result in results])
        return
    receipts = [result.receipt for result in results if result.receipt]
    shows_files = len(receipts) <= progress.MANY or output.is_verbose()
    if receipts and (shows_files or not output.is_terminal(output.stdout())):
        rows = [
            [r.identifier, _relative_path(r), tables.size(r.size), r.rows, r.sha256[:12]]
            for r in receipts
        ]
        tables.print_table(["item", "file", "bytes", "rows", "sha256"], rows)
    if len(receipts) > 1:
        total = tables.Size(sum(receipt.size for receipt in receipts))
        output.echo_err(f"{len(receipts)} files, {total}, {seconds:.1f} s")
    if unchanged := sum(receipt.unchanged for receipt in receipts):
        output.echo_err(f"{unchanged} of {len(receipts)} were there already, unchanged")
    for receipt in receipts:
        if receipt.truncated:
            output.echo_err(
                f"{receipt.identifier!r} has more than the {receipt.rows} rows fetched; "
                "--max-rows raises the limit"
            )


def _relative_path(receipt: FetchReceipt) -> str:
    """Return the file's path, relative if it lies below the working directory."""
    relative = os.path.relpath(receipt.path)
    return receipt.path if relative.startswith("..") else relative


def _to_dict(result: FetchResult) -> dict[str, Any]:
    if result.receipt is not None:
        return result.receipt.to_dict()
    return {
        "source_id": result.request.source_id,
        "identifier": result.request.identifier,
        "error": errors.describe(result.error) if result.error else None,
    }
