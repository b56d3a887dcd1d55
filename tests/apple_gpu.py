"""An Apple GPU for machines without one: a tensor that says it is on "mps" and refuses float64 as MPS does."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class OnApple(Tensor):
    """`tensor.as_subclass(OnApple)` is `tensor.to("mps")`; all is computed on the CPU, and `cpu()` leads back there."""

    device = property(lambda self: torch.device("mps"))  # type: ignore[assignment]

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if func is Tensor.cpu or (func is Tensor.to and torch.device("cpu") in args[1:]):
                return args[0].as_subclass(Tensor)
            found = func(*args, **kwargs or {})
            if isinstance(found, Tensor) and found.dtype == torch.float64:
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype: the MPS framework has no float64")
            return found.as_subclass(cls) if type(found) is Tensor else found
