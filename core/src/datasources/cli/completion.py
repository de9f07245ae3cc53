"""Complete words in shells: ids, types, options and items; and the command `completion`.

A completer answers quickly and quietly: whatever goes wrong, it suggests nothing.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from datasources.cli import output
from datasources.cli.context import CliContext

if TYPE_CHECKING:
    from datasources.forms import OptionField
    from datasources.registry import DataSourceRegistry

_PATIENCE = 3.0  # seconds that somebody waits for a completion of a remote source
_MAX_ITEMS = 200  # more than anybody reads
_VARIABLE = "_DATASOURCES_COMPLETE"  # by which click's scripts call the command
# The shell inserts a word as it is, and would run what is special to it, such as `$(…)`.
_HARMLESS = re.compile(r"[\w./@:+=%,~^-]+")

_INSTALLING = {
    "bash": 'Add this line to ~/.bashrc:\n\n  eval "$(datasources completion bash)"',
    "zsh": 'Add this line to ~/.zshrc, after compinit:\n\n  eval "$(datasources completion zsh)"',
    "fish": "Write this script once:\n\n"
    "  datasources completion fish > ~/.config/fish/completions/datasources.fish",
}
# Without this, bash puts a blank behind `path=` and `folder/`.
_BASH_WITHOUT_BLANK = """
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/] ]]; then
        compopt -o nospace
    fi

    return 0
}
"""

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_INSTALLING)))
def completion_command(shell: str) -> None:
    """Print a script that completes commands, ids, types, options and items in SHELL.

    Its last lines say how to install it.
    """
    completion_class = get_completion_class(shell)
    if completion_class is None:  # only if click drops a shell
        raise click.ClickException(f"click cannot complete words in {shell}")
    complete = completion_class(click.Group(), {}, "datasources", _VARIABLE)
    # The method of the base class: that of bash runs bash, to look at its version.
    script = ShellComplete.source(complete).strip("\n")
    if shell == "bash":
        script = script.replace("\n    return 0\n}\n", _BASH_WITHOUT_BLANK, 1)
    for line in script.splitlines():
        output.echo_raw(line)
    for line in ["", *_INSTALLING[shell].splitlines()]:
        output.echo_raw(f"# {line}".rstrip())


def source_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the ids of sources, stored and declared."""
    del param

    def list_sources(context: CliContext) -> list[CompletionItem]:
        store = context.open_store()
        try:
            sources = {record.id: record.name for record in store.list()}
        finally:
            store.close()
        sources |= {config.id: config.name for config in context.settings.sources}
        return [CompletionItem(source_id, help=name) for source_id, name in sorted(sources.items())]

    return _complete(ctx, incomplete, list_sources)


def types(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the types of sources that are installed."""
    del param
    return _complete(ctx, incomplete, lambda context: map(CompletionItem, context.plugins.types()))


def option_pairs(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the `KEY=` of a connector's options."""
    del param

    def list_keys(context: CliContext) -> list[CompletionItem]:
        fields = _option_fields(ctx, context)
        return [CompletionItem(f"{field.name}=", help=field.description) for field in fields]

    return _complete(ctx, incomplete, list_keys)


def option_keys(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the names of a connector's options, for `--secret` of the secret ones only."""

    def list_keys(context: CliContext) -> list[CompletionItem]:
        return [
            CompletionItem(field.name, help=field.description)
            for field in _option_fields(ctx, context)
            if field.secret or param.name != "secret_keys"
        ]

    return _complete(ctx, incomplete, list_keys)


def items(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the items of a source, one folder at a time where it has folders."""
    del param
    source_id = _first_argument(ctx, "source_id")

    async def list_items(registry: DataSourceRegistry) -> list[str]:
        folder = incomplete[: incomplete.rfind("/") + 1] or "/"
        try:
            items_below = await registry.list_items(source_id, folder)
        except Exception:  # noqa: BLE001  (a source without folders)
            items_below = await registry.list_items(source_id)
        return [item.path for item in items_below]

    def list_paths(context: CliContext) -> list[CompletionItem]:
        return [CompletionItem(path) for path in context.run(list_items, source_id)]

    return _complete(ctx, incomplete, list_paths) if source_id else []


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete the names of files."""
    del ctx, param
    return [CompletionItem(incomplete, type="file")]


def directories(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Let the shell complete the names of directories."""
    del ctx, param
    return [CompletionItem(incomplete, type="dir")]


@contextmanager
def silence() -> Iterator[None]:
    """Keep logs and plugins from writing between the lines that somebody types."""
    logging.disable()
    stderr = sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as null, output.stdout_to_stderr():
        sys.stdout = sys.stderr = null
        try:
            yield
        finally:
            sys.stderr = stderr
            logging.disable(logging.NOTSET)


def _option_fields(ctx: click.Context, context: CliContext) -> list[OptionField]:
    from datasources.forms import option_fields

    type_name = _first_argument(ctx, "type_name")
    if ctx.command.name == "edit":
        store = context.open_store()
        try:
            record = store.get(_first_argument(ctx, "source_id"))
        finally:
            store.close()
        type_name = record.type if record else ""
    options_class = context.plugins.connector_class(type_name).options_class
    return option_fields(options_class) if options_class else []


def _first_argument(ctx: click.Context, name: str) -> str:
    """Return the first argument of a command; empty if it is not typed yet.

    Click puts it among `args` if the words end with an option that still lacks its value.
    """
    return str(ctx.params.get(name) or next(iter(ctx.args), ""))


def _complete(
    ctx: click.Context,
    incomplete: str,
    list_candidates: Callable[[CliContext], Iterable[CompletionItem]],
) -> list[CompletionItem]:
    """Return the candidates that begin with the typed text; none if listing takes too long."""
    candidates: list[CompletionItem] = []

    def run() -> None:
        try:
            context = CliContext.from_options(ctx.find_root().params)
            candidates.extend(list_candidates(context))
        except BaseException:  # noqa: BLE001, S110  (nobody can read an error while typing)
            pass

    # A thread that a remote source may keep: the process ends without it.
    thread = threading.Thread(target=run, name="datasources-complete", daemon=True)
    with silence():
        thread.start()
        thread.join(_PATIENCE)
    fitting = [
        item
        for item in list(candidates)
        if item.value.startswith(incomplete) and _HARMLESS.fullmatch(item.value)
    ]
    return fitting[:_MAX_ITEMS]
