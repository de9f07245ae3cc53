"""Check what a principal may do, by its grants; observers see each refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from datasources.connector import DataSourceConnector
from datasources.errors import DataSourceError, OptionError, PolicyError
from datasources.models import DataItem
from datasources.plugins import Plugins
from datasources.principals import Grant, Principal
from datasources.registry.factory import ConnectorFactory
from datasources.registry.observing import caller, current_caller, observe
from datasources.registry.queries import is_query_path
from datasources.registry.records import not_found


class Authorization:
    """Checks the grants of a principal, without a call to the store for a source without one.

    Args:
        principal: The caller.
        factory: Knows the connector classes, which tell items from queries.
        plugins: The observers, which see refusals as failed operations.
        refusal: Makes the error for a source without a grant; by default that of an unknown one.
    """

    def __init__(
        self,
        principal: Principal,
        factory: ConnectorFactory,
        plugins: Plugins,
        refusal: Callable[[str], DataSourceError] | None = None,
    ) -> None:
        self.principal = principal
        self._factory = factory
        self._plugins = plugins
        self._names_user = refusal is None
        self._refusal = refusal or not_found

    def require_grant(self, operation: str, source_id: str, **details: Any) -> list[Grant]:
        """Return the grants for a source.

        Raises:
            DataSourceNotFoundError: There is none; the store is not asked.
        """
        try:
            grants = self.principal.grants_for(source_id)
        except OptionError:  # what is no id names no source
            grants = []
        if not grants:
            self._refuse(self._refusal(source_id), operation, source_id, details)
        return grants

    def require_right(
        self, operation: str, source_id: str, right: str, **details: Any
    ) -> list[Grant]:
        """Return the grants for a source that have a right.

        Raises:
            DataSourceNotFoundError: There is no grant.
            PolicyError: No grant has the right.
        """
        grants = self.require_grant(operation, source_id, **details)
        with_right = [grant for grant in grants if right in grant.rights]
        if not with_right:
            error = PolicyError(
                f"{self.principal.id!r} does not have the right {right!r} for source {source_id!r}"
            )
            self._refuse(error, operation, source_id, details)
        return with_right

    async def require_identifier(
        self,
        operation: str,
        source_id: str,
        identifier: str,
        right: str = "read",
        *,
        classes: dict[str, type[DataSourceConnector]] | None = None,
    ) -> None:
        """Check that the principal may use an identifier; no connection is made.

        Args:
            operation: The name of the operation, for observers.
            source_id: The source.
            identifier: The identifier.
            right: `read` or `write`.
            classes: The connector classes of sources that were checked before in the same call.

        Raises:
            DataSourceNotFoundError: There is no grant for the source.
            PolicyError: The right is missing, which is `query` for an identifier that is no item
                and for all identifiers of a connector that does not classify them; or the item is
                not among those granted.
        """
        grants = self.require_grant(operation, source_id, identifier=identifier)
        if right == "read" and any({"read", "query"} <= set(grant.rights) for grant in grants):
            return
        if right == "write" and any("write" in g.rights and g.items is None for g in grants):
            return
        classes = {} if classes is None else classes
        if source_id not in classes:
            classes[source_id] = await self._factory.class_of(source_id)
        connector_class = classes[source_id]
        stored = right == "read" and is_query_path(connector_class, identifier)
        if (
            right == "read"
            and not stored
            and _identifier_kind(connector_class, identifier) != "item"
        ):
            right = "query"
        grants = self.require_right(operation, source_id, right, identifier=identifier)
        if has_all_items(grants):
            return
        path = identifier if stored else _item_path(connector_class, identifier)
        if path is None or not any(grant.matches(path) for grant in grants):
            patterns = ", ".join(pattern for grant in grants for pattern in grant.items or ())
            error = PolicyError(
                f"{self.principal.id!r} may {right} of source {source_id!r} only items that match "
                f"{patterns}"
            )
            self._refuse(error, operation, source_id, {"identifier": identifier})

    def _refuse(
        self, error: DataSourceError, operation: str, source_id: str, details: Mapping[str, Any]
    ) -> NoReturn:
        """Raise an error as that of an operation, so that observers such as an audit log see it."""
        with self.named(), observe(self._plugins, operation, source_id, **details):
            raise error

    @contextmanager
    def named(self) -> Iterator[None]:
        """Name the principal as the user of the operations inside, unless the host named one."""
        user, request_id = current_caller()
        if user is not None or not self._names_user:
            yield
            return
        with caller(user=self.principal.id, request_id=request_id):
            yield


def _identifier_kind(connector_class: type[DataSourceConnector], identifier: str) -> str | None:
    try:
        return connector_class.identifier_kind(identifier)
    except (Exception, SystemExit):  # noqa: BLE001  (a plugin's fault must not grant anything)
        return None


def _item_path(connector_class: type[DataSourceConnector], identifier: str) -> str | None:
    try:
        path = connector_class.item_path(identifier)
    except (Exception, SystemExit):  # noqa: BLE001  (as above)
        return None
    return path if isinstance(path, str) else None


def has_all_items(grants: Iterable[Grant]) -> bool:
    return any(grant.items is None for grant in grants)


def is_visible(item: DataItem, grants: Iterable[Grant]) -> bool:
    if item.path.endswith("/") and item.metadata.get("kind") == "folder":
        return any(grant.matches_below(item.path) for grant in grants)
    return any(grant.matches(item.path) for grant in grants)


def visible(items: Iterable[DataItem], grants: Sequence[Grant]) -> list[DataItem]:
    return [item for item in items if is_visible(item, grants)]
