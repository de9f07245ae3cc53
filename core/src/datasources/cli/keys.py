"""The encryption keys of the store: `keys init`, `list`, `add`, `rotate`, `drop`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output, secrets
from datasources.cli.context import CliContext
from datasources.errors import MissingKeyError

if TYPE_CHECKING:
    from datasources.models import Rotation


@click.group("keys")
def keys_command() -> None:
    """Manage the keys that the stored sources are encrypted with.

    The first key encrypts, all of them decrypt. Keys are known by their fingerprints.
    """


@keys_command.command("init")
@click.pass_obj
def init(context: CliContext) -> None:
    """Make the key file, with mode 600."""
    if (used := _in_use(context)) and not context.keys.exists:
        context.explain_missing_key(used)
    if not context.keys.create():
        raise MissingKeyError(f"the key file {context.keys.file()!r} is there already")
    output.note(f"Made the encryption key {context.keys.file()}: keep a copy of it.")


@keys_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_keys(context: CliContext, as_json: bool) -> None:
    """List fingerprints, and how many stored sources each key opens."""
    held = context.keys.manager().fingerprints if context.keys.exists else []
    used = _in_use(context)
    rows = [
        {
            "fingerprint": name,
            "sources": used.get(name, 0),
            "role": "missing"
            if name not in held
            else "decrypts"
            if held.index(name)
            else "encrypts",
        }
        for name in [*held, *sorted(used.keys() - set(held))]
    ]
    if as_json:
        output.document(rows)
    elif rows:
        output.table(list(rows[0]), [list(row.values()) for row in rows])
    else:
        output.note("There is no key yet; `datasources keys init` or the first `add` makes one.")


@keys_command.command("add")
@click.option("--first", is_flag=True, help="Encrypt with it from now on.")
@click.pass_obj
def add(context: CliContext, first: bool) -> None:
    """Add an existing key to the key file: asked for without echo, or piped in."""
    from datasources.credentials import CredentialManager, fingerprint

    key = secrets.ask("Key").strip()
    output.hide([key])
    if not CredentialManager.validate_key(key):
        raise MissingKeyError("this is not a key: one is 32 bytes in URL-safe base64")
    with context.keys.locked():
        keys = context.keys.read() if context.keys.exists else []
        if key in keys:
            raise MissingKeyError(f"the key {fingerprint(key)!r} is in the file already")
        context.keys.write([key, *keys] if first else [*keys, key])
    output.note(f"Added {fingerprint(key)}.")


@keys_command.command("rotate")
@click.option("--new-key", is_flag=True, help="Make a new first key before.")
@click.pass_obj
def rotate(context: CliContext, new_key: bool) -> None:
    """Encrypt every stored source with the first key; may be stopped and run again."""
    if not context.keys.exists:
        context.explain_missing_key(_in_use(context))
    if new_key:
        from datasources.credentials import CredentialManager

        with context.keys.locked():
            context.keys.write([CredentialManager.generate_key(), *context.keys.read()])

    async def work(registry: Any) -> tuple[Rotation, list[str]]:
        return registry.reencrypt(), registry.credentials.fingerprints

    done, (first, *others) = context.run(work)
    output.note(f"Encrypted with {first}: {done.changed} changed.")
    if done.failed:
        reasons = "; ".join(f"{each!r}: {reason}" for each, reason in sorted(done.failed.items()))
        raise click.ClickException(f"{len(done.failed)} sources could not be changed: {reasons}")
    for name in others:
        output.note(f"{name} is not needed any more; `datasources keys drop {name}` removes it.")


@keys_command.command("drop")
@click.argument("name", metavar="FINGERPRINT")
@click.option("--force", is_flag=True, help="Even if sources can then never be opened again.")
@click.pass_obj
def drop(context: CliContext, name: str, force: bool) -> None:
    """Remove a key from the key file."""
    from datasources.credentials import fingerprint

    with context.keys.locked():
        keys = {fingerprint(key): key for key in context.keys.read()}
        if name not in keys:
            raise MissingKeyError(f"there is no key {name!r}; there are: {', '.join(keys)}")
        if len(keys) == 1:
            raise MissingKeyError(f"{name!r} is the only key; the store needs one")
        if (count := _in_use(context).get(name, 0)) and not force:
            raise MissingKeyError(
                f"{count} sources are encrypted with {name!r}; `datasources keys rotate` first"
            )
        context.keys.write([key for each, key in keys.items() if each != name])
    output.note(f"Removed {name}.")


def _in_use(context: CliContext) -> Counter[str]:
    """Return how many stored sources each key has encrypted, by fingerprint."""
    store = context.open_store()
    try:
        return Counter(record.credentials.partition(":")[0] for record in store.list())
    finally:
        store.close()
