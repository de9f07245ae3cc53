"""The servers that other tests rely on: nothing stays behind, and they come back after a kill."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.conftest import SERVER_CACHE
from tests.servers import AzuriteServer, PostgresServer, Server, free_port
from tests.servers.process import accepts, alive, state_directory
from tests.waiting import wait_until_blocking

ROOT = Path(__file__).parents[1]


def family(server: Server) -> list[psutil.Process]:
    process = psutil.Process(server.pid)
    return [process, *process.children(recursive=True)]


def select_one(server: PostgresServer) -> tuple | None:
    with psycopg.connect(server.dsn()) as connection:
        return connection.execute("SELECT 1").fetchone()


@pytest.fixture(params=["postgres", "azurite"])
def own_server(request, monkeypatch) -> Iterator[Server]:
    """A server of the test's own, of a kind that this machine can start.

    It has a state directory of its own: servers that other processes start stop leftovers as well.
    """
    request.getfixturevalue(request.param)  # skips or fails where there is none
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o711)  # PostgreSQL runs as another user
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        is_postgres = request.param == "postgres"
        server = PostgresServer() if is_postgres else AzuriteServer(cache=SERVER_CACHE)
        yield server
        server.stop()


def test_processes_that_share_the_tests_choose_other_ports(monkeypatch):
    chosen = []
    for worker in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        chosen.append({free_port() % 8 for _ in range(20)})
    assert chosen[0].isdisjoint(chosen[1])


def test_stopped_server_leaves_no_process_no_listener_and_no_file(own_server):
    own_server.start()
    port, directory, processes = own_server.port, own_server.directory, family(own_server)
    assert accepts(port)

    own_server.stop()

    assert not any(map(alive, processes))
    assert not accepts(port)
    assert not directory.exists()


def test_killed_server_leaves_no_process_and_comes_back_on_its_port(own_server):
    own_server.start()
    port, processes = own_server.port, family(own_server)

    own_server.kill()

    assert own_server.pid is None
    assert not any(map(alive, processes))
    assert not accepts(port)
    own_server.restart()
    assert own_server.port == port
    assert accepts(port)


def test_starting_a_running_server_and_stopping_a_stopped_one_change_nothing(own_server):
    pid = own_server.start().pid
    assert own_server.start().pid == pid
    own_server.stop()
    own_server.stop()


def test_postgres_asks_for_the_password_and_keeps_data_over_a_kill(postgres, pg_database):
    wrong = pg_database.dsn().replace(pg_database.password, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)
    with psycopg.connect(pg_database.dsn()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS seven")

    postgres.kill()
    postgres.restart()

    with psycopg.connect(pg_database.dsn()) as connection:
        assert connection.execute("SELECT seven FROM kept").fetchone() == (7,)


def test_killing_postgres_ends_a_backend_that_is_busy(postgres):
    with closing(psycopg.connect(postgres.dsn(), autocommit=True)) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1e11)")
        postgres.kill()
        assert not alive(backend)
    postgres.start()
    assert select_one(postgres) == (1,)


# The owner starts its server from a thread, for otherwise the server would end with it.
OWNER = """
import sys, threading, time
from pathlib import Path
from tests.servers import AzuriteServer, PostgresServer
server = PostgresServer() if sys.argv[1] == "postgres" else AzuriteServer(cache=Path(sys.argv[2]))
if sys.argv[3] == "thread":
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
else:
    server.start()
print(server.pid, server.directory, flush=True)
while True:  # a signal that arrives just before a sleep is handled after it
    time.sleep(0.1)
"""


def orphan(kind: str, where: str) -> tuple[list[psutil.Process], Path]:
    """Start a server in another process, SIGKILL that, return what it left."""
    arguments = [kind, str(SERVER_CACHE), where]
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid, directory = owner.stdout.readline().split()
        process = psutil.Process(int(pid))
        processes = [process, *process.children(recursive=True)]
        owner.kill()
    return processes, Path(directory)


def test_leftover_of_a_killed_owner_is_stopped_at_the_next_start(own_server):
    processes, directory = orphan(own_server.name, "thread")
    assert alive(processes[0])
    assert directory.exists()

    own_server.start()

    assert not any(map(alive, processes))
    assert not directory.exists()
    assert own_server.running


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_server_started_from_the_main_thread_ends_with_its_killed_owner(own_server):
    processes, _ = orphan(own_server.name, "main")
    wait_until_blocking(lambda: not any(map(alive, processes)))
    own_server.start()


def test_leftover_is_not_taken_for_a_process_that_got_its_id_since(own_server):
    left = state_directory() / f"{own_server.name}-left"
    left.mkdir()
    (left / "pid").write_text(f"{os.getpid()}\n")

    own_server.start()

    assert not left.exists()


def test_interrupted_owner_stops_its_server(own_server):
    starting = subprocess.Popen(
        [sys.executable, "-c", OWNER, own_server.name, str(SERVER_CACHE), "main"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with starting as owner:
        assert owner.stdout is not None
        pid, directory = owner.stdout.readline().split()
        owner.send_signal(signal.SIGINT)
    assert not psutil.pid_exists(int(pid))
    assert not Path(directory).exists()
