"""Keys and ciphertexts: every fault is a clear error, and nothing of a key or a secret shows."""

from __future__ import annotations

import base64
import copy
import os
import pickle
import random
import stat
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given, strategies as st

from datasources import (
    ConnectorOptions,
    CredentialManager,
    DataSourceConfig,
    DataSourceType,
    DecryptionError,
    MissingKeyError,
    OptionError,
    SecretNotFoundError,
)
from datasources.credentials import (
    fingerprint,
    read_key_file,
    resolve_references,
    write_key_file,
)
from datasources.redaction import MARK
from tests.core.fakes import MemoryConnector, registry_of
from tests.core.tracebacks import local_variables

KEY, OTHER = CredentialManager.generate_key(), CredentialManager.generate_key()
OPTIONS = {"host": "h", "password": "hunter2", "nested": {"a": [1, 2.5, None, True, "ü"]}}

MALFORMED: list[Any] = [
    "",
    " ",
    ",",
    ",,",
    "\n",
    "x",
    "hunter2",
    "a" * 43,
    "a" * 44,
    "a" * 45,
    "=" * 44,
    "é" * 44,
    "\ud800" * 44,
    "\0" * 44,
    "ключ",
    "密" * 43 + "=",
    KEY[:-1],
    KEY[1:],
    KEY[:-2] + "==",
    KEY + "=",
    KEY + "A",
    "A" + KEY,
    KEY * 2,
    KEY[:20] + " " + KEY[20:],
    KEY[:20] + KEY[21:],
    KEY[:20] + "\n" + KEY[21:],
    KEY[:20] + "!" + KEY[21:],
    KEY[:20] + "é" + KEY[21:],
    f"{KEY},x",
    f"x,{KEY}",
    f"{KEY};{OTHER}",
    f"{KEY} {OTHER}",
    f"'{KEY}'",
    f'"{KEY}"',
    f"key={KEY}",
    f"b{KEY!r}",
    os.urandom(33),
    KEY.encode()[:-1],
    b"",
    b"\xff" * 44,
    b"\0" * 32,
    os.urandom(32).hex(),
    base64.b64encode(bytes(31)).decode(),
    base64.b64encode(bytes(33)).decode(),
    base64.b32encode(bytes(32)).decode(),
    [],
    [""],
    [KEY, "x"],
    [None],
    [5],
    5,
    0,
    True,
    object(),
    {},
    {"x": 1},
    bytearray(44),
    [[]],
    ["x", KEY],
]


@pytest.fixture
def manager() -> CredentialManager:
    return CredentialManager(KEY)


def test_there_are_fifty_malformed_keys():
    assert len(MALFORMED) >= 50


@pytest.mark.parametrize("key", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_key_is_refused_without_being_quoted(key: Any):
    with pytest.raises(MissingKeyError) as caught:
        CredentialManager(key)
    shown = "".join(traceback.format_exception(caught.value))
    for part in [key] if isinstance(key, str) else []:
        if len(part) >= 5:
            assert part not in shown
    assert KEY not in shown
    assert "generate_key()" in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        f"{KEY},{OTHER}",
        f" {KEY} ,\n{OTHER}, ",
        f"{KEY},{OTHER}".encode(),
        [KEY, OTHER],
        (KEY.encode(), OTHER),
        [f"{KEY}\n", f"{OTHER} "],
        f"{KEY},{OTHER},{KEY}",
    ],
    ids=["text", "spaces", "bytes", "list", "tuple", "lines", "repeated"],
)
def test_several_keys_are_taken_the_first_encrypts(given: Any):
    manager = CredentialManager(given)
    assert manager.fingerprints == [fingerprint(KEY), fingerprint(OTHER)]
    assert not manager.generated
    assert (
        CredentialManager(KEY).decrypt_credentials(manager.encrypt_credentials(OPTIONS)) == OPTIONS
    )
    old = CredentialManager(OTHER).encrypt_credentials(OPTIONS)
    assert manager.decrypt_credentials(old) == OPTIONS
    assert not manager.is_current(old)
    assert manager.is_current(manager.encrypt_credentials({}))


def test_keys_come_from_the_environment_then_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_key_file(tmp_path / "keys", [OTHER, KEY])
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY_FILE", str(tmp_path / "keys"))
    assert CredentialManager().fingerprints == [fingerprint(OTHER), fingerprint(KEY)]
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY", f"{KEY},{OTHER}")
    assert CredentialManager().fingerprints == [fingerprint(KEY), fingerprint(OTHER)]
    assert CredentialManager(OTHER).fingerprints == [fingerprint(OTHER)]
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY", "malformed")
    with pytest.raises(MissingKeyError):
        CredentialManager()


def test_without_any_key_one_is_generated_and_says_so():
    first, second = CredentialManager(), CredentialManager()
    assert first.generated
    assert first.fingerprints != second.fingerprints


def test_missing_key_file_is_an_error_and_no_new_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(MissingKeyError, match="No such file"):
        CredentialManager()


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# only a comment\n", b"  # another\n"])
def test_key_file_without_a_key_is_an_error(tmp_path: Path, content: bytes):
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(MissingKeyError, match="holds no key"):
        read_key_file(tmp_path / "keys")


def test_key_file_may_have_comments_and_marks_of_editors(tmp_path: Path):
    (tmp_path / "keys").write_bytes(f"\ufeff# ours\r\n{KEY}\r\n  # old\n\n {OTHER}\n".encode())
    assert read_key_file(tmp_path / "keys") == [KEY, OTHER]


@pytest.mark.parametrize("path", ["/", "/nonexistent/x", "/dev/null", "/dev/zero", "\0"])
def test_what_is_no_key_file_is_an_error(path: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(MissingKeyError):
        CredentialManager(read_key_file(path))


def test_key_file_is_written_whole_for_its_owner_only(tmp_path: Path):
    path = tmp_path / "new" / "keys"
    old_mask = os.umask(0o277)
    try:
        write_key_file(path, [KEY])
        write_key_file(path, [OTHER, KEY])
    finally:
        os.umask(old_mask)
    assert read_key_file(path) == [OTHER, KEY]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["keys"]


def test_key_file_behind_links_is_replaced_and_the_links_stay(tmp_path: Path):
    shared = tmp_path / "shared" / "keys"
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to(shared)
    for keys in ([KEY], [OTHER, KEY]):  # the file is not there yet, and is there
        write_key_file(tmp_path / "first", keys)
        assert read_key_file(shared) == keys
        assert (tmp_path / "first").readlink() == Path("second")
        assert (tmp_path / "second").readlink() == shared
    assert os.listdir(shared.parent) == ["keys"]


def test_key_file_behind_a_link_in_a_circle_is_not_written(tmp_path: Path):
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(MissingKeyError, match="Too many levels of symbolic links"):
        write_key_file(tmp_path / "circle", [KEY])
    assert (tmp_path / "circle").is_symlink()


def test_key_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "keys"
    write_key_file(path, [KEY])
    with pytest.raises(UnicodeEncodeError):
        write_key_file(path, [OTHER, "é"])
    assert read_key_file(path) == [KEY]
    assert os.listdir(tmp_path) == ["keys"]
    with pytest.raises(MissingKeyError, match="cannot be written"):
        write_key_file(path / "below", [KEY])


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
            max_leaves=6,
        ),
    )
)
def test_options_come_back_as_they_were(options: dict[str, Any]):
    manager = CredentialManager(KEY)
    encrypted = manager.encrypt_credentials(options, source_id="s")
    assert manager.decrypt_credentials(encrypted, source_id="s") == options


def circle() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def nested() -> Any:
    value: Any = "hunter2"
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [b"hunter2", {"hunter2"}, object(), float("nan"), circle(), nested()]
)
def test_options_that_json_cannot_hold_are_refused_without_being_quoted(
    manager: CredentialManager, value: Any
):
    with pytest.raises(OptionError, match="'sales'") as caught:
        manager.encrypt_credentials({"password": value}, source_id="sales")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_wrong_key_names_the_source_and_both_keys(manager: CredentialManager):
    encrypted = CredentialManager(OTHER).encrypt_credentials(OPTIONS, source_id="sales")
    with pytest.raises(DecryptionError) as caught:
        manager.decrypt_credentials(encrypted, source_id="sales")
    for part in ("'sales'", fingerprint(OTHER), fingerprint(KEY)):
        assert part in str(caught.value)


def damaged(encrypted: str, source_id: str, manager: CredentialManager) -> bool:
    """Tell whether the text still opens; if so, to the same options."""
    message = ""
    try:
        options = manager.decrypt_credentials(encrypted, source_id=source_id)
    except DecryptionError as exc:
        message = str(exc)
    if message:
        assert repr(source_id) in message
        assert manager.fingerprints[0] in message
        assert "hunter2" not in message
        return True
    assert options == OPTIONS
    return False


@pytest.mark.parametrize("number", range(40))
def test_no_flipped_bit_opens_to_anything_else(number: int):
    manager, source_id = CredentialManager(KEY), f"source-{number}"
    encrypted = manager.encrypt_credentials(OPTIONS, source_id=source_id)
    flips = [(at, bit) for at in range(len(encrypted)) for bit in range(8)]
    same = 0
    for at, bit in flips:
        flipped = f"{encrypted[:at]}{chr(ord(encrypted[at]) ^ 1 << bit)}{encrypted[at + 1 :]}"
        same += not damaged(flipped, source_id, manager)
    # base64 leaves a few bits of its last character unused.
    assert same <= 6


def test_no_flipped_byte_or_truncation_opens(manager: CredentialManager):
    encrypted = manager.encrypt_credentials(OPTIONS, source_id="sales")
    for end in range(len(encrypted.rstrip("="))):
        assert damaged(encrypted[:end], "sales", manager)
    for at in range(len(encrypted)):
        damaged(
            f"{encrypted[:at]}{chr(ord(encrypted[at]) | 0x80)}{encrypted[at + 1 :]}",
            "sales",
            manager,
        )
        assert damaged(encrypted[at:], "sales", manager) is (at > 0)
    damaged(encrypted + encrypted, "sales", manager)


def test_key_may_be_in_standard_base64():
    raw = b"\xfb\xff" * 16  # where the two alphabets differ
    standard, for_urls = base64.b64encode(raw), base64.urlsafe_b64encode(raw)
    encrypted = CredentialManager(standard).encrypt_credentials(OPTIONS)
    assert CredentialManager(for_urls).decrypt_credentials(encrypted) == OPTIONS


def test_ciphertext_in_standard_base64_is_damage(manager: CredentialManager):
    encrypted = ""
    while "-" not in encrypted:  # nearly always there: each encryption has its own random start
        encrypted = manager.encrypt_credentials(OPTIONS, source_id="sales")
    assert damaged(encrypted.replace("-", "+", 1), "sales", manager)


@pytest.mark.parametrize(
    "found", [None, b"x", 5, "", ":", "x", "hunter2:x", '{"password": "hunter2"}']
)
def test_what_is_no_ciphertext_is_damage_and_not_quoted(manager: CredentialManager, found: Any):
    assert damaged(found, "sales", manager)
    assert not manager.is_current(found)


@pytest.mark.parametrize(
    "plain", [b"", b"5", b"[]", b"{}", b'{"source": "sales"}', b"\xff", b"null"]
)
def test_text_of_another_program_under_our_key_is_damage(manager: CredentialManager, plain: bytes):
    encrypted = f"{fingerprint(KEY)}:{Fernet(KEY).encrypt(plain).decode()}"
    assert damaged(encrypted, "sales", manager)


def test_ciphertext_moved_to_another_source_does_not_open(manager: CredentialManager):
    encrypted = manager.encrypt_credentials(OPTIONS, source_id="sales")
    for source_id in ("stocks", "Sales", "sales ", ""):
        with pytest.raises(DecryptionError, match=f"{source_id!r}.*{fingerprint(KEY)}.*another"):
            manager.decrypt_credentials(encrypted, source_id=source_id)


def test_nothing_of_a_key_shows(manager: CredentialManager):
    secrets = [
        KEY,
        KEY.encode(),
        *(base64.urlsafe_b64decode(KEY)[part] for part in (slice(16), slice(16, 32))),
    ]
    for shown in (repr(manager), str(manager), repr(vars(manager)), f"{manager!r:>9}"):
        assert not any(str(secret) in shown or repr(secret)[2:-1] in shown for secret in secrets)
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            take(manager)


def test_fingerprint_is_the_same_for_every_spelling_of_a_key():
    assert fingerprint(KEY) == fingerprint(KEY.encode())
    assert len(fingerprint(KEY)) == 12
    assert fingerprint(KEY) != fingerprint(OTHER)


# References.


def nobody(scheme: str, name: str) -> None:
    return None


def test_references_are_resolved_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "pw").write_text("hunter2\n")
    monkeypatch.setenv("DB_USER", "bob")
    options = {
        "dsn": f"postgresql://${{env:DB_USER}}:${{file:{tmp_path}/pw}}@h",
        "list": [{"x": "${vault:a/b}"}, ("${env:DB_USER}",), 5, None],
    }
    resolved = resolve_references(options, lambda scheme, name: f"<{scheme} {name}>")
    assert resolved == {
        "dsn": "postgresql://bob:hunter2@h",
        "list": [{"x": "<vault a/b>"}, ["bob"], 5, None],
    }
    assert "${env" in options["dsn"]


def test_what_a_reference_gives_is_not_resolved_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OUTER", "${env:INNER}")
    monkeypatch.setenv("INNER", "hunter2")
    assert resolve_references("${env:OUTER}", nobody) == "${env:INNER}"
    assert resolve_references("${env:${env:OUTER}}", nobody) == "${env:${env:INNER}}"


@pytest.mark.parametrize(
    "reference",
    [
        "${env:NOT_THERE}",
        "${env:a\0b}",
        "${env:\ud800}",
        "${env:DATASOURCE_ENCRYPTION_KEY}",
        "${env:DATASOURCE_ENCRYPTION_KEY_FILE}",
        "${file:/not/there}",
        "${file:/}",
        "${file:a\0b}",
        "${file:/dev/zero}",
        "${file:/proc/self/environ}",
        "${file:/proc/../proc/self/environ}",
        "${vault:x}",
    ],
)
def test_reference_that_leads_nowhere_is_named(reference: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY", KEY)
    with pytest.raises(SecretNotFoundError) as caught:
        resolve_references({"password": [reference]}, nobody)
    assert str(caught.value).startswith(reference)


def test_key_file_is_given_to_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_key_file(tmp_path / "keys", [KEY])
    (tmp_path / "link").symlink_to(tmp_path / "keys")
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY_FILE", str(tmp_path / "keys"))
    for name in ("keys", "link", "../" + tmp_path.name + "/keys"):
        with pytest.raises(SecretNotFoundError, match="holds keys"):
            resolve_references(f"${{file:{tmp_path}/{name}}}", nobody)


def test_a_byte_order_mark_is_no_part_of_a_secret(tmp_path: Path):
    (tmp_path / "pw").write_bytes(b"\xef\xbb\xbfhunter2\r\n")
    assert resolve_references(f"${{file:{tmp_path}/pw}}", nobody) == "hunter2"


def test_a_resolver_is_asked_once_for_each_reference():
    asked: list[tuple[str, str]] = []

    def vault(scheme: str, name: str) -> str:
        asked.append((scheme, name))
        return "secret"

    assert resolve_references(["${vault:x}", "${vault:x}"], vault) == ["secret", "secret"]
    assert asked == [("vault", "x")]


@pytest.mark.parametrize(
    "content",
    [b"hunter2\xff", b"hunter2 " * 200_000, KEY.encode()],
    ids=["no text", "too long", "a key"],
)
def test_no_frame_of_an_error_has_a_secret(tmp_path: Path, content: bytes):
    (tmp_path / "pw").write_bytes(content)
    options = {"password": "hunter2", "other": f"${{file:{tmp_path}/pw}}"}
    with pytest.raises(SecretNotFoundError) as caught:
        resolve_references(options, nobody)
    assert "hunter2" not in local_variables(caught.value)
    assert KEY not in local_variables(caught.value)


def test_no_frame_of_an_error_has_options_that_cannot_be_encrypted_or_are_of_another_source():
    manager = CredentialManager(KEY)
    with pytest.raises(OptionError) as refused:
        manager.encrypt_credentials({"password": "hunter2", "odd": object()}, source_id="s")
    assert "hunter2" not in local_variables(refused.value)
    encrypted = manager.encrypt_credentials({"password": "hunter2"}, source_id="other")
    with pytest.raises(DecryptionError, match="belong to another source") as moved:
        manager.decrypt_credentials(encrypted, source_id="s")
    assert "hunter2" not in local_variables(moved.value)


async def test_no_frame_of_an_error_has_a_resolved_secret(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PORT", "hunter2")
    async with registry_of(MemoryConnector) as registry:
        config = DataSourceConfig("s", "memory", "S", {"port": "${env:PORT}"})
        with pytest.raises(OptionError) as caught:
            await registry.register_data_source(config, test_connection=True)
        assert "hunter2" not in local_variables(caught.value)


# Copies of configurations.


def make_config() -> DataSourceConfig:
    return DataSourceConfig(
        "sales",
        DataSourceType.POSTGRESQL,
        "Sales",
        dict(OPTIONS, magic_word="hunter2"),
        5.0,
        {"a": 1},
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_configuration_carries_no_secret(protocol: int):
    data = pickle.dumps(make_config(), protocol)
    assert b"hunter2" not in data
    loaded = pickle.loads(data)
    assert loaded.config == dict.fromkeys(["host", "password", "nested", "magic_word"], MARK)
    assert (loaded.id, loaded.type, loaded.name, loaded.created_at) == (
        "sales",
        "postgresql",
        "Sales",
        5.0,
    )
    assert loaded.metadata == {"a": 1}


def test_copies_within_the_process_keep_the_options():
    config = make_config()
    shallow, deep, replaced = copy.copy(config), copy.deepcopy(config), replace(config, name="x")
    assert shallow == deep == config == replace(replaced, name="Sales")
    assert shallow.config is config.config
    assert deep.config is not config.config
    assert deep.config["nested"]["a"] is not config.config["nested"]["a"]
    assert copy.deepcopy([config, config])[0].config["password"] == "hunter2"


def test_copy_of_a_subclass_keeps_its_class():
    class Special(DataSourceConfig):
        pass

    config = Special("s", DataSourceType.CUSTOM, "S", {"a": 1})
    assert type(copy.copy(config)) is type(copy.deepcopy(config)) is Special


def test_configuration_shows_no_option():
    assert "hunter2" not in repr(make_config()) + str(make_config()) + f"{make_config()}"


def test_options_are_not_pickled():
    class Options(ConnectorOptions):
        password: str

    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Options(password="hunter2"))
    assert copy.deepcopy(Options(password="x")) == copy.copy(Options(password="x"))


def test_sanitised_copy_is_masked_and_separate():
    manager = CredentialManager(KEY)
    options = {"host": "h", "db": {"password": "hunter2", "ports": [1]}}
    copied = manager.sanitize_config(options)
    assert copied == {"host": "h", "db": {"password": MARK, "ports": [1]}}
    copied["db"]["ports"].append(random.random())
    assert options["db"] == {"password": "hunter2", "ports": [1]}


def test_digest_depends_on_the_key_the_purpose_and_the_content() -> None:
    first, second = CredentialManager.generate_key(), CredentialManager.generate_key()
    digest = CredentialManager([first, second]).digest("a", b"secret")
    assert len(digest) == 64
    assert CredentialManager(first).digest("a", b"secret") == digest
    others = [
        CredentialManager(second).digest("a", b"secret"),
        CredentialManager(first).digest("b", b"secret"),
        CredentialManager(first).digest("a", b"Secret"),
    ]
    assert len({digest, *others}) == 4
