"""Packages that only tables, figures and downloads need: the extra `book`, which a lean installation lacks."""

import importlib
from types import ModuleType


def extra(name: str, what: str) -> ModuleType:
    """The package `name` of the extra `book`, imported. Raises ImportError with a sentence on `what` needs it if it is
    not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # it is there, and broken
            raise
        raise ImportError(f'{what} needs {name}: pip install "mbib-core[book]"', name=name) from None
