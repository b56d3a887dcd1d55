"""The book with plain Sphinx, MyST-NB and the book theme instead of Jupyter Book 1, which is in maintenance:

    pip install sphinx myst-nb sphinx-book-theme sphinx-design sphinx-copybutton sphinx-togglebutton \
        sphinx-external-toc sphinx-multitoc-numbering sphinxcontrib-bibtex
    sphinx-build -W -n -c book/_sphinx . _build/sphinx

Every setting comes from _config.yml, under the name that Sphinx has for it.
"""

import sys
from pathlib import Path

import yaml

_root = Path(__file__).resolve().parents[2]
_book = yaml.safe_load((_root / "_config.yml").read_text(encoding="utf-8"))
_own = _book["sphinx"]["local_extensions"]
sys.path[:0] = [str(_root / folder) for folder in dict.fromkeys(_own.values())]

project = html_title = _book["title"]
author, copyright = _book["author"], _book["copyright"]
extensions = [
    "myst_nb",
    "sphinx_book_theme",
    "sphinx_external_toc",
    "sphinx_multitoc_numbering",
    "sphinx_togglebutton",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    *_own,
]
external_toc_path = "_toc.yml"
use_multitoc_numbering = external_toc_exclude_missing = True
exclude_patterns = [*_book["exclude_patterns"], "_build"]
bibtex_bibfiles = [str(_root / file) for file in _book["bibtex_bibfiles"]]
myst_enable_extensions = _book["parse"]["myst_enable_extensions"]
nb_execution_mode = _book["execute"]["execute_notebooks"]
html_theme, html_favicon = "sphinx_book_theme", str(_root / _book["html"]["favicon"])
html_theme_options = {
    "repository_url": _book["repository"]["url"],
    "repository_branch": _book["repository"]["branch"],
    "launch_buttons": _book["launch_buttons"],
    "home_page_in_toc": True,
    **{
        f"navbar_{place}": [] for place in ("start", "center", "end", "persistent")
    },  # a second header, else
} | {name: value for name, value in _book["html"].items() if name.startswith("use_")}
globals().update(_book["sphinx"]["config"])
html_static_path = [
    str(_root / folder) for folder in _book["sphinx"]["config"]["html_static_path"]
]
