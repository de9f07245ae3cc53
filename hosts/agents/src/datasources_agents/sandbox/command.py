"""The command `datasources run`."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output, paths
from datasources.cli.context import CliContext
from datasources.errors import OptionError

if TYPE_CHECKING:
    from datasources import Access, DataSourceRegistry, WorkspaceSession
    from datasources_agents.sandbox import Runner, RunResult

_ENDS = {
    "timeout": "it took longer than --timeout",
    "memory": "its processes took more memory than --memory",
    "processes": "it had more processes than --processes",
    "disk": "its files took more than --disk, or were too many",
    "output": "it printed more than --output bytes",
    "killed": "it was killed; the machine may have no memory left",
}


@click.command("run", context_settings={"ignore_unknown_options": True})
@click.argument("script", type=click.File("r", encoding="utf-8"))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--source", "sources", multiple=True, metavar="ID", help="It may read and query.")
@click.option("--write", "writable", multiple=True, metavar="ID", help="It may store files there.")
@click.option("--into", metavar="DIR", type=paths.expand, help="For the files that it makes.")
@click.option("--python", metavar="PATH", help="The interpreter. [default: this one]")
@click.option("--package", "packages", multiple=True, metavar="DIR", help="It may import from it.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=60.0)
@click.option("--memory", type=click.IntRange(min=1), default=1 << 30, help="Bytes.")
@click.option("--processes", type=click.IntRange(min=1), default=64)
@click.option("--disk", type=click.IntRange(min=1), default=1 << 30, help="Bytes of its files.")
@click.option("--output", type=click.IntRange(min=1), default=1 << 20, help="Bytes that it prints.")
@click.pass_obj
def run_command(
    context: CliContext,
    /,
    script: Any,
    arguments: Sequence[str],
    sources: Sequence[str],
    writable: Sequence[str],
    into: str | None,
    python: str | None,
    packages: Sequence[str],
    **limits: float,
) -> None:
    """Run a Python script in a sandbox, with sources and without a credential.

    It has no network, and sees no file of this machine. It reads sources with `import
    datasources_client as ds`. Files that it makes are deleted, or copied to --into.
    """
    code = script.read()
    runner = _make_runner(python, packages)

    async def run(registry: DataSourceRegistry) -> RunResult:
        for source in (*sources, *writable):
            context.check_exists(registry, source)
        access = _narrow(registry, sources, writable)
        async with access.workspace("run") as session:
            result = await runner.run(
                code, session, arguments=arguments, on_output=_make_printer(), **limits
            )
            if into is not None:
                await _copy(session, result, into)
            return result

    result = context.run(run)
    if result.reason != "ok":
        raise click.ClickException(f"the script was ended: {_ENDS[result.reason]}")
    click.get_current_context().exit(result.exit_code or 0)


def _make_runner(python: str | None, packages: Sequence[str]) -> Runner:
    try:
        from datasources_agents.sandbox import Runner

        return Runner(python=python, packages=packages)
    except ModuleNotFoundError:
        raise OptionError(
            "running code needs the extra 'sandbox': pip install 'datasources-agents[sandbox]'"
        ) from None


def _narrow(
    registry: DataSourceRegistry, sources: Sequence[str], writable: Sequence[str]
) -> Access:
    from datasources import Grant, Principal

    grants = [Grant(source, {"read", "query"}) for source in sources]
    grants += [Grant(source, {"write"}) for source in writable]
    return registry.access(Principal("datasources run", grants=grants))


def _make_printer() -> Callable[[bytes], None]:
    """Return a function that prints output, control characters escaped but for lines and tabs."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(data: bytes) -> None:
        parts = re.split(r"([\n\t])", decoder.decode(data))
        text = "".join(part if part in "\n\t" else output.printable(part) for part in parts)
        output.echo_raw(text, newline=False)

    return write


async def _copy(session: WorkspaceSession, result: RunResult, into: str) -> None:
    """Copy the files that the code has made, whatever it has put in their places since."""
    from datasources import Workspace, copy_file
    from datasources_server.workspace_files import open_file

    for file in result.files:
        with open_file(str(session.path), file.path) as source:
            await copy_file(source, Workspace(into), file.path)
