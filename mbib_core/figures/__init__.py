"""The book's pictures: functions of arrays that return a Figure, in one style, and `show`, which puts one on the page.

`style` has the look and the shared parts, `charts` curves and bars of plain numbers, `classes` data sets and accuracy
by class, `features` what a network says and its features, `theory` the pictures of the theory chapters, `diagrams` the
networks. Training needs nothing of this package.
"""

from mbib_core.figures.charts import (
    accuracy_and_cost,
    bands,
    forest,
    grouped_bars,
    heat_map,
    learning_curves,
    lines,
    moved_boundaries,
    named_marks,
    paired_differences,
    reliability,
    score_map,
    sweep,
    with_intervals,
)
from mbib_core.figures.classes import accuracy_by_class, class_counts, contact_sheet, predicted_shares
from mbib_core.figures.diagrams import three_teachers, two_classifiers
from mbib_core.figures.features import Plane, differences_by_class, planes, runs_as_points
from mbib_core.figures.front import who_gains
from mbib_core.figures.style import CARD, COLOURS, FAINT, INK, NAMES, SHOWN, caption_of, png, show, styled
from mbib_core.figures.theory import (
    bottleneck,
    boundary_paths,
    changes_by_loss,
    class_regions,
    digit_plane,
    encoder_plane,
    information_plane,
    posterior_curves,
    teacher_and_student,
)
