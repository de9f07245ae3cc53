"""Bringing data into a directory and back: `fetch`, `upload`, `clean`."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import click

from datasources.cli import output
from datasources.cli.items import typed_identifier
from datasources.cli.session import Session
from datasources.errors import DataFetchError, DataSourceError, ItemNotFoundError
from datasources.expanding import literal_items
from datasources.models import DataItem, FetchReceipt, FetchRequest, FetchResult, Limits
from datasources.tabular import WILDCARDS

Number = TypeVar("Number", int, float)


def _whole(text: str) -> int | str:
    return _limit(text, int)


def _seconds(text: str) -> float | str:
    return _limit(text, float)


def _limit(text: str, number: Callable[[str], Number]) -> Number | str:
    """Return a number of at least 0, or `none`."""
    if text == "none":
        return text
    try:
        found = number(text)
    except ValueError:
        found = number("-1")
    if not 0 <= found < float("inf"):
        raise click.BadParameter("neither a number of at least 0 nor 'none'")
    return found


@click.command("fetch")
@click.argument("source_id", metavar="ID")
@click.argument("items", metavar="ITEM...", nargs=-1, required=True)
@click.option("--into", metavar="DIR", default=".", help="Workspace, made if missing. [default: .]")
@click.option("--format", "file_format", help="Such as csv or parquet; default: the connector's.")
@click.option(
    "--max-bytes", type=_whole, metavar="N|none", help="Bytes of one file; over it the fetch fails."
)
@click.option(
    "--max-rows", type=_whole, metavar="N|none", help="Rows of one result; more are cut off."
)
@click.option("--timeout", type=_seconds, metavar="N|none", help="Seconds for one fetch.")
@click.option("--concurrency", type=click.IntRange(min=1), default=8, help="Fetches at once.")
@click.option("--no-glob", is_flag=True, help="Take '*', '?', '[' and a last '/' as they are.")
@click.option("--refresh", is_flag=True, help="Fetch again what a pattern finds there unchanged.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def fetch_command(
    session: Session,
    /,
    source_id: str,
    items: Sequence[str],
    into: str,
    file_format: str | None,
    concurrency: int,
    no_glob: bool,
    refresh: bool,
    as_json: bool,
    **limits: float | str | None,
) -> None:
    """Bring items into a directory: each all of it, or nothing.

    Where the connector can, an ITEM may be a pattern: '*' within a folder, '**' across folders,
    a last '/' for all that a folder holds; of these, files that are there unchanged stay as they
    are. One that matches nothing is taken as a name or a query, if the source knows it.
    '-' reads one ITEM, such as a long query, from standard input.
    """
    identifiers = [typed_identifier(item) for item in items]

    async def work(registry: Any) -> list[FetchResult]:
        wanted = await _expand(registry, source_id, identifiers, as_they_are=no_glob)
        requests = [
            FetchRequest(source_id, identifier, file_format, None if refresh else version)
            for identifier, version in wanted.items()
        ]
        _clean(into)
        with _progress(requests) as callbacks:
            found: list[FetchResult] = await registry.fetch_many(
                requests,
                into,
                concurrency=concurrency,
                limits=_limits(registry, source_id, limits),
                progress=callbacks,
            )
        return found

    results = session.run(work, source_id)
    _print(results, as_json=as_json)
    failed = [result for result in results if result.error is not None]
    if len(results) == 1 and failed and failed[0].error:
        raise failed[0].error
    if failed:
        reasons = "; ".join(f"{each.request.identifier!r}: {_reason(each)}" for each in failed)
        raise click.ClickException(f"{len(failed)} of {len(results)} fetches failed: {reasons}")


@click.command("upload")
@click.argument("source_id", metavar="ID")
@click.argument("file")
@click.option("--as", "name", metavar="NAME", help="Its name in the source; default: the file's.")
@click.option("--no-overwrite", is_flag=True, help="Fail if there is such an item already.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def upload_command(
    session: Session, source_id: str, file: str, name: str | None, no_overwrite: bool, as_json: bool
) -> None:
    """Store a local file in a source, where the connector can."""
    if not os.path.isfile(file):
        raise click.ClickException(f"there is no file {file!r}")

    async def work(registry: Any) -> Any:
        return await registry.upload(source_id, file, name, overwrite=not no_overwrite)

    item = session.run(work, source_id)
    if as_json:
        output.document(dataclasses.asdict(item))
    else:
        output.result(item.path)


@click.command("clean")
@click.argument("directories", metavar="DIR...", nargs=-1, required=True)
def clean_command(directories: Sequence[str]) -> None:
    """Delete the temporary files that killed fetches have left in workspaces.

    Those of fetches that are under way stay.
    """
    from datasources.workspace import Workspace

    for directory in directories:
        if not os.path.isdir(directory):
            raise click.ClickException(f"there is no directory {directory!r}")
        for name in Workspace(directory).clean():
            output.result(os.path.join(directory, name))


async def _expand(
    registry: Any, source_id: str, identifiers: Iterable[str], *, as_they_are: bool
) -> dict[str, str | None]:
    """Replace folders and patterns by what they hold, each item once, with its listed version."""
    from datasources.connector import abilities

    connector = registry.plugins.connector_class(registry.get_config(source_id).type)
    patterns = "glob" in abilities(connector) and not as_they_are
    expanded: dict[str, str | None] = {}
    for identifier in identifiers:
        if patterns and not WILDCARDS.isdisjoint(identifier):
            items = await _matches(registry, source_id, identifier)
        elif patterns and identifier.endswith("/"):
            items = await registry.list_items(source_id, identifier.rstrip("/"))
        else:
            items = []
        expanded |= {item.path: item.version for item in items} or {identifier: None}
    return expanded


async def _matches(registry: Any, source_id: str, pattern: str) -> list[DataItem]:
    async with registry.connection(source_id) as connector:
        literal = await literal_items(connector, pattern)
    if [item.path for item in literal] == [pattern]:
        return []  # an item, taken as it is
    found: list[DataItem] = literal or await registry.glob_items(source_id, pattern)
    if found:
        return found
    unmatched = f"no item of source {source_id!r} matches {pattern!r}"
    try:
        # `select * from t` is an item, and so is a file whose name has brackets.
        await registry.get_metadata(source_id, pattern)
    except ItemNotFoundError as exc:
        raise ItemNotFoundError(unmatched) from exc
    except DataFetchError as exc:
        raise DataFetchError(f"{unmatched}; taken as it is: {exc}") from exc
    return []


def _limits(registry: Any, source_id: str, given: Mapping[str, float | str | None]) -> Limits:
    """Return the source's limits with those given on the command line in their place."""
    own: Limits = registry.get_config(source_id).limits or registry.policy.limits
    changed: dict[str, Any] = {
        name: None if value == "none" else value
        for name, value in given.items()
        if value is not None
    }
    return dataclasses.replace(own, **changed)


def _clean(into: str) -> None:
    """Delete what killed fetches have left."""
    from datasources.workspace import Workspace

    with suppress(OSError):  # the fetch will say what is wrong with the directory
        Workspace(into).clean()


@contextmanager
def _progress(requests: Sequence[FetchRequest]) -> Iterator[Mapping[int, Any]]:
    """Draw a bar for each request if stderr is a terminal; yield callbacks by index."""
    if not output.is_terminal(sys.stderr):
        yield {}
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bars:

        def callback(request: FetchRequest) -> Callable[[int, int | None], None]:
            name = escape(output.clean(request.identifier)[:40])
            task = bars.add_task(name, total=None, visible=False)

            def update(done: int, total: int | None) -> None:
                bars.update(task, completed=done, total=total, visible=done != total)

            return update

        yield {index: callback(request) for index, request in enumerate(requests)}


def _print(results: Sequence[FetchResult], *, as_json: bool) -> None:
    if as_json:
        output.document([_document(result) for result in results])
        return
    receipts = [result.receipt for result in results if result.receipt]
    if receipts:
        columns = ["item", "file", "bytes", "rows", "sha256"]
        output.table(
            columns, [[r.identifier, _relative(r), r.size, r.rows, r.sha256[:12]] for r in receipts]
        )
    if unchanged := sum(receipt.unchanged for receipt in receipts):
        output.note(f"{unchanged} of {len(receipts)} were there already, unchanged")
    for receipt in receipts:
        if receipt.truncated:
            output.note(
                f"{receipt.identifier!r} has more than the {receipt.rows} rows fetched; "
                "--max-rows raises the limit"
            )


def _relative(receipt: FetchReceipt) -> str:
    relative = os.path.relpath(receipt.path)
    return receipt.path if relative.startswith("..") else relative


def _document(result: FetchResult) -> dict[str, Any]:
    if result.receipt is not None:
        return result.receipt.to_dict()
    return {
        "source_id": result.request.source_id,
        "identifier": result.request.identifier,
        "error": _reason(result),
    }


def _reason(result: FetchResult) -> str:
    error = result.error
    text = output.mask(" ".join(str(error).split()), shapes=not isinstance(error, DataSourceError))
    return (
        text if isinstance(error, DataSourceError) else f"unexpected {type(error).__name__}: {text}"
    )
