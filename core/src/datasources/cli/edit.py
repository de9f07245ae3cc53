"""Change a stored source: `edit`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output, prompts, secrets
from datasources.cli.add import (
    accept_options,
    make_paths_absolute,
    parse_pairs,
    read_options,
    read_secrets,
    try_until_it_works,
)
from datasources.cli.completers import complete
from datasources.cli.context import CliContext
from datasources.errors import OptionError, RegistryError
from datasources.models import DataSourceConfig

if TYPE_CHECKING:
    from datasources.registry import DataSourceRegistry


@click.command("edit")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.option("--name", help="A name for people.")
@accept_options("Set an option.")
@click.option(
    "--unset",
    "unset_keys",
    metavar="KEY",
    shell_complete=complete("option_keys"),
    multiple=True,
    help="Take an option away.",
)
@click.option("--test/--no-test", default=True, help="Connect before storing.  [default: test]")
@click.pass_obj
def edit_command(
    context: CliContext, /, source_id: str, name: str | None, test: bool, **given: Any
) -> None:
    """Change options of a stored source; all others stay as they are, secrets too.

    On a terminal, and without options, it asks what to change. If a change sends secrets elsewhere,
    such as another host, every secret has to be given again, and every reference. What others
    change in the source meanwhile stays.
    """
    if context.declared_config(source_id):
        raise RegistryError(
            f"source {source_id!r} is declared in {context.origin(source_id)}; change it there"
        )
    asks = output.is_interactive() and name is None and not any(given.values())
    if not (asks or name is not None or any(given.values())):
        raise click.UsageError("give what to change: --name, -o, --secret, --stdin or --unset")

    async def get_config(registry: DataSourceRegistry) -> DataSourceConfig:
        return registry.get_config(source_id, decrypt=True, sanitize=False)

    old = context.run(get_config, source_id)
    options_class = context.plugins.connector_class(old.type).options_class
    if asks:
        name = prompts.ask("Name for people", old.name)
        options = dict(old.config)
        replaced = prompts.edit_options(options_class, options)
    else:
        options, replaced = _apply(options_class, old.config, **given)
    new = dataclasses.replace(old, name=name or old.name, config=options)

    def protect(config: DataSourceConfig, changed: Iterable[str]) -> DataSourceConfig:
        """Ask again for secrets that would be sent elsewhere, and make new paths absolute."""
        replaced.update(changed)
        config = make_paths_absolute(context, config, names=replaced)
        return _protect_secrets(options_class, old, config, replaced, asks=asks)

    new = protect(new, ())
    if (new.name, new.config) == (old.name, old.config):
        output.echo_err(f"Nothing of {source_id!r} was changed.")
        return
    (new,) = try_until_it_works(
        context, [new], connect=test, asks=asks, done="changed", protect=protect
    )

    changes: dict[str, Any] = {"config": _patch(old.config, new.config, replaced)}
    if new.name != old.name:
        changes["name"] = new.name

    async def update(registry: DataSourceRegistry) -> None:
        await registry.update_data_source(source_id, changes)

    context.run(update, source_id)
    output.echo_err(f"Changed {source_id!r}.")


def _apply(
    options_class: secrets.OptionsClass | None,
    old: Mapping[str, Any],
    *,
    pairs: Sequence[str],
    secret_keys: Sequence[str],
    from_stdin: bool,
    unset_keys: Sequence[str],
) -> tuple[dict[str, Any], set[str]]:
    """Return the options after the changes of the arguments, and the names of those given."""
    changes = parse_pairs(options_class, pairs)
    if from_stdin:
        changes |= read_options(options_class)
    changes |= read_secrets(options_class, secret_keys)
    options = dict(old)
    for key in unset_keys:
        names = _same_option(options_class, key) & options.keys()
        if not names:
            raise OptionError(f"option {key!r} is not set; set are: {', '.join(options)}")
        for name in names:
            del options[name]
    for key, value in changes.items():
        for name in _same_option(options_class, key):
            options.pop(name, None)
        options[key] = value
    return options, set(changes) | set(unset_keys)


def _same_option(options_class: secrets.OptionsClass | None, name: str) -> set[str]:
    """Return an option's name and its aliases."""
    if options_class is not None:
        from datasources.forms import option_fields

        for field in option_fields(options_class):
            if name in field.names:
                return set(field.names)
    return {name}


def _protect_secrets(
    options_class: secrets.OptionsClass | None,
    old: DataSourceConfig,
    new: DataSourceConfig,
    replaced: set[str],
    *,
    asks: bool,
) -> DataSourceConfig:
    """Ask again for every secret that the changes would send to another destination.

    The registry requires that too, but is asked only once the source works: so it is done here
    before anything is sent.

    Args:
        options_class: The connector's.
        old: The source as it is stored.
        new: The source as it is to be.
        replaced: The options that were given anew; those asked for are added.
        asks: Somebody is at a terminal to answer.

    Raises:
        OptionError: Nobody is, and a secret was not given.
    """
    from datasources.registry import required_secrets

    patch = _patch(old.config, new.config, replaced)
    required = required_secrets(options_class, old.config, new.config, patch)
    if not required.missing:
        return new
    reason = f"{', '.join(map(repr, required.changed))} decides where secrets are sent"
    if not asks:
        ways = ", ".join(f"--secret {name}" for name in required.options)
        raise OptionError(
            f"{reason}: give every secret again ({ways}, or --stdin), or take it away with --unset"
        )
    output.echo_err(f"{reason}: every secret has to be given again.")
    options = {name: value for name, value in new.config.items() if name not in required.options}
    prompts.ask_named(options_class, required.options, options)
    replaced.update(required.options)
    return dataclasses.replace(new, config=options)


def _patch(old: Mapping[str, Any], new: Mapping[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """Return a merge patch that makes `new` of `old`, with every option that was given."""
    changed = [name for name in {*old, *new} if old.get(name) != new.get(name)]
    return {name: _replacement(old.get(name), new.get(name)) for name in {*given, *changed}}


def _replacement(old: Any, new: Any) -> Any:
    """Return a merge patch that replaces a value, where a table would be merged with the old one."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return new
    return {name: _replacement(old.get(name), new.get(name)) for name in {*old, *new}}
