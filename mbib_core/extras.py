"""Packages that only some of the work needs, such as figures or named backbones, which a lean installation lacks."""

import importlib
from types import ModuleType


def extra(name: str, what: str, *, install: str = '"mbib-core[book]"') -> ModuleType:
    """The module `name`, of a package of the extra `book` or of what else is to `install`. Raises ImportError with a
    sentence on `what` needs it where the package is not installed."""
    package = name.partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # it is there, and broken
            raise
        raise ImportError(f"{what} needs {package}: pip install {install}", name=package) from None
    return importlib.import_module(name)
