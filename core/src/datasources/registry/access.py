"""The access of one principal to the sources of a registry."""

from __future__ import annotations

import os

from datasources.registry.granted import GrantedOperations
from datasources.registry.sessions import WorkspaceSession


class Access(GrantedOperations):
    """The operations of a registry, narrowed to what one principal may do.

    `DataSourceRegistry.access` makes it; it is cheap, and may be made for each request. Every
    method checks the principal's grants before the store or a connector is asked:

    - A source without a grant raises the `DataSourceNotFoundError` of a source that does not exist.
    - A missing right, and an item outside the patterns of the grants, is a `PolicyError`.

    For observers, the principal's id is the user of its operations, unless the host has named
    another one by `caller`.
    """

    def workspace(
        self,
        workspace_id: str,
        *,
        root: str | os.PathLike[str] | None = None,
        quota: int | None = None,
        keep: bool = False,
    ) -> WorkspaceSession:
        """Return a workspace session under the principal's grants, limits and quota.

        Args:
            workspace_id: The host's name for it: letters, digits, `.`, `_`, `-`.
            root: The directory that holds it under that name; None takes a temporary one.
            quota: Bytes that its files may have together; the principal's quota holds, too.
            keep: Leave the directory with its files in `root`.

        Raises:
            OptionError: `workspace_id` is malformed, or `keep` is given without `root`.
            RegistryError: As `DataSourceRegistry.workspace`.
        """
        bounds = [bound for bound in (quota, self._quota) if bound is not None]
        return WorkspaceSession(self, workspace_id, root, min(bounds, default=None), keep=keep)
