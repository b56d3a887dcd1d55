"""The figures that the reader moves: their numbers against Python's own, and how they behave in a browser."""

import re
from html import escape
from pathlib import Path

import numpy as np
import pytest
import torch

from mbib_core import losses, moving
from mbib_core.information import information_bottleneck

HUES, OWN = np.arange(0, 360, 60), np.array([0, 120, 240])
LOOKS = np.exp(3 * np.cos(np.radians(HUES - OWN[:, None])))
LOOKS /= LOOKS.sum(1, keepdims=True)
WORLD, EVEN = LOOKS.T * np.array([100, 10, 1]) / 111, LOOKS.T / 3
BETAS = [0.05, 0.2, 0.4, 0.6, 0.95]
CENTRES = np.array([[-1.2, -0.7], [1.2, -0.7], [0.0, 1.4]])
COUNTS = [100, 30, 10, 4, 2, 1]
RANDOM = np.random.default_rng(0)
SAYS = RANDOM.dirichlet(np.ones(6), (2, 3))


def plane(**more):
    names = {"inputs": [f"{h}°" for h in HUES], "outputs": ["poppy", "moss", "gentian"], "hues": (HUES, OWN)}
    worlds = {"tail": WORLD, "even": EVEN}
    moving.information_plane(worlds, **names, betas=BETAS, start=0.2, finding="Gentian is lost first.", **more)


def regions(**more):
    names = ["head", "middle", "tail"]
    moving.regions(CENTRES, names, counts=(1000, 100, 10), exponent=0.5, finding="The tail's region shrinks.", **more)


def by_class(**more):
    large = {"ce": [0.9, 0.5, 0], "mbib": [0.8, 0.6, 0.3]}
    small = {"ce": [1, 0.25], "mbib": [0.9, 0.75], "mine": [0, 0]}
    sets = {
        "large": {"counts": [500, 50, 5], "names": ["a_b", "c", "d"], "methods": large},
        "small": {"counts": [9, 3], "methods": small, "runs": {"ce": 5}, "means": {"mbib": {"few": 82.25}}},
    }
    moving.by_class(sets, finding="The tail gains.", **more)


def teachers(**more):
    pictures = RANDOM.integers(0, 256, (2, 3, 4, 4), dtype=np.uint8) * 0 + 7
    asked = {"names": list("ABCDEF"), "counts": COUNTS, "alphas": (0.1, 0.3), "beta": 2.0, "k": 0.5}
    moving.teachers(SAYS, [5, 3], **asked, pictures=pictures, finding="The label wins.", **more)


FIGURES = {function.__name__: function for function in (plane, regions, by_class, teachers)}


def shown_by(function, **more) -> list:
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("IPython.display.display", lambda thing, **_: shown.append(thing))
        function(**more)
    return shown


@pytest.fixture(scope="module")
def htmls():
    return {name: shown_by(function)[0]["text/html"] for name, function in FIGURES.items()}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_one_output_the_same_bytes_again_and_needs_nothing_from_elsewhere(name, htmls):
    [data] = shown_by(FIGURES[name])
    assert set(data) == {"text/html", "text/plain"}
    assert data["text/html"] == htmls[name]
    assert escape(data["text/plain"]) in htmls[name]
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)|//cdn|\bid=|\beval\b|innerHTML", htmls[name])
    assert len(htmls[name]) < 20_000


def test_each_figure_has_its_own_key_and_a_caption_where_it_is_asked_for(htmls):
    assert len({re.search(r'data-moving="(\w+)"', html)[1] for html in htmls.values()}) == len(htmls)
    _, caption = shown_by(plane, caption="**All is lost.**", name="fig-plane")
    assert caption.data == "Figure: **All is lost.**<!-- fig-plane -->"


def test_a_closing_tag_in_a_text_does_not_end_the_script():
    html = moving.moving_html("classes", {"x": "</script>"}, label="a & b", finding="<b>")
    assert html.count("</script>") == 1
    assert 'aria-label="a &amp; b"' in html
    assert "&lt;b&gt;" in html


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: moving.moving_html("plane", {}, label=" ", finding="x"), "must say something"),
        (lambda: moving.regions(CENTRES, ["a", "b"], counts=(1, 1, 1), finding="x"), "for the same classes"),
        (lambda: moving.regions(CENTRES, list("abc"), counts=(1, 1, 9999), finding="x"), "from 1 to 1000"),
        (lambda: moving.by_class({"s": {"counts": [1, 2], "methods": {"ce": [1]}}}, finding="x"), "as many"),
        (lambda: moving.by_class({"s": {"counts": [1], "methods": {"ce": [1]}}}, finding="x"), "no accuracies of mbib"),
        (
            lambda: moving.teachers(SAYS, [1], names="ABCDEF", counts=COUNTS, alphas=(0, 0), beta=1, finding="x"),
            "1 targets",
        ),
        (
            lambda: moving.information_plane({"w": WORLD}, inputs="ab", outputs="abc", hues=([0, 1], OWN), finding="x"),
            "are for 2 x 3",
        ),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module", params=["light", "dark"])
def scheme(request):
    return request.param


@pytest.fixture(scope="module")
def page(browser, htmls, scheme, tmp_path_factory):
    """All figures, the first one twice, on a telephone with the network cut."""
    file = tmp_path_factory.mktemp("moving") / "page.html"
    head = "<!doctype html><html lang='en'><meta charset='utf-8'><title>t</title><style>:root{color-scheme:light dark}"
    body = "<style>h2{font:1rem serif}</style><main><h1>f</h1>"
    html = "".join(f"<section id='{name}'>{text}</section>" for name, text in htmls.items())
    file.write_text(f"{head}</style>{body}{html}<section id='twin'>{htmls['plane']}</section></main>", encoding="utf-8")
    context = browser.new_context(color_scheme=scheme, has_touch=True, viewport={"width": 375, "height": 800})
    context.set_offline(True)
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(file.as_uri())
    yield page
    assert page.errors == []
    context.close()


def words(figure) -> str:
    return " ".join(one.inner_text() for one in figure.locator("[role=status]").all()).strip()


def rows(figure) -> dict[str, list[str]]:
    """The figure's table: by its first column."""
    found = [row.locator("th, td").all_inner_texts() for row in figure.locator("tbody tr").all()]
    return {first: [one.strip() for one in rest] for first, *rest in found}


def move(figure, label: str, to: int) -> None:
    figure.get_by_role("slider", name=label).evaluate(
        "(input, to) => { input.value = to; input.dispatchEvent(new Event('input')); }", to
    )


def test_nothing_is_wider_than_a_telephone_and_the_words_for_the_eye_are_those_for_the_ear(page):
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    assert page.locator(".moving-still").count() == 0
    for name in FIGURES:
        figure = page.locator(f"#{name}")
        assert words(figure)
        assert all(image.get_attribute("aria-label") for image in figure.locator("svg").all())
        for control in figure.locator("input[type=range], select").all():
            assert control.evaluate("one => one.labels[0].textContent.trim()")
        for slider in figure.locator("input[type=range]").all():
            said = slider.evaluate("one => one.parentNode.querySelector('output').textContent")
            assert slider.get_attribute("aria-valuetext") == said


def test_the_point_of_the_plane_moves_by_key_by_mouse_and_by_finger(page):
    figure, twin = page.locator("#plane"), page.locator("#twin")
    before = words(twin)
    handle = figure.get_by_role("slider", name="price β")
    heard = []
    handle.focus()
    page.keyboard.press("Home")
    for _ in BETAS:
        heard.append((handle.get_attribute("aria-valuetext"), words(figure)))
        page.keyboard.press("ArrowRight")
    assert [value for value, _ in heard] == ["β = 0.050", "β = 0.20", "β = 0.40", "β = 0.60", "β = 0.95"]
    assert len({said for _, said in heard}) == len(BETAS)
    assert heard[-1][1].endswith("with one code word. It says nothing.")
    grip = figure.locator("circle.grab").bounding_box()
    middle = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 250, middle[1] - 150, steps=4)
    page.mouse.up()
    assert handle.get_attribute("aria-valuetext") == "β = 0.050"
    picture = figure.get_by_role("img", name=re.compile("information plane")).bounding_box()
    page.touchscreen.tap(picture["x"] + 45, picture["y"] + picture["height"] - 50)
    assert handle.get_attribute("aria-valuetext") == "β = 0.95"
    assert words(twin) == before


def test_the_plane_shows_the_optimum_of_the_world_that_is_chosen(page):
    figure = page.locator("#plane")
    figure.get_by_role("radio", name="even").check()
    move(figure, "price β", 1)
    ib = information_bottleneck(EVEN, 0.2)
    assert f"keeps {ib.i_xt:.2f} of" in words(figure)
    assert f"tells {ib.i_ty:.2f} of" in words(figure)
    figure.get_by_role("radio", name="tail").check()
    ib = information_bottleneck(WORLD, 0.2)
    assert f"keeps {ib.i_xt:.2f} of" in words(figure)
    told = figure.get_by_role("img", name=re.compile("encoder")).get_attribute("aria-label")
    assert told.count(" as ") == (ib.q_t_given_x.sum(0) > 1e-6).sum()
    shares = dict(one.split()[:2] for one in figure.locator("li").all_inner_texts())
    assert min(shares, key=lambda flower: int(shares[flower])) in words(figure)


def kept(log_factors) -> list[float]:
    """In per cent, by a sum over a fine grid that is wide enough."""
    x = np.arange(-9, 9, 0.02) + 0.01
    grid = np.stack(np.meshgrid(x, x), -1)
    log_p = -0.5 * ((grid[:, :, None] - CENTRES) ** 2).sum(-1)
    best = (log_p + log_factors).argmax(-1)
    return [100 * float(np.exp(log_p[..., i])[best == i].sum()) * 0.02**2 / (2 * np.pi) for i in range(3)]


def test_the_regions_keep_what_an_integral_says_and_the_balanced_ones_stay(page):
    figure = page.locator("#regions")
    for steps, k in (([60, 40, 20], 5), ([60, 0, 60], 0), ([40, 40, 40], 0)):
        for label, step in zip(("head", "middle", "tail"), steps, strict=True):
            move(figure, f"n of {label}", step)
        move(figure, "weight exponent k", k)
        n = np.round(10 ** (np.array(steps) / 20))
        expected = zip(kept(np.log(n)), kept(-k / 10 * np.log(n)), strict=True)
        for (count, *shares), size, truth in zip([*rows(figure).values()][:3], n, expected, strict=True):
            assert count == f"{size:.0f}"
            assert [float(share.removesuffix(" %")) for share in shares] == pytest.approx(truth, abs=0.15)
    assert "both losses draw the same borders" in words(figure)


def test_two_methods_are_compared_in_words_and_a_class_can_be_picked(page):
    figure = page.locator("#by_class")
    assert rows(figure) == {
        "many (1)": ["80.0", "90.0", "−10.0"],
        "medium (1)": ["60.0", "50.0", "+10.0"],
        "few (1)": ["30.0", "0.0", "+30.0"],
        "all (3)": ["56.7", "46.7", "+10.0"],
    }
    assert "10.0 lower on many-shot classes" in words(figure)
    assert "Of 3 classes, MBIB is higher on 2 and lower on 1." in words(figure)
    figure.get_by_role("combobox", name="class", exact=True).select_option("a b (500)")
    assert "a b, 500 training images: MBIB 80 % and cross-entropy 90 %." in words(figure)
    figure.get_by_role("combobox", name="data", exact=True).select_option("small")
    figure.get_by_role("combobox", name="method", exact=True).select_option("mine")
    assert rows(figure) == {"few (2)": ["0.0", "62.5", "−62.5"], "all (2)": ["0.0", "62.5", "−62.5"]}
    assert "cross-entropy (5 runs)" in words(figure)
    figure.get_by_role("combobox", name="method", exact=True).select_option("MBIB")
    assert rows(figure)["few (2)"] == [f"{82.25:.1f}", "62.5", f"+{82.25 - 62.5:.1f}"], "the text's mean, as it rounds"
    figure.get_by_role("combobox", name="data", exact=True).select_option("large")  # which has no "mine"
    figure.get_by_role("combobox", name="method", exact=True).select_option("MBIB")
    assert rows(figure)["few (1)"] == ["30.0", "0.0", "+30.0"]


def test_a_figure_rounds_as_the_text_does(page):
    kit = (Path(moving.__file__).parent / "kit.js").read_text(encoding="utf-8").rstrip(";\n")
    numbers = [7.25, 7.35, 41.65, 0.5, 1.5, 2.5, -0.25, 9.95, 99.95, 0.05, 1 / 3, 2.675, 1e-9, 0, 62.5, 12345.125]
    for digits in (0, 1, 2):
        rounded = page.evaluate(f"([all, digits]) => all.map(v => ({kit})(null).fixed(v, digits))", [numbers, digits])
        assert rounded == [f"{v:.{digits}f}" for v in numbers]


def percent(share: float) -> str:
    return "<1 %" if share < 0.5 else ">99 %" if share > 99.5 else f"{share:.0f} %"


@pytest.mark.equation(12)
@pytest.mark.parametrize(("alphas", "beta"), [((0.1, 0.3), 2.0), ((0.5, 0.5), 0.5), ((0.0, 0.0), 8.0)])
def test_the_best_z_is_the_minimum_of_the_loss_itself(page, alphas, beta):
    figure = page.locator("#teachers")
    for label, to in (("share of v₁", 0), ("share of v₂", 0), ("distillation", 10 * beta)):
        move(figure, label, int(to))
    for label, alpha in zip(("share of v₁", "share of v₂"), alphas, strict=True):
        move(figure, label, round(100 * alpha))
    z = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    v = [torch.tensor(p).log()[None] for p in SAYS[0]]
    options = {"line_search_fn": "strong_wolfe", "tolerance_grad": 1e-10, "tolerance_change": 0}
    search = torch.optim.LBFGS([z], max_iter=500, **options)

    def closure():
        search.zero_grad()
        weighted = {"counts": torch.tensor(COUNTS), "alphas": alphas, "beta": beta, "k": 0.5}
        loss = losses.mbib(v, z, torch.tensor([5]), **weighted, reduction="sum")
        loss.backward()
        return loss

    search.step(closure)
    best = 100 * z.detach().softmax(1)[0]
    found = rows(figure)
    mean = 100 * np.array([*alphas, 1 - sum(alphas)]) @ SAYS[0]
    for i, name in enumerate("ABCDEF"):
        label = f"{name} ({COUNTS[i]})" + " ✓" * (name == "F")
        if label in found:
            assert found[label][3:] == [percent(mean[i]), percent(float(best[i]))]
    assert f"the best z gives F {best[5]:.0f} %" in words(figure)


def test_shares_of_observations_never_exceed_one(page):
    figure = page.locator("#teachers")
    move(figure, "share of v₂", 80)
    move(figure, "share of v₁", 60)
    assert "weights 0.60, 0.40, 0.00" in words(figure)
    assert figure.get_by_role("slider", name="share of v₂").get_attribute("aria-valuetext") == "α₂ = 0.40"


def test_axe_finds_nothing(page):
    base = pytest.importorskip("axe_playwright_python.base")
    page.evaluate(base.AXE_SCRIPT)
    found = page.evaluate("axe.run('main', {resultTypes: ['violations']})")["violations"]
    assert [(one["id"], node["html"], node["failureSummary"]) for one in found for node in one["nodes"]] == []


def test_on_paper_the_figure_stays_and_what_moves_it_goes(page):
    page.emulate_media(media="print")
    for name in FIGURES:
        figure = page.locator(f"#{name}")
        assert not any(control.is_visible() for control in figure.locator("input, select").all())
        assert words(figure)
    assert page.locator("#plane svg").first.is_visible()
    page.emulate_media(media="screen")


def test_without_scripts_the_finding_is_read(browser, htmls, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(f"<!doctype html><meta charset='utf-8'>{htmls['regions']}", encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator(".moving").inner_text() == "The tail's region shrinks."
    context.close()
