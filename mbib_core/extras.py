"""Packages that only tables, figures and downloads need: the extra `book`, which a lean installation lacks."""

import importlib
from types import ModuleType


def extra(name: str, what: str) -> ModuleType:
    """The module `name`, of a package of the extra `book`. Raises ImportError with a sentence on `what` needs it where
    the package is not installed."""
    package = name.partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # it is there, and broken
            raise
        raise ImportError(f'{what} needs {package}: pip install "mbib-core[book]"', name=package) from None
    return importlib.import_module(name)
