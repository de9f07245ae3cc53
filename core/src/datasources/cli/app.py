"""The `datasources` command: global options, commands imported when they are called, errors."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from datasources import __version__
from datasources.cli import output
from datasources.cli.context import CliContext
from datasources.errors import DataSourceError

_MODULES = {
    "discovery": "plugins types template",
    "add": "add",
    "sources": "list show test remove",
    "items": "items info preview stats",
    "fetch": "fetch upload clean",
    "export_import": "export import",
    "keys": "keys",
    "new": "new",
}
_ASKED = "datasources.plugins asked for commands"
_COMMANDS = {name: module for module, names in _MODULES.items() for name in names.split()}


class Group(click.Group):
    """Imports a command when it is called, and plugins only for commands that are not ours."""

    def run(self) -> int:
        """Run on `sys.argv`; return the exit code: 0, 1 for errors, 2 for wrong usage."""
        for stream in (sys.stdout, sys.stderr):
            # What the terminal's encoding lacks is escaped and no reason to fail.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            self.main(prog_name="datasources")
        except SystemExit as exc:
            return exc.code if isinstance(exc.code, int) else 1
        return 0

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run and exit, every error told in one sentence."""
        output.start_anew()
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except SystemExit:  # of the shell's completion; those of plugins end in `invoke`
            raise
        except BaseException as exc:  # noqa: BLE001  (told, with its traceback on -v)
            code = self._tell(exc)
        sys.exit(code or 0)

    def invoke(self, ctx: click.Context) -> None:
        try:
            super().invoke(ctx)
            if sys.stdout is not None:  # as where it was closed
                sys.stdout.flush()
        except (click.exceptions.Exit, click.ClickException):
            raise
        except BaseException as exc:  # noqa: BLE001  (as in main)
            raise click.exceptions.Exit(self._tell(exc)) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._ask_plugins(ctx)
        return [*_COMMANDS, *sorted(self.commands)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in _COMMANDS:
            module = import_module(f"datasources.cli.{_COMMANDS[name]}")
            command: click.Command = getattr(module, f"{name}_command")
            return command
        self._ask_plugins(ctx)
        return super().get_command(ctx, name)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Take a plugin's command, unless its name is taken."""
        taken = name or cmd.name
        if taken in _COMMANDS or taken in self.commands:
            raise ValueError(f"the command line has a command {taken!r} already")
        super().add_command(cmd, name)

    def _ask_plugins(self, ctx: click.Context) -> None:
        if ctx.meta.setdefault(_ASKED, False):
            return
        ctx.meta[_ASKED] = True
        _start_log()
        context = ctx.find_object(CliContext) or _session(ctx)
        context.plugins.load_observers()
        context.plugins.notify("datasources_commands", group=self)

    def _tell(self, exc: BaseException) -> int:
        """Say what went wrong, and return the exit code for it."""
        if isinstance(exc, click.exceptions.Exit):
            return exc.exit_code
        if _interrupted(exc):
            click.echo(err=True)
            return 130
        lost = _raised_by_printing(exc)
        if lost:
            _silence(sys.stdout)
            if isinstance(exc, BrokenPipeError):  # the reader has enough
                return 1
        if output.verbose():
            _trace(exc)
        if isinstance(exc, click.UsageError):
            _usage(exc)
            return exc.exit_code
        if isinstance(exc, click.Abort):
            click.echo(err=True)  # the prompt stands on the line
        click.echo(f"Error: {_sentence(exc, lost=lost)}", err=True)
        return 1


def _start_log() -> None:
    from datasources.cli import log  # not for every command: logging takes milliseconds

    log.start()


def _session(ctx: click.Context) -> CliContext:
    given = ctx.params
    if "@" in (given.get("store") or ""):
        from datasources.redaction import redact_text

        if redact_text(given["store"]) != given["store"]:
            raise click.UsageError(
                "a password is never an argument: give the store's URL in DATASOURCES_STORE"
            )
    return CliContext(
        store=given.get("store") or os.environ.get("DATASOURCES_STORE"),
        config=given.get("config") or os.environ.get("DATASOURCES_CONFIG"),
        key_file=given.get("key_file"),
        environ=os.environ,
    )


def _interrupted(exc: BaseException) -> bool:
    if isinstance(exc, KeyboardInterrupt):
        return True
    return isinstance(exc, click.Abort) and not isinstance(exc.__context__, EOFError)


def _raised_by_printing(exc: BaseException) -> bool:
    """Tell whether the output cannot be written, rather than a plugin's file or socket."""
    if not isinstance(exc, OSError) or exc.__traceback__ is None:
        return False
    from traceback import walk_tb

    *_, (frame, _) = walk_tb(exc.__traceback__)
    module = str(frame.f_globals.get("__name__"))
    return module == __name__ or module.partition(".")[0] in ("click", "rich")


def _silence(stream: Any) -> None:
    """Keep the interpreter from writing what is left once more when it exits."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):  # a stream without a file, as in tests
        pass


def _usage(exc: click.UsageError) -> None:
    if exc.ctx is not None:
        click.echo(exc.ctx.get_usage(), err=True)
    click.echo(f"Error: {output.clean(output.mask(exc.format_message(), shapes=True))}", err=True)


def _sentence(exc: BaseException, *, lost: bool = False) -> str:
    if isinstance(exc, click.Abort):
        return "the input ended before it was complete"
    if isinstance(exc, click.ClickException):
        return output.clean(output.mask(exc.format_message()))
    text = " ".join(str(exc).split())
    if isinstance(exc, DataSourceError):
        return output.clean(output.mask(text)) or type(exc).__name__
    if isinstance(exc, OSError) and exc.strerror and (lost or exc.filename is not None):
        file = "the output" if lost else repr(exc.filename)
        return output.clean(output.mask(f"{file}: {exc.strerror}", shapes=True))
    told = f"unexpected {type(exc).__name__}" + (f": {text}" if text else "")
    return output.clean(output.mask(told, shapes=True)) + " (-v shows the traceback)"


def _trace(exc: BaseException) -> None:
    from traceback import format_exception

    for line in output.mask("".join(format_exception(exc)), shapes=True).splitlines():
        click.echo(output.clean(line), err=True)


def _verbosely(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        output.be_verbose()
        _start_log()


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--store",
    metavar="PATH",
    help="Where sources are kept: a file, or a URL that a plugin opens. [env: DATASOURCES_STORE; "
    "default: datasources/sources.db in the user's data directory]",
)
@click.option(
    "--config",
    metavar="FILE",
    help="TOML file that declares more sources, limits and rules. [env: DATASOURCES_CONFIG]",
)
@click.option(
    "--key-file",
    metavar="FILE",
    help="Encryption keys, one a line. [env: DATASOURCE_ENCRYPTION_KEY, "
    "DATASOURCE_ENCRYPTION_KEY_FILE; default: 'key' beside the store]",
)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_verbosely,
    help="Show logs and tracebacks on stderr.",
)
@click.version_option(__version__, prog_name="datasources")
@click.pass_context
def cli(ctx: click.Context, /, **_: str | None) -> None:
    """List, inspect and fetch data from outside systems.

    Results go to standard output, everything else to standard error.
    """
    ctx.obj = _session(ctx)
