"""One run from its settings to its files: trained under a lock, recorded, its weights and report written."""

import io
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from mbib_core.checkpoints import read_checkpoint
from mbib_core.data import LongTailed, describe, first_of_each_class, load
from mbib_core.devices import name_of, pick_device, readers, threads
from mbib_core.evaluation import answers, evaluate, of_kind, plain
from mbib_core.files import cache_folder, check_writable, write_atomically
from mbib_core.methods import method_of, settle
from mbib_core.networks import default_prediction, multiply_adds
from mbib_core.networks.pretrained import file_of
from mbib_core.ranks import join, ranks_here, waiting_for_the_others
from mbib_core.results import Record, commit_of_checkout, read_record, version_of_code, write_record
from mbib_core.schedules import same_recipe, schedule_of
from mbib_core.settings import Settings, command_line, run_id
from mbib_core.text import printable
from mbib_core.trainer import Trained, settled_on, train
from mbib_core.weights import write_weights


class Busy(ValueError):
    """Another process trains this run; `mbib train` then ends with this exit status."""

    status = 75


@dataclass
class Made:
    """A run that is recorded: the record, its file, the files beside it, and what was trained (None if it was made
    before)."""

    record: Record
    file: Path
    beside: dict[str, Path]
    run: Trained | None


def make(
    settings: Settings,
    data: LongTailed | None = None,
    *,
    out: Path | str = "runs",
    root: Path | None = None,
    checkpoints: Path | None = None,
    device: str | torch.device | None = None,
    compiled: bool = False,
    captured: bool = True,
    again: bool = False,
    weights: bool = True,
    features: bool = False,
    report: bool = True,
    progress: bool = True,
    skip_broken: bool = False,
    sync_bn: bool = False,
    workers: int | None = None,
) -> Made | None:
    """What `mbib train` does: trains the run of `settings`, or resumes it, and leaves its record in the folder `out`.

    `data` are loaded by the settings' name unless they are given. A run that has a record is not made again, unless
    `again`. Beside the record lie the `weights`, the `features` of some test images and the `report`, as far as they
    are wanted. `workers` processes read images that are not in memory, see `train`. Under `torchrun` all processes
    train and evaluate together, with `sync_bn` as `train` says, and only the first one writes and returns.

    Raises what `load`, `settle` and `train` do, Busy if another process makes the run, OSError before anything is
    trained if `out` cannot be written, and Gone if one of several processes ends before the others.
    """
    asked = settings
    settings, out = settle(settings) if data is None else settings, Path(out)
    if data is None and settings.folder is not None:  # such a run is named after the images themselves
        side, stream = schedule_of(settings).size, settings.stream
        data = load(settings.data, root=root, size=side, skip_broken=skip_broken, stream=stream)
    if data is not None:
        settings = settled_on(settings, data)
    name = run_id(settings)
    checkpoint = (checkpoints or cache_folder() / "checkpoints") / f"{name}.pt"
    record_file = out / f"{name}.json"
    kept = {"weights": weights, "features": features, "report": report}
    suffixes = {"weights": "safetensors", "features": "npz", "report": "md"}
    beside = {kind: record_file.with_suffix(f".{suffixes[kind]}") for kind, wanted in kept.items() if wanted}

    def made_before() -> Made | None:
        if again or not record_file.is_file():
            return None
        record = read_record(record_file)
        if not same_recipe(record["recipe"], schedule_of(settings)):
            raise ValueError(
                f"{record_file} was made when the schedule {settings.schedule} was another: --again replaces it"
            )
        _drop_finished(checkpoint, settings)
        return Made(record, record_file, beside, None)

    if found := made_before():
        return found
    with waiting_for_the_others(checkpoint):
        device = pick_device(join(device))
    rank, _ = ranks_here()
    if data is None:
        data = load(settings.data, imbalance=settings.imbalance, root=root)
        settings = settled_on(settings, data)  # what the data rule out is said before anything is written
    check_writable(out)
    with _locked(checkpoint.with_suffix(".lock"), name, rank), threads(settings.threads), readers(workers):
        if found := made_before():  # by another process, while this one was getting ready
            return found
        if again and record_file.is_file():
            _drop_finished(checkpoint, settings)
        if settings.own_pictures and progress and rank == 0:
            print(f"mbib: {printable(describe(data))}", file=sys.stderr)
        how: dict[str, Any] = {"device": device, "compiled": compiled, "captured": captured, "sync_bn": sync_bn}
        how |= {"checkpoint": checkpoint, "progress": progress}
        with waiting_for_the_others(checkpoint):
            run = train(settings, data, pretrained=file_of(asked.pretrained), **how)
            if weights and rank == 0:
                write_weights(run, beside["weights"])
            record = record_of(run, data, command_line(settings))
        if rank > 0:
            return None
        if features:
            write_features(run, data, beside["features"])
        if report:
            _report(run, data, record, out)
        write_record(record, out)
        checkpoint.unlink(missing_ok=True)
    return Made(record, record_file, beside, run)


def record_of(run: Trained, data: LongTailed, command: str) -> Record:
    """The record of a finished run. A final run evaluates the test set here, once; a run for choosing does not. All
    processes that trained the run must call this, and each classifies its share of the images."""
    device = next(run.network.parameters()).device
    method, schedule = method_of(run.settings), schedule_of(run.settings)
    one_image = torch.zeros(1, 3, *data.train.size, dtype=torch.uint8, device=device)
    record: Record = {
        "run_id": run_id(run.settings),
        "settings": run.settings.plain(),
        "recipe": schedule.recipe,
        "stages": stages_of(run.settings),
        "command": command,
        "commits": run.commits,
        "version": version_of_code(),
        "machine": {
            "device": name_of(device),
            "threads": run.settings.threads or torch.get_num_threads(),
            "processes": run.ranks,
            **({"sync_bn": run.sync_bn} if run.ranks > 1 else {}),
            "precision": run.precision,
            "compiled": run.compiled,
            "captured": run.captured,
            "torch": torch.__version__,
            "checkout": bool(commit_of_checkout()),  # else the commits are what $MBIB_COMMIT said
            "python": platform.python_version(),
        },
        "parameters": sum(p.numel() for p in run.network.parameters()),
        "multiply_adds": multiply_adds(run.network, one_image),
        "counts": data.counts.tolist(),
        "classes": data.classes,
        "shots": {shot: int(mask.sum()) for shot, mask in data.shots.items()},
        "seconds": round(run.seconds, 1),
        "pictures_per_second": round(len(data.train.y) * len(run.history["loss"]) / run.seconds, 1),
        "history": plain(run.history),
        "validation": evaluate(run.network, data.validation, data, predict=method.predict, together=run.ranks > 1),
    }
    if run.settings.purpose == "final":
        record["test"] = evaluate(run.network, data.test, data, predict=method.predict, together=run.ranks > 1)
    if method.parts.routed:  # an image costs the experts that it goes to; each router costs next to nothing
        used = record["test" if "test" in record else "validation"]["experts_used"]
        network: Any = run.network
        one_expert = multiply_adds(network.experts[0], network.trunk(network.normalised(one_image))[0])
        record["multiply_adds_routed"] = round(record["multiply_adds"] - (method.parts.experts - used) * one_expert)
    return record


def stages_of(settings: Settings) -> list[Record]:
    """The stages of a run as plain values; a `q` that changes while the run goes on is named by its function."""

    def named(q: Any) -> Any:
        return q.__name__ if callable(q) else {str(one): part for one, part in q.items()} if isinstance(q, dict) else q

    return [
        {"epochs": epochs, "q": named(stage.q), "trains": list(stage.trains), "recipe": plain(dict(stage.recipe))}
        for stage, epochs in method_of(settings).plan(int(settings.epochs or 0))
    ]


def write_features(run: Trained, data: LongTailed, path: Path) -> None:
    """v, z and the default prediction's probabilities of 20 images a class, in float16: test images of a final run,
    validation images of one for choosing. Raises OSError with a sentence."""
    images = first_of_each_class(data.test if run.settings.purpose == "final" else data.validation, 20)
    found, y = answers(run.network, images)
    logits, arrays = of_kind("logits", found), of_kind("features", found)
    arrays["probabilities"] = logits[default_prediction(logits)].softmax(1)
    content = io.BytesIO()
    halves: dict[str, Any] = {name: f.cpu().numpy().astype(np.float16) for name, f in arrays.items()}
    np.savez_compressed(content, labels=y.cpu().numpy().astype(np.int16), **halves)
    write_atomically(path, content.getvalue())


def _report(run: Trained, data: LongTailed, record: Record, out: Path) -> None:
    """The report; whatever goes wrong with it, the weights and the record are not lost, and say so."""
    try:
        from mbib_core.report import write_report

        write_report(run, data, record, out)
    except Exception as error:
        record["missing"] = [f"report: {error}"]
        print(f"mbib: the report could not be made ({error}); record and weights are there", file=sys.stderr)


def _drop_finished(checkpoint: Path, settings: Settings) -> None:
    """Removes the checkpoint of a run that was recorded: it has no epoch left, and would pass for a new run."""
    try:
        saved = read_checkpoint(checkpoint, settings)
    except (ValueError, OSError):
        return
    plan = method_of(settings).plan(int(settings.epochs or 0))
    if saved and (saved["stage"], saved["epoch"]) == (len(plan) - 1, plan[-1][1]):
        checkpoint.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path, name: str, rank: int) -> Iterator[None]:
    """Held by the first process while training so that no other trains the same run; the OS releases it on a crash."""
    if rank > 0:
        yield
        return
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise Busy(f"{name} is being trained by another process; wait for it, or stop it") from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or "it knows no locks"
        raise OSError(
            f"{path.parent}, where a run is saved while it trains, cannot be used ({reason}): name another folder with "
            f"--checkpoints or MBIB_CACHE"
        ) from None
    try:
        yield
    finally:
        lock.release()
