"""Manage the stored queries of a source: `queries list`, `add`, `remove`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output, paths, stdin, tables
from datasources.cli.completers import complete
from datasources.cli.context import CliContext
from datasources.cli.suggestions import SuggestingGroup
from datasources.errors import OptionError, RegistryError
from datasources.stored_queries import QueryParameter, StoredQuery

if TYPE_CHECKING:
    from datasources.models import DataSourceConfig
    from datasources.registry import DataSourceRegistry


@click.group("queries", cls=SuggestingGroup)
def queries_command() -> None:
    """Manage stored queries, which `fetch` and `preview` run as query:NAME."""


@queries_command.command("list")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_queries(context: CliContext, source_id: str, as_json: bool) -> None:
    """List the stored queries of a source, with their parameters."""

    async def get_config(registry: DataSourceRegistry) -> DataSourceConfig:
        return registry.get_config(source_id)

    queries = context.run(get_config, source_id, needs_keys=False).queries
    if as_json:
        output.print_json({name: query.to_dict() for name, query in queries.items()})
    elif queries:
        rows = [
            [name, ", ".join(map(_describe, query.parameters.items())), query.description]
            for name, query in sorted(queries.items())
        ]
        tables.print_table(["name", "parameters", "description"], rows)
    else:
        output.echo_err(f"{source_id!r} has no stored queries.")


@queries_command.command("add")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.argument("name")
@click.option(
    "--file",
    "file",
    metavar="FILE",
    type=paths.expand,
    default="-",
    shell_complete=complete("files"),
    help="The text of the query; '-' is standard input. [default: -]",
)
@click.option(
    "--parameter",
    "parameters",
    metavar="NAME:TYPE[=DEFAULT]",
    multiple=True,
    help="One that the text has as ':NAME'; text, integer, number, boolean, date or timestamp.",
)
@click.option("--description", default="", help="A text for people.")
@click.pass_obj
def add_query(
    context: CliContext,
    source_id: str,
    name: str,
    file: str,
    parameters: Sequence[str],
    description: str,
) -> None:
    """Store a query with a source."""
    query = StoredQuery(_read(file), _parse_parameters(parameters), description)

    async def add(registry: DataSourceRegistry) -> None:
        config = registry.get_config(source_id)
        if name in config.queries:
            raise OptionError(f"source {source_id!r} has a query {name!r}; remove it first")
        await registry.update_data_source(
            source_id, {"queries": {name: query.to_dict()}}, expected=config.version
        )

    _check_stored(context, source_id)
    context.run(add, source_id)
    output.echo_err(f"Stored the query {name!r} of {source_id!r}.")


@queries_command.command("remove")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.argument("name")
@click.pass_obj
def remove_query(context: CliContext, source_id: str, name: str) -> None:
    """Remove a stored query of a source."""

    async def remove(registry: DataSourceRegistry) -> None:
        if name not in registry.get_config(source_id).queries:
            raise OptionError(f"source {source_id!r} has no stored query {name!r}")
        await registry.update_data_source(source_id, {"queries": {name: None}})

    _check_stored(context, source_id)
    context.run(remove, source_id)
    output.echo_err(f"Removed the query {name!r} of {source_id!r}.")


def _check_stored(context: CliContext, source_id: str) -> None:
    if context.declared_config(source_id):
        raise RegistryError(
            f"source {source_id!r} is declared in {context.origin(source_id)}; change it there"
        )


def _read(file: str) -> str:
    if file == "-":
        return stdin.read().strip()
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read().strip()
    except OSError as exc:
        raise click.ClickException(f"cannot read {file!r}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{file!r} is not text in UTF-8") from None


def _parse_parameters(given: Sequence[str]) -> dict[str, QueryParameter]:
    """Return the parameters that are declared as `NAME:TYPE[=DEFAULT]`."""
    parameters: dict[str, QueryParameter] = {}
    for text in given:
        declaration, equals, default = text.partition("=")
        name, _, type_ = declaration.partition(":")
        if name in parameters:
            raise OptionError(f"parameter {name!r} is given twice")
        try:
            parameters[name] = QueryParameter(
                type_ or "text", required=not equals, default=default if equals else None
            )
        except OptionError as exc:
            raise OptionError(f"parameter {name!r}: {exc}") from None
    return parameters


def _describe(parameter: tuple[str, Any]) -> str:
    name, declared = parameter
    optional = "" if declared.required else "?"
    return f"{name}{optional}:{declared.type}"
