"""What a policy refuses, however it is spelled, and what it lets through."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasources import ConnectError, OptionError, Policy, PolicyError

# Hosts.

HOSTS = ("*.example.com", "10.0.0.7", "[2001:db8::1]", "Db.Internal.", "/var/run/postgresql")


@pytest.mark.parametrize(
    "host",
    [
        "db.example.com",
        "DB.Example.COM",
        "a.b.example.com",
        "db.example.com.",
        "10.0.0.7",
        "::ffff:10.0.0.7",
        "[::ffff:a00:7]",
        "2001:db8::1",
        "[2001:DB8:0:0:0:0:0:1]",
        "2001:0db8::0001",
        "db.internal",
        "/var/run/postgresql",
    ],
)
def test_allowed_host_passes_in_every_spelling(host: str):
    Policy(allowed_hosts=HOSTS).check_hosts("sales", [host])


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "evil.org",
        "example.com.evil.org",
        "dbxexample.com",
        "",
        ".",
        "*",
        " ",
        "10.0.0.70",
        "10.0.0.7.evil.org",
        "10.0.7",
        "0x0a.0.0.7",
        "167772167",
        "10.0.0.07",
        "2001:db8::2",
        "2001:db8::1%eth0",
        "::1",
        "1",
        ":",
        "d",
        "evil.org/.example.com",
        "evil.org#.example.com",
        "evil.org?.example.com",
        "evil.org@.example.com",
        "evil.org,db.example.com",
        "evil.org\0.example.com",
        "evil.org\n.example.com",
        "evil.org .example.com",
        "evil.org\\.example.com",
        "/var/run/postgresql2",
        "/var/run/postgresql/../x",
        "/tmp",
        "/var/run/postgresql,evil.org",
    ],
)
def test_other_host_is_refused_by_name(host: str):
    with pytest.raises(PolicyError) as caught:
        Policy(allowed_hosts=HOSTS).check_hosts("sales", ["db.example.com", host])
    assert "'sales'" in str(caught.value)
    assert repr(host) in str(caught.value)
    assert "*.example.com" in str(caught.value)


def test_no_rule_allows_all_and_an_empty_one_nothing():
    Policy().check_hosts("s", ["evil.org"])
    with pytest.raises(PolicyError, match="allowed: none"):
        Policy(allowed_hosts=()).check_hosts("s", ["h"])
    Policy(allowed_hosts=()).check_hosts("s", [])


@pytest.mark.parametrize(
    "rules",
    [
        {"allowed_hosts": "*.example.com"},
        {"allowed_networks": "10.0.0.0/8"},
        {"allowed_roots": "/srv"},
        {"allowed_references": "env:*"},
        {"allowed_references": {"env:*": "example.com"}},
        {"allowed_references": {1: None}},
        {"allowed_references": [("env:*", "example.com")]},
        {"allowed_references": [("env:*", ["a"], "b")]},
        {"allowed_references": 1},
        {"allowed_hosts": [1]},
        {"allowed_networks": [None]},
    ],
)
def test_one_text_instead_of_a_list_is_refused(rules: dict[str, Any]):
    with pytest.raises(OptionError, match=f"'{next(iter(rules))}' must be a list"):
        Policy(**rules)


def test_lists_as_configuration_files_have_them_are_taken():
    assert Policy(allowed_hosts=["h"]) == Policy(allowed_hosts=("h",))  # type: ignore[arg-type]
    hash(Policy(allowed_hosts=["h"]))  # type: ignore[arg-type]


# Networks.


@pytest.mark.parametrize(
    "network", ["10.0.0.0/33", "10.0.0.1/8", "x", "", "10.0.0.0/8/8", "::/129"]
)
def test_what_is_no_network_is_refused_at_once(network: str):
    with pytest.raises(OptionError, match="CIDR"):
        Policy(allowed_networks=(network,))


@pytest.mark.parametrize(
    ("network", "host"),
    [
        ("127.0.0.0/8", "127.0.0.1"),
        ("127.0.0.0/8", "::ffff:127.0.0.1"),
        ("127.0.0.0/8", "::ffff:7f00:1"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.0/8", "127.1"),
        ("::1/128", "::1"),
        ("::1/128", "[::1]"),
        ("fe80::/10", "fe80::1%1"),
    ],
)
async def test_address_inside_passes(network: str, host: str):
    await Policy(allowed_networks=("192.168.0.0/16", network)).check_networks("s", [host])


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "::1",
        "[::1]",
        "::ffff:10.0.0.1",
        "::ffff:a00:1",
        "2001:db8::1",
        "0.0.0.0",
        "10.1",
        "0x0a000001",
        "167772161",
        "/var/run/postgresql",
        "::",
        "::10.0.0.1",
    ],
)
async def test_address_outside_is_refused(host: str):
    policy = Policy(allowed_networks=("192.168.0.0/16", "::ffff:0:0/96"))
    with pytest.raises(PolicyError, match="network"):
        await policy.check_networks("sales", [host])


async def test_name_passes_if_all_its_addresses_are_inside():
    both = Policy(allowed_networks=("127.0.0.0/8", "::1/128"))
    await both.check_networks("s", ["localhost", "LOCALHOST", "127.0.0.1"])
    for networks in (("10.0.0.0/8",), ("2001:db8::/32",), ()):
        with pytest.raises(PolicyError, match="'localhost' at "):
            await Policy(allowed_networks=networks).check_networks("s", ["localhost"])


async def test_one_address_outside_is_enough_to_refuse():
    # What a name with several addresses resolves to.
    policy = Policy(allowed_networks=("127.0.0.0/8",))
    with pytest.raises(PolicyError, match=r"at 10\.0\.0\.1"):
        await policy.check_networks("s", ["127.0.0.1", "10.0.0.1"])


@pytest.mark.parametrize(
    "host",
    ["", "no-such-host.invalid", "a" * 64 + ".invalid", "a..b", "a\0b", "a b", "\ud800", "@x"],
)
async def test_host_that_does_not_resolve_is_a_connect_error(host: str):
    with pytest.raises(ConnectError, match="cannot be resolved"):
        await Policy(allowed_networks=("127.0.0.0/8",)).check_networks("s", [host])


async def test_without_networks_nothing_is_looked_up():
    await Policy().check_networks("s", ["no-such-host.invalid", "a\0b"])


# Directories.


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in ("data/sub", "data2", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/loop").symlink_to("loop")
    (tmp_path / "in").symlink_to(tmp_path / "data")
    return tmp_path


@pytest.mark.parametrize(
    "path",
    ["data", "data/", "data/sub", "data/none/yet", "data/../data/sub", "in", "in/sub", "./data"],
)
def test_path_below_a_root_passes(tree: Path, path: str):
    Policy(allowed_roots=("/nonexistent", f"{tree}/data")).check_paths("s", [f"{tree}/{path}"])
    Policy(allowed_roots=(f"{tree}/in/",)).check_paths("s", [f"{tree}/{path}"])
    Policy(allowed_roots=("/",)).check_paths("s", [f"{tree}/{path}"])


@pytest.mark.parametrize(
    "path",
    [
        "",
        "data2",
        "data2/x",
        "dat",
        "elsewhere",
        "data/..",
        "data/../data2",
        "data/out",
        "data/out/x",
        "in/../data2",
        "in/out",
        "data/sub/../../elsewhere",
        "data\0",
        "DATA",
    ],
)
def test_path_outside_is_refused(tree: Path, path: str):
    with pytest.raises(PolicyError, match="'sales'"):
        Policy(allowed_roots=(f"{tree}/data",)).check_paths("sales", [f"{tree}/{path}"])


def test_relative_path_counts_from_the_working_directory(
    tree: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tree / "data")
    policy = Policy(allowed_roots=(f"{tree}/data",))
    policy.check_paths("s", ["sub", "."])
    for path in ("..", "../data2", "out"):
        with pytest.raises(PolicyError):
            policy.check_paths("s", [path])
    with pytest.raises(PolicyError, match="allowed: nothing"):
        Policy(allowed_roots=()).check_paths("s", ["sub"])
    Policy().check_paths("s", ["/etc"])


# References.

REFERENCES = ("env:SALES_*", "file:/run/secrets/*", "vault:sales/*")


@pytest.mark.parametrize(
    "reference",
    [
        "${env:SALES_PW}",
        "${env:SALES_}",
        "${file:/run/secrets/pw}",
        "${file:/run/secrets/a/b}",
        "${file:/run/./secrets//pw}",
        "${vault:sales/x}",
        "plain",
        "$env:HOME",
        "${}",
        "${HOME}",
    ],
)
def test_allowed_reference_passes(reference: str):
    policy = Policy(allowed_references=REFERENCES)
    policy.check_references("s", {"a": [{"b": reference}], "c": (f"x{reference}y", 5, None)})


@pytest.mark.parametrize(
    "reference",
    [
        "${env:HOME}",
        "${env:sales_pw}",
        "${env:XSALES_PW}",
        "${ENV:SALES_PW}${env:HOME}",
        "${file:/etc/passwd}",
        "${file:/run/secrets}",
        "${file:/run/secrets2/x}",
        "${file:pw}",
        "${file:/run/secrets/../../etc/passwd}",
        "${file:/run/secrets/../secrets/pw}",
        "${file:/run/secrets/link/../pw}",
        "${file:run/secrets/x}",
        "${file://run/secrets/x}",
        "${vault:other}",
        "${other:x}",
        "${env:${env:HOME}}",
        "${env:SALES_PW}${env:HOME}",
    ],
)
def test_other_reference_is_refused_wherever_it_stands(reference: str):
    for options in ({"a": reference}, {"a": [{"b": f"x{reference}"}]}, {"a": ({"b": reference},)}):
        with pytest.raises(PolicyError, match="source 'sales' may not refer to"):
            Policy(allowed_references=REFERENCES).check_references("sales", options)


def test_links_below_an_allowed_file_pattern_are_the_hosts_own(tmp_path: Path):
    # As orchestrators mount secrets: a link beside the data it leads to.
    (tmp_path / "pw").symlink_to("..data/pw")
    policy = Policy(allowed_references=(f"file:{tmp_path}/*",))
    policy.check_references("s", {"a": f"${{file:{tmp_path}/pw}}"})
    assert os.path.islink(tmp_path / "pw")


def test_without_rule_any_reference_passes_and_an_empty_one_refuses_all():
    Policy().check_references("s", {"a": "${env:HOME}"})
    with pytest.raises(PolicyError, match="allowed: none"):
        Policy(allowed_references=()).check_references("s", {"a": "${env:HOME}"})


# References that are bound to hosts.

BOUND = Policy(
    allowed_references={
        "env:SALES_*": ("*.sales.internal", "10.0.0.7"),
        "file:/run/secrets/*": ["vault.internal"],
        "env:PUBLIC_*": None,
    }
)


@pytest.mark.parametrize(
    ("reference", "hosts"),
    [
        ("${env:SALES_PASSWORD}", ["db.sales.internal"]),
        ("${env:SALES_PASSWORD}", ["DB.Sales.Internal.", "::ffff:10.0.0.7"]),
        ("${file:/run/./secrets/a}", ["vault.internal"]),
        ("${env:PUBLIC_A}", ["evil.org"]),
        ("${env:PUBLIC_A}", []),
    ],
)
def test_bound_reference_passes_with_its_hosts(reference: str, hosts: list[str]):
    BOUND.check_references("s", {"password": reference}, hosts=hosts)


@pytest.mark.parametrize(
    ("reference", "hosts"),
    [
        ("${env:SALES_PASSWORD}", ["evil.org"]),
        ("${env:SALES_PASSWORD}", ["db.sales.internal", "evil.org"]),
        ("${env:SALES_PASSWORD}", ["evil.org#.sales.internal"]),
        ("${env:SALES_PASSWORD}", ["vault.internal"]),
        ("${env:SALES_PASSWORD}", []),
        ("x${file:/run/secrets/a}", ["db.sales.internal"]),
        ("${file:/run/secrets/../secrets/a}", ["vault.internal"]),
        ("${env:OTHER}", ["db.sales.internal"]),
    ],
)
def test_bound_reference_is_refused_with_other_hosts(reference: str, hosts: list[str]):
    with pytest.raises(PolicyError, match="source 's' may not refer to"):
        BOUND.check_references("s", {"tls": {"keys": [reference]}}, hosts=hosts)


@pytest.mark.parametrize(
    "host",
    [
        "/tmp/a.sales.internal",
        "evil.org:80.sales.internal",
        "fe80::1%a.sales.internal",
        "2001:db8::1%.sales.internal",
        "evil.org%.sales.internal",
    ],
)
def test_pattern_of_names_matches_no_socket_port_or_zone(host: str):
    with pytest.raises(PolicyError, match="which is for the hosts"):
        BOUND.check_references("s", {"password": "${env:SALES_PASSWORD}"}, hosts=[host])
    with pytest.raises(PolicyError, match="may not use the host"):
        Policy(allowed_hosts=("*.sales.internal",)).check_hosts("s", [host])
    Policy(allowed_hosts=("*",)).check_hosts("s", [host])


def test_hosts_that_are_not_given_are_not_checked():
    BOUND.check_references("s", {"password": "${env:SALES_PASSWORD}"})
    with pytest.raises(
        PolicyError, match=r"allowed: env:SALES_\*, file:/run/secrets/\*, env:PUBLIC_\*"
    ):
        BOUND.check_references("s", {"password": "${env:OTHER}"})


@pytest.mark.parametrize(
    ("reference", "is_bound"),
    [
        ("env:SALES_A", True),
        ("file:/run/secrets/a", True),
        ("file:/run/secrets/../../etc/a", False),
        ("env:PUBLIC_A", False),
        ("env:OTHER", False),
    ],
)
def test_policy_tells_which_references_are_bound(reference: str, is_bound: bool):
    assert BOUND.bound(reference) is is_bound
    assert Policy().bound(reference) is False
    pairs = Policy(allowed_references=(("env:S*", ("a",)), "env:*", "file:*"))
    assert pairs.bound("env:SALES_A")
    assert not pairs.bound("env:A")


def test_binding_holds_beside_a_pattern_without_hosts():
    policy = Policy(allowed_references={"env:*": None, "env:SALES_*": ["a"], "env:SALES_X": ["b"]})
    policy.check_references("s", {"password": "${env:OTHER}"}, hosts=["c"])
    policy.check_references("s", {"password": "${env:SALES_X}"}, hosts=["b"])
    with pytest.raises(PolicyError, match=r"'env:SALES_X', which is for the hosts a, b only"):
        policy.check_references("s", {"password": "${env:SALES_X}"}, hosts=["c"])


def test_policy_with_bound_references_is_a_value():
    same = Policy(allowed_references=BOUND.allowed_references)
    assert (same, hash(same)) == (BOUND, hash(BOUND))


@pytest.mark.parametrize(
    ("rule", "check"),
    [
        ("allowed_hosts", lambda policy: policy.check_hosts("s", ["elsewhere"])),
        ("denied_networks", lambda policy: policy.check_address("s", "10.0.0.1")),
        ("allowed_networks", lambda policy: policy.check_address("s", "11.0.0.1")),
        ("allowed_references", lambda policy: policy.check_references("s", {"a": "${env:A}"})),
        ("allow_ambient", lambda policy: policy.check_ambient("s", True)),
        ("allowed_roots", lambda policy: policy.check_paths("s", ["/etc"])),
    ],
)
def test_refusal_names_the_field_of_the_policy(rule: str, check: Callable[[Policy], None]) -> None:
    policy = Policy(
        allowed_hosts=(),
        allowed_networks=(),
        denied_networks=("10.0.0.0/8",),
        allowed_references=(),
        allowed_roots=(),
        allow_ambient=False,
    )
    with pytest.raises(PolicyError) as raised:
        check(policy)
    assert raised.value.rule == rule
