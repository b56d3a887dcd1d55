"""The book's pictures: functions of arrays that return a Figure, in one style, and `show`, which puts one on the page.

`style` has the look and the shared parts, `charts` curves, bars and intervals of plain numbers, `classes` data sets
and accuracy by class, `features` what a network says and its features, `front` the front page's picture, `tails` and
`decisions` the pictures of the first two chapters, `garden` and `theory` those of the theory, `diagrams` the networks,
`teaching` who teaches whom in them, `recipes` those of the last chapter. Training needs nothing of this package.
"""

from mbib_core.figures.charts import (
    accuracy_and_cost,
    forest,
    lines,
    moved_boundaries,
    reliability,
    score_map,
    with_intervals,
)
from mbib_core.figures.classes import (
    accuracy_by_class,
    predicted_shares,
)
from mbib_core.figures.decisions import (
    boundary_paths,
    calibration_bins,
    class_regions,
    curves_by_examples,
    region_shares,
    stacked_posteriors,
    three_regions,
    tilt,
)
from mbib_core.figures.diagrams import (
    three_teachers,
    two_classifiers,
)
from mbib_core.figures.features import (
    Card,
    Plane,
    against_rho,
    along_the_tail,
    many_to_few,
    photographs,
    planes,
    ranked,
    reliabilities,
    tempered,
)
from mbib_core.figures.front import (
    who_gains,
)
from mbib_core.figures.garden import (
    colour_wheel,
    hue_colour,
    kept_by_size,
    named_lines,
    note_chain,
    posterior_bars,
    two_areas,
)
from mbib_core.figures.recipes import (
    accuracy_by_price,
    rows_of_images,
)
from mbib_core.figures.style import (
    CARD,
    COLOURS,
    FAINT,
    INK,
    NAMES,
    SHOWN,
    caption_of,
    png,
    show,
    styled,
)
from mbib_core.figures.tails import (
    class_counts,
    evidence,
    runs_by_part,
    seen_and_right,
    taken_for,
    three_bars,
    two_tests,
)
from mbib_core.figures.teaching import (
    by_group,
)
from mbib_core.figures.theory import (
    changes_by_loss,
    digit_plane,
    digit_planes,
    encoder_plane,
    information_plane,
    posterior_curves,
    teacher_and_student,
    vib_network,
)
