"""The site: `make docs`. It builds without a network, and what it builds needs none: no fonts or scripts of others.

Sphinx takes every link that leads nowhere for an error, also to a heading within a page. With MyST the pages stay
Markdown that a Git server shows. Furo is light and dark, fits a telephone, and brings all that it needs.
"""

import re

from sphinx.application import Sphinx

project = "Trueup"
html_title = "Trueup"
copyright = "the Trueup authors"  # noqa: A001 - Sphinx names it
extensions = ["myst_parser"]

nitpicky = True
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["trueup.css"]
# Excerpts would be fetched, which no browser lets a page on the disk do. Without them, searching works there too.
html_show_search_summary = False

#: ```yaml specs/churn.yaml: a block with the name of its file, which is its caption.
_NAMED = re.compile(r"^```(\w+) ([\w.][\w./-]*[./][\w./-]*)$", re.MULTILINE)
#: ```console embedded: words for the tests.
_MARKED = re.compile(r"^```(\w+) [\w= ]+$", re.MULTILINE)


def _captions(app: Sphinx, name: str, source: list[str]) -> None:  # noqa: ARG001 - Sphinx calls it
    named = _NAMED.sub(r"```{code-block} \1\n:caption: \2\n", source[0])
    source[0] = _MARKED.sub(r"```\1", named)


def setup(app: Sphinx) -> None:
    app.connect("source-read", _captions)
