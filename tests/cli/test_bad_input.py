"""Mistakes of users and failures of files are one clear sentence each, and nothing is lost."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from datasources import CredentialManager
from tests.cli.conftest import SECRET, command
from tests.core.plugin_fixtures import Site


@pytest.fixture(autouse=True)
def _kept(docs: Path, ok):
    """Whatever happens, the source that was there before is there afterwards, and works."""
    yield
    assert [row["id"] for row in ok("list", "--json").json][:1] == ["docs"]
    ok("test", "docs")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["add", "mysql"], "no connector for 'mysql'; installed: azure_blob, "),
        (["template", "mysql"], "no connector for 'mysql'"),
        (["add", "My SQL"], "'My SQL' is not a type name"),
        (["add", "local_file", "--id", "../x", "-o", "path=/"], "'../x' is not a source id"),
        (
            ["add", "local_file", "-o", "path=/", "-o", f"pth={SECRET}"],
            "source 'local_file': unknown option 'pth'; options: path, hidden, writable",
        ),
        (["add", "local_file", "-o", "hidden=yes"], "option 'path' is missing"),
        (
            ["add", "local_file", "-o", "path=/", "-o", f"hidden={SECRET}"],
            "option 'hidden' must be true or false",
        ),
        (["add", "vault", "-o", "host=h", "-o", "port=0", "-s", "token"], "option 'port': input"),
        (["add", "vault", "-o", "host=h", "-o", "level=x"], "'level' must be one of low, high"),
        (["add", "local_file", "--id", "docs", "-o", "path=/"], "'docs' exists already; --replace"),
        (["show", "none"], "there is no source 'none'; `datasources list` shows those there are"),
        (["test", "none"], "there is no source 'none'"),
        (["items", "none"], "there is no source 'none'"),
        (["fetch", "none", "x"], "there is no source 'none'"),
        (["remove", "none", "--yes"], "there is no source 'none'"),
        (["export", "none"], "there is no source 'none'"),
        (["fetch", "docs", "none.csv"], "source 'docs' has no file 'none.csv'"),
        (["info", "docs", "none.csv"], "source 'docs' has no file 'none.csv'"),
        (["preview", "docs", "sub"], "source 'docs' has no file 'sub'"),
        (["items", "docs", "none"], "source 'docs' has no folder 'none'"),
        (["fetch", "docs", "../../etc/passwd"], "source 'docs' has no file"),
        (
            ["fetch", "docs", "a.csv", "--into", "/dev/null/x"],
            "cannot write 'a.csv' to the workspa",
        ),
        (["--config", "/none.toml", "list"], "'/none.toml' cannot be read: No such file"),
        (["--key-file", "/none", "items", "docs"], "'/none' is missing"),
        (
            ["--store", "/dev/null/x", "add", "local_file", "-o", "path=/"],
            "the store '/dev/null/x'",
        ),
        (["import", "/none.json"], "'/none.json': No such file or directory"),
    ],
)
def test_a_mistake_is_one_sentence(fails, vault, args: list[str], expected: str) -> None:
    message = fails(*args, pipe="token\n")
    assert expected in message
    assert SECRET not in message


def test_nobody_at_the_port_is_one_sentence(fails) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    message = fails(
        "add",
        "postgresql",
        "-o",
        "host=127.0.0.1",
        "-o",
        f"port={port}",
        "-o",
        "database=x",
        "-o",
        "user=x",
        "-s",
        "password",
        pipe=f"{SECRET}\n",
    )
    assert f'"127.0.0.1", port {port} failed: Connection refused' in message
    assert SECRET not in message


def test_a_host_that_cannot_be_reached_is_named(fails, vault) -> None:
    message = fails("add", "vault", "-o", "host=nowhere", "--stdin", pipe=f'token = "{SECRET}"')
    assert message == "'nowhere' cannot be reached with ***REDACTED***"


def test_a_wrong_password_is_told_from_an_unreachable_host(fails, vault) -> None:
    message = fails("add", "vault", "-o", "host=h", "--stdin", pipe='token = "wrong-token"')
    assert message == "the token ***REDACTED*** is refused"


def test_a_wrong_key_names_source_and_fingerprints_and_lists_still(fails, ok, monkeypatch) -> None:
    right = ok("keys", "list", "--json").json[0]["fingerprint"]
    wrong = CredentialManager.generate_key()
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY", wrong)
    (held,) = CredentialManager(wrong).fingerprints
    message = fails("items", "docs")
    assert "source 'docs'" in message
    assert right in message
    assert held in message
    assert wrong not in message
    assert [row["id"] for row in ok("list", "--json").json] == ["docs"]
    ok("show", "docs")
    monkeypatch.delenv("DATASOURCE_ENCRYPTION_KEY")


@pytest.mark.parametrize("key", ["x", "é" * 44, "0" * 43 + "="])
def test_a_malformed_key_is_told_and_not_repeated(fails, monkeypatch, tmp_path, key: str) -> None:
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY", f"{key},{key}")
    valid = CredentialManager.validate_key(key)
    message = fails("items", "docs")
    assert ("malformed" in message) != valid
    monkeypatch.delenv("DATASOURCE_ENCRYPTION_KEY")
    (tmp_path / "keys").write_text("nonsense\n")
    message = fails("--key-file", str(tmp_path / "keys"), "items", "docs")
    assert f"the key file {str(tmp_path / 'keys')!r} cannot be used" in message
    assert "nonsense" not in message


def test_a_lost_key_is_told_and_never_replaced_silently(fails, store: Path, folder) -> None:
    key = store.parent / "key"
    key.rename(key.with_name("away"))
    for args in (
        ["items", "docs"],
        ["add", "local_file", "--id", "new", "-o", f"path={folder}"],
        ["keys", "init"],
        ["keys", "rotate", "--new-key"],
    ):
        message = fails(*args)
        assert "the stored sources are encrypted with" in message
        assert str(key) in message
        assert not key.exists()
    key.with_name("away").rename(key)


def test_a_corrupt_store_is_told_and_left_as_it_is(fails, ok, store: Path) -> None:
    whole = store.read_bytes()
    for suffix in ("-wal", "-shm"):
        store.with_name(store.name + suffix).unlink(missing_ok=True)
    for damage in (b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 4000):
        store.write_bytes(damage)
        for args in (["list"], ["items", "docs"], ["add", "local_file", "-o", "path=/"]):
            assert f"the store {str(store)!r} cannot be used" in fails(*args)
        assert store.read_bytes() == damage
    store.write_bytes(whole)


def test_a_corrupt_record_spoils_no_other(fails, ok, store: Path, folder) -> None:
    import sqlite3

    ok("add", "local_file", "--id", "docs2", "-o", f"path={folder}")
    with sqlite3.connect(store) as connection:
        (token,) = connection.execute(
            "SELECT credentials FROM sources WHERE id = 'docs'"
        ).fetchone()
        for damaged in (token[:-20], token[:20] + "A" + token[21:], "nonsense"):
            connection.execute("UPDATE sources SET credentials = ? WHERE id = 'docs2'", (damaged,))
            connection.commit()
            assert "source 'docs2'" in fails("items", "docs2")
            assert [row["id"] for row in ok("list", "--json").json] == ["docs", "docs2"]
            ok("items", "docs")
    connection.close()
    ok("remove", "docs2", "--yes")


def limited_to(size: int):
    """Return a `preexec_fn` that limits the size of files to `size` bytes, as a full disk would."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_full_disk_leaves_the_workspace_as_it_was(docs: Path, tmp_path) -> None:
    (docs / "big.bin").write_bytes(b"x" * 200_000)
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "big.bin").write_text("old")
    # More than the store's files have, less than the file.
    done = command(
        "fetch",
        "docs",
        "big.bin",
        "--into",
        str(tmp_path / "ws"),
        preexec_fn=limited_to(100_000),
    )
    assert done.returncode == 1
    assert done.stderr == "Error: cannot write 'big.bin' to the workspace: File too large\n"
    assert os.listdir(tmp_path / "ws") == ["big.bin"]
    assert (tmp_path / "ws" / "big.bin").read_text() == "old"


def test_a_full_disk_leaves_the_store_as_it_was(folder: Path) -> None:
    args = ["add", "local_file", "--id", "new", "-o", f"path={folder}"]
    done = command(*args, preexec_fn=limited_to(3000))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the store ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full")
@pytest.mark.parametrize("args", [["list"], ["items", "docs", "--json"], ["export"], ["--help"]])
def test_an_output_that_cannot_be_written_is_an_error(args: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = command(*args, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == "Error: the output: No space left on device\n"


@pytest.mark.parametrize("args", [["items", "sealed", "many"], ["plugins"], ["export"]])
def test_a_reader_that_goes_away_is_no_error_to_tell(sealed, args: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = command(*args, capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.returncode == 1
    assert "Error" not in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_a_fetch_with_130_and_leaves_nothing(sealed, tmp_path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "datasources.cli", "fetch", "sealed", "slow", "--into", "ws"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    assert process.stderr.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "Interrupted.\n")
    assert list((tmp_path / "ws").glob("*")) == []


def test_a_plugin_that_raises_interrupt_ends_like_ctrl_c(run, sealed) -> None:
    assert run("info", "sealed", "interrupt").code == 130


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise RuntimeError('no driver')", "RuntimeError: no driver"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("x = 1", "has no hook"),
        ("def (", "SyntaxError"),
    ],
)
def test_a_broken_plugin_is_named_and_others_work(fails, ok, site: Site, source, expected) -> None:
    site.connector("zz-broken", "broken", source)
    message = fails("add", "broken", "-o", "x=y")
    assert "connector 'broken' of zz-broken 1.0" in message
    assert expected in message
    ok("items", "docs")


def test_what_a_plugin_raises_unexpectedly_is_named_and_traced_on_demand(
    fails, run, sealed
) -> None:
    message = fails("info", "sealed", "bug")
    raised = "the connector 'vault' of source 'sealed' raised"
    assert message == f"{raised} TypeError: cannot add ***REDACTED*** (-v shows the traceback)"
    verbose = run("-v", "info", "sealed", "bug")
    assert verbose.code == 1
    assert "Traceback" in verbose.err
    assert sealed not in verbose.err
    assert fails("info", "sealed", "exit").startswith(f"{raised} SystemExit: bye ***REDACTED***")
    for item, error in (("pipe", "BrokenPipeError"), ("refused", "ConnectionRefusedError")):
        assert fails("info", "sealed", item).startswith(f"{raised} {error}: [Errno ")
    many = fails("fetch", "sealed", "bug", "missing", "--into", str(os.environ["HOME"]))
    assert f"'bug': {raised} TypeError: cannot add ***REDACTED***; 'missing': there is" in many


def test_the_home_may_be_read_only_until_something_is_written(ok, fails, store, folder) -> None:
    shutil.copytree(store.parent, store.parent.with_name("kept"))
    shutil.rmtree(store.parent)
    store.parent.write_text("in the way")
    message = fails("add", "local_file", "--id", "x", "-o", f"path={folder}")
    assert message.startswith(f"the store {str(store)!r} cannot be used")
    store.parent.unlink()
    store.parent.with_name("kept").rename(store.parent)


@pytest.fixture(params=["a link to itself", "a file", "a name too long"])
def unreachable(request, tmp_path: Path) -> Path:
    """A path below something that cannot be entered, as below a directory of somebody else.

    Permissions would not do: the tests may run as root.
    """
    if request.param == "a name too long":
        return tmp_path / ("x" * 300) / "file"
    obstacle = tmp_path / "obstacle"
    if request.param == "a file":
        obstacle.touch()
    else:
        obstacle.symlink_to(obstacle)
    return obstacle / "file"


@pytest.mark.parametrize(
    "args", [["list"], ["list", "--json"], ["export"], ["keys", "list"], ["test", "docs"]]
)
def test_a_store_that_cannot_be_reached_is_not_an_empty_one(fails, unreachable, args) -> None:
    for store in (str(unreachable), f"sqlite:///{unreachable}"):
        message = fails("--store", store, *args)
        assert message.startswith(f"the store {str(unreachable)!r} cannot be used: ")


@pytest.mark.parametrize("args", [["keys", "list"], ["test", "docs"], ["keys", "init"]])
def test_a_key_file_that_cannot_be_reached_is_not_a_missing_one(fails, unreachable, args) -> None:
    message = fails("--key-file", str(unreachable), *args)
    assert message.startswith(f"the key file {str(unreachable)!r} cannot be read: ")


def test_a_path_that_cannot_be_reached_is_not_a_missing_file(fails, unreachable) -> None:
    for args in (["upload", "docs", str(unreachable)], ["clean", str(unreachable)]):
        message = fails(*args)
        assert message.startswith(f"{str(unreachable)!r}: ")
        assert "there is no" not in message


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full")
@pytest.mark.parametrize(
    ("args", "code"), [(["show", "none"], 1), (["bogus"], 2), (["remove", "docs"], 2)]
)
def test_the_exit_code_is_right_where_errors_cannot_be_written(args: list[str], code: int) -> None:
    for out in ("/dev/full", os.devnull):
        with open("/dev/full", "w") as full, open(out, "w") as stdout:
            done = command(*args, capture_output=False, stdout=stdout, stderr=full)
        assert done.returncode == code


@pytest.mark.parametrize(
    ("args", "question"),
    [
        (["lst"], "there is no command 'lst'; did you mean 'list'?"),
        (["Preview"], "did you mean 'preview'?"),
        (["itms", "docs"], "did you mean 'items'?"),
        (["keys", "rotat"], "did you mean 'rotate'?"),
        (["add", "postgress"], "did you mean 'postgresql'?"),
        (["template", "vualt"], "did you mean 'vault'?"),
        (["show", "dosc"], "there is no source 'dosc'; did you mean 'docs'?"),
        (["fetch", "doc", "x"], "did you mean 'docs'?"),
        (["export", "docs", "dcs"], "did you mean 'docs'?"),
        (["test", "declard"], "did you mean 'declared'?"),
        (["fetch", "docs", "a.cvs"], "has no file 'a.cvs'; did you mean 'a.csv'?"),
        (["fetch", "docs", "A.csv", "--json"], "did you mean 'a.csv'?"),
        (["info", "docs", "a.vsv"], "did you mean 'a.csv'?"),
        (["preview", "docs", "sub/b.cvs"], "did you mean 'sub/b.csv'?"),
        (["preview", "docs", "subb/b.csv"], "did you mean 'sub/b.csv'?"),
    ],
)
def test_a_mistyped_name_is_answered_with_those_that_are_close(
    run, vault, folder, monkeypatch, args: list[str], question: str
) -> None:
    monkeypatch.setenv("DATASOURCES__DECLARED__TYPE", "local_file")
    monkeypatch.setenv("DATASOURCES__DECLARED__PATH", str(folder))
    done = run(*args)
    assert done.code in (1, 2)
    assert done.error.endswith(question)
    assert "?" not in run("zzzzzzzz").error
    assert "?" not in run("info", "docs", "zzzzzzzz").error
    monkeypatch.delenv("DATASOURCES__DECLARED__TYPE")
    monkeypatch.delenv("DATASOURCES__DECLARED__PATH")
