"""The sources there are: `list`, `show`, `test`, `remove`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from datasources.cli import output
from datasources.cli.context import CliContext
from datasources.errors import RegistryError
from datasources.models import DataSourceConfig, Limits


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_command(context: CliContext, as_json: bool) -> None:
    """List sources, stored and declared; needs no key."""
    store = context.open_store()
    try:
        rows = {
            record.id: _row(record.id, record.type, record.name, "stored")
            | {"created_at": record.created_at, "metadata": record.metadata}
            for record in store.list()
        }
    finally:
        store.close()
    for config in context.settings.sources:
        if config.id in rows:
            output.note(f"{config.id!r} is stored, too, and hidden by the one declared")
        rows[config.id] = _row(config.id, config.type, config.name, context.origin(config.id)) | {
            "created_at": None,
            "metadata": config.metadata,
        }
    found = [row for _, row in sorted(rows.items())]
    if as_json:
        output.document(found)
    elif found:
        columns = ["id", "type", "name", "origin"]
        output.table(columns, [[row[name] for name in columns] for row in found])
    else:
        output.note("There are no sources; `datasources add` adds one.")


@click.command("show")
@click.argument("source_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show_command(context: CliContext, source_id: str, as_json: bool) -> None:
    """Show one source's configuration, secrets masked."""

    async def work(registry: Any) -> DataSourceConfig:
        config: DataSourceConfig = registry.get_config(source_id)
        return config

    config = context.run(work, source_id, decrypts=False)
    origin = context.origin(source_id)
    shown = {
        **_row(config.id, config.type, config.name, origin),
        "created_at": config.created_at if origin == "stored" else None,
        "metadata": config.metadata,
        "limits": asdict(config.limits) if config.limits else None,
        "options": config.config,
    }
    if as_json:
        output.document(shown)
    else:
        shown["created_at"] = output.moment(config.created_at) if shown["created_at"] else None
        shown["limits"] = _limits(config.limits, context.settings.policy.limits)
        output.fields({name: value for name, value in shown.items() if value not in (None, {})})


@click.command("test")
@click.argument("source_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def test_command(context: CliContext, source_id: str, as_json: bool) -> None:
    """Connect to a source, and say whether that works or why not."""

    async def work(registry: Any) -> Any:
        return await registry.check_connection(source_id)

    check = context.run(work, source_id)
    if as_json:
        error = None if check.ok else output.mask(str(check.error))
        output.document(
            {"id": source_id, "ok": check.ok, "duration": check.duration, "error": error}
        )
    elif check.ok:
        output.result(f"{source_id}: works ({check.duration * 1000:.0f} ms)")
    if check.error is not None:
        raise check.error


@click.command("remove")
@click.argument("source_id", metavar="ID")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove_command(context: CliContext, source_id: str, yes: bool) -> None:
    """Remove a stored source."""
    if context.declared(source_id):
        raise RegistryError(
            f"source {source_id!r} is declared in {context.origin(source_id)}; remove it there"
        )
    if not yes:
        if not output.attended():
            raise click.UsageError("nobody is here to ask; --yes removes without asking")
        if not click.confirm(f"Remove the source {source_id!r}?", err=True):
            raise click.ClickException(f"{source_id!r} was not removed")

    async def work(registry: Any) -> None:
        await registry.unregister_data_source(source_id)

    context.run(work, source_id, decrypts=False)
    output.note(f"Removed {source_id!r}.")


def _row(source_id: str, source_type: str, name: str, origin: str) -> dict[str, Any]:
    return {"id": source_id, "type": str(source_type), "name": name, "origin": origin}


def _limits(own: Limits | None, policy: Limits) -> dict[str, object]:
    return {
        name: "none" if value is None else value for name, value in asdict(own or policy).items()
    }
