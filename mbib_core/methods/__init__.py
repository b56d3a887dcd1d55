"""The table of methods, what was chosen on validation images, and how settings are filled in from both."""

from dataclasses import replace
from typing import Any

from mbib_core.augmentation import AUGMENTATIONS
from mbib_core.checks import check_settings
from mbib_core.learners import Learner
from mbib_core.methods.balanced import BALANCED
from mbib_core.methods.bottlenecks import BOTTLENECKS
from mbib_core.methods.contrast import CONTRAST, succeed
from mbib_core.methods.experts import EXPERTS
from mbib_core.methods.method import Method, Stage, nothing
from mbib_core.methods.paper import PAPER, shared_alphas
from mbib_core.methods.staged import STAGED
from mbib_core.networks.imagenet import TIMM, check_backbone
from mbib_core.networks.pretrained import name_of
from mbib_core.networks.resnet import even_taps
from mbib_core.schedules import OVERRIDES, schedule_of, usual_schedule
from mbib_core.settings import Settings, Value, check_range, named

__all__ = ["CHOSEN", "FAMILIES", "METHODS", "Method", "Stage", "method_of", "methods_on", "settle", "shared_alphas"]

FAMILIES: dict[str, dict[str, Method]] = {
    "the paper": PAPER,
    "re-balancing": BALANCED,
    "two stages": STAGED,
    "experts": EXPERTS,
    "bottlenecks": BOTTLENECKS,
    "teachers and contrast": CONTRAST,
}
METHODS: dict[str, Method] = {name: row for rows in FAMILIES.values() for name, row in rows.items()}

# What was chosen on validation images of a data set, by the rule of the chapter on ablations and from the records of
# CIFAR-100-LT, factor 100, in book/results. All other data keep the starting points.
CHOSEN: dict[str, dict[str, Value]] = {"cifar100-lt": {"k": 0.1}}

# Schedules of data that have one of their own; on Places-LT published networks start from pretrained weights.
USUAL = {"imagenet-lt": "imagenet-lt", "inaturalist18": "inaturalist", "places-lt": "finetune"}


def methods_on(data: str) -> dict[str, Method]:
    """`METHODS` with the settings that were chosen on the data set `data`, in the rows that share them with MBIB."""
    chosen = CHOSEN.get(data, {})
    return {
        name: replace(row, own={**row.own, **{s: value for s, value in chosen.items() if s in row.shared}})
        for name, row in METHODS.items()
    }


def settle(settings: Settings) -> Settings:
    """`settings` with every empty value filled in, as it is trained, recorded and hashed.

    What is asked for and is the schedule's anyway is left empty, so that it names the same run. Raises ValueError with
    a sentence on an unknown method, schedule, backbone, precision or purpose, on a setting that the method does not
    have, and on values out of range; what `pretrained.name_of` raises on weights that are not there.
    """
    method = named(methods_on(settings.data), settings.method, "method")
    if strange := [name for name in settings.own if name not in method.own]:
        raise ValueError(f"{settings.method} has no {strange[0]}: leave it out")
    usual = "folder" if settings.own_pictures else {"glyphs-lt": "glyphs"}.get(settings.data, "paper")
    usual = "finetune" if settings.pretrained else USUAL.get(settings.kind, usual)
    schedule = usual_schedule(settings.schedule or usual, settings.backbone)
    taps = settings.taps if settings.taps is not None else method.parts.taps
    own: dict[str, Any] = {**method.own, **settings.own}
    if taps != method.parts.taps:
        if "alphas" not in method.own or method.parts.experts:
            plural = "s" * (method.parts.taps > 1)
            raise ValueError(f"{settings.method} has {method.parts.taps} observation{plural}: leave taps out")
        own["alphas"] = settings.own.get("alphas", shared_alphas(taps))
    filled: dict[str, Any] = {"schedule": settings.schedule or usual, "taps": taps, "own": own}
    filled |= {"head": None} if settings.head == method.parts.head else {}
    filled["epochs"] = settings.epochs if settings.epochs is not None else schedule.epochs
    filled |= {name: None for name in (*OVERRIDES, "size") if getattr(settings, name) == getattr(schedule, name)}
    filled["stream"] = stream = settings.stream or settings.kind not in ("", "folder")
    if stream and settings.augmentation is None and not AUGMENTATIONS[schedule.augmentation].streams:
        filled["augmentation"] = "resized-crop"
    settled = replace(settings, **filled)
    if settings.pretrained:
        if not (backbone := schedule_of(settled).backbone):
            raise ValueError("pretrained weights are those of a backbone: name it, as with --backbone resnet50")
        settled = replace(settled, pretrained=name_of(settings.pretrained, backbone))
    _check(settled, method)
    return settled


def method_of(settings: Settings) -> Method:
    """The method of settled `settings`, on their network and with their values in place of the row's."""
    row = named(METHODS, settings.method, "method")
    schedule, taps = schedule_of(settings), settings.taps or row.parts.taps
    parts = replace(row.parts, depth=schedule.depth, backbone=schedule.backbone, taps=taps)
    parts = replace(parts, head=settings.head or parts.head)
    return replace(row, parts=parts, own=settings.own)


def _check(s: Settings, method: Method) -> None:
    for name, value in s.plain().items():
        if value is not None and name not in ("imbalance", "alphas"):
            check_range(name, value)
    for name in OVERRIDES:
        if getattr(s, name) is not None and all(name in stage.recipe for stage in method.stages):
            raise ValueError(f"{s.method} has a {name} of its own in every stage: leave it out")
    balance: dict[str, Any] = {name: s.own[name] for name in ("alphas", "beta", "k", "gamma") if name in s.own}
    check_settings(**balance)
    observations = 1 if s.taps is None else s.taps
    schedule = schedule_of(s)
    _check_trunk(s, method, observations)
    if method.parts.picture and (schedule.scale(0, 100) < 1 or s.size not in (None, 32)):
        raise ValueError(
            f"{s.method} observes the picture itself, of 32 x 32 pixels: ask for another schedule than "
            f"{s.schedule} and leave size out"
        )
    plain = method.learner.forward is Learner.forward and all(stage.second is None for stage in method.stages)
    if AUGMENTATIONS[schedule.augmentation].mix and not plain:
        raise ValueError(
            f"{schedule.augmentation} gives every image two labels, which {s.method} cannot take, as it compares "
            f"images or has two batches: ask for another augmentation, such as cutout"
        )
    _check_head(s, method)
    _check_stream(s, method)
    if "alphas" in s.own and len(s.alphas) != observations - 1:
        raise ValueError(f"{s.taps} observations need {observations - 1} alphas, not {len(s.alphas)}: {s.alphas}")
    if s.own_pictures and s.imbalance != Settings().imbalance:
        kind = "arrays" if s.folder is None else "a folder" if s.kind == "folder" else "a list"
        raise ValueError(f"imbalance does not apply to {kind}, whose own counts are the long tail: leave it out")
    if s.test_curve and s.purpose == "choosing":
        raise ValueError("a run for choosing never sees the test set: leave test_curve out")
    if s.size is not None and s.folder is None:
        raise ValueError(f"size is that of a folder's images: leave it out for {s.data}")


def _check_stream(s: Settings, method: Method) -> None:
    """Images that are read while training are cropped where they are read, others in memory."""
    can = [name for name, augmentation in AUGMENTATIONS.items() if augmentation.streams]
    if s.stream and s.folder is None and s.pictures is None:
        raise ValueError(f"stream is for images of your own: leave it out for {s.data}")
    own = [str(stage.recipe.get("augmentation", "none")) for stage in method.stages]
    if s.stream and (strange := [name for name in own if name not in can]):
        raise ValueError(
            f"{s.method} trains with {strange[0]}, which images that are read while training cannot have: take another "
            f"method, or a folder without --stream"
        )
    if s.stream and s.augmentation is not None and s.augmentation not in can:
        raise ValueError(
            f"{s.augmentation} is for images in memory; those that are read while training can have {', '.join(can)}"
        )
    if not s.stream and s.augmentation is not None and AUGMENTATIONS[s.augmentation].resized:
        raise ValueError(
            f"{s.augmentation} is for images that are read while training: say --stream with a folder, or leave it out"
        )


def _check_head(s: Settings, method: Method) -> None:
    """Other classifiers are for methods that do nothing with theirs but take a loss of the logits."""
    first, *more = method.stages
    untouched = {first.begin, first.each_epoch, first.end} == {nothing} and first.ascent is None
    if s.head and (more or not untouched or method.learner is not Learner or method.parts.head != "linear"):
        raise ValueError(
            f"{s.method} has stages or classifiers of its own, which {s.head} ones would not fit: leave head out"
        )


def _check_trunk(s: Settings, method: Method, observations: int) -> None:
    schedule, parts = schedule_of(s), method.parts
    if (parts.experts or parts.picture) and (schedule.backbone or schedule.trunk_rate != 1):
        alike = ", ".join(name for name, row in METHODS.items() if row.parts.experts or row.parts.picture)
        raise ValueError(
            f"{s.method} is built on the CIFAR ResNet and takes no backbone, pretrained or trunk_rate, asked for or "
            f"from the schedule {s.schedule} (folder has none); so are {alike}"
        )
    if schedule.frozen and not s.pretrained:
        raise ValueError(
            f"frozen {schedule.frozen:g} keeps a pretrained backbone as it is: name its weights, as with --pretrained "
            f"default, or say --frozen 0"
        )
    kept = "pretrained weights" if s.pretrained else "timm's networks" if schedule.backbone.startswith(TIMM) else ""
    if kept and any(stage.begin is succeed for stage in method.stages):
        raise ValueError(f"{s.method} draws its second network anew, which it cannot do with {kept}: leave them out")
    if not schedule.backbone:
        even_taps(schedule.depth, observations - parts.picture)
    elif s.depth is not None:
        raise ValueError(
            f"depth is that of the CIFAR ResNet, in place of which there is {schedule.backbone}: leave it out"
        )
    else:
        check_backbone(schedule.backbone, observations)
