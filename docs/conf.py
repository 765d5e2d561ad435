"""How Sphinx builds the documentation: `make docs`, offline, warnings are errors."""

import re

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

import headless

project = "Headless"
version = release = headless.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "index"

html_theme = "furo"
html_title = "Headless"
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_copyright = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # a test executes the notebook; its page shows what is stored in it

default_role = "code"  # docstrings write `name`
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False


def _escape(app, what, name, obj, options, lines):
    """Docstrings are plain text but for `names`: |x| is an absolute value and no substitution."""
    special = re.compile(r"(`[^`]*`)|([\\|])")
    lines[:] = [special.sub(lambda m: m[1] or "\\" + m[2], line) for line in lines]
    lines[:] = [re.sub(r"(?<=\w`)(?=s\b)", r"\\ ", line) for line in lines]  # `Cloud`s


def _equation(display):
    def visit(translator, node):
        translator.body.append(convert(node.astext(), display=display))
        raise SkipNode

    return visit, None


def setup(app):
    app.connect("autodoc-process-docstring", _escape)
    # MathML, which browsers draw by themselves: no script, no font, no network.
    app.add_html_math_renderer("mathml", _equation("inline"), _equation("block"))
