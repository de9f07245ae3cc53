"""Suggest the names that a mistyped one could mean."""

from __future__ import annotations

from collections.abc import Iterable

import click


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a question that names up to three close names; empty if none is close."""
    from difflib import get_close_matches

    # A third of the letters may differ: `lst` is close to `list`, but not to `test`.
    close = get_close_matches(name.lower(), names, n=3, cutoff=0.65)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""


class SuggestingGroup(click.Group):
    """A group whose error for an unknown command names those that are close."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; UsageError if there is none."""
        name = args[0]
        if not (name.startswith("-") or ctx.resilient_parsing or self.get_command(ctx, name)):
            question = did_you_mean(name, self.list_commands(ctx))
            raise click.UsageError(f"there is no command {name!r}; {question}".rstrip("; "), ctx)
        return super().resolve_command(ctx, args)
