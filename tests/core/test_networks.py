"""Denied networks stay denied, in every spelling of an address."""

from __future__ import annotations

import pytest

from datasources import LOCAL_NETWORKS, OptionError, Policy, PolicyError
from tests.core.fakes import MemoryConnector, fresh, registry_of, source

LOOPBACK = [  # as `inet_aton`, resolvers and RFC 4291 read addresses
    "127.0.0.1",
    "127.8.9.10",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "0",
    "0.0.0.0",
    "localhost",
    "::1",
    "[::1]",
    "0:0:0:0:0:0:0:1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::127.0.0.1",
    "64:ff9b::127.0.0.1",
    "2002:7f00:1::",
]
METADATA = ["169.254.169.254", "2852039166", "0xa9fea9fe", "::ffff:169.254.169.254", "fe80::1"]


@pytest.mark.parametrize("host", [*LOOPBACK, *METADATA, "224.0.0.1", "ff02::1", "100.100.100.200"])
async def test_denied_network_is_denied_in_every_spelling(host: str) -> None:
    with pytest.raises(PolicyError, match="denied: network"):
        await Policy(denied_networks=LOCAL_NETWORKS).check_networks("s", [host])


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "10.0.0.7"])
async def test_other_networks_pass(host: str) -> None:
    policy = Policy(denied_networks=LOCAL_NETWORKS)
    await policy.check_networks("s", [host])
    policy.check_address("s", host)


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "::1", "::", "fe80::1%eth0"])
def test_denied_address_is_refused_right_before_a_connection(address: str) -> None:
    with pytest.raises(PolicyError, match="'s' may not use"):
        Policy(denied_networks=LOCAL_NETWORKS).check_address("s", address)


@pytest.mark.parametrize("path", ["/run/postgresql", "/", "@abstract", "name.example"])
def test_what_is_no_address_is_refused_where_networks_are_restricted(path: str) -> None:
    for policy in (Policy(denied_networks=("10.0.0.0/8",)), Policy(allowed_networks=("::/0",))):
        with pytest.raises(PolicyError, match="no address of a network"):
            policy.check_address("s", path)
    Policy().check_address("s", path)
    Policy(denied_networks=()).check_address("s", path)


def test_denied_goes_before_allowed() -> None:
    policy = Policy(allowed_networks=("127.0.0.0/8",), denied_networks=("127.0.0.2/32",))
    policy.check_address("s", "127.0.0.1")
    with pytest.raises(PolicyError, match=r"127\.0\.0\.2; denied"):
        policy.check_address("s", "127.0.0.2")


@pytest.mark.parametrize("rule", ["10.0.0.0/8", ["x"], [b"10.0.0.0/8"], ["10.0.0.1/8"]])
def test_malformed_rule_is_refused(rule: object) -> None:
    with pytest.raises(OptionError, match=r"denied_networks|CIDR"):
        Policy(denied_networks=rule)  # type: ignore[arg-type]


class Careful(MemoryConnector):
    """Asks before it connects to an address that its host resolved to meanwhile."""

    async def connect(self) -> bool:
        self.check_address("127.0.0.2")
        return await super().connect()


async def test_connector_asks_about_each_address_that_it_connects_to() -> None:
    async with registry_of(fresh(Careful), policy=Policy(denied_networks=("127.0.0.2/32",))) as one:
        await one.register_data_source(source(host="127.0.0.1"))
        with pytest.raises(PolicyError, match=r"'s' may not use 127\.0\.0\.2; denied"):
            await one.list_items("s")
    async with registry_of(fresh(Careful)) as other:
        await other.register_data_source(source(host="127.0.0.1"))
        assert await other.list_items("s")
