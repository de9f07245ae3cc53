"""Open the store that the environment names, in the process that plans and in each worker.

No configuration is in a task graph: every process finds the store, its key, the policy and the pool
sizes in its own environment, as the command line does.
"""

from __future__ import annotations

import os
from dataclasses import replace

from datasources import MissingKeyError, OptionError, PoolConfig
from datasources.blocking import DataSourceRegistry
from datasources.cli.context import CliContext
from datasources.config import Settings
from datasources.plugins import Plugins


def settings_of_environment() -> Settings:
    """Return the settings of the file that `DATASOURCES_CONFIG` names, and of the environment."""
    return CliContext.from_options({}).settings


def open_registry(pool_config: PoolConfig | None = None) -> DataSourceRegistry:
    """Return a registry on the store that `DATASOURCES_STORE` names, to be closed by the caller.

    The key is that of `DATASOURCE_ENCRYPTION_KEY` or `DATASOURCE_ENCRYPTION_KEY_FILE`, or of the file
    beside the store. Policy, pool and audit log are those of the file that `DATASOURCES_CONFIG`
    names, if it is set. Sources that the file declares are not in the store, and cannot be used.

    Args:
        pool_config: In place of the file's.

    Raises:
        OptionError: `DATASOURCES_STORE` is not set, or the file is malformed.
        MissingKeyError: There is no key, or it is malformed.
        StoreError: The store cannot be opened.
    """
    context = CliContext.from_options({})
    if not os.environ.get("DATASOURCES_STORE"):
        raise OptionError("DATASOURCES_STORE must name the store of the sources on each worker")
    if not context.keys.exists:
        raise MissingKeyError(
            "DATASOURCE_ENCRYPTION_KEY, DATASOURCE_ENCRYPTION_KEY_FILE or a file beside the store "
            "must give the key of the store on each worker"
        )
    plugins = Plugins()
    if context.audit_log is not None:
        plugins.register_plugin(context.audit_log, "audit log")
    return DataSourceRegistry(
        context.keys.manager(),
        store=context.store_url,
        policy=context.settings.policy,
        pool_config=pool_config or context.settings.pool,
        plugins=plugins,
    )


def open_for_one_connection() -> DataSourceRegistry:
    """Return a registry as `open_registry` does, which opens one connection to a source at most."""
    pool = settings_of_environment().pool
    return open_registry(replace(pool, max_size=1, min_size=0))
