"""The commands `datasources tokens`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output, paths, tables
from datasources.cli.context import CliContext, login_name
from datasources.errors import OptionError

if TYPE_CHECKING:
    from datasources import Grant
    from datasources.stores import Store
    from datasources_server.tokens import TokenStore

_UNITS = {"m": 60, "h": 3600, "d": 86_400}

tokens_option = click.option(
    "--tokens",
    "tokens_path",
    metavar="FILE",
    envvar="DATASOURCES_TOKENS",
    help="The file of the tokens' hashes. [env: DATASOURCES_TOKENS; default: tokens.json beside "
    "a store that is a file, else the store]",
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
    seconds, given = _seconds(expires), list(map(_grant, grants))
    with _opened(context, options["tokens_path"], create=True) as (tokens, store):
        token = tokens.add(name, admin=admin, grants=given, seconds=seconds)
        _note(context, store, "token_made", name)
    output.echo(token)


@tokens_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@tokens_option
@click.pass_obj
def list_tokens(context: CliContext, as_json: bool, tokens_path: str | None) -> None:
    """List tokens: who may do what with which source."""
    with _opened(context, tokens_path) as (tokens, store):
        uses = _uses(store)
        described = [token.to_dict(uses.get(token.name)) for token in tokens.list()]
    if as_json:
        output.print_json(described)
    elif described:
        rows = [
            [
                token["name"],
                "admin" if token["admin"] else " ".join(map(_describe_grant, token["grants"])),
                token["expires_at"],
                token["last_used_at"],
            ]
            for token in described
        ]
        tables.print_table(["name", "grants", "expires", "last used"], rows)
    else:
        output.echo_err("There are no tokens; `datasources tokens add` makes one.")


@tokens_group.command("revoke")
@click.argument("name")
@tokens_option
@click.pass_obj
def revoke_token(context: CliContext, name: str, tokens_path: str | None) -> None:
    """Revoke a token; what runs under it ends within seconds."""
    with _opened(context, tokens_path, create=True) as (tokens, store):
        if not tokens.revoke(name):
            raise OptionError(
                f"there is no token {name!r}; `datasources tokens list` shows those there are"
            )
        _note(context, store, "token_revoked", name)
    output.echo_err(f"Revoked {name!r}.")


def open_tokens(context: CliContext, path: str | None, store: Store) -> TokenStore:
    """Return the tokens of a file, by default that beside the store, or else those in the store."""
    from datasources_server.shared_tokens import SharedTokens
    from datasources_server.token_file import Tokens

    if path is not None:
        return Tokens(paths.expand(path))
    if paths.store_file(context.store_url) is not None:
        return Tokens(beside_store(context, "tokens.json"))
    records = store.records()
    if records is None:
        raise OptionError("the store keeps no records; name a file of tokens by --tokens")
    return SharedTokens(records)


@contextmanager
def _opened(
    context: CliContext, path: str | None, *, create: bool = False
) -> Iterator[tuple[TokenStore, Store]]:
    """Open the tokens and the store; a store that is a file is made on `create`."""
    store = context.open_store(create=create)
    try:
        yield open_tokens(context, path, store), store
    finally:
        store.close()


def _note(context: CliContext, store: Store, operation: str, name: str) -> None:
    """Add an entry to the audit trail of the store, and to the audit log of the settings."""
    from datasources_server.audit import append_entries, make_entry
    from datasources_server.settings import ServerSettings

    entry = make_entry(operation, token=name, user=login_name(), outcome="ok")
    records = store.records()
    if records is not None:
        days = context.settings.server.get("audit_days", ServerSettings().audit_days)
        append_entries(records, [entry], days)
    if context.audit_log is not None:
        context.audit_log.write(entry)


def _uses(store: Store) -> dict[str, float]:
    from datasources_server.token_uses import read_uses

    records = store.records()
    return {} if records is None else read_uses(records)


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
