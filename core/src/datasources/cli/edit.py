"""Change a stored source: `edit`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output, prompts, secrets
from datasources.cli.add import (
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

# Options that say where secrets are sent, and how they are protected on the way.
_DESTINATION = re.compile(
    r"host|addr|server|socket|port|endpoint|ur[il]|account|domain|region|tenant|authority"
    r"|ssl|tls|cert|(?:^|_)ca(?:_|$)|verif|insecure|proxy|token|dsn|conn(?:ection)?_?(?:str|info)",
    re.IGNORECASE,
)
_PLAIN_SECRET = re.compile(r"token", re.IGNORECASE)  # a destination only if it is no secret itself


@click.command("edit")
@click.argument("source_id", metavar="ID", shell_complete=complete("source_ids"))
@click.option("--name", help="A name for people.")
@click.option(
    "-o",
    "--option",
    "pairs",
    metavar="KEY=VALUE",
    shell_complete=complete("option_pairs"),
    multiple=True,
    help="Set an option. A secret only as a reference: '${env:NAME}', '${file:/path}'.",
)
@click.option(
    "-s",
    "--secret",
    "secret_keys",
    metavar="KEY",
    shell_complete=complete("option_keys"),
    multiple=True,
    help="Ask for this option without echo.",
)
@click.option(
    "--stdin",
    "from_stdin",
    is_flag=True,
    help="Read options, secrets too, from standard input: TOML or JSON.",
)
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
    such as another host, every secret has to be given again.
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

    async def replace(registry: DataSourceRegistry) -> None:
        await registry.register_data_source(new, replace=True)

    context.run(replace, source_id)
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

    Whoever may change a source need not know its secrets, and must not get them by sending them to
    a host of their own.

    Args:
        options_class: The connector's.
        old: The source as it is stored.
        new: The source as it is to be.
        replaced: The options that were given anew; those asked for are added.
        asks: Somebody is at a terminal to answer.

    Raises:
        OptionError: Nobody is, and a secret was not given.
    """
    changed = _changed_destinations(options_class, old.config, new.config)
    kept = [
        name
        for name, value in new.config.items()
        if name not in replaced and _holds_secret(options_class, name, value)
    ]
    if not (changed and kept):
        return new
    reason = f"{', '.join(map(repr, changed))} decides where secrets are sent"
    if not asks:
        ways = ", ".join(f"--secret {name}" for name in kept)
        raise OptionError(
            f"{reason}: give every secret again ({ways}, or --stdin), or take it away with --unset"
        )
    output.echo_err(f"{reason}: every secret has to be given again.")
    options = {name: value for name, value in new.config.items() if name not in kept}
    prompts.ask_named(options_class, kept, options)
    replaced.update(kept)
    return dataclasses.replace(new, config=options)


def _changed_destinations(
    options_class: secrets.OptionsClass | None, old: Mapping[str, Any], new: Mapping[str, Any]
) -> list[str]:
    """Return the options whose change sends secrets elsewhere, or protects them less."""
    names = [
        name
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
        and _DESTINATION.search(name)
        and not (_PLAIN_SECRET.search(name) and secrets.is_secret_option(options_class, name))
    ]
    if names or options_class is None or _hosts(options_class, old) == _hosts(options_class, new):
        return names
    return [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]


def _hosts(options_class: secrets.OptionsClass, options: Mapping[str, Any]) -> list[str] | None:
    try:
        loaded = options_class.check(options)
    except OptionError:
        return None
    return list(loaded.hosts()) if loaded is not None else None


def _holds_secret(options_class: secrets.OptionsClass | None, name: str, value: Any) -> bool:
    return value is not None and (
        secrets.is_secret_option(options_class, name) or secrets.looks_secret(value)
    )
