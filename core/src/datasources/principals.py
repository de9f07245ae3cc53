"""The callers that a host acts for: principals, their roles, and their grants."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from re import Pattern

from datasources.errors import OptionError
from datasources.names import check_id
from datasources.tabular import glob_regex

ADMIN = "admin"
"""The role that may do everything with every source."""
RIGHTS = ("read", "query", "write")


@dataclass(frozen=True)
class Grant:
    """The rights that a principal has for one source.

    Raises:
        OptionError: The source is no id; a right is unknown, or there is none; a pattern is no
            text, or there is none; or `items` are given together with the right `query`, which
            could read any item.
    """

    source: str
    """The id of the source, which need not be registered yet."""
    rights: Collection[str]
    """`read` lists, describes, previews and fetches items; `query` does so with identifiers that
    are no items, such as SQL text; `write` stores files. Kept as a frozenset."""
    items: Collection[str] | None = None
    """Patterns of the paths of items, as `glob_items` takes them, that `read` and `write` hold for;
    `None` for all items. Kept as a tuple."""

    def __post_init__(self) -> None:
        check_id(self.source, "source")
        for name, texts in (("rights", self.rights), ("items", self.items or ())):
            if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
                raise OptionError(f"{name!r} of a grant must be a set of texts")
        rights = frozenset(self.rights)
        if not rights or not rights.issubset(RIGHTS):
            raise OptionError(f"the rights of a grant are of {', '.join(RIGHTS)}, one at least")
        if self.items is not None and not self.items:
            # A host may have computed the list: that it is empty must not mean everything.
            raise OptionError(
                "'items' of a grant names one pattern at least; None is for all items"
            )
        if self.items is not None and "query" in rights:
            raise OptionError(
                f"the grant for source {self.source!r} is narrowed to items, so it cannot have the "
                "right 'query': a query could read anything"
            )
        object.__setattr__(self, "rights", rights)
        object.__setattr__(self, "items", None if self.items is None else tuple(self.items))

    def matches(self, path: str) -> bool:
        """Return True if the grant holds for the item of that path."""
        return self.items is None or any(_regex(p).fullmatch(path) for p in self.items)

    def matches_below(self, folder: str) -> bool:
        """Return True if the grant may hold for an item below a folder, whose path ends in `/`."""
        return self.items is None or any(_leads_into(p, folder) for p in self.items)


@dataclass(frozen=True)
class Principal:
    """A caller that a host has authenticated: a user, a token, a job.

    Raises:
        OptionError: The id is empty, or roles or grants are not what they should be.
    """

    id: str
    """The host's name of the principal; observers get it as the user of an operation."""
    roles: Collection[str] = frozenset()
    """Names of roles. `admin` may do everything; others are the host's. Kept as a frozenset."""
    grants: Collection[Grant] = field(default=())
    """Rights for sources; several for one source add up. Kept as a tuple."""

    def __post_init__(self) -> None:
        if not self.id:
            raise OptionError("the id of a principal must be a text that is not empty")
        if isinstance(self.roles, str) or not all(isinstance(role, str) for role in self.roles):
            raise OptionError("'roles' of a principal must be a set of texts")
        if not all(isinstance(grant, Grant) for grant in self.grants):
            raise OptionError("'grants' of a principal must be instances of Grant")
        object.__setattr__(self, "roles", frozenset(self.roles))
        object.__setattr__(self, "grants", tuple(self.grants))

    @property
    def is_admin(self) -> bool:
        """True if the principal may do everything."""
        return ADMIN in self.roles

    def grants_for(self, source_id: str) -> list[Grant]:
        """Return the grants for a source; of an administrator, one with all rights."""
        if self.is_admin:
            return [Grant(source_id, RIGHTS)]
        return list(self._grants_by_source.get(source_id, ()))

    @cached_property
    def _grants_by_source(self) -> dict[str, list[Grant]]:
        by_source: dict[str, list[Grant]] = {}
        for grant in self.grants:
            by_source.setdefault(grant.source, []).append(grant)
        return by_source


@lru_cache(maxsize=1024)
def _regex(pattern: str) -> Pattern[str]:
    return glob_regex(pattern)


def _leads_into(pattern: str, folder: str) -> bool:
    """Return True if a pattern may match a path below a folder, segment by segment."""
    segments = pattern.split("/")
    for depth, name in enumerate(folder.removesuffix("/").split("/")):
        if "**" in segments[depth]:
            return True
        if depth == len(segments) - 1 or not _regex(segments[depth]).fullmatch(name):
            return False
    return True
