"""`add`: a source from arguments, a file, a pipe, or answers to questions."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output, prompts, secrets
from datasources.cli.context import CliContext, hide_secrets
from datasources.errors import DataSourceExistsError, OptionError
from datasources.models import DataSourceConfig, DataSourceType

if TYPE_CHECKING:
    from datasources.registry import DataSourceRegistry


@click.command("add")
@click.argument("type_name", metavar="[TYPE]", required=False)
@click.option("--id", "source_id", metavar="ID", help="The source's id; default: the type.")
@click.option("--name", help="A name for people; default: the id.")
@click.option(
    "-o",
    "--option",
    "pairs",
    metavar="KEY=VALUE",
    multiple=True,
    help="An option of the connector. A secret only as a reference: '${env:NAME}', '${file:/path}'.",
)
@click.option(
    "-s",
    "--secret",
    "asked",
    metavar="KEY",
    multiple=True,
    help="Ask for this option without echo.",
)
@click.option(
    "--stdin",
    "piped",
    is_flag=True,
    help="Read options, secrets too, from standard input: TOML or JSON.",
)
@click.option(
    "--from",
    "file",
    metavar="FILE",
    help="Take the sources of a TOML file, such as a filled-in template; --id chooses one.",
)
@click.option("--test/--no-test", default=True, help="Connect before storing.  [default: test]")
@click.option("--replace", is_flag=True, help="Overwrite a source of the same id.")
@click.pass_obj
def add_command(
    context: CliContext,
    /,
    type_name: str | None,
    source_id: str | None,
    name: str | None,
    file: str | None,
    test: bool,
    replace: bool,
    **given: Any,
) -> None:
    """Add a source of TYPE, validated, and tested unless told otherwise, before it is stored.

    On a terminal, and without options, it asks for everything.
    """
    if file is not None:
        if type_name or name or any(given.values()):
            raise click.UsageError("--from FILE says it all; only --id goes with it")
        configs = _declared_in(file, source_id)
        _refuse_taken(context, configs, replace=replace)
    else:
        _refuse_nothing(type_name, given)
        configs = [_described(context, type_name, source_id, name, replace=replace, **given)]

    async def work(registry: DataSourceRegistry) -> None:
        for config in configs:
            hide_secrets(registry, config)
        if test:
            await _test(context, configs)
        await registry.register_data_sources(configs, replace=replace)

    context.run(work, stores=True)
    output.note(f"Added {', '.join(repr(config.id) for config in configs)}.")


def _refuse_nothing(type_name: str | None, given: dict[str, Any]) -> None:
    if type_name is None and (any(given.values()) or not output.attended()):
        raise click.UsageError("give a TYPE, as `datasources types` lists them, or --from FILE")


def _declared_in(file: str, source_id: str | None) -> list[DataSourceConfig]:
    from datasources.config import read_settings

    configs = read_settings(file, {}).sources
    if source_id is not None:
        found = [config for config in configs if config.id == source_id]
        if not found:
            ids = ", ".join(config.id for config in configs) or "none"
            raise OptionError(f"{file!r} declares no source {source_id!r}; it declares: {ids}")
        return found
    if not configs:
        raise OptionError(f"{file!r} declares no source")
    return configs


def _refuse_taken(
    context: CliContext, configs: Sequence[DataSourceConfig], *, replace: bool
) -> None:
    """Raise before anything is asked or tested if an id is taken."""
    context.refuse_declared(config.id for config in configs)
    if replace:
        return
    store = context.open_store()
    try:
        taken = [config.id for config in configs if store.get(config.id)]
    finally:
        store.close()
    if taken:
        raise DataSourceExistsError(
            f"source {', '.join(map(repr, taken))} exists already; --replace overwrites it"
        )


def _described(
    context: CliContext,
    type_name: str | None,
    source_id: str | None,
    name: str | None,
    *,
    replace: bool,
    pairs: Sequence[str],
    asked: Sequence[str],
    piped: bool,
) -> DataSourceConfig:
    """Return the source that the arguments describe, after asking for what they leave open."""
    guide = output.attended() and not (pairs or asked or piped)
    if guide:
        type_name = type_name or prompts.ask_type(context.plugins.types())
    wanted = DataSourceType(type_name or "")
    options_class = context.plugins.connector_class(wanted).options_class
    options = _options(options_class, pairs)
    if guide:
        source_id = source_id or prompts.ask("Id of the source", wanted.value)
        name = name or prompts.ask("Name for people", source_id)
    config = DataSourceConfig(
        source_id or wanted.value, wanted, name or source_id or wanted.value, {}
    )
    _refuse_taken(context, [config], replace=replace)
    if piped:
        options |= _piped(options_class)
    for key in asked:
        text = secrets.ask(f"{key} (not shown)")
        output.hide([text])
        options |= prompts.parsed(options_class, {key: text})
    if guide:
        options = prompts.ask_options(options_class)
    return dataclasses.replace(config, config=options)


def _options(options_class: secrets.OptionsClass | None, pairs: Sequence[str]) -> dict[str, Any]:
    """Return what the arguments `KEY=VALUE` say, secrets refused."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not (key and separator):
            raise click.UsageError("an option is given as -o KEY=VALUE")
        if key in options:
            raise click.UsageError(f"option {key!r} is given twice")
        secrets.refuse_clear(options_class, key, value)
        options[key] = value
    return prompts.parsed(options_class, options)


def _piped(options_class: secrets.OptionsClass | None) -> dict[str, Any]:
    options = secrets.read_table(sys.stdin.read(), "standard input")
    output.hide(
        value
        for key, value in options.items()
        if isinstance(value, str) and secrets.is_secret_option(options_class, key)
    )
    return options


async def _test(context: CliContext, configs: Sequence[DataSourceConfig]) -> None:
    """Connect to all before any is stored."""
    trial = await context.in_memory(configs)
    for config in configs:
        check = await trial.check_connection(config.id)
        if check.error is not None:
            output.note(f"{config.id!r} was not added; --no-test adds it all the same.")
            raise check.error
