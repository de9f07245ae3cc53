"""What a plugin's distribution requires is checked before the plugin is imported."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st
from packaging.requirements import Requirement

import datasources
from datasources import PluginError, PluginIncompatibleError, PluginLoadError
from datasources.plugins import compatibility
from datasources.plugins.discovery import PluginEntry
from tests.core.plugin_fixtures import COUNT, Site, connector_module, entry_of, raised
from tests.core.subprocesses import run_python


def install(site: Site, *requires: str, value: str = "shelf") -> None:
    """Install a connector whose distribution has these lines of `Requires-Dist`."""
    lines = "".join(f"Requires-Dist: {line}\n" for line in requires)
    head = f"Metadata-Version: 2.1\nName: the-shelf\nVersion: 1.4\n{lines}\nRequires-Dist: text\n"
    points = f"[datasources.connectors]\nshelf = {value}\n"
    module = COUNT + connector_module("shelf")
    site.install("the-shelf", points, {"shelf": module}, version="1.4", metadata=head)


@pytest.fixture
def there(site: Site, imports: Callable[[], int]) -> Site:
    """A site where a driver, one without a version and one with an odd one are installed."""
    site.install("shelf-driver", version="3.2.1")
    site.install("a.dev_driver", version="2.0rc1")
    site.install("odd-driver", metadata="Name: odd-driver\nVersion: yesterday\n")
    site.install("bare-driver", metadata="Name: bare-driver\n")
    return site


@pytest.mark.parametrize(
    "line",
    [
        "datasources",
        "datasources>=0.1,<1",
        "Datasources >=0.1, <1",
        "datasources (>=0.1,<1)",
        "datasources[cli]>=0.1,<1",
        "datasources~=0.1",
        "datasources!=0.0.1",
        "shelf-driver",
        "Shelf.Driver>=3.2",
        "shelf_driver>=3.2.1,<3.2.2",
        "shelf-driver==3.2.*",
        "shelf-driver[fast]>=3",
        "a-dev-driver>=1",
        "odd-driver>=7",
        "bare-driver>=7",
        'nowhere>=1; extra == "more"',
        'nowhere; python_version < "3"',
        'nowhere; extra == "more" and python_version > "3"',
        "shelf-driver>=9; os_name == 'none'",
        "shelf-driver>>1",
        "shelf-driver>=",
        ">=2",
        "nowhere; python_version ? 3",
        "nowhere; nonsense == '1'",
        "\x00",
        "é",
    ],
)
def test_what_is_met_or_cannot_be_read_keeps_no_plugin_from_loading(there: Site, line: str) -> None:
    install(there, line)
    assert there.plugins().connector_class("shelf").type == "shelf"


@pytest.mark.parametrize(
    ("line", "error", "text"),
    [
        (
            "datasources>=2",
            PluginIncompatibleError,
            (
                "connector 'shelf' of the-shelf 1.4: it requires 'datasources>=2', but datasources "
                f"{datasources.__version__} is installed: pip install --upgrade datasources the-shelf"
            ),
        ),
        ("Datasources[cli] ~= 2.0", PluginIncompatibleError, "requires 'Datasources~=2.0'"),
        ("datasources<0.1", PluginIncompatibleError, "requires 'datasources<0.1'"),
        (
            "nowhere>=1.2",
            PluginLoadError,
            "it requires 'nowhere>=1.2', but it is not installed: pip install \"nowhere>=1.2\"",
        ),
        (
            "shelf-driver>=4",
            PluginLoadError,
            (
                "requires 'shelf-driver>=4', but shelf-driver 3.2.1 is installed: "
                'pip install "shelf-driver>=4"'
            ),
        ),
        ("shelf-driver!=3.2.1", PluginLoadError, "shelf-driver 3.2.1 is installed"),
        ("a-dev-driver<2", PluginLoadError, "a-dev-driver 2.0rc1 is installed"),
        ("nowhere; python_version > '3'", PluginLoadError, 'pip install "nowhere"'),
        ("nowhere @ https://u:hunter2@h/x.whl", PluginLoadError, 'pip install "nowhere"'),
    ],
)
def test_what_is_not_met_is_said_before_the_plugin_is_imported(
    there: Site, imports: Callable[[], int], line: str, error: type[PluginError], text: str
) -> None:
    install(there, "datasources", line)
    plugins = there.plugins()
    first, again = raised(plugins, "shelf"), raised(plugins, "shelf")
    assert type(first) is type(again) is error
    assert text in str(first)
    assert "hunter2" not in str(first)
    assert imports() == 0
    assert entry_of(plugins, "shelf").status == "failed"
    assert [entry.error for entry in there.plugins().check()] == [entry_of(plugins, "shelf").error]


@pytest.mark.parametrize("extra", ["one-more", "One_More"])
def test_what_an_entry_points_extra_requires_is_checked_too(there: Site, extra: str) -> None:
    install(there, 'nowhere; extra == "one-more"', value=f"shelf [{extra}]")
    assert "requires 'nowhere'" in str(raised(there.plugins(), "shelf"))


@pytest.mark.parametrize(
    ("version", "line", "met"),
    [
        ("0.1.0.dev3", "datasources>=0.1,<1", True),
        ("0.2.0rc1+local.5", "datasources>=0.1,<1", True),
        ("0.9.0a1.post2.dev3", "datasources>=0.1,<1", True),
        ("0.9.dev6", "datasources==0.9.dev6", True),
        ("1.0.0.dev1", "datasources>=0.1,<1", False),
        ("1.0.0", "datasources>=0.1,<1", False),
        ("0.1.0.dev3", "datasources>=0.2", False),
        ("of a fork", "datasources>=7", True),
    ],
)
def test_a_core_in_development_stands_for_its_release(
    there: Site, monkeypatch: pytest.MonkeyPatch, version: str, line: str, met: bool
) -> None:
    monkeypatch.setattr(datasources, "__version__", version)
    install(there, line)
    if met:
        assert there.plugins().connector_class("shelf")
    else:
        assert type(raised(there.plugins(), "shelf")) is PluginIncompatibleError


NUMBERS = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(lambda n: ".".join(map(str, n)))
BOUNDS = st.lists(st.tuples(st.sampled_from([">=", "<"]), NUMBERS), max_size=3)


@given(version=NUMBERS, bounds=BOUNDS)
def test_plain_numbers_are_compared_as_the_standard_says(
    version: str, bounds: list[tuple[str, str]]
) -> None:
    line = "driver" + ",".join(operator + number for operator, number in bounds)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compatibility, "installed_version", lambda name: version)
        assert compatibility._satisfied_without_packaging(line) == Requirement(
            line
        ).specifier.contains(version)


@given(line=st.text(max_size=40) | st.from_regex(r"x *[\[\](<>=!~;.\d\w\"' ]{0,20}"))
def test_no_text_breaks_the_check(line: str) -> None:
    entry = PluginEntry("x", "", "x", "x", "1", requires=(line,))
    compatibility.unmet_requirement(entry)


def test_plain_requirements_cost_no_import(site: Site) -> None:
    site.install("shelf-driver", version="3.2.1")
    lines = "datasources>=0.1,<1", "shelf-driver[fast]>=3", 'nowhere; extra == "more"'
    required = "".join(f"Requires-Dist: {line}\n" for line in lines)
    metadata = f"Name: the-shelf\nVersion: 1.0\n{required}"
    site.connector("the-shelf", "shelf", connector_module("shelf"), metadata=metadata)
    program = (
        "import sys; from datasources.plugins import Plugins; "
        "Plugins().connector_class('shelf'); print('packaging' in sys.modules)"
    )
    assert run_python(program, PYTHONPATH=str(site.path)) == "False\n"


def test_the_command_names_what_is_missing(site: Site) -> None:
    metadata = "Name: the-shelf\nVersion: 1.0\nRequires-Dist: nowhere>=1.2\n"
    site.connector("the-shelf", "shelf", connector_module("shelf"), metadata=metadata)
    program = "from datasources.cli import main; main()"
    listed = json.loads(
        run_python(program, "plugins", "--check", "--json", PYTHONPATH=str(site.path))
    )
    (entry,) = [entry for entry in listed if entry["name"] == "shelf"]
    assert entry["status"] == "failed"
    assert entry["error"].startswith("it requires 'nowhere>=1.2', but it is not installed")
