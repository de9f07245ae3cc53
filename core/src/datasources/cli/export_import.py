"""Sources to and from a JSON document: `export`, `import`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output, secrets
from datasources.cli.context import CliContext, check_exists, hide_secrets
from datasources.errors import OptionError, RegistryError

if TYPE_CHECKING:
    from datasources.models import DataSourceConfig
    from datasources.transfer import Imported


@click.command("export")
@click.argument("source_ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--encrypt",
    is_flag=True,
    help="Secrets too, all of it encrypted under a passphrase, which is asked for or piped in.",
)
@click.pass_obj
def export_command(context: CliContext, source_ids: Sequence[str], encrypt: bool) -> None:
    """Print stored sources as JSON, all of them or those named; without secrets by default."""
    from datasources.transfer import export_sources

    passphrase = None
    if encrypt:
        passphrase = secrets.ask("Passphrase", confirm=True)
        output.hide([passphrase])

    for source_id in filter(context.declared, source_ids):
        raise RegistryError(
            f"source {source_id!r} is declared in {context.origin(source_id)}; only stored ones "
            "are exported"
        )

    async def work(registry: Any) -> dict[str, Any]:
        ids = source_ids or [record.id for record in registry.store.list()]
        for source_id in ids:
            check_exists(registry, source_id)
        return export_sources(registry, ids, passphrase)

    document = context.run(work)
    output.document(document)
    for entry in document.get("sources", ()):
        if entry["left_out"]:
            output.note(f"{entry['id']!r}: left out {', '.join(entry['left_out'])}")


@click.command("import")
@click.argument("file", metavar="FILE")
@click.option("--replace", is_flag=True, help="Overwrite sources of the same id.")
@click.option(
    "--stdin",
    "piped",
    is_flag=True,
    help="Read options that the export left out from standard input: TOML or JSON, "
    "a table for each id.",
)
@click.pass_obj
def import_command(context: CliContext, file: str, replace: bool, piped: bool) -> None:
    """Register the sources of an export, all or none; '-' reads it from standard input.

    What the export left out is asked for on a terminal; its passphrase is asked for or piped in.
    """
    from datasources.transfer import import_sources, is_encrypted, read_export

    document = _read(file)
    passphrase = None
    if is_encrypted(document):
        if file == "-" or piped:
            raise click.UsageError("the passphrase comes from standard input; give a FILE alone")
        passphrase = secrets.ask("Passphrase")
    found = read_export(document, passphrase)
    configs = _filled_from_pipe(found) if piped else [_filled(each) for each in found]

    async def work(registry: Any) -> None:
        for config in configs:
            hide_secrets(registry, config)
        await import_sources(registry, configs, replace=replace)

    context.refuse_declared(config.id for config in configs)
    context.run(work, stores=True)
    output.note(f"Imported {len(configs)}: {', '.join(config.id for config in configs)}")


def _read(file: str) -> Any:
    try:
        if file == "-":
            return json.load(sys.stdin)
        with open(file, encoding="utf-8") as stream:
            return json.load(stream)
    except (ValueError, RecursionError):
        raise OptionError(f"{file!r} is not JSON") from None


def _filled_from_pipe(found: Sequence[Imported]) -> list[DataSourceConfig]:
    given = secrets.read_table(sys.stdin.read(), "standard input")
    if strangers := given.keys() - {each.config.id for each in found}:
        raise OptionError(f"standard input names no source of this export: {sorted(strangers)}")
    if not all(isinstance(options, dict) for options in given.values()):
        raise OptionError("standard input must hold a table of options for each id")
    return [_with(each.config, given.get(each.config.id, {})) for each in found]


def _filled(imported: Imported) -> DataSourceConfig:
    """Ask for what was left out, where somebody is there to answer."""
    config = imported.config
    if not imported.left_out:
        return config
    if not output.attended():
        output.note(f"{config.id!r}: to be filled in: {', '.join(imported.left_out)}")
        return config
    output.note(f"{config.id!r}: the export left these out; Enter leaves them out here, too")
    typed = {name: secrets.ask(f"  {name}") for name in imported.left_out}
    return _with(config, {name: text for name, text in typed.items() if text})


def _with(config: DataSourceConfig, options: dict[str, Any]) -> DataSourceConfig:
    output.hide(text for text in options.values() if isinstance(text, str))
    return dataclasses.replace(config, config={**config.config, **options})
