"""The public API as text; `python -m tests.compatibility.public_api` writes it to the file."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from types import FunctionType
from typing import Any

import click
from pydantic import BaseModel

import datasources
from datasources import DataSourceError, connector, names as names_of, objects, testing
from datasources.plugins import hookspecs

FILE = Path(__file__).with_name("public_api.txt")


def public_api() -> str:
    """Return everything that hosts, plugins and scripts may rely on, a line each."""
    sections = {
        "Names in datasources": names("datasources", datasources.__all__),
        "Names in datasources.blocking": names(
            "datasources.blocking",
            ["Access", "DataSourceRegistry", "ItemStream", "WorkspaceSession"],
        ),
        "Names in datasources.objects": names("datasources.objects", objects.__all__),
        "Names in datasources.testing": names(
            "datasources.testing",
            [name for name in testing.__all__ if name != "ConnectorContract"],
        ),
        "Checks of datasources.testing.ConnectorContract, by which one is waived": (
            name for name in sorted(dir(testing.ConnectorContract)) if name.startswith("test_")
        ),
        "Errors": errors(DataSourceError, ""),
        "Slugs of errors": slugs(),
        "Entry-point groups": iter([names_of.CONNECTORS_GROUP, names_of.PLUGINS_GROUP]),
        "Hooks": (
            f"{name}{signature(value)}"
            for name, value in vars(hookspecs).items()
            if name.startswith(f"{hookspecs.PROJECT}_")
        ),
        "Contracts": iter([f"{connector.OLDEST_API_VERSION} to {connector.API_VERSION}"]),
        "Abilities, and the method that is each": (
            f"{name}: {method}" for name, method in connector.ABILITIES.items()
        ),
        "Commands": commands(),
    }
    return "\n".join(
        line for title, lines in sections.items() for line in (f"# {title}", *lines, "")
    )


def names(module: str, exported: list[str]) -> Iterator[str]:
    for name in exported:
        value = getattr(import_module(module), name)
        if not isinstance(value, type):
            ours = getattr(value, "__module__", "").partition(".")[0] == "datasources"
            shown = (signature(value) if ours else "") if callable(value) else f" = {value!r}"
            yield f"{name}{shown}"
        elif not issubclass(value, DataSourceError):  # these have a section of their own
            unsigned = getattr(value, "_is_protocol", False) or issubclass(value, Warning)
            yield f"class {name}{'' if unsigned else signature(value)}"
            yield from (f"    {line}" for line in sorted(members(value)))


def members(cls: type) -> Iterator[str]:
    """Yield the public attributes of a class and of its bases in this project.

    Fields that the constructor takes are left out: its signature shows them.
    """
    attributes: dict[str, Any] = {}
    annotations: dict[str, str] = {}
    for base in reversed([base for base in cls.__mro__ if base.__module__ in own()]):
        attributes |= vars(base)
        annotations |= {n: str(a) for n, a in inspect.get_annotations(base).items()}
    arguments = (
        {f.name for f in dataclasses.fields(cls) if f.init}
        if dataclasses.is_dataclass(cls)
        else set()
    )
    for name in sorted((attributes | annotations).keys() - arguments):
        if name.startswith("_") or (issubclass(cls, BaseModel) and hasattr(BaseModel, name)):
            continue
        yield member(name, attributes.get(name, inspect.Parameter.empty), annotations)


def own() -> set[str]:
    return {name for name in sys.modules if name.partition(".")[0] == "datasources"}


def member(name: str, value: Any, annotations: dict[str, str]) -> str:
    if isinstance(value, property):
        assert value.fget is not None
        returned = annotation(inspect.signature(value.fget).return_annotation)
        return f"{name}: {returned}  (property)"
    if isinstance(value, (FunctionType, classmethod, staticmethod)):
        decorator = "" if isinstance(value, FunctionType) else f"  ({type(value).__name__})"
        return f"{name}{signature(getattr(value, '__func__', value))}{decorator}"
    text = f"{name}: {annotations[name]}" if name in annotations else name
    has_value = value is not inspect.Parameter.empty and not inspect.ismemberdescriptor(value)
    return f"{text} = {constant(value)}" if has_value else text


class Plain(str):  # noqa: SLOT000
    """A text that signatures show without quotes."""

    def __repr__(self) -> str:
        return str(self)


def signature(function: Any) -> str:
    original, empty = inspect.signature(function), inspect.Parameter.empty
    parameters = [
        parameter.replace(
            annotation=annotation(parameter.annotation),
            default=empty if parameter.default is empty else Plain(constant(parameter.default)),
        )
        for parameter in original.parameters.values()
    ]
    returned = empty if isinstance(function, type) else annotation(original.return_annotation)
    text = str(original.replace(parameters=parameters, return_annotation=returned))
    return text + ("  (async)" if inspect.iscoroutinefunction(function) else "")


def annotation(value: Any) -> Any:
    if value is inspect.Parameter.empty:
        return value
    text = value if isinstance(value, str) else inspect.formatannotation(value)
    return Plain(text.replace("typing.", ""))  # which Python 3.11 writes and later ones do not


def constant(value: object) -> str:
    shown = repr(value)
    return "…" if " at 0x" in shown or shown.startswith("<") else shown


def errors(cls: type[DataSourceError], indent: str) -> Iterator[str]:
    own_arguments = signature(cls) if "__init__" in vars(cls) else ""
    yield f"{indent}{cls.__name__}{own_arguments}"
    for subclass in sorted(cls.__subclasses__(), key=attrgetter("__name__")):
        if subclass.__name__ in datasources.__all__:
            yield from errors(subclass, f"{indent}    ")


def slugs() -> Iterator[str]:
    for name in datasources.__all__:
        value = getattr(datasources, name)
        if isinstance(value, type) and issubclass(value, DataSourceError):
            again = ", retryable" if value.retryable else ""
            yield f"{value.slug}: {name}, {value.http_status}{again}"


def commands() -> Iterator[str]:
    from datasources.cli import app

    top = click.Context(app.cli, info_name="datasources")
    yield from command(app.cli, "datasources")
    for name in sorted(app._COMMANDS):
        item = app.cli.get_command(top, name)
        assert item is not None
        yield from command(item, f"datasources {name}")


def command(item: click.Command, name: str) -> Iterator[str]:
    takes = [placeholder(p) for p in item.params if isinstance(p, click.Argument)]
    yield " ".join([name, *takes])
    yield from sorted(option(p) for p in item.params if isinstance(p, click.Option))
    if isinstance(item, click.Group) and name != "datasources":
        for inner in sorted(item.commands):
            yield from command(item.commands[inner], f"{name} {inner}")


def placeholder(given: click.Argument) -> str:
    text = given.metavar or str(given.name).upper()
    text = text if given.required or text.startswith("[") else f"[{text}]"
    return f"{text}..." if given.nargs == -1 and not text.endswith("...") else text


def option(given: click.Option) -> str:
    takes = "" if given.is_flag else f" {given.metavar or given.type.name.upper()}"
    more = " (required)" if given.required else " (many times)" if given.multiple else ""
    return f"    {', '.join([*given.opts, *given.secondary_opts])}{takes}{more}"


if __name__ == "__main__":
    FILE.write_text(public_api(), "utf-8")
    print(f"Wrote {FILE}")
