"""Options: one account, one credential, nothing secret shown."""

from __future__ import annotations

from typing import Any

import pytest

from datasources import OptionError
from datasources_azure_blob import AzureBlobOptions

KEY = "c2VjcmV0LWtleS1vZi10aGUtYWNjb3VudA=="
SIG = "Zm9yZ2VkLXNpZ25hdHVyZS9vZi9zb21lb25l%2Bx%3D"
SAS = f"sv=2024-11-04&sr=c&sp=rl&sig={SIG}"
URL = "https://myaccount.blob.core.windows.net"
STRING = f"DefaultEndpointsProtocol=https;AccountName=myaccount;AccountKey={KEY};"


def load(**options: Any) -> AzureBlobOptions:
    return AzureBlobOptions.load({"container": "exports", **options})


@pytest.mark.parametrize(
    ("options", "url", "name"),
    [
        ({"connection_string": STRING}, URL, "myaccount"),
        (
            {"connection_string": STRING + "EndpointSuffix=core.chinacloudapi.cn"},
            "https://myaccount.blob.core.chinacloudapi.cn",
            "myaccount",
        ),
        (
            {"connection_string": STRING + "BlobEndpoint=http://127.0.0.1:10000/myaccount/;"},
            "http://127.0.0.1:10000/myaccount",
            "myaccount",
        ),
        (
            {"connection_string": f"BlobEndpoint={URL}/;SharedAccessSignature=?{SAS}"},
            URL,
            None,
        ),
        (
            {"connection_string": "UseDevelopmentStorage=true"},
            "http://127.0.0.1:10000/devstoreaccount1",
            "devstoreaccount1",
        ),
        ({"account_url": URL + "/", "account_key": KEY}, URL, "myaccount"),
        ({"account_url": URL, "sas_token": "?" + SAS}, URL, "myaccount"),
        ({"account_url": f"{URL}/?{SAS}"}, URL, "myaccount"),
        (
            {"account_url": "http://10.0.0.7:10000/local", "account_key": KEY},
            "http://10.0.0.7:10000/local",
            "local",
        ),
        (
            {"account_url": "https://files.example.com", "account_key": KEY, "account_name": "a1"},
            "https://files.example.com",
            "a1",
        ),
        ({"account_url": URL, "credential": "anonymous"}, URL, "myaccount"),
        ({"account_url": f"  {URL}/ \n", "account_key": f"{KEY}\n"}, URL, "myaccount"),
        ({"account_url": URL, "account_key": f'"{KEY}"\n'}, URL, "myaccount"),
        ({"connection_string": f"'{STRING}'\n"}, URL, "myaccount"),
        ({"connection_string": f"BlobEndpoint={URL}/?{SAS};"}, URL, None),
        (
            {"account_url": "http://azurite:10000/devstore", "account_key": KEY},
            "http://azurite:10000/devstore",
            "devstore",
        ),
        (
            {"account_url": "https://a.z01.blob.storage.azure.net", "account_key": KEY},
            "https://a.z01.blob.storage.azure.net",
            "a",
        ),
        (
            {"account_url": "https://[::1]:10000/a", "account_key": KEY},
            "https://[::1]:10000/a",
            "a",
        ),
        ({"account_url": URL, "credential": "default"}, URL, "myaccount"),
    ],
)
def test_every_way_to_name_an_account_is_understood(
    options: dict[str, Any], url: str, name: str | None
) -> None:
    account = load(**options).account()
    assert (account.url, account.name) == (url, name)


def test_container_name_is_an_alias_of_container() -> None:
    options = AzureBlobOptions.load({"container_name": "data", "connection_string": STRING})
    assert options.container == "data"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "give either 'connection_string', or 'account_url' and 'account_key', or "),
        (
            {"connection_string": STRING, "account_url": URL},
            "'connection_string' brings its own account and credential; leave out account_url",
        ),
        ({"account_url": URL}, "give either .*; given: 'account_url'"),
        (
            {"account_url": URL, "account_key": KEY, "sas_token": SAS},
            "options 'account_key' and 'sas_token' exclude one another; give either ",
        ),
        ({"account_url": f"{URL}?{SAS}", "sas_token": SAS}, "carries a SAS already"),
        ({"connection_string": STRING, "sas_token": SAS}, "leave out sas_token"),
        (
            {"account_url": f"{URL}?sv=1"},
            "query must be a SAS, which has a signature; nothing else",
        ),
        ({"connection_string": STRING, "prefix": "\ud800"}, "'prefix': it is not Unicode text"),
        ({"connection_string": "nonsense"}, "'connection_string': not a connection string"),
        ({"connection_string": "AccountName=a;"}, "holds no credential"),
        ({"connection_string": f"AccountKey={KEY}"}, "names no account"),
        ({"connection_string": "AccountName=a;AccountKey=%%%"}, "key is not base64"),
        ({"account_url": "myaccount", "account_key": KEY}, "'account_url': not a URL"),
        ({"account_url": "ftp://a.blob.b", "account_key": KEY}, "'account_url': not a URL"),
        ({"account_url": "https://u:p@a.blob.b", "account_key": KEY}, "user or password"),
        ({"account_url": "https://a.blob.b:99999", "account_key": KEY}, "not a URL"),
        ({"account_url": f"{URL}/data", "account_key": KEY}, "the container as 'container'"),
        ({"account_url": f"{URL}?x=1", "account_key": KEY}, "query must be a SAS"),
        (
            {"account_url": "https://files.example.com/exports", "credential": "anonymous"},
            "the container as 'container'",
        ),
        (
            {"connection_string": f"BlobEndpoint={URL}/exports;AccountKey={KEY}"},
            "the container as 'container'",
        ),
        ({"account_url": "https://a..blob.b", "account_key": KEY}, "host is not a host name"),
        ({"account_url": f"https://{'a' * 64}.b", "account_key": KEY}, "host is not a host name"),
        ({"account_url": "https://a b.blob.b", "account_key": KEY}, "host is not a host name"),
        ({"account_url": "https://a%.blob.b", "account_key": KEY}, "host is not a host name"),
        (
            {"connection_string": f"AccountName={'a' * 70};AccountKey={KEY}"},
            "'connection_string': its host is not a host name",
        ),
        (
            {"account_url": "https://a.dfs.core.windows.net", "account_key": KEY},
            "endpoint 'dfs'; give the one that has 'blob'",
        ),
        (
            {"account_url": "https://a.file.core.chinacloudapi.cn", "credential": "default"},
            "endpoint 'file'",
        ),
        (
            {"connection_string": f"BlobEndpoint=https://a.z1.dfs.storage.azure.net;{STRING}"},
            "endpoint 'dfs'",
        ),
        ({"account_url": URL, "sas_token": f"sv=1 &{SAS}"}, "no blanks"),
        ({"account_url": URL, "sas_token": f'{SAS}" more'}, "no blanks"),
        ({"account_url": URL, "sas_token": SAS.replace("sr=c", "sr=b")}, "for a single blob"),
        ({"account_url": URL, "sas_token": SAS.replace("sr=c", "sr=d")}, "folder as 'prefix'"),
        ({"account_url": URL, "account_key": "not base64!"}, "'account_key': .* not base64"),
        ({"account_url": URL, "sas_token": "sv=1"}, "'sas_token': not a shared access signature"),
        ({"account_url": URL, "credential": "magic"}, "'credential'"),
        (
            {"account_url": URL, "client_secret": "x"},
            "options 'tenant_id' and 'client_id' are missing",
        ),
        (
            {"account_url": URL, "credential": "anonymous", "client_id": "x"},
            "'tenant_id', 'client_id' and .* together",
        ),
        (
            {"account_url": URL, "credential": "default", "client_id": "x", "tenant_id": "y"},
            "'tenant_id', 'client_id' and .* together",
        ),
        (
            {"account_url": "https://files.example.com", "account_key": KEY},
            "give 'account_name' too",
        ),
        (
            {"account_url": "http://a.blob.b", "credential": "default"},
            "a token is sent over https only",
        ),
        ({"connection_string": STRING, "container": "Up"}, "'container': a container's name"),
        ({"connection_string": STRING, "retries": -1}, "'retries'"),
        ({"connection_string": STRING, "connect_timeout": 0}, "'connect_timeout'"),
        ({"connection_string": STRING, "colour": "red"}, "unknown option 'colour'; options: cont"),
    ],
)
def test_wrong_options_are_named_and_never_shown(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(OptionError, match=reason) as caught:
        load(**options)
    for secret in (KEY, SIG, "not base64!", "nonsense", "magic", "u:p"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "token",
    [
        f"?{SAS}",
        f'"{SAS}"',
        f"'?{SAS}'\n",
        f"{URL}/exports?{SAS}",
        f" {SAS}&",
        f"SharedAccessSignature={SAS}",
    ],
)
def test_sas_is_understood_quoted_and_as_the_query_of_a_url(token: str) -> None:
    assert load(account_url=URL, sas_token=token).account().sas == SAS
    assert load(connection_string=f"BlobEndpoint={URL};SharedAccessSignature={token}").account().sas


@pytest.mark.parametrize("prefix", ["exports/2024", "/exports/2024/", "exports/2024/"])
def test_slashes_around_a_prefix_are_ignored(prefix: str) -> None:
    assert load(connection_string=STRING, prefix=prefix).prefix == "exports/2024/"


@pytest.mark.parametrize("container", ["$root", "$web", "$logs", "$blobchangefeed", "a-1"])
def test_containers_of_the_service_itself_can_be_sources(container: str) -> None:
    options = AzureBlobOptions.load({"container": container, "connection_string": STRING})
    assert options.container == container


def test_missing_container_is_named() -> None:
    with pytest.raises(OptionError, match="option 'container' is missing"):
        AzureBlobOptions.load({"connection_string": STRING})


def test_identity_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"pip install 'datasources-azure-blob\[identity\]'"):
        load(account_url=URL, credential="default")


@pytest.mark.parametrize(
    "options",
    [
        {"connection_string": "${env:BLOBS}"},
        {"account_url": "${env:URL}"},
        {"account_url": URL, "account_key": "${file:/run/key}"},
        {"account_url": URL, "sas_token": "${vault:sas}"},
    ],
)
def test_references_pass_validation_unresolved(options: dict[str, Any]) -> None:
    AzureBlobOptions.check({"container": "data", **options})


@pytest.mark.parametrize(
    ("options", "hosts"),
    [
        ({"connection_string": STRING}, ["myaccount.blob.core.windows.net"]),
        (
            {"connection_string": STRING + "BlobEndpoint=http://10.0.0.7:10000/myaccount"},
            ["10.0.0.7"],
        ),
        ({"account_url": f"{URL}?{SAS}"}, ["myaccount.blob.core.windows.net"]),
        (
            {"account_url": URL, "tenant_id": "t", "client_id": "c", "client_secret": "s"},
            ["myaccount.blob.core.windows.net", "login.microsoftonline.com"],
        ),
    ],
)
def test_hosts_are_those_contacted(options: dict[str, Any], hosts: list[str]) -> None:
    assert list(load(**options).hosts()) == hosts


def test_hosts_follow_the_authority_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.example.com:8443/")
    assert list(load(account_url=URL, credential="default").hosts())[1] == "login.example.com"


@pytest.mark.parametrize(
    "options",
    [
        {"connection_string": STRING},
        {"connection_string": f"BlobEndpoint={URL};SharedAccessSignature={SAS}"},
        {"account_url": f"{URL}?{SAS}"},
        {"account_url": URL, "sas_token": SAS},
        {"account_url": URL, "account_key": KEY},
    ],
)
def test_secrets_are_declared_and_masked(options: dict[str, Any]) -> None:
    loaded = load(**options)
    shown = [repr(loaded), str(loaded), loaded.model_dump_json(), repr(loaded.account())]
    shown.append(repr(AzureBlobOptions.redact({"container": "data", **options})))
    for text in shown:
        assert KEY not in text
        assert SIG not in text
    secret = KEY if KEY in repr(options) else SIG
    assert secret in loaded.secret_values()


def test_every_option_is_described_with_an_example() -> None:
    for name, field in AzureBlobOptions.fields():
        assert field.description, name
        assert field.examples, name


@pytest.mark.parametrize(
    ("options", "ambient"),
    [
        ({"credential": "default"}, True),
        ({"credential": "anonymous"}, False),
        ({"account_key": "YQ=="}, False),
    ],
)
def test_identities_of_the_machine_are_named(options: dict[str, Any], ambient: bool) -> None:
    assert load(account_url=URL, **options).ambient() is ambient
