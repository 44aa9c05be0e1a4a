"""Sphinx's settings for the site; `build.py` assembles its sources and calls it."""

import inspect
import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.util.nodes import make_refnode

sys.path.insert(0, str(Path(__file__).parent))
from public_names import home, public_objects

# A role with its text, which stays as it is, or `code`, over two lines at most.
CODE = re.compile(r":\w+:`[^`]+`|(?<![`:\w>])`([^`\n]+(?:\n[^`\n]+)?)`(?=(\w?))(?!`)")
FIELD = re.compile(r"([a-z_]\w*(?:, \w+)*): ")

project, author, copyright = "coherence", "The coherence developers", "The coherence developers"
extensions = [
    *("myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"),
    *("sphinx.ext.mathjax", "sphinxcontrib.mermaid"),
]
html_theme, html_title, html_show_sphinx = "furo", "coherence", False
html_copy_source = False
pygments_style = "default"
templates_path, exclude_patterns = [], []

myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # outputs are stored in the notebooks

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autosummary_generate = False
napoleon_use_ivar = True
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 88
default_role = "code"
# Types in annotations: other packages, and modules that are not public, have no page here.
nitpick_ignore_regex = [("py:class", ".*"), ("py:.*", r"(?!coherence\.).*")]


def short_names():
    """`{how a text may call it: where the reference has it}` of every public name.

    As the module that defines it says, as `co.NAME`, or alone where no other module has it.
    """
    homes = {}
    for (module, name), thing in public_objects().items():
        target = home(module, name)
        defined = [getattr(thing, key, None) for key in ("__module__", "__qualname__")]
        full = f"{module}.{name}"
        for way in (full, full.replace("coherence", "co", 1), ".".join(map(str, defined))):
            homes[way] = target
        if not inspect.ismodule(thing):
            homes[name] = target if homes.get(name, target) == target else None
    return {name: target for name, target in homes.items() if target}


def translate(app, what, name, thing, options, lines):
    """Docstrings in the words of Sphinx.

    `code` is a link where it is a public name; what a class says of its fields is a list.
    """
    homes = app.config.coherence_homes

    def mark(match):
        if match[1] is None:
            return match[0]
        code = " ".join(match[1].split())
        marked = f":py:obj:`{code} <{homes[code]}>`" if code in homes else f"``{code}``"
        return marked + "\\ " * bool(match[2])

    paragraphs = []
    for paragraph in "\n".join(lines).split("\n\n"):
        if what == "class" and FIELD.match(paragraph):
            paragraph = re.sub(rf"^{FIELD.pattern}", r"* **\1**: ", paragraph, flags=re.MULTILINE)
            paragraph = paragraph.replace("\n    ", "\n  ")
        if not paragraph.startswith("==="):  # columns of a table keep their width
            paragraph = CODE.sub(mark, paragraph)
        paragraphs.append(paragraph)
    lines[:] = "\n\n".join(paragraphs).split("\n")


def is_left_out(app, what, name, thing, skip, options):
    """Members that scikit-learn adds to every estimator."""
    return True if re.fullmatch(r"[gs]et_\w+_(request|routing)", name) else None


def resolve(app, env, node, content):
    """A reference by a short name, or by the module that defines the name."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].removesuffix("()")
    first, _, rest = target.partition(".")
    homes = app.config.coherence_homes
    wanted = homes.get(target) or (f"{homes[first]}.{rest}" if first in homes and rest else None)
    found = env.domains.python_domain.objects.get(wanted)
    if found is None:
        return None
    return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, content, wanted)


def link_code(app, doctree, docname):
    """Inline code of the guides that is a public name links to the reference."""
    homes, known = app.config.coherence_homes, app.env.domains.python_domain.objects
    if docname.startswith(("reference/", "docs/reproducing/", "CHANGELOG")):
        return
    for literal in list(doctree.findall(nodes.literal)):
        name = re.sub(r"\(.*", "", literal.astext())
        found = known.get(homes.get(name, ""))
        if found is not None and not isinstance(literal.parent, nodes.reference):
            literal.replace_self(
                make_refnode(app.builder, docname, found.docname, found.node_id, literal.deepcopy())
            )


def setup(app):
    app.add_config_value("coherence_homes", short_names(), "")
    app.connect("autodoc-process-docstring", translate, priority=100)  # napoleon: 500
    app.connect("autodoc-skip-member", is_left_out)
    app.connect("missing-reference", resolve)
    app.connect("doctree-resolved", link_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
