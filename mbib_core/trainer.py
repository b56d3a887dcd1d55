"""The loop: stages, epochs and steps of any method; precision, schedule, resume, several processes."""

import math
import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from mbib_core.augmentation import AUGMENTATIONS
from mbib_core.averages import LATE, averaged, put_into
from mbib_core.batches import Draws, Source, draw, seed_of, source_of
from mbib_core.checkpoints import Saver, read_checkpoint, restore
from mbib_core.checks import check_settings
from mbib_core.data.longtailed import Images, LongTailed, first_of_each_class
from mbib_core.devices import autocast, full_float32, pick_device, pick_precision, readers, threads
from mbib_core.evaluation import accuracies, all_finite, answers, answers_together, of_kind
from mbib_core.learners import Learner
from mbib_core.methods import Method, method_of, settle
from mbib_core.networks import default_prediction
from mbib_core.networks.pretrained import Trunk, file_of, read_trunk
from mbib_core.ranks import average_statistics, mean_over_ranks, ranks_here, synchronise, together
from mbib_core.results import commit_of_code
from mbib_core.schedules import schedule_of
from mbib_core.settings import Settings
from mbib_core.steps import Captured, Step, epoch_of, graph_on, obstacle, optimizer_for, set_trained, train_mode
from mbib_core.weights import Saved

CURVE_POINTS = 20  # how often, at the most, a run is scored on validation images while it trains
CURVE_IMAGES = 20  # of each class, the first ones


@dataclass
class Trained(Saved):
    """What training leaves: the network in evaluation mode, and the road there."""

    history: dict[str, list[Any]] = field(default_factory=dict)
    precision: str = "float32"
    seconds: float = 0.0
    commits: list[str] = field(default_factory=list)
    compiled: bool = False
    captured: bool = False
    ranks: int = 1
    sync_bn: bool = False


def train(
    settings: Settings,
    data: LongTailed,
    *,
    device: str | torch.device | None = None,
    checkpoint: Path | None = None,
    progress: bool = True,
    compiled: bool = False,
    sync_bn: bool = False,
    captured: bool = True,
    workers: int | None = None,
    pretrained: Path | None = None,
) -> Trained:
    """Trains the method of `settings` on `data.train` and returns the network after the last epoch.

    `device` is a GPU if there is one. With a `checkpoint` file the run is saved after every epoch and resumes from
    there when it is called again; on one thread of the same machine a run that was killed ends in the same bits as one
    that was not. `compiled` compiles the network first, which can take minutes, and makes the steps faster; where that
    fails the run warns and trains as usual. A resumed run keeps its precision and compilation. On a GPU steps are
    `captured` as CUDA graphs where they can be (`steps.Captured`), and launched as one.

    Pictures that are not in memory are read by `workers` processes, 0: by this one (default: the cores of this process
    but one, 8 at most); the bits are the same.

    Where the settings name pretrained weights, the backbone starts from them, and images are normalised as theirs were.
    If they name them by their SHA-256 alone, `pretrained` is the file; a run that is resumed needs it no more.

    In a process group of `torch.distributed` every process takes its share of each batch, and the step is that of the
    whole batch; only the first one writes. Batch norm in training is of each process's own share, and its running
    statistics are averaged after each epoch; with `sync_bn` it is of the whole batch, too, and the run ends where one
    process alone would, but for rounding. A resumed run keeps to what it began with.

    The history has the mean `loss` and the `rate` of every epoch, and at `curve_epoch` the `curve`: accuracy by shot
    on the first 20 validation images of each class, of the default prediction; with the setting `test_curve` also that
    on all test images after every epoch, which nothing is chosen by. Where the settings ask for an `average`
    of the weights, each stage ends in its average, which loss and curve do not show.

    Raises ValueError on bad settings, on data of another name than the settings' or a checkpoint of another run,
    TypeError on settings that are no Settings, FloatingPointError if the loss or an output is not finite, OSError if
    the checkpoint cannot be written.
    """
    asked, settings = settings, settled_on(settings, data)
    method, schedule = method_of(settings), schedule_of(settings)
    plan = method.plan(int(settings.epochs or 0))
    device, rank, ranks = pick_device(device), *ranks_here()
    started = time.perf_counter()
    saved = read_checkpoint(checkpoint, settings, ranks) if checkpoint else None
    before = float(saved["seconds"]) if saved else 0.0
    wanted = settings.precision if settings.precision != "auto" else schedule.precision
    precision = saved["precision"] if saved else pick_precision(wanted, device)
    cards = [device] if device.type == "cuda" else []
    reading, showing, saver = ExitStack(), ExitStack(), Saver(checkpoint if rank == 0 else None)
    with (
        threads(settings.threads),
        full_float32(),
        torch.random.fork_rng(devices=cards),
        readers(workers),
        reading,
        showing,
        saver,
    ):
        if saved and precision == "bfloat16" and pick_precision("auto", device) == "float32":
            warnings.warn(
                f"this run began in bfloat16, which this CPU can only emulate, many times slower: resume it on a CPU "
                f"that computes it, or delete {checkpoint} to start anew in float32",
                stacklevel=2,
            )
        trunk = None
        if settings.pretrained and not saved:
            trunk = read_trunk(settings.pretrained, pretrained or file_of(asked.pretrained))
        learner = new_learner(method, data, settings.seed, precision, trunk)
        learner = learner.to(device).to(memory_format=torch.channels_last)
        history: dict[str, list[Any]] = {"loss": [], "rate": [], "curve_epoch": [], "curve": []}
        history |= {"test_curve": []} if settings.test_curve else {}
        size, n = data.train.size, data.counts.tolist()
        run = Trained(learner.network, settings, data.classes, size, n, history, precision)
        run.ranks, run.seconds = ranks, before
        run.sync_bn = bool(saved.get("sync_bn", False)) if saved else sync_bn and ranks > 1
        run.compiled = bool(saved["compiled"]) if saved else compiled and len(data.train.y) >= schedule.batch
        run.captured = bool(saved and saved.get("captured"))
        run.commits = list(dict.fromkeys([*(saved["commits"] if saved else []), commit_of_code()]))
        graph = graph_on(device) if captured else None
        curve_images = first_of_each_class(data.validation, CURVE_IMAGES)
        total, done = sum(epochs for _, epochs in plan), 0
        resumed = sum(epochs for _, epochs in plan[: saved["stage"]]) + saved["epoch"] if saved else 0
        bar = tqdm(total=total, initial=resumed, unit="epoch", disable=not progress or rank > 0)
        bar.set_description(f"{settings.method} on {settings.data}")
        showing.callback(bar.close)  # an error is told on a line of its own

        for number, (stage, epochs) in enumerate(plan):
            recipe = replace(schedule, **stage.recipe)
            torch.manual_seed(settings.seed * 1009 + number)
            stage.begin(learner, images=data.train, **settings.own)
            if run.sync_bn:
                synchronise(learner.modules())
            optimizer, scaler = optimizer_for(learner, stage, recipe, device)
            if saved and number < saved["stage"]:
                done += epochs  # its structure was made again, its work is in what was saved
                continue
            kept: dict[str, Any] = {"learner": learner, "optimizer": optimizer, "scaler": scaler}
            mean = averaged(learner.network, recipe.average) if recipe.average else None
            kept |= {"average": mean} if mean else {}
            first = restore(saved, kept, run.history) if saved and number == saved["stage"] else 0
            augmentation = AUGMENTATIONS[recipe.augmentation]
            padding = recipe.padding if augmentation.crops else 0
            reading.close()  # of the stage before
            source, flip = source_of(data.train, augmentation, padding, device), augmentation.crops and data.flip
            reading.callback(source.close)
            why = obstacle(source, precision=precision, ranks=ranks, policy=augmentation.policy) if graph else ""
            if why and first < epochs and rank == 0:
                warnings.warn(f"steps run without a CUDA graph, which is slower: {why}", stacklevel=2)
            if run.compiled and first < epochs:
                scales = {recipe.scale(epoch, epochs) for epoch in range(first, epochs)}
                own_share = torch.zeros(len(range(rank, recipe.batch, ranks)), 3, *size, dtype=torch.uint8)
                if failed := learner.compile_for(own_share, scales, graphs=graph is None or bool(why)):
                    run.compiled = False
                    warnings.warn(f"the network could not be compiled and is trained as it is: {failed}", stacklevel=2)
            drawn_of = partial(draw, source.labels, seed=settings.seed, padding=padding, flip=flip and settings.flip)
            drawn_of = partial(drawn_of, augmentation=augmentation, batch=recipe.batch)
            loss_of = partial(stage.loss, **settings.own)
            frozen = round(recipe.frozen * epochs) if number == 0 else 0
            set_trained(learner, stage, frozen=min(first, epochs - 1) < frozen)
            step = Step(learner, together(learner), loss_of, optimizer, scaler)
            if stage.ascent is not None:
                step.ascent = partial(stage.ascent, **settings.own)
            if mean and recipe.average == "ema":
                step.after = partial(mean.update_parameters, learner.network)
            whole = len(data.train.y) // recipe.batch
            replayed = None
            if graph and whole and not why and isinstance(source, Source):
                replayed = Captured(step, source, recipe.batch, graph)
            for epoch in range(first, epochs):
                if first < epoch == frozen:
                    set_trained(learner, stage)
                    step.module = together(learner)  # another set of gradients to share
                    if replayed:
                        replayed.begin_anew()
                share, rate = epoch / epochs, recipe.learning_rate(epoch, epochs)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["factor"]
                train_mode(learner, stage)
                torch.manual_seed(seed_of(settings.seed, done + epoch, 2))  # 0 and 1 are drawn batches
                q = stage.q(share) if callable(stage.q) else stage.q
                drawn = partial(drawn_of, epoch=done + epoch)
                draws, second, scale = drawn(q=q), None, recipe.scale(epoch, epochs)
                if stage.second is not None:
                    view = stage.second == "view"
                    second = drawn(q=1.0 if view else float(stage.second), stream=1)
                    second = Draws(draws.rows, *second[1:]) if view else second
                if replayed:
                    losses = replayed.epoch(draws, second, scale=scale, progress=share)
                    run.captured |= replayed.replay is not None
                else:
                    batches = source.stream(draws, recipe.batch, second=second, scale=scale, rank=rank, ranks=ranks)
                    losses = epoch_of(step, batches, share)
                average_statistics(learner)
                seen = mean_over_ranks(losses)  # once an epoch: every read forces a GPU sync
                if bad := (~seen.isfinite()).nonzero().flatten().tolist():
                    where = f"the loss is {float(seen[bad[0]])} at epoch {done + epoch + 1}, step {bad[0] + 1}"
                    raise _diverged(where, settings, checkpoint)
                stage.each_epoch(learner, images=data.train, progress=share, **settings.own)
                if mean and recipe.average == "swa" and epoch + 1 > LATE * epochs:
                    mean.update_parameters(learner.network)
                history["loss"].append(float(seen.mean()))
                history["rate"].append(rate)
                _look(run, data, curve_images, done + epoch + 1, total, checkpoint)
                run.seconds = before + time.perf_counter() - started
                bar.set_postfix(loss=f"{history['loss'][-1]:.3f}")
                bar.update()
                if saver.path:
                    states = {name: part.state_dict() for name, part in kept.items()}
                    saver.save(_progress(run, number, epoch + 1) | states, last=epoch + 1 == epochs)
            if mean:
                put_into(learner.network, mean, data.train)
            stage.end(learner, images=data.train, **settings.own)
            done += epochs
    learner.eval()
    return run


def settled_on(settings: Settings, data: LongTailed) -> Settings:
    """`settings` as they are trained on `data`: filled in, with the fingerprint of the images; on images in memory with
    crop and flip where the schedule has crops of any size.

    Raises TypeError on what is no Settings, ValueError on bad ones, on data of another name, and on class weights or
    temperatures that float32 cannot hold for the counts of the data.
    """
    if not isinstance(settings, Settings):
        raise TypeError(f"settings must be mbib_core.Settings, as Settings(data={data.name!r}, method='mbib')")
    if data.name != settings.data and not (settings.kind and data.name.partition(":")[0] == settings.kind):
        raise ValueError(
            f"the settings are of {settings.data}, the data are {data.name}: give both the same name, "
            f"Settings(data={data.name!r}, ...)"
        )
    if settings.stream and not data.streamed:
        raise ValueError(f"the images of {data.name} are in memory: leave stream out, or load them with stream=True")
    settled = settle(replace(settings, pictures=data.fingerprint, stream=data.streamed))
    if not data.streamed and not settled.augmentation and AUGMENTATIONS[schedule_of(settled).augmentation].resized:
        settled = replace(settled, augmentation="crop+flip")  # the schedule's crops are made where files are read
    check_settings(k=settled.k or 0.0, gamma=settled.gamma or 0.0, counts=data.counts)
    return settled


def new_learner(
    method: Method, data: LongTailed, seed: int, precision: str = "float32", trunk: Trunk | None = None
) -> Learner:
    """The learner of `method` before its first step, on the CPU: weights drawn from `seed`, those of its backbone taken
    from `trunk` if there is one. Raises ValueError if these do not fit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, std = data.train.statistics() if trunk is None else (trunk.mean, trunk.std)
        network = method.parts.build(len(data.classes), mean=mean, std=std)
        if trunk is not None:
            trunk.put_into(network.get_submodule("backbone"))
        return method.learner(network, data.counts, precision)


def _look(run: Trained, data: LongTailed, curve_images: Any, epoch: int, total: int, checkpoint: Path | None) -> None:
    """Scores the run on the curve's images where one is due; the last update comes after the last loss, so the outputs
    are checked then, too."""
    due = epoch % math.ceil(total / CURVE_POINTS) == 0
    if due or epoch == total:
        if not all_finite(answers(run.network, data.train.take(torch.arange(min(128, len(data.train.y)))))[0]):
            raise _diverged(f"the network's outputs are not finite after epoch {epoch}", run.settings, checkpoint)
        if due and len(curve_images.y):
            run.history["curve_epoch"].append(epoch)
            run.history["curve"].append(_scored(run, data, curve_images))
    if run.settings.test_curve:
        run.history["test_curve"].append(_scored(run, data, data.test))


def _scored(run: Trained, data: LongTailed, images: Images) -> dict[str, float]:
    """The accuracy of the default prediction, by shot."""
    device = next(run.network.parameters()).device
    predict, counts = method_of(run.settings).predict, data.counts.to(device)
    with autocast(device, run.precision):
        found, y = answers_together(run.network, images, predict=lambda outputs: predict(outputs, counts))
    accuracy = accuracies(of_kind("logits", found), y, data)
    return accuracy[default_prediction(accuracy)]


def _diverged(what: str, settings: Settings, checkpoint: Path | None) -> FloatingPointError:
    there = checkpoint is not None and checkpoint.is_file()
    kept = f" The checkpoint before this epoch is kept in {checkpoint}." if there else ""
    strong = [f"{name} than {v:g}" for name, v in settings.own.items() if name in ("beta", "k", "gamma") and v]
    smaller = f"a smaller {' or '.join(strong)}, " if strong else "a smaller --rate, "
    return FloatingPointError(f"{what}: try --precision float32, {smaller}or look for odd pictures.{kept}")


def _progress(run: Trained, stage: int, epoch: int) -> dict[str, Any]:
    """What a checkpoint says of the run beside the states of what is trained."""
    return {
        "settings": run.settings.plain(),
        "recipe": schedule_of(run.settings).recipe,
        "stage": stage,
        "epoch": epoch,
        "history": run.history,
        "precision": run.precision,
        "seconds": run.seconds,
        "commits": run.commits,
        "compiled": run.compiled,
        "captured": run.captured,
        "ranks": run.ranks,
        "sync_bn": run.sync_bn,
    }
