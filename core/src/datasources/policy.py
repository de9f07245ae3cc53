"""The rules of a host: limits, and the hosts, networks and directories that sources may use."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from datasources.errors import ConnectError, OptionError, PolicyError
from datasources.models import Limits
from datasources.nested import leaves
from datasources.redaction import REFERENCE

_Rule = str | tuple[str, tuple[str, ...]]  # a pattern of references, or one with its hosts
_HOST = re.compile(r"[\w.:%-]+|/[^,]*")  # a name, an address, or the path of a socket

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LOCAL_NETWORKS = (
    "0.0.0.0/8",  # this network: Linux connects to the host itself (RFC 1122, 3.2.1.3)
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link-local; clouds answer there with the identity of the machine
    "224.0.0.0/4",  # multicast
    "255.255.255.255/32",  # broadcast
    "::/128",  # unspecified
    "::1/128",  # loopback
    "fe80::/10",  # link-local
    "fd00:ec2::254/128",  # metadata of a cloud that speaks IPv6
    "ff00::/8",  # multicast
    "100.100.100.200/32",  # metadata of a cloud that uses the shared address space
    "168.63.129.16/32",  # the host of a virtual machine on Azure
)
"""Networks that reach the machine itself, its neighbours on the link, and metadata services."""
# IPv6 networks whose addresses end in an IPv4 address: compatible (RFC 4291, 2.5.5.1), and those that
# a NAT64 translates (RFC 6052, 2.1; RFC 8215).
_ENDING_IN_IPV4 = tuple(map(ipaddress.IPv6Network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48")))


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one registry; a rule that is `None` allows everything.

    Raises:
        OptionError: A rule is not a list, tuple or set of texts, or, for references, a mapping; or
            a network is not in CIDR notation.
    """

    limits: Limits = field(default_factory=Limits)
    """Limits of fetches from sources without limits of their own."""
    allowed_hosts: tuple[str, ...] | None = None
    """Names and addresses, with `*` as in file names: `("*.example.com", "10.0.0.7")`."""
    allowed_networks: tuple[str, ...] | None = None
    """Networks in CIDR notation; all addresses of a host at connect must be inside."""
    denied_networks: tuple[str, ...] | None = None
    """Networks in CIDR notation; no address of a host at connect may be inside, in whichever
    spelling: an IPv6 address that stands for an IPv4 address counts as both, and the unspecified
    address as loopback. `LOCAL_NETWORKS` are those of the host itself. Denied goes before allowed."""
    allowed_roots: tuple[str, ...] | None = None
    """Directories; those that sources read from must be below one of them. A leading `~` is the
    home directory."""
    allowed_references: (
        tuple[str | tuple[str, tuple[str, ...]], ...] | Mapping[str, Iterable[str] | None] | None
    ) = None
    """References in options, with `*` as in file names: `("env:SALES_*", "file:/run/*")`. The path
    of a file is compared as it is written, without following links; `..` is refused. Set this if
    people who register sources may not read the host's environment and files.

    A mapping binds references to hosts, in the patterns of `allowed_hosts`:
    `{"env:SALES_*": ("*.sales.internal",), "env:PUBLIC_*": None}`. A bound reference is allowed only
    in sources all of whose hosts match, also if another pattern without hosts matches it. The
    policy holds a tuple in which each bound pattern is a pair with its hosts."""
    allow_ambient: bool = True
    """False to refuse sources that log in with an identity of the machine, such as a managed
    identity: whoever may register one would use what belongs to the host."""

    def __post_init__(self) -> None:
        for name in ("allowed_hosts", "allowed_networks", "denied_networks", "allowed_roots"):
            rules = getattr(self, name)
            if rules is None:
                continue
            if not _are_texts(rules):
                raise OptionError(f"{name!r} must be a list of texts, or none to allow everything")
            object.__setattr__(self, name, tuple(rules))
        if self.allowed_references is not None:
            object.__setattr__(
                self, "allowed_references", _reference_rules(self.allowed_references)
            )
        if not isinstance(self.allow_ambient, bool):
            raise OptionError("'allow_ambient' must be true or false")
        if not isinstance(self.limits, Limits):
            raise OptionError("'limits' must be an instance of Limits")
        for network in (*(self.allowed_networks or ()), *(self.denied_networks or ())):
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
        for host in hosts:
            if not _matches(_host(host), self.allowed_hosts):
                raise PolicyError(
                    f"source {source_id!r} may not use the host {host!r}; "
                    f"allowed: {', '.join(self.allowed_hosts) or 'none'}",
                    rule="allowed_hosts",
                )

    @property
    def restricts_networks(self) -> bool:
        """True if an address may be refused."""
        return self.allowed_networks is not None or bool(self.denied_networks)

    async def check_networks(self, source_id: str, hosts: Iterable[str]) -> None:
        """Check the addresses to which hosts resolve now.

        A name may resolve to other addresses later, so connectors call `check_address` with each
        address before they connect to it.

        Raises:
            PolicyError: An address is not allowed, or the host is a socket's path.
            ConnectError: A host does not resolve.
        """
        if not self.restricts_networks:
            return
        for host in hosts:
            for address in [host] if host.startswith("/") else await _addresses(host):
                self._check_address(source_id, address, f"{host!r} at ")

    def check_address(self, source_id: str, address: str) -> None:
        """Check one address, right before a connection to it.

        Args:
            source_id: The source.
            address: An IPv4 or IPv6 address, or the path of a socket.

        Raises:
            PolicyError: The address is not allowed, or it is a socket's path.
        """
        if self.restricts_networks:
            self._check_address(source_id, address, "")

    def _check_address(self, source_id: str, text: str, host: str) -> None:
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            raise PolicyError(
                f"source {source_id!r} may not use {text!r}: it is no address of a network, and "
                "networks are restricted",
                rule="allowed_networks",
            ) from None
        addresses = [address, *_embedded(address)]
        for network in map(ipaddress.ip_network, self.denied_networks or ()):
            if any(candidate in network for candidate in addresses):
                raise PolicyError(
                    f"source {source_id!r} may not use {host}{text}; denied: network {network}",
                    rule="denied_networks",
                )
        allowed = self.allowed_networks
        if allowed is not None and not any(
            _unmapped(address) in ipaddress.ip_network(network) for network in allowed
        ):
            raise PolicyError(
                f"source {source_id!r} may not use {host}{text}; "
                f"allowed networks: {', '.join(allowed) or 'none'}",
                rule="allowed_networks",
            )

    def check_references(
        self, source_id: str, options: Mapping[str, Any], hosts: Iterable[str] | None = None
    ) -> None:
        """Check the references in options.

        Args:
            source_id: The source.
            options: Its options.
            hosts: The hosts that it connects to. Bound references are refused if there are none;
                None checks no hosts.

        Raises:
            PolicyError: A reference matches none of `allowed_references`, or is bound to other
                hosts than these.
        """
        if self.allowed_references is None:
            return
        names = None if hosts is None else [_host(host) for host in hosts]
        for scheme, name in _references(options):
            reference, bindings = self._bindings(scheme, name)
            if not bindings:
                patterns = [r if isinstance(r, str) else r[0] for r in self._reference_rules()]
                raise PolicyError(
                    f"source {source_id!r} may not refer to {reference!r}; "
                    f"allowed: {', '.join(patterns) or 'none'}",
                    rule="allowed_references",
                )
            hosts_of_rules = [allowed for allowed in bindings if allowed is not None]
            if names is None or not hosts_of_rules:
                continue
            if not any(_all_match(names, allowed) for allowed in hosts_of_rules):
                listed = sorted({host for allowed in hosts_of_rules for host in allowed})
                raise PolicyError(
                    f"source {source_id!r} may not refer to {reference!r}, which is for the hosts "
                    f"{', '.join(listed) or 'of no source'} only",
                    rule="allowed_references",
                )

    def bound(self, reference: str) -> bool:
        """Return True if sources may have a reference, and only with the hosts that it is bound to.

        Args:
            reference: Scheme and name, such as `env:SALES_PASSWORD`.
        """
        scheme, _, name = reference.partition(":")
        _, bindings = self._bindings(scheme, name)
        return any(hosts is not None for hosts in bindings)

    def check_bound(self, source_id: str, options: Mapping[str, Any]) -> None:
        """Check that every reference in options is bound to hosts.

        Raises:
            PolicyError: One is not.
        """
        for scheme, name in _references(options):
            if not self.bound(f"{scheme}:{name}"):
                raise PolicyError(
                    f"source {source_id!r} may not refer to {f'{scheme}:{name}'!r}: only an "
                    "administrator may use a reference that the policy does not bind to hosts"
                )

    def _reference_rules(self) -> tuple[_Rule, ...]:
        rules = self.allowed_references
        assert rules is None or isinstance(rules, tuple)  # since __post_init__
        return rules or ()

    def _bindings(self, scheme: str, name: str) -> tuple[str, list[tuple[str, ...] | None]]:
        """Return a reference as it is compared, and the hosts of each rule that it matches.

        A rule that binds it to no hosts gives None.
        """
        reference = f"{scheme}:{os.path.normpath(name) if scheme == 'file' else name}"
        # After a link, `..` leads elsewhere than the text of the path says.
        if scheme == "file" and ".." in name.split("/"):
            return reference, []
        rules = [(r, None) if isinstance(r, str) else r for r in self._reference_rules()]
        return reference, [hosts for pattern, hosts in rules if fnmatchcase(reference, pattern)]

    def check_ambient(self, source_id: str, ambient: bool) -> None:
        """Check if a source may use an identity of the machine, if its options do.

        Raises:
            PolicyError: It may not.
        """
        if ambient and not self.allow_ambient:
            raise PolicyError(
                f"source {source_id!r} may not log in with an identity of this machine; "
                "give it credentials of its own",
                rule="allow_ambient",
            )

    def check_paths(self, source_id: str, paths: Iterable[str]) -> None:
        """Check directories, following links.

        Raises:
            PolicyError: A path lies below none of `allowed_roots`.
        """
        if self.allowed_roots is None:
            return
        roots = [os.path.realpath(os.path.expanduser(root)) for root in self.allowed_roots]
        for path in paths:
            # A path with a NUL is not possible, and `realpath` would raise.
            real = "" if "\0" in path else os.path.realpath(path)
            inside = real and any(os.path.commonpath([root, real]) == root for root in roots)
            if not inside:
                raise PolicyError(
                    f"source {source_id!r} may not use {path!r}; "
                    f"allowed: {', '.join(self.allowed_roots) or 'nothing'}",
                    rule="allowed_roots",
                )


def _are_texts(rules: object) -> bool:
    """Return True for a list of texts; not for one text, whose letters would be the rules.

    Letter by letter, the `*` of a single text "*.example.com" would allow everything.
    """
    return isinstance(rules, (list, tuple, set, frozenset)) and all(
        isinstance(rule, str) for rule in rules
    )


def _reference_rules(rules: object) -> tuple[_Rule, ...]:
    """Return the rules for references, given as texts, as pairs with hosts, or as a mapping."""
    fault = OptionError(
        "'allowed_references' must be a list of texts, or a mapping from each text to a list of "
        "hosts or none, or none to allow everything"
    )
    items = list(rules.items()) if isinstance(rules, Mapping) else rules
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise fault
    normal: list[_Rule] = []
    for item in items:
        pattern, hosts = (
            item if isinstance(item, (list, tuple)) and len(item) == 2 else (item, None)
        )
        if not isinstance(pattern, str) or not (hosts is None or _are_texts(hosts)):
            raise fault
        normal.append(pattern if hosts is None else (pattern, tuple(hosts)))
    return tuple(normal)


def _all_match(hosts: Collection[str], patterns: Iterable[str]) -> bool:
    """Return True if there are hosts, and each of them matches a pattern."""
    return bool(hosts) and all(_matches(host, patterns) for host in hosts)


def _matches(host: str, patterns: Iterable[str]) -> bool:
    # To a driver, a text such as `evil.org/.example.com` may name another host.
    return _HOST.fullmatch(host) is not None and any(
        fnmatchcase(host, compared) and _same_form(host, compared)
        for compared in map(_host, patterns)
    )


def _same_form(host: str, pattern: str) -> bool:
    """Return True if a pattern is one for paths, addresses or names, as the host is.

    Otherwise `*.example.com` would match the socket `/tmp/a.example.com`, the zone of the address
    `fe80::1%a.example.com`, and `evil.org:80.example.com`. The pattern `*` matches all forms.
    """
    return pattern == "*" or all(mark in pattern for mark in "/:%" if mark in host)


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


async def _addresses(host: str) -> list[str]:
    """Return the addresses of a host."""
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    import asyncio  # here, as the command line reads settings without it

    try:
        answers = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise ConnectError(f"host {host!r} cannot be resolved: {exc.strerror}") from exc
    except ValueError as exc:  # the name cannot be encoded: too long, an empty label, a NUL
        raise ConnectError(f"host {host!r} cannot be resolved: it is not a host's name") from exc
    return [str(entry[4][0]) for entry in answers]


def _unmapped(address: _Address) -> _Address:
    """Return an IPv4 address that is mapped to IPv6 as IPv4; others as they are."""
    return getattr(address, "ipv4_mapped", None) or address


def _embedded(address: _Address) -> list[_Address]:
    """Return the addresses that a packet to `address` may reach instead of it."""
    if address.is_unspecified:  # Linux connects to the loopback address
        return [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    if isinstance(address, ipaddress.IPv4Address):
        return []
    embedded = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _ENDING_IN_IPV4):
        embedded.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    addresses = [inner for inner in embedded if inner is not None]
    return [*addresses, *(address for inner in addresses for address in _embedded(inner))]
