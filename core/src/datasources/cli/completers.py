"""Refer to the completers of `completion`, which is imported only when a shell asks for words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from datasources.cli.completion import Completer

    Name = Literal[
        "source_ids", "types", "option_pairs", "option_keys", "items", "files", "directories"
    ]


def complete(name: Name) -> Completer:
    """Return the completer of that name in `completion`, for `shell_complete` of a parameter."""

    def call(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from datasources.cli import completion

        completer: Completer = getattr(completion, name)
        return completer(ctx, param, incomplete)

    return call
