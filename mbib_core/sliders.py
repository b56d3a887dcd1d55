"""Two sliders over pictures: a static one that needs no kernel, and a live one where a kernel answers.

static_slider(figures, values, label=..., alts=...)    in the page, in Jupyter and Colab, saved in the notebook
live_slider(draw, low=..., high=..., ...)              any value, computed while the handle moves; never saved
"""

import base64
import json
import os
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from html import escape
from io import BytesIO
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A live slider stays silent under these: chapters.py executes with the first, pytest (nbval too) sets the second.
STATIC = ("MBIB_STATIC", "PYTEST_CURRENT_TEST")

# One picture stands in the HTML, the others come with the script: what cannot run scripts, or prints, shows one.
# No ids, no global names: a page may hold any number of sliders, and the same one twice.
_PAGE = Template("""\
<div class="static-slider" data-slider="$key" style="max-width:${width}px">
<style>@media print{.static-slider input{display:none}}</style>
<div style="display:flex;flex-wrap:wrap;align-items:center;column-gap:.75em">
<label style="display:none;flex:1 1 16em;align-items:center;gap:.75em">$label
<input type="range" min="0" max="$last" step="1" value="$chosen" aria-valuetext="$value" autocomplete="off" \
data-lm-suppress-shortcuts="true" style="flex:1;min-width:8em;height:2.75em;margin:0;accent-color:#2f7fc1"></label>
<span class="value" aria-hidden="true" style="font-variant-numeric:tabular-nums">$value</span></div>
<img alt="$alt" src="$source" width="$width" style="max-width:100%;height:auto">
<script>(frames => {
  for (const box of document.querySelectorAll('[data-slider="$key"]:not([data-ready])')) {
    const [label, input, words, first] = ['label', 'input', '.value', 'img'].map(s => box.querySelector(s));
    const shown = frames.map(([value, alt, source]) => {
      const picture = source ? first.cloneNode() : first;
      if (source) Object.assign(picture, {alt, hidden: true, src: source});
      if (source) first.after(picture);
      picture.decode?.().catch(() => {});
      return picture;
    });
    const turn = () => {
      shown.forEach((picture, i) => { picture.hidden = i !== +input.value; });
      words.textContent = frames[input.value][0];
      input.setAttribute('aria-valuetext', words.textContent);
    };
    input.addEventListener('input', turn);
    box.dataset.ready = '';
    label.style.display = 'flex';
    turn();
  }
})($frames)</script>
</div>""")


def static_slider(
    figures: "Iterable[Figure]",
    values: Sequence[str],
    *,
    label: str,
    alts: Sequence[str] | None = None,
    start: int | None = None,
    caption: str = "",
    name: str = "",
) -> None:
    """Displays one figure a value and a native range input that turns them; needs neither kernel nor network.

    `values` say in words where the handle is ("β = 0.5"), `alts` what each picture shows: the figures' own words unless
    told. `label` names the input. `start` is the picture seen first, printed, and shown where scripts are off; the
    middle one unless told; `caption` and `name` as in `figures.show`. Tag the cell `nbval-ignore-output`: pictures
    differ in their bytes from one version of matplotlib to the next. Raises ValueError as `slider_html`.
    """
    from IPython.display import display

    drawn = list(figures)
    alts = _own_words(drawn) if alts is None else alts
    html = slider_html(drawn, values, label=label, alts=alts, start=start)
    chosen = len(values) // 2 if start is None else start
    display({"text/html": html, "text/plain": f"{values[chosen]}: {alts[chosen]}"}, raw=True)
    if caption:
        from mbib_core.figures import caption_of

        caption_of("Figure", caption, name)


def slider_html(
    figures: "Iterable[Figure]",
    values: Sequence[str],
    *,
    label: str,
    alts: Sequence[str] | None = None,
    start: int | None = None,
) -> str:
    """The HTML of `static_slider`: about 2 kB and the pictures as data URIs, the same bytes for the same figures.

    Raises ValueError if figures, values and alts are not equally many and at least two, if a text is blank, if
    `start` is not one of them, or if the figures differ in size.
    """
    from mbib_core.figures import png

    drawn = list(figures)
    alts = _own_words(drawn) if alts is None else alts
    if not len(drawn) == len(values) == len(alts) >= 2:
        raise ValueError(
            f"{len(drawn)} figures, {len(values)} values and {len(alts)} alts: two or more of each are needed"
        )
    if not all(text.strip() for text in (label, *values, *alts)):
        raise ValueError("the label, every value and every alt text must say something")
    if len({tuple(figure.get_size_inches()) for figure in drawn}) > 1:
        raise ValueError("the figures of a slider must have one size, or the page would jump")
    chosen = len(drawn) // 2 if start is None else start
    if not 0 <= chosen < len(drawn):
        raise ValueError(f"start is {start}: it must be from 0 to {len(drawn) - 1}")
    sources = [_data_uri(png(figure)) for figure in drawn]
    frames = [[v, a, "" if i == chosen else s] for i, (v, a, s) in enumerate(zip(values, alts, sources, strict=True))]
    text = json.dumps(frames, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return _PAGE.substitute(
        key=sha256(f"{label}{chosen}{text}{sources[chosen]}".encode()).hexdigest()[:12],
        label=escape(label),
        value=escape(values[chosen]),
        alt=escape(alts[chosen]),
        source=sources[chosen],
        chosen=chosen,
        last=len(drawn) - 1,
        width=_shown_width(drawn[0]),
        frames=text,
    )


def live_slider(
    draw: "Callable[[float], Figure]",
    *,
    low: float,
    high: float,
    value: float,
    step: float,
    label: str,
) -> None:
    """Displays an ipywidgets slider (7.7 or later); `draw(value)` gives each picture, its label being the alt text.

    Displays nothing where the notebook is executed to be stored or tested (one of the variables of STATIC is set in the
    environment), so that no widget is ever saved: outputs of `chapters.py run` and of nbval are both empty.
    """
    if any(name in os.environ for name in STATIC):
        return
    try:
        import ipywidgets
    except ImportError:
        print("The live slider needs ipywidgets: pip install ipywidgets")
        return
    from IPython.display import display

    from mbib_core.figures import CARD, SHOWN

    handle = ipywidgets.FloatSlider(
        value=value,
        min=low,
        max=high,
        step=step,
        description=label,
        layout={"width": "100%"},
        style={"description_width": "initial"},
    )
    page = ipywidgets.HTML()

    def turn(_: object = None) -> None:
        figure = draw(handle.value)
        [alt] = _own_words([figure])
        drawn = BytesIO()
        figure.savefig(drawn, dpi=1.5 * SHOWN, facecolor=CARD)  # quicker than the page's pictures
        size = f'width="{_shown_width(figure)}" style="max-width:100%;height:auto"'
        page.value = f'<img alt="{escape(alt)}" src="{_data_uri(drawn.getvalue())}" {size}>'

    handle.observe(turn, names="value")
    turn()
    display(ipywidgets.VBox([handle, page], layout={"max_width": "36em"}))


def _own_words(figures: "Sequence[Figure]") -> list[str]:
    return [str(figure.get_label()) for figure in figures]


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _shown_width(figure: "Figure") -> int:
    from mbib_core.figures import SHOWN

    return round(figure.get_size_inches()[0] * SHOWN)
