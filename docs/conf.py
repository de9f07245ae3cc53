"""Settings of Sphinx for these pages, which `nox -s docs` builds."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import datasources

project = "datasources"
release = version = datasources.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "house"]
exclude_patterns = ["_build", "_ext", "examples"]
nitpicky = True
# The libraries that annotations name are documented elsewhere, and nothing is fetched to build.
nitpick_ignore_regex = [
    # Private: the registry passes them to what it makes.
    ("py:class", r".*\b(Operations|GrantedOperations|TextTable)"),
    (
        "py:.*",
        r"(asyncio|collections|concurrent|contextlib|datetime|decimal|os|types|typing|pathlib)\..*",
    ),
    (
        "py:.*",
        r"(aiohttp|annotated_types|click|importlib|opentelemetry|pluggy|pydantic|pydantic_core|pytest|re)\..*",
    ),
    ("py:class", r"(datasources\.(\w+\.)+T|OptionsClass)"),  # a type variable, an alias
]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
add_module_names = False
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"datasources {release}"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {
    # Fonts of the reader's machine: pages ask no other server for anything.
    "light_css_variables": {"font-stack": "sans-serif", "font-stack--monospace": "monospace"},
}
