"""What the built pages need beyond Jupyter Book's settings: no broken script, true roles, MathJax from the site, and a
policy that lets a browser run and fetch nothing else."""

import re
import shutil
import subprocess
import tarfile
import tempfile
from base64 import b64encode
from hashlib import sha256
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

MATHJAX = "mathjax@3.2.2"
PARTS = ("package/es5/tex-chtml-full.js", "package/es5/output/chtml/fonts/woff-v2/")
WITHOUT_SCRIPTS = (
    "<noscript><p><em>Without JavaScript the formulas are shown as TeX, and a slider "
    "shows one of its pictures.</em></p></noscript>"
)
# After the encoding, before anything that it rules; a page that is kept from an earlier build has one already.
PLACE = re.compile(
    r'(<meta charset="[^"]*" ?/?>)(?:<meta http-equiv="Content-Security-Policy"[^>]*>)?'
)
SCRIPT = re.compile(r"<script\b([^>]*)>(.*?)</script>", re.S)
HANDLER = re.compile(r'<[a-z][^<>]*?\son[a-z]+="([^"]*)"')
BLANK = re.compile(r'<a\b(?=[^>]*\starget="_blank")(?![^>]*\srel=)')
# Chapters of the first edition that have another file now: who comes by an old address is sent on.
MOVED = {
    "book/02_information_bottleneck": "03_information_bottleneck",
    "book/03_variational_bound": "04_variational_bound",
    "book/04_rebalancing": "02_rebalancing",
}
FORWARD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<title>This chapter has moved</title>
<meta name="robots" content="noindex" />
<link rel="canonical" href="{to}" />
<script>location.replace("{to}" + location.search + location.hash)</script>
<noscript><meta http-equiv="refresh" content="0; url={to}" /></noscript>
</head>
<body>
<main><h1>This chapter has moved</h1><p>It is now <a href="{to}">at {to}</a>.</p></main>
</body>
</html>
"""
log = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", without_thebe, priority=0)
    app.connect("config-inited", with_own_mathjax)
    app.connect("html-page-context", with_true_roles)
    app.connect("html-page-context", with_word_on_formulas)
    app.connect("build-finished", with_forwards)
    app.connect("build-finished", with_policy, priority=900)
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


def with_word_on_formulas(_: Sphinx, __: str, ___: str, context: dict, ____) -> None:
    """Who has no JavaScript is told what stays undrawn."""
    if 'class="math' in context.get("body", ""):
        context["body"] = WITHOUT_SCRIPTS + context["body"]


def with_forwards(app: Sphinx, error: Exception | None) -> None:
    """Old addresses lead to the new pages; what stands behind # stays, for which a line of script is needed."""
    if error or app.builder.format != "html":
        return
    for old, new in MOVED.items():
        if (Path(app.outdir) / old).with_name(f"{new}.html").is_file():
            text = FORWARD.format(to=f"{new}.html")
            page = Path(app.outdir) / f"{old}.html"
            page.write_text(text, encoding="utf-8", newline="\n")


def with_policy(app: Sphinx, error: Exception | None) -> None:
    """Each page says what a browser may run and fetch for it, and no page that it opens can reach back to it."""
    if error or app.builder.format != "html":
        return
    texts = {
        page: BLANK.sub('<a rel="noopener"', page.read_text(encoding="utf-8"))
        for page in Path(app.outdir).rglob("*.html")
        if not page.relative_to(app.outdir).parts[0].startswith("_")  # templates
    }
    # Those of all pages: the search reads other pages, and a browser asks its policy.
    handlers = sorted(
        {
            unescape(h)
            for t in texts.values()
            for h in HANDLER.findall(SCRIPT.sub("", t))
        }
    )
    for page, text in texts.items():
        rules = policy(text, handlers, app.config.mathjax_path)
        meta = f'<meta http-equiv="Content-Security-Policy" content="{rules}" />'
        text = PLACE.sub(rf"\g<1>{meta}", text, count=1)
        page.write_text(text, encoding="utf-8", newline="\n")


def policy(page: str, handlers: list[str], mathjax: str = "") -> str:
    """The Content-Security-Policy of the HTML `page`: the site's own files and the scripts written in it, no others.

    These are named by their hashes, also `handlers`, those of the theme's buttons (full screen, print), which need
    'unsafe-hashes'. 'unsafe-inline' is for styles alone: MathJax writes a style sheet while it draws; formulas, sliders
    and tables have style attributes. 'unsafe-eval' is not needed. Sliders and the theme's icons are data URIs. Only
    where MathJax is not served from the site is its host named.
    """
    found = SCRIPT.findall(page)
    inline = [text for attributes, text in found if "src=" not in attributes]
    host = urlsplit(mathjax)
    elsewhere = [f"{host.scheme}://{host.netloc}"] if host.netloc else []
    hashes = [digest(script) for script in dict.fromkeys(inline)]
    buttons = ["'unsafe-hashes'", *map(digest, handlers)] if handlers else []
    rules = {
        "default-src": ["'none'"],
        "script-src": ["'self'", *hashes, *buttons, *elsewhere],
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'", *elsewhere],
        "connect-src": ["'self'"],  # the search reads pages to quote from them
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
    }
    return "; ".join(" ".join([name, *sources]) for name, sources in rules.items())


def digest(script: str) -> str:
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"


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
