"""Sphinx extensions of these pages: docstrings of this project, tables of options and checks."""

from __future__ import annotations

import builtins
import inspect
import json
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import datasources
from datasources import ConnectorOptions
from datasources.forms import option_fields
from datasources.plugins import Plugins
from datasources.testing import ConnectorContract

_FENCE = re.compile(r"^```(\w*)$")
_CODE = re.compile(r"(?<![`:])`([^`\n]+)`(?!`)")
_NOTHING: tuple[object, ...] = (None, "", (), [], {})

_fields: list[str] = []


def marked_up(lines: list[str]) -> list[str]:
    """Return a docstring, which is plain Markdown, as reStructuredText."""
    out: list[str] = []
    fenced = indented = False
    before = ""
    for line in lines:
        if fence := _FENCE.match(line.strip()):
            fenced = not fenced
            out += ["", f".. code-block:: {fence[1] or 'text'}", ""] if fenced else []
            continue
        deep = line.startswith("    ")
        if deep and not before.strip() and not indented and not fenced:
            indented = True
            out += [".. code-block:: python", ""]
        indented = indented and (deep or not line.strip())
        out.append(f"   {line}" if fenced else line if indented else _CODE.sub(_code, line))
        before = line
    return out


def _code(match: re.Match[str]) -> str:
    is_public = match[1] in datasources.__all__
    return f":py:obj:`~datasources.{match[1]}`" if is_public else f"``{match[1]}``"


def mark_up(
    _app: Sphinx, what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Translate a docstring in place, before napoleon reads its sections."""
    lines[:] = marked_up(lines)
    _fields[:] = lines if what in ("attribute", "property", "data") else []


def keep_fields(*event: object) -> None:
    """Undo what napoleon makes of a field's docstring: it takes text before a colon for a type."""
    lines: Any = event[-1]
    if _fields:
        lines[:] = _fields


def resolve(app: Sphinx, _env: object, node: Any, content: nodes.Node) -> nodes.Node | None:
    """Lead a reference to where a name is defined to where it is documented: its public place."""
    target: str = node.get("reftarget", "")
    name = target.rpartition(".")[2]
    for module in ("datasources", "datasources.testing"):
        public = f"{module}.{name}"
        if node.get("refdomain") == "py" and public != target:
            domain = app.env.get_domain("py")
            reference = domain.resolve_xref(
                app.env, node["refdoc"], app.builder, "obj", public, node, content
            )
            if reference is not None:
                return reference
    return None


def readable(
    _app: Sphinx,
    _what: str,
    _name: str,
    _obj: object,
    _options: object,
    signature: str | None,
    back: str,
) -> tuple[str, str] | None:
    """Replace a dataclass's sign for a computed default, which Sphinx cannot parse."""
    return (signature.replace("<factory>", "..."), back) if signature else None


def name_publicly(_app: Sphinx, doctree: nodes.document) -> None:
    """Lead bare names to this project's own, and built-in ones nowhere: `type` is also a field."""
    for reference in list(doctree.findall(addnodes.pending_xref)):
        name = reference["reftarget"]
        if name in vars(builtins):
            reference.replace_self(reference.children)
        elif name in datasources.__all__:
            reference["reftarget"] = f"datasources.{name}"


class Options(SphinxDirective):
    """A table of a connector's options, made from their model: `{options} postgresql`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (kind,) = self.arguments
        options_class = Plugins().connector_class(kind).options_class
        assert options_class is not None
        return self.parse_text_to_nodes("\n".join(option_lines(kind, options_class)))


def option_lines(kind: str, options_class: type[ConnectorOptions]) -> list[str]:
    """Return the definitions of all options in Markdown."""
    lines: list[str] = []
    for option in option_fields(options_class, kind):
        default = f", `{shown(option.default)}` unless given" * (option.default not in _NOTHING)
        about = [f"{option.type_words}{', **required**' if option.required else default}"]
        if len(option.names) > 1:
            about.append("also " + ", ".join(f"`{name}`" for name in option.names[1:]))
        about.append(f"for example `{shown(option.example)}`")
        lines += [f"`{option.name}`", f": {option.description}", f": *{'; '.join(about)}*", ""]
    return lines


def shown(value: object) -> str:
    """Return a value as it is written in a file of sources."""
    return json.dumps(value, default=str, ensure_ascii=False)


class Checks(SphinxDirective):
    """The checks of `ConnectorContract`, by group."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(check_lines()))


def check_lines() -> list[str]:
    """Return a line for each group of checks, and one for each check, in Markdown."""
    lines: list[str] = []
    for group in ConnectorContract.__bases__:
        names = [name for name in vars(group) if name.startswith("test_")]
        lines += ["", f"**{inspect.getdoc(group)}**", ""]
        lines += [f"- `{name}`" for name in names]
    return lines


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", mark_up, priority=100)
    app.connect("autodoc-process-docstring", keep_fields, priority=900)
    app.connect("autodoc-process-signature", readable)
    app.connect("doctree-read", name_publicly)
    app.connect("missing-reference", resolve)
    app.add_directive("options", Options)
    app.add_directive("checks", Checks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
