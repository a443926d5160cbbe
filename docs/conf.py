"""How Sphinx builds these pages: Markdown by MyST, the API from the docstrings."""

from __future__ import annotations

import celery_concurrent

project = "celery-concurrent"
author = "celery-concurrent contributors"
copyright = "2026, celery-concurrent contributors"
version = release = celery_concurrent.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

# [text](#a-heading) works to this depth; ::: is a fence for notes.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
# Signatures keep the names of their defaults and types as they are written.
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"celery-concurrent {release}"
