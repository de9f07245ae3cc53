"""Show the progress of fetches at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from datasources.cli import output
from datasources.models import FetchRequest

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

MANY = 10  # more files than this have one bar, and no line each, at a terminal
_NAME_LENGTH = 40  # characters of an identifier before its bar

Callback = Callable[[int, int | None], None]


@contextmanager
def show(requests: Sequence[FetchRequest]) -> Iterator[Mapping[int, Callback]]:
    """Draw bars if stderr is a terminal: one for each request, or one for all if they are many.

    Yields the callbacks by the index of their request; each takes the bytes so far and the total,
    None where unknown.
    """
    if not output.is_terminal(sys.stderr):
        yield {}
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bars:
        yield _one_bar(bars, requests) if len(requests) > MANY else _bar_each(bars, requests)


def _bar_each(bars: Bars, requests: Sequence[FetchRequest]) -> Mapping[int, Callback]:
    from rich.markup import escape

    def add_bar(request: FetchRequest) -> Callback:
        name = escape(output.printable(request.identifier)[:_NAME_LENGTH])
        task = bars.add_task(name, total=None, visible=False)

        def update(done: int, total: int | None) -> None:
            bars.update(task, completed=done, total=total, visible=done != total)

        return update

    return {index: add_bar(request) for index, request in enumerate(requests)}


def _one_bar(bars: Bars, requests: Sequence[FetchRequest]) -> Mapping[int, Callback]:
    """Return callbacks for one bar of the sum; it has a total once every file has one."""
    task = bars.add_task(f"{len(requests)} files", total=None)
    bytes_done = [0] * len(requests)
    bytes_total: list[int | None] = [None] * len(requests)

    def add_callback(index: int) -> Callback:
        def update(done: int, total: int | None) -> None:
            bytes_done[index], bytes_total[index] = done, total
            totals = [size for size in bytes_total if size is not None]
            overall = sum(totals) if len(totals) == len(requests) else None
            complete = sum(size == part for size, part in zip(bytes_total, bytes_done, strict=True))
            bars.update(
                task,
                description=f"{complete} of {len(requests)} files",
                completed=sum(bytes_done),
                total=overall,
            )

        return update

    return {index: add_callback(index) for index in range(len(requests))}
