"""The commands `datasources tokens`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output, paths, tables
from datasources.cli.context import CliContext
from datasources.errors import OptionError

if TYPE_CHECKING:
    from datasources import Grant
    from datasources_server.tokens import Tokens

_UNITS = {"m": 60, "h": 3600, "d": 86_400}

tokens_option = click.option(
    "--tokens",
    "tokens_path",
    metavar="FILE",
    envvar="DATASOURCES_TOKENS",
    help="The file of the tokens' hashes. [env: DATASOURCES_TOKENS; default: tokens.json beside "
    "the store]",
)


@click.group("tokens")
def tokens_group() -> None:
    """Make, list and revoke tokens of the HTTP API."""


@tokens_group.command("add")
@click.argument("name")
@click.option("--admin", is_flag=True, help="May do everything.")
@click.option(
    "--grant",
    "grants",
    multiple=True,
    metavar="SOURCE:RIGHTS[:PATTERN]",
    help="Rights (read, query, write; with commas) for a source, or for items of it.",
)
@click.option(
    "--expires", default="90d", show_default=True, help="Such as 30m, 12h, 90d; or never."
)
@tokens_option
@click.pass_obj
def add_token(
    context: CliContext,
    /,
    name: str,
    admin: bool,
    grants: tuple[str, ...],
    expires: str,
    **options: Any,
) -> None:
    """Make a token and print it; it is not shown again."""
    if not (admin or grants):
        raise click.UsageError("give --grant SOURCE:RIGHTS, or --admin")
    tokens = open_tokens(context, options["tokens_path"])
    seconds = _seconds(expires)
    output.echo(tokens.add(name, admin=admin, grants=list(map(_grant, grants)), seconds=seconds))


@tokens_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@tokens_option
@click.pass_obj
def list_tokens(context: CliContext, as_json: bool, tokens_path: str | None) -> None:
    """List tokens: who may do what with which source."""
    described = [token.to_dict() for token in open_tokens(context, tokens_path).list()]
    if as_json:
        output.print_json(described)
    elif described:
        rows = [
            [
                token["name"],
                "admin" if token["admin"] else " ".join(map(_describe_grant, token["grants"])),
                token["expires_at"],
            ]
            for token in described
        ]
        tables.print_table(["name", "grants", "expires"], rows)
    else:
        output.echo_err("There are no tokens; `datasources tokens add` makes one.")


@tokens_group.command("revoke")
@click.argument("name")
@tokens_option
@click.pass_obj
def revoke_token(context: CliContext, name: str, tokens_path: str | None) -> None:
    """Revoke a token; what runs under it ends within seconds."""
    if not open_tokens(context, tokens_path).revoke(name):
        raise OptionError(
            f"there is no token {name!r}; `datasources tokens list` shows those there are"
        )
    output.echo_err(f"Revoked {name!r}.")


def open_tokens(context: CliContext, path: str | None) -> Tokens:
    """Return the tokens of a file, by default that beside the store."""
    from datasources_server.tokens import Tokens

    return Tokens(beside_store(context, "tokens.json") if path is None else paths.expand(path))


def beside_store(context: CliContext, name: str) -> str:
    """Return the path of a name in the directory of the store, or of the default store."""
    store = paths.store_file(context.store_url)
    directory = context.home if store is None else os.path.dirname(os.path.abspath(store))
    return os.path.join(directory, name)


def _grant(text: str) -> Grant:
    from datasources import Grant

    source, separator, rest = text.partition(":")
    rights, _, pattern = rest.partition(":")
    if not separator:
        raise click.UsageError("a grant is SOURCE:RIGHTS[:PATTERN], such as shop:read,query")
    return Grant(source, rights.split(","), (pattern,) if pattern else None)


def _describe_grant(grant: dict[str, Any]) -> str:
    parts = [grant["source"], ",".join(grant["rights"]), *(grant["items"] or ())]
    return ":".join(parts)


def _seconds(text: str) -> float | None:
    if text == "never":
        return None
    match = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if match is None:
        raise click.UsageError("--expires is a number and a unit, such as 30m, 12h, 90d; or never")
    return int(match[1]) * _UNITS[match[2]]
