"""Sphinx: Markdown by MyST, one theme, warnings are errors (see ``make docs``)."""

from __future__ import annotations

import importlib.metadata

project = "flowkit"
author = "the flowkit developers"
release = importlib.metadata.version("flowkit")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
napoleon_google_docstring = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_title = "flowkit"
