"""Manage sources: `list`, `show`, `test`, `pause`, `resume`, `remove`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output, tables
from datasources.cli.completers import complete
from datasources.cli.context import CliContext
from datasources.errors import RegistryError
from datasources.models import DataSourceConfig, Limits

if TYPE_CHECKING:
    from datasources.models import ConnectionCheck
    from datasources.registry import DataSourceRegistry


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_command(context: CliContext, as_json: bool) -> None:
    """List sources, stored and declared; needs no key."""
    store = context.open_store()
    try:
        rows_by_id = {
            record.id: _row(record.id, record.type, record.name, "stored")
            | {
                "created_at": output.to_iso_time(record.created_at),
                "metadata": record.metadata,
                "version": record.version,
                "paused": record.paused,
            }
            for record in store.list()
        }
    finally:
        store.close()
    for config in context.settings.sources:
        if config.id in rows_by_id:
            output.echo_err(f"{config.id!r} is stored, too, and hidden by the one declared")
        row = _row(config.id, config.type, config.name, context.origin(config.id))
        rows_by_id[config.id] = row | {
            "created_at": None,
            "metadata": config.metadata,
            "version": None,
            "paused": None,
        }
    rows = [row for _, row in sorted(rows_by_id.items())]
    if as_json:
        output.print_json(rows)
    elif rows:
        columns = ["id", "type", "name", "origin", "version"]
        if any(row["paused"] for row in rows):
            columns.append("paused")
        tables.print_table(columns, [[row[column] for column in columns] for row in rows])
    else:
        output.echo_err("There are no sources; `datasources add` adds one.")


@click.command("show")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show_command(context: CliContext, source_id: str, as_json: bool) -> None:
    """Show one source's configuration, secrets masked."""

    async def get_config(registry: DataSourceRegistry) -> DataSourceConfig:
        return registry.get_config(source_id)

    config = context.run(get_config, source_id, needs_keys=False)
    origin = context.origin(source_id)
    is_stored = origin == "stored"
    created_at = config.created_at if is_stored else None
    fields: dict[str, Any] = {
        **_row(config.id, config.type, config.name, origin),
        "created_at": output.to_iso_time(created_at),
        "version": config.version if is_stored else None,
        "paused": config.paused,
        "metadata": config.metadata,
        "limits": asdict(config.limits) if config.limits else None,
        "options": config.config,
        "queries": {name: query.to_dict() for name, query in config.queries.items()},
    }
    if as_json:
        output.print_json(fields)
    else:
        fields["queries"] = {name: query.text for name, query in config.queries.items()}
        fields["created_at"] = output.format_time(created_at) or None
        fields["limits"] = _format_limits(config.limits, context.settings.policy.limits)
        tables.print_fields(
            {name: value for name, value in fields.items() if value not in (None, {})}
        )


@click.command("test")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def test_command(context: CliContext, source_id: str, as_json: bool) -> None:
    """Connect to a source, and say whether that works or why not, and what its account could do."""

    async def check_connection(registry: DataSourceRegistry) -> ConnectionCheck:
        return await registry.check_connection(source_id)

    check = context.run(check_connection, source_id)
    if as_json:
        error = None if check.ok else output.mask(str(check.error))
        warnings = [output.mask(warning) for warning in check.warnings]
        output.print_json(
            {
                "id": source_id,
                "ok": check.ok,
                "duration": check.duration,
                "error": error,
                "warnings": warnings,
            }
        )
    elif check.ok:
        output.echo(f"{source_id}: works ({check.duration * 1000:.0f} ms)")
        for warning in check.warnings:
            output.echo(f"Not needed to read: {output.mask(warning)}.")
    if check.error is not None:
        raise check.error


@click.command("pause")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.option("--reason", required=True, help="A text for people, which is no secret.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def pause_command(context: CliContext, source_id: str, reason: str, as_json: bool) -> None:
    """Have every host refuse operations on a stored source, with a reason."""
    _require_stored(context, source_id, "pause it")

    async def pause(registry: DataSourceRegistry) -> DataSourceConfig:
        await registry.pause(source_id, reason)
        return registry.get_config(source_id)

    config = context.run(pause, source_id, needs_keys=False)
    _print_state(config, as_json, f"Paused {source_id!r}.")


@click.command("resume")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def resume_command(context: CliContext, source_id: str, as_json: bool) -> None:
    """Serve a paused source again."""
    _require_stored(context, source_id, "resume it")

    async def resume(registry: DataSourceRegistry) -> DataSourceConfig:
        await registry.resume(source_id)
        return registry.get_config(source_id)

    config = context.run(resume, source_id, needs_keys=False)
    _print_state(config, as_json, f"Resumed {source_id!r}.")


@click.command("remove")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove_command(context: CliContext, source_id: str, yes: bool) -> None:
    """Remove a stored source."""
    _require_stored(context, source_id, "remove it")
    if not yes:
        if not output.is_interactive():
            raise click.UsageError("nobody is here to ask; --yes removes without asking")
        if not click.confirm(f"Remove the source {source_id!r}?", err=True):
            raise click.ClickException(f"{source_id!r} was not removed")

    async def unregister(registry: DataSourceRegistry) -> None:
        await registry.unregister_data_source(source_id)

    context.run(unregister, source_id, needs_keys=False)
    output.echo_err(f"Removed {source_id!r}.")


def _require_stored(context: CliContext, source_id: str, action: str) -> None:
    """Raise RegistryError for a source that is declared in a file or in the environment."""
    if context.declared_config(source_id):
        raise RegistryError(
            f"source {source_id!r} is declared in {context.origin(source_id)}; {action} there"
        )


def _print_state(config: DataSourceConfig, as_json: bool, message: str) -> None:
    """Print the id, version and state of a source as JSON, or a message on standard error."""
    if as_json:
        state = {"id": config.id, "version": config.version, "paused": config.paused}
        output.print_json(state)
    else:
        output.echo_err(message)


def _row(source_id: str, source_type: str, name: str, origin: str) -> dict[str, Any]:
    return {"id": source_id, "type": str(source_type), "name": name, "origin": origin}


def _format_limits(own: Limits | None, default: Limits) -> dict[str, object]:
    """Return the source's own limits, or the policy's if it has none; None as `none`."""
    return {
        name: "none" if value is None else value for name, value in asdict(own or default).items()
    }
