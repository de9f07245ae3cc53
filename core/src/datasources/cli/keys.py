"""Manage the encryption keys of the store: `keys init`, `list`, `add`, `rotate`, `drop`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from datasources.cli import output, secrets, tables
from datasources.cli.context import CliContext
from datasources.cli.suggestions import SuggestingGroup
from datasources.errors import MissingKeyError

if TYPE_CHECKING:
    from datasources.models import Rotation
    from datasources.registry import DataSourceRegistry


@click.group("keys", cls=SuggestingGroup)
def keys_command() -> None:
    """Manage the keys that the stored sources are encrypted with.

    The first key encrypts, all of them decrypt. Keys are known by their fingerprints.
    """


@keys_command.command("init")
@click.pass_obj
def init(context: CliContext) -> None:
    """Make the key file, with mode 600."""
    if (fingerprints := _count_sources_by_key(context)) and not context.keys.exists:
        context.raise_missing_key(fingerprints)
    if not context.keys.create():
        raise MissingKeyError(f"the key file {context.keys.require_path()!r} is there already")
    output.echo_err(f"Made the encryption key {context.keys.require_path()}: keep a copy of it.")


@keys_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_keys(context: CliContext, as_json: bool) -> None:
    """List fingerprints, and how many stored sources each key opens."""
    counts = _count_sources_by_key(context)
    fingerprints = context.keys.manager().fingerprints if context.keys.exists else []
    missing = sorted(counts.keys() - set(fingerprints))
    roles = ["encrypts", *["decrypts"] * (len(fingerprints) - 1)] if fingerprints else []
    roles += ["missing"] * len(missing)
    rows = [
        {"fingerprint": fingerprint, "sources": counts.get(fingerprint, 0), "role": role}
        for fingerprint, role in zip([*fingerprints, *missing], roles, strict=True)
    ]
    if as_json:
        output.print_json(rows)
    elif rows:
        tables.print_table(list(rows[0]), [list(row.values()) for row in rows])
    else:
        output.echo_err(
            "There is no key yet; `datasources keys init` or the first `add` makes one."
        )


@keys_command.command("add")
@click.option("--first", is_flag=True, help="Encrypt with it from now on.")
@click.pass_obj
def add(context: CliContext, first: bool) -> None:
    """Add an existing key to the key file: asked for without echo, or piped in."""
    from datasources.credentials import CredentialManager, fingerprint

    key = secrets.prompt_secret("Key").strip()
    output.register_secrets([key])
    if not CredentialManager.validate_key(key):
        raise MissingKeyError("this is not a key: one is 32 bytes in URL-safe base64")
    with context.keys.lock():
        keys = context.keys.read() if context.keys.exists else []
        if key in keys:
            raise MissingKeyError(f"the key {fingerprint(key)!r} is in the file already")
        context.keys.write([key, *keys] if first else [*keys, key])
    output.echo_err(f"Added {fingerprint(key)}.")


@keys_command.command("rotate")
@click.option("--new-key", is_flag=True, help="Make a new first key before.")
@click.pass_obj
def rotate(context: CliContext, new_key: bool) -> None:
    """Encrypt every stored source with the first key; may be stopped and run again."""
    if not context.keys.exists:
        context.raise_missing_key(_count_sources_by_key(context))
    if new_key:
        from datasources.credentials import CredentialManager

        with context.keys.lock():
            context.keys.write([CredentialManager.generate_key(), *context.keys.read()])

    async def reencrypt(registry: DataSourceRegistry) -> tuple[Rotation, list[str]]:
        return registry.reencrypt(), registry.credentials.fingerprints

    rotation, (first, *others) = context.run(reencrypt)
    output.echo_err(f"Encrypted with {first}: {rotation.changed} changed.")
    if rotation.failed:
        reasons = "; ".join(
            f"{source_id!r}: {reason}" for source_id, reason in sorted(rotation.failed.items())
        )
        raise click.ClickException(
            f"{len(rotation.failed)} sources could not be changed: {reasons}"
        )
    for name in others:
        output.echo_err(
            f"{name} is not needed any more; `datasources keys drop {name}` removes it."
        )


@keys_command.command("drop")
@click.argument("name", metavar="FINGERPRINT")
@click.option("--force", is_flag=True, help="Even if sources can then never be opened again.")
@click.pass_obj
def drop(context: CliContext, name: str, force: bool) -> None:
    """Remove a key from the key file."""
    from datasources.credentials import fingerprint

    with context.keys.lock():
        keys = {fingerprint(key): key for key in context.keys.read()}
        if name not in keys:
            raise MissingKeyError(f"there is no key {name!r}; there are: {', '.join(keys)}")
        if len(keys) == 1:
            raise MissingKeyError(f"{name!r} is the only key; the store needs one")
        if (count := _count_sources_by_key(context).get(name, 0)) and not force:
            raise MissingKeyError(
                f"{count} sources are encrypted with {name!r}; `datasources keys rotate` first"
            )
        del keys[name]
        context.keys.write(list(keys.values()))
    output.echo_err(f"Removed {name}.")


def _count_sources_by_key(context: CliContext) -> Counter[str]:
    """Return how many stored sources each key has encrypted, by fingerprint."""
    store = context.open_store()
    try:
        return Counter(record.credentials.partition(":")[0] for record in store.list())
    finally:
        store.close()
