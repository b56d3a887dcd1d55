"""Packages that only some of the work needs, such as figures or named backbones, which a lean installation lacks."""

import importlib
from types import ModuleType


def extra(name: str, what: str, *, install: str = '"mbib-core[book]"') -> ModuleType:
    """The module `name`, of a package of the extra `book` or of what else is to `install`. Raises ImportError with a
    sentence on `what` needs it where the package is not installed, or fails as it is imported."""
    package = name.partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # it is there, and broken
            raise
        raise ImportError(f"{what} needs {package}: pip install {install}", name=package) from None
    except (RuntimeError, OSError, AttributeError) as error:  # torchvision beside a torch that it was not built for
        raise ImportError(
            f"{what} needs {package}, which is installed but does not work ({' '.join(str(error).split())}): install "
            f"it once more in one command with torch, from the same index, so that the two fit each other",
            name=package,
        ) from error
    return importlib.import_module(name)
