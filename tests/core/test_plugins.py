"""Plugins: imported on use, once; hooks; classes of the host's own."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from datasources import (
    DataSourceConnector,
    DataSourceType,
    PluginError,
    PluginLoadError,
    SecretNotFoundError,
    StoreError,
    hookimpl,
)
from datasources.credentials import resolve_references
from tests.core.plugin_fixtures import (
    COUNT,
    GOOD,
    METHODS,
    Site,
    Wheel,
    connector_class,
    connector_module,
    entry_of,
    hook,
    pip_install,
    raised,
)
from tests.core.subprocesses import run_python
from tests.waiting import wait_until_blocking

# The host's own classes and hooks.


def own_class(**changes: object) -> type[DataSourceConnector]:
    async def method(self: object, *args: object) -> None: ...

    return type("Own", (DataSourceConnector,), dict.fromkeys(METHODS, method) | changes)


def test_a_class_of_the_hosts_own_wins_over_what_is_installed(site: Site) -> None:
    site.connector("good", "good", "raise AssertionError")
    plugins = site.plugins()
    cls = own_class()
    plugins.register(DataSourceType("good"), cls)
    plugins.register("mine", cls)
    assert plugins.connector_class("good") is cls
    assert plugins.types() == ["good", "mine"]
    own = entry_of(plugins, "mine")
    assert (own.status, own.distribution) == ("loaded", None)
    assert own.value.endswith(":Own")
    assert entry_of(plugins, "good", "good").status == "disabled"


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (int, "connector 'mine' of the host: 'int' is not a subclass of DataSourceConnector"),
        (own_class, "'own_class' is not a subclass"),
        (DataSourceConnector, "'DataSourceConnector' lacks connect, disconnect, fetch_data, "),
        (own_class(api_version=3), "api_version 3"),
    ],
)
def test_a_bad_class_of_the_hosts_own_is_refused(site: Site, cls: type, text: str) -> None:
    plugins = site.plugins()
    with pytest.raises(PluginError) as caught:
        plugins.register("mine", cls)
    assert text in str(caught.value)
    assert plugins.types() == []


class Recorder:
    """Hooks of a host's own that remember what they saw."""

    def __init__(self, fault: BaseException | None = None) -> None:
        self.seen: list[str] = []
        self.fault = fault

    @hookimpl
    def datasources_source_unregistered(self, source_id: str) -> None:
        self.seen.append(source_id)
        if self.fault:
            raise self.fault


@pytest.mark.parametrize("fault", [ValueError("password=hunter2"), SystemExit(3)])
def test_an_observer_that_raises_stops_neither_the_others_nor_the_caller(
    site: Site, caplog: pytest.LogCaptureFixture, fault: BaseException
) -> None:
    plugins = site.plugins()
    recorders = [Recorder(), Recorder(fault), Recorder()]
    for number, recorder in enumerate(recorders):
        plugins.register_plugin(recorder, f"audit{number}")
    for source_id in "ab":
        plugins.notify("datasources_source_unregistered", source_id=source_id)
    assert [recorder.seen for recorder in recorders] == [["a", "b"]] * 3

    (record,) = [r for r in caplog.records if r.name == "datasources.plugins"]
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        f"audit1 failed in datasources_source_unregistered: {type(fault).__name__}: "
    )
    assert "test_plugins.py:" in record.getMessage()
    assert "hunter2" not in caplog.text


def test_the_user_may_interrupt_an_observer(site: Site) -> None:
    plugins = site.plugins()
    plugins.register_plugin(Recorder(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        plugins.notify("datasources_source_unregistered", source_id="a")


def test_an_observer_may_leave_out_arguments_and_is_called_in_order_of_its_wish(
    site: Site,
) -> None:
    seen: list[object] = []

    class First:
        @hookimpl(tryfirst=True)
        def datasources_operation_finished(self, duration: float) -> None:
            seen.append(duration)

    class Second:
        @hookimpl
        def datasources_operation_finished(self) -> None:
            seen.append("second")

    plugins = site.plugins()
    plugins.register_plugin(First())
    plugins.register_plugin(Second())
    plugins.notify("datasources_operation_finished", operation=None, duration=1.5, error=None)
    assert seen == [1.5, "second"]


class Vault:
    """Resolves one scheme, and opens one store."""

    @hookimpl
    def datasources_resolve_secret(self, scheme: str, name: str) -> str | None:
        return name.upper() if scheme == "vault" else None

    @hookimpl
    def datasources_open_store(self, url: str) -> object:
        return "the store" if url == "vault:" else None


class Sealed:
    """Raises whatever it is asked."""

    def __init__(self, fault: BaseException) -> None:
        self.fault = fault

    @hookimpl
    def datasources_resolve_secret(self) -> str | None:
        raise self.fault

    @hookimpl
    def datasources_open_store(self) -> object:
        raise self.fault


def test_the_first_answer_to_a_hook_counts(site: Site) -> None:
    plugins = site.plugins()
    assert plugins.first("datasources_resolve_secret", scheme="vault", name="x") is None
    plugins.register_plugin(Vault())
    assert plugins.first("datasources_resolve_secret", scheme="vault", name="x") == "X"
    assert plugins.first("datasources_resolve_secret", scheme="other", name="x") is None


@pytest.mark.parametrize("fault", [RuntimeError("pwd=hunter2"), SystemExit("pwd=hunter2")])
def test_a_plugin_that_raises_breaks_no_answer_of_another(
    site: Site, caplog: pytest.LogCaptureFixture, fault: BaseException
) -> None:
    plugins = site.plugins()
    plugins.register_plugin(Vault(), "vault")
    plugins.register_plugin(Sealed(fault), "sealed")
    for name in "xy":
        answer = plugins.first("datasources_resolve_secret", scheme="vault", name=name)
        assert answer == name.upper()
        assert plugins.first("datasources_open_store", url="vault:") == "the store"
    logged = [r for r in caplog.records if r.name == "datasources.plugins"]
    assert [record.getMessage().split(":")[0] for record in logged] == [
        "sealed failed in datasources_resolve_secret",
        "sealed failed in datasources_open_store",
    ]
    assert "hunter2" not in caplog.text


def test_a_question_that_only_a_failing_plugin_might_answer_names_the_plugin(site: Site) -> None:
    plugins = site.plugins()
    plugins.register_plugin(Sealed(RuntimeError("it is sealed, pwd=hunter2")), "sealed")
    plugins.register_plugin(Vault(), "vault")
    for hook_name, arguments, call in [
        ("datasources_resolve_secret", {"scheme": "a", "name": "b"}, "scheme='a', name='b'"),
        ("datasources_open_store", {"url": "x://u:hunter2@h"}, "url='x://u:***REDACTED***@h'"),
    ]:
        with pytest.raises(PluginError) as caught:
            plugins.first(hook_name, **arguments)
        expected = f"plugin 'sealed' failed in {hook_name}({call}): RuntimeError: it is sealed"
        assert str(caught.value).startswith(expected)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_reference_that_a_failing_plugin_might_resolve_is_named_with_the_plugin(
    site: Site,
) -> None:
    plugins = site.plugins()
    plugins.register_plugin(Sealed(RuntimeError("it is sealed")), "sealed")
    plugins.register_plugin(Vault(), "vault")

    def resolve(scheme: str, name: str) -> str | None:
        secret: str | None = plugins.first("datasources_resolve_secret", scheme=scheme, name=name)
        return secret

    assert resolve_references({"password": "${vault:x}"}, resolve) == {"password": "X"}
    with pytest.raises(SecretNotFoundError, match=r"^\$\{other:x\}: plugin 'sealed' failed in "):
        resolve_references({"password": "${other:x}"}, resolve)


def test_an_error_that_a_plugin_raises_on_purpose_is_passed_on(site: Site) -> None:
    plugins = site.plugins()
    plugins.register_plugin(Sealed(StoreError("the server is down")), "sealed")
    plugins.register_plugin(Sealed(RuntimeError("broken")), "broken")
    plugins.register_plugin(Vault(), "vault")
    with pytest.raises(StoreError, match=r"^the server is down$"):
        plugins.first("datasources_open_store", url="sealed:")


def test_the_user_may_interrupt_a_question(site: Site) -> None:
    plugins = site.plugins()
    plugins.register_plugin(Sealed(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        plugins.first("datasources_open_store", url="x:")


@pytest.mark.parametrize("method", ["notify", "first", "connector_class"])
def test_outside_the_main_thread_an_interrupt_is_a_plugins_fault(site: Site, method: str) -> None:
    """Python interrupts the main thread only; and in a future, it would end an event loop."""
    site.connector("bad", "bad", "raise KeyboardInterrupt")
    plugins = site.plugins()
    plugins.register_plugin(Sealed(KeyboardInterrupt()))
    plugins.register_plugin(Recorder(KeyboardInterrupt()))
    calls: dict[str, Callable[[], object]] = {
        "notify": lambda: plugins.notify("datasources_source_unregistered", source_id="a"),
        "first": lambda: plugins.first("datasources_open_store", url="x:"),
        "connector_class": lambda: plugins.connector_class("bad"),
    }
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(calls[method]).exception()
    assert type(error) is {"first": PluginError, "connector_class": PluginLoadError}.get(
        method, type(None)
    )


def test_a_bad_plugin_of_the_hosts_own_is_refused_whole(site: Site) -> None:
    class Misspelt(Recorder):
        @hookimpl
        def datasources_source_registred(self) -> None: ...

    class WrongArgument(Recorder):
        @hookimpl
        def datasources_source_registered(self, configuration: object) -> None: ...

    plugins = site.plugins()
    bad = [Misspelt(), WrongArgument(), SimpleNamespace()]
    for plugin, text in zip(
        bad, ["'datasources_source_registered'", "configuration", "no hook"], strict=True
    ):
        with pytest.raises(PluginLoadError, match=text):
            plugins.register_plugin(plugin, "mine")
    plugins.notify("datasources_source_unregistered", source_id="a")
    assert [plugin.seen for plugin in bad[:2]] == [[], []]  # type: ignore[attr-defined]

    plugins.register_plugin(Recorder(), "mine")
    with pytest.raises(PluginLoadError, match="plugin 'mine' of the host: a plugin of that name"):
        plugins.register_plugin(Recorder(), "mine")


def test_a_hook_of_a_later_core_may_be_marked_optional(site: Site) -> None:
    class Modern(Recorder):
        @hookimpl(optionalhook=True)
        def datasources_of_the_future(self, anything: object) -> None: ...

    plugins, modern = site.plugins(), Modern()
    plugins.register_plugin(modern)
    plugins.notify("datasources_source_unregistered", source_id="a")
    assert modern.seen == ["a"]


# Loading.

OBSERVER = """
from datasources import hookimpl
seen = []
@hookimpl
def datasources_source_unregistered(source_id):
    seen.append(source_id)
"""


def test_observers_are_loaded_together_and_a_failing_one_alone_is_out(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.observer("broken-audit", "raise SystemExit('token=abcdef' + '123456')")
    site.observer("misspelt-audit", OBSERVER.replace("unregistered", "unregistred"))
    site.observer("fine-audit", OBSERVER)
    site.connector("good", "good", "raise AssertionError")
    plugins = site.plugins()
    plugins.load_observers()
    plugins.load_observers()
    plugins.notify("datasources_source_unregistered", source_id="a")

    assert sys.modules["fine_audit"].seen == ["a"]
    statuses = {entry.distribution: entry.status for entry in plugins.entries()}
    assert statuses == {
        "broken-audit": "failed",
        "misspelt-audit": "failed",
        "fine-audit": "loaded",
        "good": "available",
    }
    first, _ = [r for r in caplog.records if r.name == "datasources.plugins"]
    assert first.getMessage().startswith("plugin 'broken_audit' of broken-audit 1.0: SystemExit: ")
    assert "abcdef123456" not in caplog.text


def test_hooks_of_a_connector_plugin_are_called_once_it_is_loaded(site: Site) -> None:
    points = "[datasources.connectors]\none = both\ntwo = both\n"
    classes = connector_class("one", name="One") + connector_class("two", name="Two")
    site.install("both", points, {"both": OBSERVER + hook(classes + "return [One, Two]")})
    plugins = site.plugins()
    plugins.notify("datasources_source_unregistered", source_id="a")
    assert "both" not in sys.modules
    assert plugins.connector_class("one").type == "one"
    assert plugins.connector_class("two").type == "two"
    plugins.notify("datasources_source_unregistered", source_id="b")
    assert sys.modules["both"].seen == ["b"]


def test_hooks_of_a_connector_plugin_that_failed_are_never_called(site: Site) -> None:
    site.connector("bad", "bad", OBSERVER + hook("return []"))
    plugins = site.plugins()
    raised(plugins, "bad")
    plugins.notify("datasources_source_unregistered", source_id="a")
    assert sys.modules["bad"].seen == []


def test_threads_that_ask_for_one_type_import_it_once(
    site: Site, imports: Callable[[], int]
) -> None:
    site.connector("good", "good", COUNT + "import time; time.sleep(0.05)\n" + GOOD)
    plugins = site.plugins()
    together = threading.Barrier(8)

    def ask(_: int) -> type[DataSourceConnector]:
        together.wait()
        return plugins.connector_class("good")

    with ThreadPoolExecutor(8) as pool:
        classes = set(pool.map(ask, range(8)))
    assert len(classes) == 1
    assert imports() == 1


def test_class_is_given_to_other_threads_once_the_hooks_of_its_plugin_are_called(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.connector("good", "good", GOOD)
    plugins = site.plugins()
    seen: list[type[DataSourceConnector] | None] = []
    register_hooks = plugins._register_hooks

    def look_in_another_thread(plugin: object, name: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            given = pool.submit(plugins.loaded, "good").result()
        seen.append(given)
        register_hooks(plugin, name)

    monkeypatch.setattr(plugins, "_register_hooks", look_in_another_thread)
    assert plugins.connector_class("good") is plugins.loaded("good")
    assert seen == [None]


def test_a_plugin_that_hangs_holds_up_no_other(site: Site) -> None:
    site.install(
        "gate", None, {"gate": "import threading\nopen, begun = [threading.Event() for _ in 'ab']"}
    )
    site.connector("slow", "slow", "import gate\ngate.begun.set()\ngate.open.wait(60)\n"
                   + connector_module("slow"))  # fmt: skip
    site.connector("good", "good", GOOD)
    site.observer("fine-audit", OBSERVER)
    plugins = site.plugins()
    gate = __import__("gate")
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(plugins.connector_class, "slow")
        assert gate.begun.wait(60)
        assert plugins.connector_class("good").type == "good"
        plugins.load_observers()
        assert entry_of(plugins, "slow").status == "available"
        raised(plugins, "unknown")
        assert not loading.done()
        gate.open.set()
        assert loading.result(60).type == "slow"


def test_an_import_that_never_ends_is_given_up(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.install(
        "gate", None, {"gate": "import threading\nopen, waiting = threading.Event(), set()"}
    )
    wait = "import gate, threading\ngate.waiting.add(threading.get_ident())\ngate.open.wait(60)\n"
    site.connector("slow", "slow", wait + connector_module("slow"))
    site.observer("slow-audit", wait + OBSERVER)
    site.connector("interrupts", "interrupts", "raise KeyboardInterrupt")
    site.connector("good", "good", GOOD)
    site.observer("fine-audit", OBSERVER)
    plugins = site.plugins()
    gate = __import__("gate")

    class Thread(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            # The time is over for what waits at the gate, and for nothing else.
            wait_until_blocking(lambda: not self.is_alive() or self.ident in gate.waiting)

    patched = SimpleNamespace(**{**vars(threading), "Thread": Thread})
    monkeypatch.setattr("datasources.plugins.manager.threading", patched)
    try:
        plugins.load_observers()
        logged = [r for r in caplog.records if r.name == "datasources.plugins"]
        assert [record.getMessage() for record in logged] == [
            "plugin 'slow_audit' of slow-audit 1.0: it was not imported within 60 seconds"
        ]
        results = {entry.distribution: (entry.status, entry.error) for entry in plugins.check()}
        late = ("failed", "it was not imported within 60 seconds")
        assert results == {
            "slow": late,
            "slow-audit": late,
            "interrupts": ("failed", "KeyboardInterrupt"),
            "good": ("loaded", None),
            "fine-audit": ("loaded", None),
        }
    finally:
        gate.open.set()
        for thread in threading.enumerate():
            if thread.name == "datasources-import":
                threading.Thread.join(thread, 60)


def test_an_interrupted_import_is_not_held_against_the_plugin(site: Site) -> None:
    site.install("gate", None, {"gate": "times = []"})
    source = "import gate\ngate.times.append(1)\nif len(gate.times) < 2: raise KeyboardInterrupt\n"
    site.connector("good", "good", source + GOOD)
    plugins = site.plugins()
    with pytest.raises(KeyboardInterrupt):
        plugins.connector_class("good")
    assert plugins.connector_class("good").type == "good"


def test_masking_stops_at_the_error_that_is_being_handled(site: Site) -> None:
    site.connector("bad", "bad", "try: raise OSError('pwd=hunt' + 'er2')\nexcept OSError: int('x')")
    around = RuntimeError("pwd=mine")
    try:
        raise around
    except RuntimeError:
        error = raised(site.plugins(), "bad")
    assert around.args == ("pwd=mine",)
    assert isinstance(error.__cause__, ValueError)
    assert "hunter2" not in "".join(traceback.format_exception(error.__cause__))


# Installed for real.

REPORT = """
import json
from datasources.plugins import Plugins
plugins, raised = Plugins(), {}
for name in ("good", "exits", "sql", "mangled"):
    try:
        raised[name] = plugins.connector_class(name).__module__
    except Exception as exc:
        raised[name] = f"{type(exc).__name__}: {exc}"
entries = [[e.name, e.distribution, e.version, e.status] for e in plugins.check()]
print(json.dumps([raised, entries]))
"""


def points(type_name: str, module: str) -> str:
    return f"[datasources.connectors]\n{type_name} = {module}\n"


def test_wheels_that_pip_installed_are_contained_as_well(tmp_path: Path) -> None:
    front, back = tmp_path / "front", tmp_path / "back"
    sql = connector_module("sql")
    wheels = [
        Wheel("acme-good", points("good", "acme_good"), {"acme_good": GOOD}, version="2.0"),
        Wheel("acme-exits", points("exits", "acme_exits"), {"acme_exits": "raise SystemExit"}),
        Wheel("acme-sql", points("sql", "acme_sql"), {"acme_sql": sql}),
        Wheel("other-sql", points("sql", "other_sql"), {"other_sql": sql}),
        Wheel("acme-mangled", points("mangled", "acme_mangled"), {"acme_mangled": ""}),
    ]
    old = Wheel("acme-good", points("good", "acme_good"), {"acme_good": "raise SystemExit"})
    pip_install(front, *(wheel.build(tmp_path) for wheel in wheels))
    pip_install(back, old.build(tmp_path))
    info = front / "acme_mangled-1.0.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nVersion: 1.0\n")

    path = f"{front}:{back}"
    outcomes, entries = json.loads(run_python(REPORT, PYTHONPATH=path))
    conflict = "PluginConflictError: 'sql' is offered by acme-sql 1.0 and other-sql 1.0; "
    assert outcomes["good"] == "acme_good"
    assert outcomes["exits"] == "PluginLoadError: connector 'exits' of acme-exits 1.0: SystemExit"
    assert outcomes["sql"].startswith(conflict)
    assert outcomes["mangled"].endswith("'mangled' of acme-mangled 1.0: its METADATA lacks Name")
    ours = {"good", "exits", "sql", "mangled"}
    assert [entry for entry in entries if entry[0] in ours] == [
        ["exits", "acme-exits", "1.0", "failed"],
        ["good", "acme-good", "2.0", "loaded"],
        ["mangled", "acme-mangled", "1.0", "broken"],
        ["sql", "acme-sql", "1.0", "conflict"],
        ["sql", "other-sql", "1.0", "conflict"],
    ]
    outcomes, _ = json.loads(
        run_python(REPORT, PYTHONPATH=path, DATASOURCES_PREFER="sql=other-sql")
    )
    assert outcomes["sql"] == "other_sql"
