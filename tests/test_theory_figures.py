"""The pictures of the theory chapters say what they show, and names at the ends of lines do not touch."""

import numpy as np
import pytest

from mbib_core import figures
from mbib_core.figures import style
from mbib_core.figures.garden import DASHES
from mbib_core.information import information_bottleneck

HUES, OWN, NAMES = np.arange(0, 360, 30), np.arange(0, 360, 60), list("abcdef")


def joint(counts):
    looks = np.exp(4 * np.cos(np.radians(HUES - OWN[:, None])))
    return (looks / looks.sum(1, keepdims=True)).T * counts / np.sum(counts)


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_wheel_says_which_hues_share_a_word():
    p, merged = joint(np.ones(6)), np.eye(6)[np.arange(12) // 2]
    figure = figures.colour_wheel(HUES, OWN, NAMES, {"pairs": (np.ones(6, int), p, merged)})
    assert "6\nwords" in texts(figure)
    assert "6 words; these hues share one: 0° and 30°; 60° and 90°" in figure.get_label()
    every = figures.colour_wheel(HUES, OWN, NAMES, {"all": (np.ones(6, int), p, np.eye(12))})
    assert "12 words; these hues share one: none" in every.get_label()


def test_bars_of_a_posterior_are_whole_and_named():
    p = joint(np.array([100, 40, 16, 6, 2, 1]))
    figure = figures.posterior_bars(HUES, OWN, NAMES, {"tail": p})
    widths = np.array([bar.get_width() for bars in figure.axes[0].containers for bar in bars]).reshape(6, 12)
    np.testing.assert_allclose(widths.sum(0), 100)
    assert "f 6 %" in figure.get_label() or "f 7 %" in figure.get_label()


def test_names_at_the_ends_of_lines_do_not_touch():
    series = {name: np.linspace(0, end, 9) for name, end in {"a": 1.0, "b": 1.001, "c\nc": 0.999, "d": 0.2}.items()}
    figure = figures.named_lines(np.arange(9), series, xlabel="x", ylabel="y", finding="lines")
    figures.png(figure)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 4 <= len(DASHES)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_bands_are_means_and_ranges():
    values = np.array([[1.0, 3.0], [2.0, 6.0]])
    figure = figures.named_lines([0.1, 0.5], {"a": values}, xlabel="x", ylabel="y", finding="f", evenly=True)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [2, 4])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [".1", ".5"]


def test_changes_have_their_interval_in_words():
    runs = {"base": np.array([1.0, 1.1, 0.9, 1.0]), "other": np.array([0.5, 0.6, 0.4, 0.5])}
    figure = figures.changes_by_loss({"case": runs}, baseline="base", xlabel="change")
    assert "−0.50" in texts(figure)
    assert "other, case −0.50 (−0.64 to −0.36)" in figure.get_label()
    assert style.plain("BIB: $L_z + 4\\,L_{VSD}$") == "BIB: L_z + 4 L_VSD"


def test_the_worst_and_the_reference_are_in_the_words_of_a_picture_by_size():
    kept = np.array([[0.9, 0.5], [0.7, 0.3]])
    figure = figures.kept_by_size([100, 1], kept, reference=0.6, reference_name="fair", ylabel="kept (%)")
    assert "80 % of one of 100 images, 40 % of one of 1 images. fair: 60 %" in figure.get_label()


@pytest.mark.parametrize("draw", [figures.note_chain, figures.two_areas, figures.vib_network])
def test_a_drawing_says_what_it_shows(draw):
    figure = draw()
    assert len(figure.get_label()) > 100
    assert len(figures.png(figure)) > 5000


def test_the_planes_stay_within_reach_and_the_encoders_are_named():
    z, digits = np.random.default_rng(0).normal(0, 9, (50, 2)), np.arange(50) % 10
    figure = figures.digit_planes({"one": (z, digits), "two": (z / 9, digits)}, reach=5, finding="planes")
    reached = [np.abs(spots.get_offsets()).max() for spots in figure.axes[0].collections]
    assert max(reached) <= 5
    ib = information_bottleneck(joint(np.ones(6)), 0.3)
    assert ib.i_ty > 0
    plane = figures.encoder_plane([(0.1, 0.2), (0.3, 0.1)], {"copy": (0.0, 1.0)}, finding="encoders")
    assert "copy" in texts(plane)
