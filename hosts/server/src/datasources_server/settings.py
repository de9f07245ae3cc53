"""Settings of the HTTP API, and the policy that a server has by default."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, fields
from urllib.parse import urlsplit

from datasources import LOCAL_NETWORKS, Limits, OptionError, Policy


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Addresses and limits of the HTTP API.

    Raises:
        OptionError: A limit is not a positive number, or `public_url` is no URL of a server.
    """

    public_url: str | None = None
    """The address that clients use, such as `https://data.example.com`, if there is a proxy."""
    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "::1")
    """Names and addresses, without port, that the header `Host` may have; that of `public_url` is
    allowed, too."""
    max_body: int = 1 << 20
    """Bytes of a request's body."""
    body_timeout: float = 30.0
    """Seconds in which a request's body has to arrive."""
    max_page: int = 200
    """Sources or items of one page."""
    preview_rows: int = 100
    """Rows of a preview."""
    preview_bytes: int = 256 << 10
    """Bytes of a preview's rows as JSON."""
    preview_timeout: float = 10.0
    """Seconds that a preview may take."""
    statistics_timeout: float = 60.0
    """Seconds that statistics may take."""
    test_timeout: float = 10.0
    """Seconds that a test of a connection may take."""
    tests_per_minute: int = 60
    """Tests of connections by one principal, in each process."""
    concurrent_fetches: int = 4
    """Fetches, streams and reads of splits of one principal at once, in each process; more of them
    wait. As many uploads, and as many plans of splits; more of them are refused."""
    plan_seconds: float = 3600.0
    """Seconds that a plan of splits may last."""
    workspace_root: str | None = None
    """The directory of workspaces, for which there are no routes without one. It belongs to the
    servers on one store alone, as they delete what they do not know; servers on several machines
    need a shared disk."""
    workspaces: int = 20
    """Workspaces of one principal at once."""
    workspace_quota: int = 1 << 30
    """Bytes of the files of one workspace."""
    workspace_ttl: int = 86_400
    """Seconds until a workspace ends."""
    concurrent_jobs: int = 2
    """Jobs of one principal at once, in all processes; more of them are refused."""
    job_wait: float = 3.0
    """Seconds that the response of a fetch into a workspace waits for the receipts."""
    heartbeat_timeout: float = 20.0
    """Seconds without a sign of the process that runs a job after which the job is lost."""
    open_metrics: bool = False
    """True to answer `/metrics` without a token; otherwise it needs that of an administrator."""
    audit_days: int = 90
    """Days for which entries of the audit trail are kept."""
    recheck_seconds: float = 4.0
    """Seconds after which a request that still runs is authenticated again, so that a token that
    was revoked ends what it has started."""
    confirm_seconds: float = 30.0
    """Seconds that a request which still runs may go on while the store of tokens cannot be read, and
    a job while its owner cannot be found for any reason."""
    limits: Limits | None = None
    """Limits of each fetch, in addition to those of the source or the policy."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in ("int", "float") and not (
                isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
            ):
                raise OptionError(f"{field.name!r} must be a number of more than 0")
            if field.type == "bool" and not isinstance(value, bool):
                raise OptionError(f"{field.name!r} must be true or false")
            if field.name == "allowed_hosts" and not (
                isinstance(value, tuple) and all(isinstance(host, str) for host in value)
            ):
                raise OptionError("'allowed_hosts' must be a list of names and addresses")
        if self.public_url is not None:
            url = urlsplit(self.public_url)
            if url.scheme not in ("http", "https") or not url.hostname:
                raise OptionError("'public_url' must be a URL such as https://data.example.com")


def is_loopback(host: str) -> bool:
    """Return True if a name or an address of a host is that of the machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def strict_policy(
    *,
    allow_networks: Iterable[str] = (),
    allow_roots: Iterable[str] = (),
    allow_references: Iterable[str] = (),
    allow_ambient: bool = False,
    limits: Limits | None = None,
) -> Policy:
    """Return the policy of a server whose users may register sources.

    Without arguments, sources may use no reference to the environment or to files, no directory,
    no identity of the machine, and none of `LOCAL_NETWORKS`.

    Args:
        allow_networks: Parts of `LOCAL_NETWORKS` that sources may use, in CIDR notation.
        allow_roots: Directories that sources may read below, and store files if they are `writable`.
        allow_references: Patterns of references, as `Policy.allowed_references`.
        allow_ambient: True to admit identities of the machine.
        limits: Of fetches.

    Raises:
        OptionError: A network is not in CIDR notation.
    """
    return Policy(
        limits=limits or Limits(),
        denied_networks=_without(LOCAL_NETWORKS, allow_networks),
        allowed_roots=tuple(allow_roots),
        allowed_references=tuple(allow_references),
        allow_ambient=allow_ambient,
    )


def _without(networks: Iterable[str], allowed: Iterable[str]) -> tuple[str, ...]:
    """Return networks without the addresses of others, in CIDR notation."""
    remaining = [ipaddress.ip_network(network) for network in networks]
    for text in allowed:
        try:
            admitted = ipaddress.ip_network(text)
        except ValueError:
            raise OptionError(f"{text!r} is not a network in CIDR notation") from None
        outside = []
        for network in remaining:
            if network.version != admitted.version or not network.overlaps(admitted):
                outside.append(network)
            elif network.prefixlen < admitted.prefixlen:
                outside.extend(network.address_exclude(admitted))  # type: ignore[arg-type]  # one version
        remaining = outside
    return tuple(map(str, remaining))
