"""List what is installed, and print templates: `plugins`, `types`, `template`."""

from __future__ import annotations

import click

from datasources.cli import listing, output, tables
from datasources.cli.completers import complete
from datasources.cli.context import CliContext
from datasources.errors import PluginError
from datasources.names import CONNECTORS_GROUP
from datasources.plugins import PluginEntry

_UNUSABLE = {"broken", "conflict", "failed"}


@click.command("plugins")
@click.option("--check", is_flag=True, help="Import every plugin; exit with 1 if one cannot serve.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def plugins_command(context: CliContext, check: bool, as_json: bool) -> None:
    """List installed plugins, without importing them, and what is wrong with any."""
    entries = context.plugins.check() if check else context.plugins.entries()
    if as_json:
        output.print_json([_to_dict(entry) for entry in entries])
    elif entries:
        tables.print_table(*listing.plugin_table(entries))
    else:
        output.echo_err(listing.NO_PLUGINS)
    unusable = [str(entry) for entry in entries if entry.status in _UNUSABLE]
    if check and unusable:
        raise click.ClickException(f"cannot be used: {', '.join(unusable)}")


@click.command("types")
@click.option("--abilities", is_flag=True, help="Show what each can do; imports the connectors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def types_command(context: CliContext, abilities: bool, as_json: bool) -> None:
    """List the types of source that can be added."""
    rows = [
        {"type": entry.name, "distribution": entry.distribution, "version": entry.version}
        for entry in context.plugins.entries()
        if entry.group == CONNECTORS_GROUP and entry.status in ("available", "loaded")
    ]
    if abilities:
        rows = [row | {"abilities": _list_abilities(context, str(row["type"]))} for row in rows]
    if as_json:
        output.print_json(rows)
    elif rows:
        columns = list(rows[0])
        tables.print_table(columns, [[row[column] for column in columns] for row in rows])
    else:
        output.echo_err("No connector is installed.")


@click.command("template")
@click.argument("type_name", metavar="TYPE", shell_complete=complete("types"))
@click.option(
    "--role",
    is_flag=True,
    help="Print instead what makes an account there that can read and nothing else.",
)
@click.pass_obj
def template_command(context: CliContext, type_name: str, role: bool) -> None:
    """Print an annotated example of a source, in TOML.

    Fill it in and give it to `datasources add --from FILE`, or to `datasources --config FILE`.
    """
    from datasources.templates import extra_template, template

    connector_class = context.plugins.connector_class(type_name)
    text = (
        extra_template("role", type_name, connector_class)
        if role
        else template(type_name, connector_class)
    )
    for line in text.splitlines():
        output.echo(line)


def _list_abilities(context: CliContext, type_name: str) -> str:
    """Return the abilities of a type, or why its connector cannot be imported."""
    from datasources.connector import abilities

    try:
        return ", ".join(sorted(abilities(context.plugins.connector_class(type_name))))
    except PluginError as exc:
        return f"failed: {exc}"


def _to_dict(entry: PluginEntry) -> dict[str, object]:
    return {
        "name": entry.name,
        "group": entry.group,
        "distribution": entry.distribution,
        "version": entry.version,
        "value": entry.value,
        "status": entry.status,
        "error": entry.error,
    }
