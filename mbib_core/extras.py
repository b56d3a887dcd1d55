"""Packages that a lean installation lacks: tables, figures and downloads need the extra `book`, jobs `cluster`."""

import importlib
from types import ModuleType


def extra(name: str, what: str, part: str = "book") -> ModuleType:
    """The module `name`, of a package of the extra `part`. Raises ImportError with a sentence on `what` needs it where
    the package is not installed."""
    package = name.partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # it is there, and broken
            raise
        raise ImportError(f'{what} needs {package}: pip install "mbib-core[{part}]"', name=package) from None
    return importlib.import_module(name)
