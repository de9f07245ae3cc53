"""The `datasources` command: global options, commands imported when called, errors reported."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from datasources import __version__
from datasources.cli import errors, output
from datasources.cli.completers import complete
from datasources.cli.context import CliContext
from datasources.cli.suggestions import SuggestingGroup

_COMMANDS = {
    "plugins": "discovery",
    "types": "discovery",
    "template": "discovery",
    "add": "add",
    "list": "sources",
    "show": "sources",
    "test": "sources",
    "edit": "edit",
    "pause": "sources",
    "resume": "sources",
    "remove": "sources",
    "queries": "queries",
    "items": "items",
    "info": "items",
    "preview": "items",
    "stats": "items",
    "fetch": "fetch",
    "upload": "fetch",
    "clean": "fetch",
    "export": "export_import",
    "import": "export_import",
    "keys": "keys",
    "new": "new",
    "completion": "completion",
}
"""The module of each built-in command, in the order of `datasources --help`."""
_PLUGINS_LOADED = "datasources.plugins_loaded"  # key in `click.Context.meta`


_NO_ARGUMENTS: type[click.UsageError] | tuple[()] = getattr(
    click.exceptions, "NoArgsIsHelpError", ()
)
"""Raised for a group without a command; its message is the help. Click before 8.2 prints it."""


class Group(SuggestingGroup):
    """A click group that imports each command when the command is called.

    Plugins are asked for commands only when the help lists all, or a command is not built in.
    """

    def run(self) -> int:
        """Run on `sys.argv`; return the exit code: 0, 1 for errors, 2 for wrong usage."""
        if sys.stdout is None:
            sys.stdout = output.ClosedOutput()
        try:
            for stream in (sys.stdout, sys.stderr):
                # Characters that the terminal's encoding lacks are escaped instead of an error.
                # This flushes what `listing` could not write.
                if hasattr(stream, "reconfigure"):
                    stream.reconfigure(errors="backslashreplace")
            self.main(prog_name="datasources")
        except SystemExit as exc:
            return exc.code if isinstance(exc.code, int) else 1
        except OSError as exc:
            return self._report(exc)
        return 0

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run and exit; every error is reported in one sentence."""
        output.reset()
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except SystemExit:  # shell completion exits this way; plugins' exits end in `invoke`
            raise
        except BaseException as exc:  # noqa: BLE001  (reported, with its traceback on -v)
            code = self._report(exc)
        sys.exit(code or 0)

    def invoke(self, ctx: click.Context) -> None:
        """Run the command; an error becomes click's `Exit` with the right exit code."""
        try:
            super().invoke(ctx)
            sys.stdout.flush()
        except (click.exceptions.Exit, click.ClickException):
            raise
        except BaseException as exc:  # noqa: BLE001  (as in `main`)
            raise click.exceptions.Exit(self._report(exc)) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the built-in commands, then those of plugins in order."""
        self._load_plugin_commands(ctx)
        return [*_COMMANDS, *sorted(self.commands)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a built-in command, or return that of a plugin; None if there is none."""
        if name in _COMMANDS:
            module = import_module(f"datasources.cli.{_COMMANDS[name]}")
            command: click.Command = getattr(module, f"{name}_command")
            return command
        self._load_plugin_commands(ctx)
        return super().get_command(ctx, name)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a plugin's command; raise ValueError if there is one of that name."""
        command_name = name or cmd.name
        if command_name in _COMMANDS or command_name in self.commands:
            raise ValueError(f"the command line has a command {command_name!r} already")
        super().add_command(cmd, name)

    def _load_plugin_commands(self, ctx: click.Context) -> None:
        if ctx.meta.setdefault(_PLUGINS_LOADED, False):
            return
        ctx.meta[_PLUGINS_LOADED] = True
        if ctx.resilient_parsing:  # a shell completes words
            from datasources.cli.completion import silence

            with silence():
                self._ask_plugins(ctx)
        else:
            _start_log()
            self._ask_plugins(ctx)

    def _ask_plugins(self, ctx: click.Context) -> None:
        context = ctx.find_object(CliContext) or CliContext.from_options(ctx.params)
        context.plugins.load_observers()
        context.plugins.notify("datasources_commands", group=self)

    def _report(self, exc: BaseException) -> int:
        """Print an error as one sentence on stderr; return the exit code for it."""
        try:
            _print_error(exc)
        except OSError:  # stderr cannot be written; the exit code has to say it all
            _discard_output(sys.stderr)
        return _exit_code(exc)


def _exit_code(exc: BaseException) -> int:
    if isinstance(exc, (click.exceptions.Exit, click.UsageError)):
        return exc.exit_code
    return 130 if _is_interrupt(exc) else 1  # 128 + SIGINT, as shells report it


def _print_error(exc: BaseException) -> None:
    if isinstance(exc, click.exceptions.Exit):
        return
    if _is_interrupt(exc):
        # At a terminal the cursor stands behind a prompt or the `^C` of the terminal itself.
        click.echo("\nInterrupted." if output.is_terminal(sys.stderr) else "Interrupted.", err=True)
        return
    output_failed = _is_output_error(exc)
    if output_failed:
        _discard_output(sys.stdout)
        if isinstance(exc, BrokenPipeError):  # the reader, such as `head`, has enough
            return
    if output.is_verbose():
        _print_traceback(exc)
    if isinstance(exc, _NO_ARGUMENTS):
        click.echo(exc.format_message(), err=True)
        return
    if isinstance(exc, click.UsageError):
        _print_usage_error(exc)
        return
    if isinstance(exc, click.Abort):
        click.echo(err=True)  # ends the line of the prompt
    hint = " (-v shows the traceback)"
    message = errors.describe(exc, output_failed=output_failed, hint=hint)
    click.echo(f"Error: {message}", err=True)


def _start_log() -> None:
    from datasources.cli import log  # importing logging takes milliseconds; few commands need it

    log.start()


def _is_interrupt(exc: BaseException) -> bool:
    """Return True for Ctrl-C, which click's prompts turn into Abort, as they do the end of input."""
    if isinstance(exc, KeyboardInterrupt):
        return True
    return isinstance(exc, click.Abort) and not isinstance(exc.__context__, EOFError)


def _is_output_error(exc: BaseException) -> bool:
    """Return True if printing raised the error, False if a plugin's file or socket did."""
    if not isinstance(exc, OSError) or exc.__traceback__ is None:
        return False
    from traceback import walk_tb

    *_, (frame, _) = walk_tb(exc.__traceback__)
    module = str(frame.f_globals.get("__name__"))
    return module in (__name__, output.__name__) or module.partition(".")[0] in ("click", "rich")


def _discard_output(stream: Any) -> None:
    """Send the rest to /dev/null: the interpreter flushes the stream once more when it exits."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):  # a stream without a file descriptor, as in tests
        pass


def _print_usage_error(exc: click.UsageError) -> None:
    if exc.ctx is not None:
        click.echo(exc.ctx.get_usage(), err=True)
    message = output.printable(output.mask(errors.join_lines(exc.format_message()), shapes=True))
    click.echo(f"Error: {message}", err=True)


def _print_traceback(exc: BaseException) -> None:
    from traceback import format_exception

    for line in output.mask("".join(format_exception(exc)), shapes=True).splitlines():
        click.echo(output.printable(line), err=True)


def _set_verbose(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        output.set_verbose()
        _start_log()


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--store",
    shell_complete=complete("files"),
    metavar="PATH",
    help="Where sources are kept: a file, or a URL that a plugin opens. [env: DATASOURCES_STORE; "
    "default: datasources/sources.db in the user's data directory]",
)
@click.option(
    "--config",
    shell_complete=complete("files"),
    metavar="FILE",
    help="TOML file that declares more sources, limits and rules. [env: DATASOURCES_CONFIG]",
)
@click.option(
    "--key-file",
    shell_complete=complete("files"),
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
    callback=_set_verbose,
    help="Show logs and tracebacks on stderr.",
)
@click.version_option(__version__, prog_name="datasources")
@click.pass_context
def cli(ctx: click.Context, /, **_: str | None) -> None:
    """List, inspect and fetch data from outside systems.

    Results go to standard output, everything else to standard error.
    """
    ctx.obj = CliContext.from_options(ctx.params)
