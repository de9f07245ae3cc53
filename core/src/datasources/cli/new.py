"""Write the distribution of a new connector: `new`."""

from __future__ import annotations

import click

from datasources.cli import output, paths
from datasources.cli.completers import complete
from datasources.cli.context import CliContext


@click.command("new")
@click.argument("name")
@click.option(
    "--into",
    metavar="DIR",
    type=paths.expand,
    shell_complete=complete("directories"),
    default=".",
    help="Directory for the distribution's own; made if missing.  [default: this one]",
)
@click.pass_obj
def new_command(context: CliContext, name: str, into: str) -> None:
    """Write the distribution of a new connector NAME, whole and working.

    NAME is the type of its sources, such as 'my_service'.
    """
    from datasources.scaffold import create

    installed = {entry.name for entry in context.plugins.entries() if entry.is_connector}
    path = create(name, into, taken=installed - {""})
    output.echo(str(path))
    output.echo_err(
        'Next: pip install -e ".[test]" and pytest there; README.md says what to replace.'
    )
