"""The command `datasources serve`."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output, paths
from datasources.cli.context import CliContext
from datasources.errors import OptionError
from datasources.models import check_keys
from datasources_server.commands import beside_store, open_tokens, tokens_option

if TYPE_CHECKING:
    from fastapi import FastAPI

    from datasources import DataSourceRegistry, Policy
    from datasources_server.app import Part
    from datasources_server.settings import ServerSettings
    from datasources_server.tokens import TokenStore

_GRACE = 10  # seconds that requests have to end by themselves when the server is told to end


class _ServeCommand(click.Command):
    """The command, whose options may also be variables and keys of the table [server]."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        extra["auto_envvar_prefix"] = "DATASOURCES_SERVER"
        if parent is not None and isinstance(parent.obj, CliContext):
            extra["default_map"] = _options_of(parent.obj.settings.server, self.params)
        return super().make_context(info_name, args, parent, **extra)


def _options_of(table: Mapping[str, Any], options: Iterable[click.Parameter]) -> dict[str, Any]:
    """Return the values of options that the table [server] has.

    Raises:
        OptionError: A value is of a wrong type, or a relative path.
    """
    values = {option.name: table[option.name] for option in options if option.name in table}
    for name, value in values.items():
        if name.startswith("allow_") and name != "allow_ambient":
            if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
                raise OptionError(f"[server]: {name!r} must be a list of texts")
        elif not isinstance(value, (str, int)):
            raise OptionError(f"[server]: {name!r} must be a single value")
        if name in ("tls_cert", "tls_key", "allow_root", "workspace_root"):
            texts = value if isinstance(value, list) else [value]
            if not all(os.path.isabs(str(text)) for text in texts):
                raise OptionError(f"[server]: {name!r} must be an absolute path")
    return values


@click.command("serve", cls=_ServeCommand)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65_535), default=8300, show_default=True)
@click.option("--public-url", help="The address that clients use.")
@click.option("--tls-cert", type=click.Path(exists=True))
@click.option("--tls-key", type=click.Path(exists=True))
@click.option(
    "--trusted-proxy",
    metavar="ADDRESS",
    help="The address of a proxy that has TLS, whose X-Forwarded headers count.",
)
@click.option(
    "--allow-network", multiple=True, metavar="CIDR", help="Local networks that sources may use."
)
@click.option(
    "--allow-root", multiple=True, metavar="DIR", help="Directories that sources may use."
)
@click.option(
    "--allow-reference", multiple=True, metavar="PATTERN", help="References such as env:SHOP_*."
)
@click.option("--allow-ambient", is_flag=True, help="Identities of this machine.")
@click.option(
    "--workspace-root",
    metavar="DIR",
    help="The directory of workspaces, of this server and its workers alone. "
    "[default: workspaces beside the store]",
)
@click.option("--check", is_flag=True, help="Check the settings, and serve nothing.")
@tokens_option
@click.pass_obj
def serve_command(context: CliContext, /, **options: Any) -> None:
    """Serve the HTTP API and the console on the store.

    The first start makes a token of an administrator, and prints the path of the file that holds it.
    Sources may use nothing of this machine but what options or the table [policy] allow.

    Options may also be variables, such as DATASOURCES_SERVER_PUBLIC_URL, or keys of the table [server]
    of the configuration file, such as public_url; that table has the limits of the API, too.
    """
    import uvicorn

    from datasources_server.app import create_app

    _check_exposure(options)
    settings = _settings(context, options)
    policy = _policy(context.settings.policy, options)
    parts = _parts(context)
    registry = _open_registry(context, policy, create=not options["check"])
    tokens = open_tokens(context, options["tokens_path"], registry.store)
    tokens.list()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with registry:
            yield

    app = create_app(
        registry,
        tokens=tokens,
        settings=settings,
        audit_log=context.audit_log,
        console=True,
        parts=parts,
        root_parts=_root_parts(),
        lifespan=lifespan,
    )
    config = uvicorn.Config(
        app,
        host=options["host"],
        port=options["port"],
        ssl_certfile=options["tls_cert"],
        ssl_keyfile=options["tls_key"],
        proxy_headers=options["trusted_proxy"] is not None,
        forwarded_allow_ips=options["trusted_proxy"] or "",
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    config.load()  # reads the certificate
    if options["check"]:
        registry.store.close()
        output.echo_err("The settings are valid.")
        return
    token = _make_first_token(context, tokens)
    if options["port"] and sys.stderr.isatty():
        # A browser sends no fragment, and the console removes the token from the address at once.
        fragment = "" if token is None else f"#token={token}"
        output.echo_err(f"Console: {_console_url(options)}{fragment}")
    uvicorn.Server(config).run()


def _settings(context: CliContext, options: Mapping[str, Any]) -> ServerSettings:
    """Return the settings of the API: the keys of the table [server] that are no options.

    Raises:
        OptionError: A key is unknown, or its value is wrong.
    """
    from datasources_server.settings import ServerSettings

    table = context.settings.server
    names = ServerSettings.__dataclass_fields__.keys() - {"public_url", "limits", "workspace_root"}
    check_keys(table, sorted({*names, *options} - {"check", "tokens_path"}), "[server]")
    limits = {key: table[key] for key in table if key in names}
    if isinstance(limits.get("allowed_hosts"), list):
        limits["allowed_hosts"] = tuple(limits["allowed_hosts"])
    root = options["workspace_root"]
    return ServerSettings(
        public_url=options["public_url"],
        workspace_root=beside_store(context, "workspaces") if root is None else paths.expand(root),
        **limits,
    )


def _root_parts() -> list[Part]:
    """Return the routes of MCP, if `datasources-agents[mcp]` is installed."""
    sdk = importlib.util.find_spec("mcp")
    if sdk is None or importlib.util.find_spec("datasources_agents") is None:
        return []
    if not _has_server(sdk):
        output.echo_err(
            "Without /mcp: another 'mcp' is needed; pip install 'datasources-agents[mcp]'"
        )
        return []
    from datasources_agents.mcp_routes import mcp_routes

    return [mcp_routes]


def _has_server(sdk: ModuleSpec | None) -> bool:
    """Return True if a package `mcp` is version 2 of the SDK; an import would take seconds."""
    for name in ("mcp.server", "mcp.server.mcpserver"):
        if sdk is None or sdk.submodule_search_locations is None:
            return False
        sdk = PathFinder.find_spec(name, sdk.submodule_search_locations)
    return sdk is not None


def _parts(context: CliContext) -> list[Part]:
    """Return the routes of other distributions that the configuration file has tables for.

    Raises:
        OptionError: The distribution is not installed, or its table is wrong.
        SecretNotFoundError: A reference in the table cannot be resolved.
    """
    table = context.settings.gateway
    if not table:
        return []
    try:
        from datasources_agents.gateway import GatewaySettings, gateway_routes
    except ImportError as exc:
        raise OptionError(
            "[gateway] needs another distribution: pip install 'datasources-agents[gateway,server]'"
        ) from exc
    root = beside_store(context, "gateway")
    return [gateway_routes(GatewaySettings.from_table(table, root, context.plugins))]


def _check_exposure(options: Mapping[str, Any]) -> None:
    """Refuse to be reached from other machines without TLS, ours or that of a proxy.

    Raises:
        UsageError: What is missing.
    """
    if (options["tls_cert"] is None) != (options["tls_key"] is None):
        raise click.UsageError("--tls-cert and --tls-key are given together")
    if options["tls_cert"] is not None:
        import ssl

        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(options["tls_cert"], options["tls_key"], password="")
        except (OSError, ValueError) as exc:
            raise OptionError("the certificate and its key cannot be used; both are PEM") from exc
    from datasources_server.settings import is_loopback

    if is_loopback(options["host"]):
        return
    if options["tls_cert"] is None and options["trusted_proxy"] is None:
        raise click.UsageError(
            "tokens would cross the network in clear: beyond loopback, give --tls-cert and --tls-key, "
            "or --trusted-proxy if a proxy has TLS"
        )
    if options["public_url"] is None:
        raise click.UsageError("beyond loopback, give --public-url, the address that clients use")


def _policy(policy: Policy, options: Mapping[str, Any]) -> Policy:
    """Return the policy of the settings, strict where they leave a rule out."""
    from datasources_server.settings import strict_policy

    strict = strict_policy(
        allow_networks=options["allow_network"],
        allow_roots=[*(policy.allowed_roots or ()), *options["allow_root"]],
        allow_references=options["allow_reference"],
        allow_ambient=options["allow_ambient"],
        limits=policy.limits,
    )
    changes: dict[str, Any] = {
        name: getattr(policy, name)
        for name in ("allowed_hosts", "allowed_networks", "denied_networks")
        if getattr(policy, name) is not None
    }
    if policy.allowed_references is not None:
        changes["allowed_references"] = (*policy.allowed_references, *options["allow_reference"])
    return replace(strict, **changes)


def _open_registry(context: CliContext, policy: Policy, *, create: bool) -> DataSourceRegistry:
    """Return a registry on the store; on `create`, the first one makes the store and a key."""
    from datasources import DataSourceRegistry

    if context.audit_log is not None:
        context.plugins.register_plugin(context.audit_log, "audit log")
    store = context.open_store(create=create)
    try:
        if not context.keys.exists and not store.list() and create and context.keys.create():
            output.echo_err(f"Made the encryption key {context.keys.path}: keep a copy of it.")
        if context.keys.exists or create:
            context.check_keys(store)
        return DataSourceRegistry(
            context.keys.manager() if context.keys.exists else None,
            store=store,
            policy=policy,
            pool_config=context.settings.pool,
            plugins=context.plugins,
        )
    except BaseException:
        store.close()
        raise


def _console_url(options: Mapping[str, Any]) -> str:
    if options["public_url"] is not None:
        return f"{options['public_url'].rstrip('/')}/"
    scheme = "http" if options["tls_cert"] is None else "https"
    host = f"[{options['host']}]" if ":" in options["host"] else options["host"]
    return f"{scheme}://{host}:{options['port']}/"


def _make_first_token(context: CliContext, tokens: TokenStore) -> str | None:
    """Make a token of an administrator if there is none yet, say where it is, and return it."""
    from datasources_server.token_file import Tokens, write_private
    from datasources_server.tokens import TokenExistsError

    if tokens.list():
        return None
    beside = tokens.path if isinstance(tokens, Tokens) else beside_store(context, "tokens.json")
    folder = os.path.dirname(os.path.abspath(beside))
    path = os.path.join(folder, "admin-token")
    try:
        token = tokens.add("admin", admin=True)
    except TokenExistsError:  # another server on the store was faster
        return None
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        write_private(path, f"{token}\n")
    except OSError as exc:
        tokens.revoke("admin")
        raise OptionError(f"the token cannot be written to {path!r}: {exc.strerror}") from exc
    output.echo_err(f"Made the token of an administrator: {path}")
    return token
