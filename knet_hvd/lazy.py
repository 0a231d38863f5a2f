"""Packages whose modules load on first use, so that settings can be read without torch."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy_names(package: str, *modules: str) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package that loads its modules on first use.

    Importing torch takes seconds, on a busy machine ten times as long. A job that is to
    refuse a wrong flag at once reads the settings' dataclasses first; their packages must
    not load everything for that. The first name that is asked for loads all modules.

    Args:
        package: ``__name__`` of the package, whose ``__all__`` lists the names.
        modules: Modules of the package that hold these names.
    """

    def find(name: str) -> Any:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name in getattr(sys.modules[package], "__all__", ()):
            loaded = [import_module(f"{package}.{module}") for module in modules]
            value = next(getattr(each, name) for each in loaded if hasattr(each, name))
            setattr(sys.modules[package], name, value)  # found without this function next time
            return value
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
