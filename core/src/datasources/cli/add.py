"""Add a source from arguments, a file, a pipe, or answers to questions: `add`."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from datasources.cli import errors, output, paths, prompts, secrets, stdin
from datasources.cli.completers import complete
from datasources.cli.context import CliContext
from datasources.errors import DataSourceExistsError, OptionError
from datasources.models import DataSourceConfig, DataSourceType
from datasources.redaction import REFERENCE

if TYPE_CHECKING:
    from datasources.registry import DataSourceRegistry

Command = TypeVar("Command", bound=Callable[..., Any])


def accept_options(purpose: str) -> Callable[[Command], Command]:
    """Return a decorator that lets a command take options of a connector in three ways.

    The command gets the arguments `pairs`, `secret_keys` and `from_stdin`.

    Args:
        purpose: The sentence that begins the help of `-o`.
    """
    declarations = [
        click.option(
            "-o",
            "--option",
            "pairs",
            metavar="KEY=VALUE",
            shell_complete=complete("option_pairs"),
            multiple=True,
            help=f"{purpose} A secret only as a reference: '${{env:NAME}}', '${{file:/path}}'.",
        ),
        click.option(
            "-s",
            "--secret",
            "secret_keys",
            metavar="KEY",
            shell_complete=complete("option_keys"),
            multiple=True,
            help="Ask for this option without echo.",
        ),
        click.option(
            "--stdin",
            "from_stdin",
            is_flag=True,
            help="Read options, secrets too, from standard input: TOML or JSON.",
        ),
    ]

    def declare(command: Command) -> Command:
        for declaration in reversed(declarations):  # as decorators: the last is applied first
            command = declaration(command)
        return command

    return declare


@click.command("add")
@click.argument("type_name", metavar="[TYPE]", required=False, shell_complete=complete("types"))
@click.option("--id", "source_id", metavar="ID", help="The source's id; default: the type.")
@click.option("--name", help="A name for people; default: the id.")
@accept_options("An option of the connector.")
@click.option(
    "--from",
    "file",
    metavar="FILE",
    type=paths.expand,
    shell_complete=complete("files"),
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

    On a terminal, and without options, it asks for everything, and what to do if it does not work.
    Relative paths are stored as absolute ones.
    """
    asks = file is None and output.is_interactive() and not any(given.values())
    if file is not None:
        if type_name or name or any(given.values()):
            raise click.UsageError("--from FILE says it all; only --id goes with it")
        configs = _read_configs(file, source_id)
        _check_ids_free(context, configs, replace=replace)
    elif type_name is None and not asks:
        raise click.UsageError("give a TYPE, as `datasources types` lists them, or --from FILE")
    else:
        configs = [
            _build_config(context, type_name, source_id, name, replace=replace, asks=asks, **given)
        ]
    configs = [make_paths_absolute(context, config) for config in configs]
    configs = try_until_it_works(context, configs, connect=test, asks=asks)

    async def register(registry: DataSourceRegistry) -> None:
        await registry.register_data_sources(configs, replace=replace)

    context.run(register, create=True)
    output.echo_err(f"Added {', '.join(repr(config.id) for config in configs)}.")


def _read_configs(file: str, source_id: str | None) -> list[DataSourceConfig]:
    """Return the sources that a TOML file declares, or the one of this id."""
    from datasources.config import read_settings

    configs = read_settings(file, {}).sources
    if source_id is not None:
        selected = [config for config in configs if config.id == source_id]
        if not selected:
            ids = ", ".join(config.id for config in configs) or "none"
            raise OptionError(f"{file!r} declares no source {source_id!r}; it declares: {ids}")
        return selected
    if not configs:
        raise OptionError(f"{file!r} declares no source")
    return configs


def _check_ids_free(
    context: CliContext, configs: Sequence[DataSourceConfig], *, replace: bool
) -> None:
    """Raise before anything is asked or tested if an id is taken, or the keys are lost."""
    context.check_not_declared(config.id for config in configs)
    store = context.open_store()
    try:
        context.check_keys(store)
        taken = [config.id for config in configs if store.get(config.id)]
    finally:
        store.close()
    if taken and not replace:
        raise DataSourceExistsError(
            f"source {', '.join(map(repr, taken))} exists already; --replace overwrites it"
        )


def _build_config(
    context: CliContext,
    type_name: str | None,
    source_id: str | None,
    name: str | None,
    *,
    replace: bool,
    asks: bool,
    pairs: Sequence[str],
    secret_keys: Sequence[str],
    from_stdin: bool,
) -> DataSourceConfig:
    """Return the source of the arguments, after asking for everything that they leave open."""
    if asks:
        type_name = type_name or prompts.ask_type(context.plugins.types())
    source_type = DataSourceType(type_name or "")
    options_class = context.plugins.connector_class(source_type).options_class
    options = parse_pairs(options_class, pairs)
    if asks:
        source_id = source_id or prompts.ask("Id of the source", source_type.value)
        name = name or prompts.ask("Name for people", source_id)
    source_id = source_id or source_type.value
    config = DataSourceConfig(source_id, source_type, name or source_id, {})
    _check_ids_free(context, [config], replace=replace)
    if from_stdin:
        options |= read_options(options_class)
    options |= read_secrets(options_class, secret_keys)
    if asks:
        options = prompts.ask_options(
            options_class, functools.partial(context.discover, source_type.value)
        )
    return dataclasses.replace(config, config=options)


def parse_pairs(options_class: secrets.OptionsClass | None, pairs: Sequence[str]) -> dict[str, Any]:
    """Return the options of the arguments `KEY=VALUE`; refuse secrets."""
    texts: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not (key and separator):
            raise click.UsageError("an option is given as -o KEY=VALUE")
        if key in texts:
            raise click.UsageError(f"option {key!r} is given twice")
        secrets.check_no_secret(options_class, key, value)
        texts[key] = value
    return prompts.parse_options(options_class, texts)


def read_secrets(options_class: secrets.OptionsClass | None, keys: Sequence[str]) -> dict[str, Any]:
    """Ask for these options without echo, or read a line of a pipe for each."""
    options: dict[str, Any] = {}
    for key in keys:
        text = secrets.prompt_secret(f"{key} (not shown)")
        output.register_secrets([text])
        options |= prompts.parse_options(options_class, {key: text})
    return options


def read_options(options_class: secrets.OptionsClass | None) -> dict[str, Any]:
    """Return the options that are piped in, as TOML or JSON."""
    options = secrets.parse_table(stdin.read(), "standard input")
    output.register_secrets(
        value
        for key, value in options.items()
        if isinstance(value, str) and secrets.is_secret_option(options_class, key)
    )
    return options


def make_paths_absolute(
    context: CliContext, config: DataSourceConfig, *, names: Collection[str] | None = None
) -> DataSourceConfig:
    """Return a source whose relative paths are absolute, so that it works from every directory.

    Args:
        context: Of the command.
        config: The source.
        names: The options to be looked at; None is all of them.
    """
    options_class = context.plugins.connector_class(config.type).options_class
    if options_class is None:
        return config
    options = dict(config.config)
    for name, value in config.config.items():
        is_given = names is None or name in names
        if is_given and isinstance(value, str) and _is_relative(value):
            changed = {**options, name: os.path.abspath(value)}
            if _paths(options_class, changed) != _paths(options_class, options):
                options = changed
    return dataclasses.replace(config, config=options)


def _is_relative(path: str) -> bool:
    """Return True if a path depends on the working directory; a reference is not looked into."""
    return not (REFERENCE.search(path) or path == "" or os.path.isabs(os.path.expanduser(path)))


def _print_deprecations(context: CliContext, configs: Iterable[DataSourceConfig]) -> None:
    for config in configs:
        options_class = context.plugins.connector_class(config.type).options_class
        for sentence in options_class.deprecations(config.config) if options_class else ():
            output.echo_err(f"Warning: {sentence}.")


def _paths(options_class: secrets.OptionsClass, options: dict[str, Any]) -> list[str]:
    """Return the local paths of a source; none if its options are not valid."""
    try:
        loaded = options_class.check(options)
    except OptionError:
        return []  # reported when the source is validated
    return [os.fspath(path) for path in loaded.paths()] if loaded is not None else []


def try_until_it_works(
    context: CliContext,
    configs: list[DataSourceConfig],
    *,
    connect: bool,
    asks: bool,
    done: str = "added",
    protect: Callable[[DataSourceConfig, Iterable[str]], DataSourceConfig] | None = None,
) -> list[DataSourceConfig]:
    """Validate sources, and connect to each; return them as they are to be stored.

    Args:
        context: Of the command.
        configs: The sources.
        connect: False to validate them only.
        asks: Somebody described the one source at a terminal, and can change it if it fails.
        done: What is done with them, for messages.
        protect: Called with the source after each change, and the options that were changed;
            returns it as it is to be tried.

    Raises:
        DataSourceError: A source is not valid, or does not work.
    """
    while True:
        try:
            failure = context.try_sources(configs, connect=connect)
        except Exception as exc:
            if not asks:
                raise
            error, can_store = exc, False
        else:
            if failure is None:
                _print_deprecations(context, configs)
                return configs
            config, error = failure
            can_store = True
            if not asks:
                output.echo_err(f"{config.id!r} was not {done}; --no-test stores it all the same.")
                raise error
        (config,) = configs
        output.echo_err(f"{errors.describe(error)}.")
        action = prompts.ask_after_failure(f"{config.id!r} was not {done}", can_store=can_store)
        if action == "give up":
            raise click.ClickException(f"{config.id!r} was not {done}")
        if action == "store":
            return configs
        options_class = context.plugins.connector_class(config.type).options_class
        options = dict(config.config)
        changed = prompts.change_option(options_class, options)
        changed |= prompts.ask_until_valid(options_class, options)
        config = dataclasses.replace(config, config=options)
        config = protect(config, changed) if protect else make_paths_absolute(context, config)
        configs = [config]
