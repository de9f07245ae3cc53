"""The rules of a host: limits, and the hosts, networks and directories that sources may use."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from datasources.errors import ConnectError, OptionError, PolicyError
from datasources.models import Limits
from datasources.nested import leaves
from datasources.redaction import REFERENCE

_HOST = re.compile(r"[\w.:%-]+|/[^,]*")  # a name, an address, or the path of a socket


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one registry; a rule that is `None` allows everything.

    Raises:
        OptionError: A rule is not a list, tuple or set of texts, or a network is not in CIDR
            notation.
    """

    limits: Limits = field(default_factory=Limits)
    """Limits of fetches from sources without limits of their own."""
    allowed_hosts: tuple[str, ...] | None = None
    """Names and addresses, with `*` as in file names: `("*.example.com", "10.0.0.7")`."""
    allowed_networks: tuple[str, ...] | None = None
    """Networks in CIDR notation; all addresses of a host at connect must be inside."""
    allowed_roots: tuple[str, ...] | None = None
    """Directories; those that sources read from must be below one of them."""
    allowed_references: tuple[str, ...] | None = None
    """References in options, with `*` as in file names: `("env:SALES_*", "file:/run/*")`. The path
    of a file is compared as it is written, without following links; `..` is refused. Set this if
    people who register sources may not read the host's environment and files."""
    allow_ambient: bool = True
    """False to refuse sources that log in with an identity of the machine, such as a managed
    identity: whoever may register one would use what belongs to the host."""

    def __post_init__(self) -> None:
        for name in ("allowed_hosts", "allowed_networks", "allowed_roots", "allowed_references"):
            rules = getattr(self, name)
            if rules is None:
                continue
            # Letter by letter, the `*` of a single text "*.example.com" would allow everything.
            if not isinstance(rules, (list, tuple, set, frozenset)) or not all(
                isinstance(rule, str) for rule in rules
            ):
                raise OptionError(f"{name!r} must be a list of texts, or none to allow everything")
            object.__setattr__(self, name, tuple(rules))
        if not isinstance(self.allow_ambient, bool):
            raise OptionError("'allow_ambient' must be true or false")
        if not isinstance(self.limits, Limits):
            raise OptionError("'limits' must be an instance of Limits")
        for network in self.allowed_networks or ():
            try:
                ipaddress.ip_network(network)
            except ValueError as exc:
                raise OptionError(f"{network!r} is not a network in CIDR notation") from exc

    def check_hosts(self, source_id: str, hosts: Iterable[str]) -> None:
        """Check the names of hosts, without looking up addresses.

        Raises:
            PolicyError: A host matches none of `allowed_hosts`.
        """
        if self.allowed_hosts is None:
            return
        patterns = [_host(pattern) for pattern in self.allowed_hosts]
        for host in hosts:
            name = _host(host)
            # To a driver, a text such as `evil.org/.example.com` may name another host.
            allowed = _HOST.fullmatch(name) and any(fnmatchcase(name, p) for p in patterns)
            if not allowed:
                raise PolicyError(
                    f"source {source_id!r} may not use the host {host!r}; "
                    f"allowed: {', '.join(self.allowed_hosts) or 'none'}"
                )

    async def check_networks(self, source_id: str, hosts: Iterable[str]) -> None:
        """Check the addresses to which hosts resolve now.

        Raises:
            PolicyError: An address is outside `allowed_networks`, or the host is a socket's path.
            ConnectError: A host does not resolve.
        """
        if self.allowed_networks is None:
            return
        networks = [ipaddress.ip_network(network) for network in self.allowed_networks]
        for host in hosts:
            for address in await _addresses(host):
                if not any(address in network for network in networks):
                    raise PolicyError(
                        f"source {source_id!r} may not use {host!r} at {address}; "
                        f"allowed networks: {', '.join(self.allowed_networks) or 'none'}"
                    )

    def check_references(self, source_id: str, options: Mapping[str, Any]) -> None:
        """Check the references in options.

        Raises:
            PolicyError: A reference matches none of `allowed_references`.
        """
        if self.allowed_references is None:
            return
        for scheme, name in _references(options):
            reference = f"{scheme}:{os.path.normpath(name) if scheme == 'file' else name}"
            # After a link, `..` leads elsewhere than the text of the path says.
            climbs = scheme == "file" and ".." in name.split("/")
            if climbs or not any(fnmatchcase(reference, p) for p in self.allowed_references):
                raise PolicyError(
                    f"source {source_id!r} may not refer to {reference!r}; "
                    f"allowed: {', '.join(self.allowed_references) or 'none'}"
                )

    def check_ambient(self, source_id: str, ambient: bool) -> None:
        """Check if a source may use an identity of the machine, if its options do.

        Raises:
            PolicyError: It may not.
        """
        if ambient and not self.allow_ambient:
            raise PolicyError(
                f"source {source_id!r} may not log in with an identity of this machine; "
                "give it credentials of its own"
            )

    def check_paths(self, source_id: str, paths: Iterable[str]) -> None:
        """Check directories, following links.

        Raises:
            PolicyError: A path lies below none of `allowed_roots`.
        """
        if self.allowed_roots is None:
            return
        roots = [os.path.realpath(root) for root in self.allowed_roots]
        for path in paths:
            # A path with a NUL is not possible, and `realpath` would raise.
            real = "" if "\0" in path else os.path.realpath(path)
            inside = real and any(os.path.commonpath([root, real]) == root for root in roots)
            if not inside:
                raise PolicyError(
                    f"source {source_id!r} may not use {path!r}; "
                    f"allowed: {', '.join(self.allowed_roots) or 'nothing'}"
                )


def _host(name: str) -> str:
    """Return a host, or a pattern of hosts, in the spelling that is compared."""
    name = name.strip().lower().rstrip(".")
    if name.startswith("[") and name.endswith("]") and ":" in name:
        name = name[1:-1]
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    return str(getattr(address, "ipv4_mapped", None) or address)


def _references(value: Any) -> Iterable[tuple[str, str]]:
    """Yield scheme and name of every reference in nested options."""
    for leaf in leaves(value):
        if isinstance(leaf, str):
            yield from REFERENCE.findall(leaf)


async def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the addresses of a host; an IPv4 address mapped to IPv6 as IPv4."""
    if host.startswith("/"):
        raise PolicyError(f"the socket {host!r} is in no network, and networks are restricted")
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    import asyncio  # here, as the command line reads settings without it

    try:
        answers = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise ConnectError(f"host {host!r} cannot be resolved: {exc.strerror}") from exc
    except ValueError as exc:  # the name cannot be encoded: too long, an empty label, a NUL
        raise ConnectError(f"host {host!r} cannot be resolved: it is not a host's name") from exc
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in answers]
    return [getattr(address, "ipv4_mapped", None) or address for address in addresses]
