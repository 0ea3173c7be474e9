"""How Sphinx builds the site: ``nox -s docs``.

The sources' root is the project's, so that a link from one page to another is the same on the site and in the
repository.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from oa_protocol import __version__  # noqa: E402  # it is found only with the path above

project = "oa_protocol"
author = "The oa_protocol authors"
copyright = "The oa_protocol authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "specs/**.md", "CHANGELOG.md"]
html_extra_path = ["index.html"]
html_theme = "furo"
html_title = f"oa_protocol {release}"

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["misc.highlighting_failure"]  # Pygments doesn't know Mermaid

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
# Without this name, which isn't imported at run time, none of the annotations beside it could be resolved.
autodoc_type_aliases = {"TapeFile": "oa_protocol.tape.TapeFile"}
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
default_role = "code"
