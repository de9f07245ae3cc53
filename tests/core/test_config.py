"""Settings from a TOML file and the environment."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

import datasources.config
from datasources import Limits, MemoryStore, OptionError, Policy, PoolConfig
from datasources.blocking import DataSourceRegistry
from datasources.config import read_settings

MARKER = "m4rker-s3cret-in-file"


@pytest.fixture
def write(tmp_path: Path):
    """Write the text of a settings file and return its path."""

    def write(text: str) -> Path:
        path = tmp_path / "settings.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refused(path: Path | None, **environ: str) -> str:
    with pytest.raises(OptionError) as caught:
        read_settings(path, environ)
    assert MARKER not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_example_of_the_docstring_is_read(write):
    text = ast.get_docstring(ast.parse(Path(datasources.config.__file__).read_text())) or ""
    settings = read_settings(write(text.partition("```toml\n")[2].partition("```")[0]), {})
    (sales,) = settings.sources
    assert (sales.id, sales.type, sales.name) == ("sales", "postgresql", "Sales")
    assert sales.metadata == {"owner": "ops"}
    assert sales.config == {"host": "db.example.com", "password": "${env:SALES_PASSWORD}"}
    assert sales.limits == Limits(max_rows=50000, timeout=None)
    assert settings.policy == Policy(
        limits=Limits(max_bytes=1_000_000_000),
        allowed_hosts=("*.example.com",),
        allowed_references=("env:SALES_*",),
    )
    assert settings.pool == PoolConfig(max_size=4)


def test_references_are_bound_to_hosts_by_a_table(write):
    text = """
[policy.allowed_references]
"env:SALES_*" = ["*.sales.internal"]
"env:PUBLIC_*" = "none"
"""
    settings = read_settings(write(text), {})
    assert settings.policy == Policy(
        allowed_references={"env:SALES_*": ["*.sales.internal"], "env:PUBLIC_*": None}
    )
    wrong = text.replace('["*.sales.internal"]', '"*.sales.internal"')
    assert "'allowed_references' must be a list of texts" in refused(write(wrong))


def test_without_file_and_variables_there_are_defaults():
    settings = read_settings(None, {"DATASOURCES_STORE": "x", "HOME": "/"})
    assert (settings.sources, settings.policy, settings.pool) == ([], Policy(), PoolConfig())


def test_a_source_takes_its_id_as_name(write):
    settings = read_settings(write('[sources.docs]\ntype = "local_file"'), {})
    assert settings.sources[0].name == "docs"
    assert settings.sources[0].limits is None


def test_the_environment_alone_declares_a_source():
    variables = {
        "DATASOURCES__DOCS__TYPE": "local_file",
        "DATASOURCES__DOCS__PATH": "/data",
        "DATASOURCES__DOCS__HIDDEN": "true",
    }
    settings = read_settings(None, variables)
    assert [s.id for s in settings.sources] == ["docs"]
    assert settings.sources[0].config == {"path": "/data", "hidden": "true"}
    assert settings.origins == {"docs": "the environment"}


def test_the_environment_goes_before_the_file_and_adds_to_it(write):
    path = write('[sources.docs]\ntype = "a"\nname = "Docs"\noptions = { x = 1, y = 2 }')
    variables = {"DATASOURCES__DOCS__Y": "3", "DATASOURCES__DOCS__Z": "4"}
    (docs,) = read_settings(path, variables | {"DATASOURCES__DOCS__TYPE": "b"}).sources
    assert (docs.type, docs.name, docs.config) == ("b", "Docs", {"x": 1, "y": "3", "z": "4"})
    assert read_settings(path, variables).origins == {"docs": f"{str(path)!r} and the environment"}


def test_a_variable_finds_an_id_that_variables_cannot_spell(write):
    path = write('[sources."My-sales.eu"]\ntype = "a"')
    (source,) = read_settings(path, {"DATASOURCES__MY_SALES_EU__HOST": "h"}).sources
    assert (source.id, source.config) == ("My-sales.eu", {"host": "h"})


def test_a_variable_that_could_mean_two_sources_is_refused(write):
    path = write('[sources.a-b]\ntype = "a"\n[sources.a_b]\ntype = "a"')
    assert "'a-b' or 'a_b'" in refused(path, DATASOURCES__A_B__HOST=MARKER)


def test_lists_and_tables_are_json_in_the_environment():
    variables = {
        "DATASOURCES__A__TYPE": "a",
        "DATASOURCES__A__LIST": '["x", 1]',
        "DATASOURCES__A__TABLE": '{"k": true}',
        "DATASOURCES__A__TEXT": "[not json",
    }
    assert read_settings(None, variables).sources[0].config == {
        "list": ["x", 1],
        "table": {"k": True},
        "text": "[not json",
    }


@pytest.mark.parametrize(
    "variable",
    [
        "DATASOURCES__",
        "DATASOURCES__A",
        "DATASOURCES__A__",
        "DATASOURCES____X",
        "DATASOURCES__A__B__C",
    ],
)
def test_a_variable_of_another_form_is_refused(variable):
    message = refused(None, **{variable: MARKER})
    assert repr(variable) in message
    assert "DATASOURCES__<ID>__<OPTION>" in message


def test_a_variable_in_two_spellings_is_refused():
    message = refused(None, DATASOURCES__A__HOST=MARKER, DATASOURCES__a__host=MARKER)
    assert "set twice" in message


def test_a_source_of_the_environment_needs_a_type():
    message = refused(None, DATASOURCES__SALES__PASSWORD=MARKER)
    assert "'type' is missing" in message
    assert "DATASOURCES__SALES__TYPE" in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'[source.a]\ntype = "{MARKER}"', ["unknown 'source'", "sources, policy, pool"]),
        (f'[sources.a]\ntpye = "{MARKER}"', ["[sources.a]", "'tpye'", "type, name, metadata"]),
        (f'[sources.a]\npassword = "{MARKER}"', ["[sources.a]", "'password'", "options"]),
        (f'sources = "{MARKER}"', ["[sources] must be a table"]),
        (f'[sources]\na = "{MARKER}"', ["[sources.a] must be a table"]),
        ('[sources.a]\nname = "A"', ["[sources.a]: 'type' is missing", "DATASOURCES__A__TYPE"]),
        ("[sources.a]\ntype = 3", ["'type' must be text"]),
        ('[sources.a]\ntype = "Not One"', ["[sources.a]", "not a type name"]),
        ('[sources." a"]\ntype = "a"', ["not a source id"]),
        (f'[sources.a]\ntype = "a"\noptions = "{MARKER}"', ["'options' must be a table"]),
        (
            f'[sources.a]\ntype = "a"\nlimits.max_row = "{MARKER}"',
            ["'limits'", "max_rows, timeout"],
        ),
        (
            f'[sources.a]\ntype = "a"\nlimits.max_rows = "{MARKER}"',
            ["'max_rows' must be a whole number of at least 0, or none"],
        ),
        ('[sources.a]\ntype = "a"\nlimits.max_rows = true', ["'max_rows' must be a whole number"]),
        (
            '[sources.a]\ntype = "a"\nlimits.max_rows = -1',
            ["[sources.a]", "a whole number of at least 0"],
        ),
        ("[pool]\nmax_size = 0", ["[pool]", "at least 1"]),
        ("[pool]\nmax_size = 2.5", ["[pool]: 'max_size' must be a whole number"]),
        ('[pool]\nmax_size = "none"', ["'max_size' must be a whole number"]),
        ("[pool]\nconnect_timeout = nan", ["'connect_timeout' must be a number"]),
        ('[pool]\nmax_idle_time = "1"', ["[pool]: 'max_idle_time' must be a number of seconds"]),
        ("[policy]\nallowed_hosts = 3", ["'allowed_hosts' must be a list of texts"]),
        ("[policy]\nlimits = 3", ["[policy]: 'limits' must be a table"]),
        ("[pool]\nsize = 3", ["[pool]: unknown 'size'", "max_size, min_size"]),
        (f'[policy]\nallowed_hosts = "{MARKER}"', ["'allowed_hosts' must be a list of texts"]),
        ("[policy]\nallowed_networks = ['x']", ["[policy]", "CIDR"]),
        ("[policy.limits]\nmax_bytes = 1.5", ["[policy]: 'limits': 'max_bytes' must be"]),
        (f'[sources.a]\ntype = "{MARKER}\nx = 1', ["not valid TOML", "line 2"]),
        (f'[sources.a]\npw = "{MARKER}"\npw = "{MARKER}"\n', ["not valid TOML", "overwrite"]),
        ('[sources.a]\ntype="a"\n[sources.a]', ["not valid TOML", "Cannot declare"]),
    ],
)
def test_a_mistake_is_told_with_file_and_key_and_never_a_value(write, text, told):
    path = write(text)
    message = refused(path)
    assert repr(str(path)) in message
    for part in told:
        assert part in message


def test_a_file_may_begin_with_a_byte_order_mark(write):
    path = write("\ufeff[sources.docs]\ntype = 'local_file'")
    assert [source.id for source in read_settings(path, {}).sources] == ["docs"]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert "No such file" in refused(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'x = "\xff"')
    assert "not UTF-8" in refused(tmp_path / "latin.toml")


def test_allowed_lists_may_be_lifted(write):
    settings = read_settings(write('[policy]\nallowed_hosts = "none"\nallowed_roots = []'), {})
    assert settings.policy == Policy(allowed_hosts=None, allowed_roots=())


def test_declared_sources_are_validated_when_they_are_registered(write, tmp_path):
    path = write('[sources.docs]\ntype = "local_file"\n[sources.docs.options]\npth = "/"')
    with DataSourceRegistry(store=MemoryStore()) as registry:
        with pytest.raises(OptionError, match="unknown option 'pth'"):
            registry.register_data_sources(read_settings(path, {}).sources)
        assert registry.list_data_sources() == []


@given(
    st.dictionaries(
        st.text(min_size=0, max_size=20).map(lambda name: f"DATASOURCES__{name}"),
        st.text(max_size=20),
        max_size=4,
    )
)
def test_any_environment_is_read_or_refused_in_one_sentence(environ):
    try:
        settings = read_settings(None, environ)
    except OptionError:
        return
    assert all(source.type for source in settings.sources)
