"""The main job, end to end: four real sources, registered, looked into, fetched from.

Starts a PostgreSQL server, an Azure Blob service (Azurite) and a service of S3 (SeaweedFS), makes a
directory of files, then types the commands a user would, and serves the sources. `--keep DIR` leaves the workspace there,
`--serve` keeps the server up until Ctrl+C.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from demo.content import fill_blobs, fill_bucket, fill_database, fill_directory  # noqa: E402
from tests.servers import AzuriteServer, PostgresServer, free_port  # noqa: E402
from tests.servers.process import accepts  # noqa: E402
from tests.servers.s3 import SeaweedServer  # noqa: E402
from tests.waiting import wait_until_blocking  # noqa: E402

PLUGINS = "datasources plugins\n"
REGISTER = """
# Register: options in clear, secrets as references to the environment.
datasources add postgresql --id shop --name "Shop database" -o host=127.0.0.1 -o port=$SHOP_PORT \
-o database=shop -o user=analyst -o password='${env:SHOP_PASSWORD}'
datasources add azure_blob --id lake --name "Data lake" \
-o connection_string='${env:LAKE_CONNECTION_STRING}' -o container=lake
datasources add s3 --id visits --name "Visits of the shop" -o endpoint=$VISITS_ENDPOINT \
-o bucket=visits -o access_key_id='${env:VISITS_KEY_ID}' -o secret_access_key='${env:VISITS_SECRET}'
datasources add local_file --id desk --name "Local files" -o path=$DESK
"""
LOOK_AND_FETCH = """
datasources list
datasources test shop
datasources show lake
# Look: what there is, what it is like, its first rows.
datasources items shop
datasources items lake
datasources items visits
datasources items desk
datasources info shop public.orders
datasources info lake reports/2026/q1.csv
datasources preview shop "select country, count(*) from customers group by country order by 2 desc" -n 3
datasources preview lake reports/2026/q1.csv -n 3
datasources preview visits 2026/03.jsonl -n 2
datasources preview desk notes/todo.txt -n 2
# Fetch: a table, a query, a blob, everything that matches a pattern, a file.
datasources fetch shop public.orders "select * from orders where amount > 990" --into workspace
datasources fetch lake 'reports/**/*.csv' images/logo.png --into workspace
datasources fetch visits '2026/*.jsonl' --into workspace
datasources fetch desk notes/todo.txt --into workspace
"""
FAIL = """
# What goes wrong says what, and leaves nothing behind.
datasources fetch shop "drop table orders" --into workspace
datasources fetch lake reports/missing.csv --into workspace
"""
COMMANDS = PLUGINS + REGISTER + LOOK_AND_FETCH + FAIL


def main() -> None:
    """Run the demo; exit 1 if a command did not do what it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", metavar="DIR", help="leave the workspace in this directory")
    parser.add_argument("--serve", action="store_true", help="keep the server up until Ctrl+C")
    arguments = parser.parse_args()
    keep = arguments.keep
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="datasources-demo-")))
        say("# Starting PostgreSQL, Azurite and SeaweedFS; the first time, Azurite is installed.")
        postgres = stack.enter_context(PostgresServer())
        azurite = stack.enter_context(AzuriteServer())
        seaweed = stack.enter_context(SeaweedServer())
        (base / "desk").mkdir()
        password = fill_database(postgres)
        fill_blobs(azurite.connection_string)
        fill_bucket(seaweed)
        fill_directory(base / "desk")
        environment = {
            "DATASOURCES_STORE": str(base / "sources.db"),
            "DESK": str(base / "desk"),
            "VISITS_ENDPOINT": seaweed.endpoint,
            "VISITS_KEY_ID": seaweed.access_key_id,
            "VISITS_SECRET": seaweed.secret_access_key,
            "LAKE_CONNECTION_STRING": azurite.connection_string,
            "SHOP_PASSWORD": password,
            "SHOP_PORT": str(postgres.port),
        }
        failed = type_commands(environment, base)
        say("# What landed:")
        show_tree(base / "workspace")
        if keep:
            shutil.copytree(base / "workspace", keep, dirs_exist_ok=True)
            say(f"# kept in {keep}")
        say("\n# Serve the sources over HTTP, with a console in the browser.")
        serve(environment, base, stay=arguments.serve)
        say("# Stopping the servers.")
    expected = 2  # the last two commands
    if failed != expected:
        sys.exit(f"{failed} commands failed, where {expected} should")


def serve(environment: dict[str, str], base: Path, *, stay: bool) -> None:
    """Serve the sources, say what to open, and end the server; on `stay`, after Ctrl+C."""
    port = free_port()
    options = ["--port", str(port), "--allow-network", "127.0.0.0/8", "--allow-reference", "env:*"]
    command = ["datasources", "serve", *options, "--allow-root", environment["DESK"]]
    say(f"\n$ {shlex.join(command)}")
    with start(command, environment, base) as process:
        try:
            wait_until_blocking(lambda: accepts(port) or process.poll() is not None, timeout=120)
            url = f"http://127.0.0.1:{port}/"
            token = (base / "admin-token").read_text("utf-8").strip()
            request = Request(f"{url}v1/sources", headers={"Authorization": f"Bearer {token}"})
            with urlopen(request) as response:
                sources = [source["id"] for source in json.load(response)["items"]]
            say(f"\n# The server has the sources {', '.join(sources)}. Open its console:")
            say(f"#   {url}#token={token}")
            if stay:
                say("# Ctrl+C ends it.")
                process.wait()
            else:
                say("# It ends now; `nox -s demo -- --serve` keeps it up.")
        except KeyboardInterrupt:
            say("")
        finally:
            process.terminate()


def start(command: list[str], environment: dict[str, str], base: Path) -> subprocess.Popen[bytes]:
    """Start a command of this environment, which Ctrl+C does not end."""
    program = Path(sys.executable).with_name(command[0])
    return subprocess.Popen(
        [program, *command[1:]], env=os.environ | environment, cwd=base, start_new_session=True
    )


def type_commands(environment: dict[str, str], directory: Path) -> int:
    """Run each command as a shell would, its output below it; return how many failed."""
    failed = 0
    scripts = Path(sys.executable).parent
    variables = os.environ | environment | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    for line in filter(None, COMMANDS.splitlines()):
        if line.startswith("#"):
            say(f"\n{line}")
            continue
        say(f"\n$ {line}")
        arguments = expanded(shlex.split(line), environment)
        failed += (
            subprocess.run(arguments, env=variables, cwd=directory, check=False).returncode != 0
        )
    return failed


def expanded(words: list[str], environment: dict[str, str]) -> list[str]:
    """Replace `$NAME` in words; `${env:NAME}` is the command line's own."""
    for name, value in environment.items():
        words = [word.replace(f"${name}", value) for word in words]
    return words


def show_tree(directory: Path) -> None:
    """Print the files below a directory with their sizes."""
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        say(f"{path.stat().st_size:>9}  {path.relative_to(directory)}")


def say(text: str) -> None:
    """Print a text at once, so that it stands in order with the output of commands."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
