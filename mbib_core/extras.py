"""Packages that only some of the work needs, such as tables and figures: extras that a lean installation lacks."""

import importlib
from types import ModuleType


def extra(name: str, what: str, of: str = "book") -> ModuleType:
    """The module `name`, of a package of the extra `of`. Raises ImportError with a sentence on `what` needs it where
    the package is not installed."""
    package = name.partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # it is there, and broken
            raise
        raise ImportError(f'{what} needs {package}: pip install "mbib-core[{of}]"', name=package) from None
    return importlib.import_module(name)
