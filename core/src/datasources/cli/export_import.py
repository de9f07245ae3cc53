"""Write stored sources to a JSON document and register those of one: `export`, `import`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output, paths, secrets, stdin
from datasources.cli.completers import complete
from datasources.cli.context import CliContext
from datasources.errors import OptionError, RegistryError

if TYPE_CHECKING:
    from datasources.models import DataSourceConfig
    from datasources.registry import DataSourceRegistry
    from datasources.transfer import Imported


@click.command("export")
@click.argument("source_ids", metavar="[ID]...", nargs=-1, shell_complete=complete("source_ids"))
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
        passphrase = secrets.prompt_secret("Passphrase", confirm=True)
        output.register_secrets([passphrase])

    for source_id in filter(context.declared_config, source_ids):
        raise RegistryError(
            f"source {source_id!r} is declared in {context.origin(source_id)}; only stored ones "
            "are exported"
        )

    async def export(registry: DataSourceRegistry) -> dict[str, Any]:
        ids = source_ids or [record.id for record in registry.store.list()]
        for source_id in ids:
            context.check_exists(registry, source_id)
        return export_sources(registry, ids, passphrase)

    document = context.run(export)
    output.print_json(document)
    for entry in document.get("sources", ()):
        if entry["left_out"]:
            output.echo_err(f"{entry['id']!r}: left out {', '.join(entry['left_out'])}")


@click.command("import")
@click.argument("file", metavar="FILE", type=paths.expand, shell_complete=complete("files"))
@click.option("--replace", is_flag=True, help="Overwrite sources of the same id.")
@click.option(
    "--stdin",
    "from_stdin",
    is_flag=True,
    help="Read options that the export left out from standard input: TOML or JSON, "
    "a table for each id.",
)
@click.pass_obj
def import_command(context: CliContext, file: str, replace: bool, from_stdin: bool) -> None:
    """Register the sources of an export, all or none; '-' reads it from standard input.

    What the export left out is asked for on a terminal; its passphrase is asked for or piped in.
    """
    from datasources.transfer import import_sources, is_encrypted, read_export

    document = _read_json(file)
    passphrase = None
    if is_encrypted(document):
        if file == "-" or from_stdin:
            raise click.UsageError("the passphrase comes from standard input; give a FILE alone")
        passphrase = secrets.prompt_secret("Passphrase")
    imported = read_export(document, passphrase)
    configs = _fill_from_stdin(imported) if from_stdin else [_fill(source) for source in imported]

    async def register(registry: DataSourceRegistry) -> None:
        await import_sources(registry, configs, replace=replace)

    context.check_not_declared(config.id for config in configs)
    context.try_sources(configs, connect=False)  # before a store and a key are made
    context.run(register, create=True)
    output.echo_err(f"Imported {len(configs)}: {', '.join(config.id for config in configs)}")


def _read_json(file: str) -> Any:
    try:
        if file == "-":
            return json.loads(stdin.read())
        with open(file, encoding="utf-8-sig") as stream:  # without a byte order mark
            return json.load(stream)
    except (ValueError, RecursionError):
        raise OptionError(f"{file!r} is not JSON") from None


def _fill_from_stdin(imported: Sequence[Imported]) -> list[DataSourceConfig]:
    """Return the sources, with the options that stdin holds for each id."""
    options_by_id = secrets.parse_table(stdin.read(), "standard input")
    if unknown := options_by_id.keys() - {source.config.id for source in imported}:
        raise OptionError(f"standard input names no source of this export: {sorted(unknown)}")
    if not all(isinstance(options, dict) for options in options_by_id.values()):
        raise OptionError("standard input must hold a table of options for each id")
    return [
        _add_options(source.config, options_by_id.get(source.config.id, {})) for source in imported
    ]


def _fill(imported: Imported) -> DataSourceConfig:
    """Return the source, after asking for the options that the export left out if possible."""
    config = imported.config
    if not imported.left_out:
        return config
    if not output.is_interactive():
        output.echo_err(f"{config.id!r}: to be filled in: {', '.join(imported.left_out)}")
        return config
    output.echo_err(f"{config.id!r}: the export left these out; Enter leaves them out here, too")
    answers = {name: secrets.prompt_secret(f"  {name}") for name in imported.left_out}
    return _add_options(config, {name: text for name, text in answers.items() if text})


def _add_options(config: DataSourceConfig, options: dict[str, Any]) -> DataSourceConfig:
    output.register_secrets(text for text in options.values() if isinstance(text, str))
    return dataclasses.replace(config, config={**config.config, **options})
