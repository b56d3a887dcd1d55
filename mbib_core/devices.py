"""What a run computes on: the device, its precision, its threads, the processes that read its pictures."""

import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The requested device, else a GPU if available, else the CPU. Raises ValueError if torch cannot use it."""
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch sees no GPU here: leave --device out, or say cpu")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except RuntimeError:
        raise ValueError(f"torch can use no device {device} here: leave --device out, or say cpu or cuda") from None
    return chosen


def pick_precision(wanted: str, device: torch.device) -> str:
    """What `auto` means here: the fastest that the hardware computes natively.

    A GPU: bfloat16 from compute capability 8, else float16 with a scaled loss. A CPU: bfloat16 with AVX512_BF16 or AMX,
    else float32.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Within it a network computes in `precision`: "float32", "bfloat16" or "float16"."""
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    return torch.autocast(device.type, dtype, enabled=precision != "float32")


def full_float32() -> AbstractContextManager[None]:
    """Within it float32 is float32: on NVIDIA's GPUs cuDNN would else round the factors of convolutions to 10 bits."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


@contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_readers: int | None = None  # what `readers` asks for


@contextmanager
def readers(n: int | None) -> Iterator[None]:
    """Within it `n` processes read pictures that are not in memory, 0: this process itself; None: as before.

    Raises ValueError unless `n` is a whole number from 0 to 1024.
    """
    global _readers
    if n is not None and not (type(n) is int and 0 <= n <= 1024):
        raise ValueError(f"workers is {n!r}: it must be a whole number from 0 (this process reads itself) to 1024")
    before, _readers = _readers, _readers if n is None else n
    try:
        yield
    finally:
        _readers = before


def readers_here() -> int:
    """How many processes read pictures: as `readers` says, else one for each core of this process but one, 8 at most,
    shared out among the processes that `torchrun` started on this machine."""
    if _readers is not None:
        return _readers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1))


def name_of(device: torch.device) -> str:
    """What a record calls the device: the GPU's or the CPU's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
