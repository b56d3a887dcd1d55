"""The loop: data on the device, precision, schedule, resume; and the record of the run."""

import ctypes
import math
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm.auto import tqdm

from mbib_core.batches import augment, batches, pad, resize
from mbib_core.checkpoints import read_checkpoint, write_checkpoint
from mbib_core.data import LongTailed, channel_statistics, first_of_each_class
from mbib_core.evaluation import accuracies, all_finite, evaluate, features_of, full_float32, of_kind, plain
from mbib_core.methods import method_of, settle
from mbib_core.networks.bottleneck import Outputs, default_prediction
from mbib_core.networks.resnet import multiply_adds
from mbib_core.results import Record, commit_of_code
from mbib_core.runs import Trained
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import Settings, run_id

CURVE_POINTS = 20  # how often, at the most, a run looks at validation pictures while it trains
CURVE_PICTURES = 20  # of each class, the first ones


def train(
    settings: Settings,
    data: LongTailed,
    *,
    device: str | torch.device | None = None,
    checkpoint: Path | None = None,
    progress: bool = True,
    compiled: bool = False,
) -> Trained:
    """Trains the method of `settings` on `data.train` and returns the network after the last epoch.

    `device` is the GPU where there is one. With a `checkpoint` file the run is saved after every epoch and goes on
    from there when it is called again; on one thread of the same machine a run that was killed ends in the same bits
    as one that was not. `compiled` builds the network's two passes first, which can take minutes, and makes the steps
    faster; where it cannot be done the run warns and trains as usual. A run that goes on keeps to what it began with.

    The history has the mean `loss` and the `rate` of every epoch, and at `curve_epoch` the `curve`: accuracy by shot
    on the first 20 validation pictures of each class, of the default prediction.

    Raises ValueError on bad settings, on data of another name than the settings' or a checkpoint of another run,
    TypeError on settings that are no Settings, FloatingPointError if the loss or what the network answers is not
    finite, OSError if the checkpoint cannot be written.
    """
    if not isinstance(settings, Settings):
        raise TypeError(f"settings must be results.Settings, as Settings(data={data.name!r}, method='mbib')")
    if data.name != settings.data and not (settings.folder is not None and data.name.startswith("folder:")):
        raise ValueError(
            f"the settings are of {settings.data}, the data are {data.name}: give both the same name, "
            f"Settings(data={data.name!r}, ...)"
        )
    settings = settle(replace(settings, pictures=data.fingerprint))
    method, schedule = method_of(settings), SCHEDULES[str(settings.schedule)]
    epochs, classes = int(settings.epochs or 0), len(data.classes)
    device = pick_device(device)
    started = time.perf_counter()
    saved = read_checkpoint(checkpoint, settings) if checkpoint else None
    asked = settings.precision if settings.precision != "auto" else schedule.precision
    precision = saved["precision"] if saved else pick_precision(asked, device)
    with _threads(settings.threads), full_float32():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            mean, std = channel_statistics(data.train.x)
            network = method.network(classes, depth=schedule.depth, mean=mean, std=std)
        network.to(device).to(memory_format=torch.channels_last)
        # Not fused in float16: fused momentum also moves in steps that the scaler skips for overflow (torch 2.15).
        fused = precision != "float16"
        optimizer = torch.optim.SGD(
            network.parameters(), schedule.rate, schedule.momentum, weight_decay=schedule.weight_decay, fused=fused
        )
        scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
        run = Trained(network, settings, {"loss": [], "rate": [], "curve_epoch": [], "curve": []}, precision, 0.0)
        run.compiled = compiled and len(data.train.y) >= schedule.batch
        if saved:
            _restore(saved, run, optimizer, scaler)
        forward: Callable[[Tensor], Outputs] = network
        run.classes, run.size = data.classes, (data.train.x.shape[2], data.train.x.shape[3])
        run.commits = list(dict.fromkeys([*run.commits, commit_of_code()]))
        pictures, y = pad(data.train.x.to(device), schedule.padding), data.train.y.to(device)
        counts = data.counts.to(device)
        few = first_of_each_class(data.validation, CURVE_PICTURES)
        flip = data.flip and settings.flip
        before, first = run.seconds, len(run.history["loss"])
        if run.compiled and first < epochs:
            scales = {schedule.scale(epoch, epochs) for epoch in range(first, epochs)}
            like = data.train.x[: schedule.batch].to(device).contiguous(memory_format=torch.channels_last)
            forward = _compiled(run, like, scales)

        bar = tqdm(range(first, epochs), initial=first, total=epochs, unit="epoch", disable=not progress)
        bar.set_description(f"{settings.method} on {settings.data}")
        for epoch in bar:
            rate, scale = schedule.learning_rate(epoch, epochs), schedule.scale(epoch, epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate
            network.train()
            losses = []
            for index, crop, mirrored in batches(len(y), schedule, flip, settings.seed, epoch, device):
                x = resize(augment(pictures, index, crop, mirrored, schedule.padding), scale)
                with torch.autocast(device.type, _dtype(precision), enabled=precision != "float32"):
                    # A last batch that is smaller would be compiled once more.
                    outputs = (forward if len(index) == schedule.batch else network)(x)
                loss = method.loss(outputs, y[index], counts)
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                losses.append(loss.detach())
            # The one look at the loss in an epoch: on a GPU every look makes the processor wait.
            _check_finite(torch.stack(losses), epoch, settings, checkpoint)
            run.history["loss"].append(float(torch.stack(losses).mean()))
            run.history["rate"].append(rate)
            looked = (epoch + 1) % math.ceil(epochs / CURVE_POINTS) == 0
            seen = features_of(network, data.train.x[: schedule.batch]) if looked or epoch + 1 == epochs else {}
            if not all_finite(seen):  # a last step that no loss has seen
                raise _diverged(f"the network's answers are not finite after epoch {epoch + 1}", settings, checkpoint)
            if looked and len(few.y):
                with torch.autocast(device.type, _dtype(precision), enabled=precision != "float32"):
                    accuracy = accuracies(of_kind("logits", features_of(network, few.x)), few.y.to(device), data)
                run.history["curve_epoch"].append(epoch + 1)
                run.history["curve"].append(accuracy[default_prediction(accuracy)])
            bar.set_postfix(loss=f"{run.history['loss'][-1]:.3f}")
            run.seconds = before + time.perf_counter() - started
            if checkpoint:
                write_checkpoint(checkpoint, _state(run, optimizer, scaler))
    network.eval()
    return run


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The asked-for device, else the GPU where there is one, else the processor. Raises ValueError if there is none."""
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch sees no GPU here: leave --device out, or say cpu")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except RuntimeError:
        raise ValueError(f"torch can use no device {device} here: leave --device out, or say cpu or cuda") from None
    return chosen


def pick_precision(asked: str, device: torch.device) -> str:
    """What `auto` means here: the fastest that the machine computes natively.

    A GPU: bfloat16 from compute capability 8, else float16 with a scaled loss. A processor: bfloat16 with AVX512_BF16
    or AMX, else float32.
    """
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def _compiled(run: Trained, x: UInt8[Tensor, "b 3 h w"], scales: set[float]) -> Callable[[Tensor], Outputs]:
    """The network compiled for batches like `x` at all `scales`, on a GPU as CUDA graphs; itself where that fails."""
    network = run.network.train()
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    try:
        if x.device.type == "cpu":
            # A compiled step asks for all its memory at once, and glibc would fetch it from the system at every step.
            for option, value in ((-3, 1 << 30), (-1, 2**31 - 1)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
                getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)(option, value)
        torch.compiler.reset()  # eight versions of a network are built and no more, those of earlier runs counted
        fast = torch.compile(network, dynamic=False, mode="reduce-overhead" if x.device.type == "cuda" else None)
        for scale in sorted(scales):  # both passes once: what cannot be built shows here
            with torch.autocast(x.device.type, _dtype(run.precision), enabled=run.precision != "float32"):
                outputs = fast(resize(x, scale))
            logits = [f.sum() for f in (*outputs.v_logits, outputs.z_logits) if f is not None]
            torch.stack(logits).sum().backward()
        return fast
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # compilers fail in many ways
        run.compiled = False
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f"the network could not be compiled and is trained as it is: {reason}", stacklevel=3)
        return network
    finally:
        network.zero_grad(set_to_none=True)
        network.load_state_dict(kept)


def record_of(run: Trained, data: LongTailed, command: str) -> Record:
    """The record of a finished run. A final run looks at the test set here, once; a run for choosing does not."""
    device = next(run.network.parameters()).device
    adjusted = method_of(run.settings).adjusted
    record: Record = {
        "run_id": run_id(run.settings),
        "settings": run.settings.plain(),
        "recipe": SCHEDULES[str(run.settings.schedule)].recipe,
        "command": command,
        "commits": run.commits,
        "machine": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
            "threads": run.settings.threads or torch.get_num_threads(),
            "precision": run.precision,
            "compiled": run.compiled,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "parameters": sum(p.numel() for p in run.network.parameters()),
        "multiply_adds": multiply_adds(run.network, data.train.x[:1].to(device)),
        "counts": data.counts.tolist(),
        "classes": data.classes,
        "shots": {shot: int(mask.sum()) for shot, mask in data.shots.items()},
        "seconds": round(run.seconds, 1),
        "pictures_per_second": round(len(data.train.y) * len(run.history["loss"]) / run.seconds, 1),
        "history": plain(run.history),
        "validation": evaluate(run.network, data.validation, data, adjusted=adjusted),
    }
    if run.settings.purpose == "final":
        record["test"] = evaluate(run.network, data.test, data, adjusted=adjusted)
    return record


def _check_finite(losses: Tensor, epoch: int, settings: Settings, checkpoint: Path | None) -> None:
    bad = (~losses.isfinite()).nonzero().flatten().tolist()
    if bad:
        where = f"the loss is {float(losses[bad[0]])} at epoch {epoch + 1}, step {bad[0] + 1}"
        raise _diverged(where, settings, checkpoint)


def _diverged(what: str, settings: Settings, checkpoint: Path | None) -> FloatingPointError:
    there = checkpoint is not None and checkpoint.is_file()
    kept = f" The checkpoint before this epoch is kept in {checkpoint}." if there else ""
    strong = [f"{name} than {v:g}" for name in ("beta", "k", "gamma") if (v := getattr(settings, name))]
    smaller = f"a smaller {' or '.join(strong)}, " if strong else ""
    return FloatingPointError(f"{what}: try --precision float32, {smaller}or look for odd pictures.{kept}")


def _state(run: Trained, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> dict[str, Any]:
    """What a checkpoint holds: all that the next epoch depends on, and what the record says of the epochs before."""
    return {
        "settings": run.settings.plain(),
        "recipe": SCHEDULES[str(run.settings.schedule)].recipe,
        "network": run.network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "history": run.history,
        "precision": run.precision,
        "seconds": run.seconds,
        "commits": run.commits,
        "compiled": run.compiled,
    }


def _restore(
    saved: dict[str, Any], run: Trained, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> None:
    try:
        run.network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        scaler.load_state_dict(saved["scaler"])
        run.history = {name: list(saved["history"][name]) for name in run.history}
        run.seconds, run.commits = float(saved["seconds"]), list(saved["commits"])
        run.compiled = bool(saved.get("compiled", False))
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(
            f"the checkpoint of {run_id(run.settings)} is of other data or of other code (its parts do not "
            f"fit this network): delete it to start the run anew"
        ) from None


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _dtype(precision: str) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
