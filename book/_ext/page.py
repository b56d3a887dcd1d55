"""What the built pages need beyond Jupyter Book's settings: no broken script, true roles, and MathJax from the site."""

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

MATHJAX = "mathjax@3.2.2"
PARTS = ("package/es5/tex-chtml-full.js", "package/es5/output/chtml/fonts/woff-v2/")
log = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", without_thebe, priority=0)
    app.connect("config-inited", with_own_mathjax)
    app.connect("html-page-context", with_true_roles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def without_thebe(app: Sphinx, _: Config) -> None:
    """Jupyter Book always loads sphinx-thebe, whose script is emitted twice and fails on every page. Unplug it."""
    for event, listeners in app.events.listeners.items():
        kept = [
            listener
            for listener in listeners
            if not listener.handler.__module__.startswith("sphinx_thebe")
        ]
        app.events.listeners[event] = kept
    app.registry.css_files = [
        file for file in app.registry.css_files if file[0] != "sphinx-thebe.css"
    ]


def with_true_roles(_: Sphinx, __: str, ___: str, context: dict, ____) -> None:
    """A screen reader wants items in a list; docutils calls a list's references by a role that is no longer one."""
    if "body" in context:
        context["body"] = context["body"].replace(
            'role="doc-biblioentry"', 'role="listitem"'
        )


def with_own_mathjax(app: Sphinx, config: Config) -> None:
    """Serves MathJax from the site, so that a page asks nobody else for anything; where npm fails, from the CDN."""
    served = Path(app.outdir).parent / "served"
    try:
        if not (served / "mathjax" / "tex-chtml-full.js").is_file():
            fetch_mathjax(served / "mathjax")
    except (OSError, subprocess.SubprocessError, tarfile.TarError) as error:
        log.info(
            f"npm gave no {MATHJAX} ({error}): the pages fetch it from a CDN when they are read"
        )
        return
    config.html_static_path.append(str(served))
    config.mathjax_path = "mathjax/tex-chtml-full.js"


def fetch_mathjax(folder: Path) -> None:
    """Puts MathJax's script and fonts into `folder`. Raises OSError or CalledProcessError where npm cannot."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    with tempfile.TemporaryDirectory() as where:
        subprocess.run(
            [npm, "pack", MATHJAX],
            cwd=where,
            check=True,
            capture_output=True,
            timeout=120,
        )
        (archive,) = Path(where).glob("mathjax-*.tgz")
        with tarfile.open(archive) as package:
            wanted = [
                m
                for m in package.getmembers()
                if m.isfile() and m.name.startswith(PARTS)
            ]
            # The script last: it is what tells the next build that all is there.
            for member in sorted(wanted, key=lambda m: m.name == PARTS[0]):
                file = folder / Path(member.name).relative_to("package/es5")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(package.extractfile(member).read())
