"""`serve` runs a server while its block runs, and never waits for ever."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from datasources.testing import serve
from tests.waiting import wait_until_blocking

HTTP = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "{port}"]
IGNORING = (
    "import signal, socket, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"
)
WITH_CHILD = (
    "import socket, subprocess, sys, time;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print(child.pid, flush=True);"
    "s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"
)


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_server_answers_on_its_port_and_is_stopped_afterwards(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    with serve(HTTP, cwd=tmp_path) as server:
        with urlopen(f"http://127.0.0.1:{server.port}/file", timeout=30) as response:
            assert response.read() == b"content"
        assert "GET /file" in server.log.read_text()
    assert not running(server.pid)


def test_a_server_is_stopped_if_the_block_fails() -> None:
    with pytest.raises(ZeroDivisionError), serve(HTTP) as server:
        _ = 1 / 0
    assert not running(server.pid)


def test_a_server_that_ignores_the_signal_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasources.testing.serving._STOP", 0.2)
    with serve([sys.executable, "-c", IGNORING, "{port}"]) as server:
        pass
    assert not running(server.pid)


def test_children_of_a_server_are_stopped_with_it() -> None:
    with serve([sys.executable, "-c", WITH_CHILD, "{port}"]) as server:
        child = int(server.log.read_text())
        assert running(child)
    wait_until_blocking(lambda: not running(child))


def test_a_server_that_ends_at_once_is_an_error_with_its_log() -> None:
    program = "import sys; sys.exit('no such database')"
    with (
        pytest.raises(RuntimeError, match=r"ended with status 1; its log:\nno such database"),
        serve([sys.executable, "-c", program]),
    ):
        pass


def test_a_server_that_is_not_ready_in_time_is_an_error_and_is_stopped(tmp_path: Path) -> None:
    def ready(port: int) -> bool:
        wait_until_blocking((tmp_path / "started").exists)
        raise ConnectionError("not yet")

    program = f"echo pid $$; touch {tmp_path}/started; exec sleep 600"
    with (
        pytest.raises(
            RuntimeError, match=r"(?s)not ready within 1 s \(ConnectionError.*pid"
        ) as caught,
        serve(["/bin/sh", "-c", program], ready=ready, timeout=1.0),
    ):
        pass
    assert not running(int(str(caught.value).split()[-1]))


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="cannot be started"), serve(["/no/such/program"]):
        pass


def test_ready_is_asked_until_it_is_true() -> None:
    answers = iter([False, None, True])
    with serve(HTTP, ready=lambda _: next(answers), env=dict(os.environ)):
        pass
    assert next(answers, "none left") == "none left"
