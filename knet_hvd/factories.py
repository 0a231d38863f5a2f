"""Functions of the user's own that a name such as ``package.module:function`` stands for.

Imports nothing heavy: whether a name is well formed is known before torch is there.
"""

import inspect
import os
import re
import sys
import traceback
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

from knet_hvd.errors import KnetError

Result = TypeVar("Result")
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_MAX_SHOWN = 6


def is_path(name: str) -> bool:
    """Return whether a name is meant as ``package.module:function``.

    Raises:
        ValueError: If it has a colon and is not of that form.
    """
    if ":" not in name:
        return False
    if _PATH.fullmatch(name) is None:
        raise ValueError(f"expected a name as package.module:function, got {name!r}")
    return True


class Factory:
    """A function of the user's, found and ready to be called.

    Attributes:
        path: What the user calls it.
    """

    def __init__(self, path: str) -> None:
        """Import the module and find the function.

        The working directory is searched first, as ``python -m`` does.

        Args:
            path: Module and function, as ``package.module:function``.

        Raises:
            KnetError: If there is no such module or function, or importing it fails.
        """
        self.path = path
        name, _, attribute = path.partition(":")
        self._module = self._import(name)
        if not hasattr(self._module, attribute):
            raise KnetError(f"{path}: {name} has no {attribute}{_alternatives(self._module)}")
        self._function: Any = getattr(self._module, attribute)
        if not callable(self._function):
            raise KnetError(
                f"{path}: expected a function, got {type(self._function).__name__} "
                f"({str(self._function)[:80]!r})"
            )

    def _import(self, name: str) -> ModuleType:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{name}.".startswith(f"{error.name}."):
                raise KnetError(
                    f"{self.path}: there is no module {error.name}, in {os.getcwd()} or "
                    "anywhere else that Python looks"
                ) from error
            raise self._failed(f"importing {name}", error) from error
        except Exception as error:
            raise self._failed(f"importing {name}", error) from error

    def call(self, expected: type[Result], arguments: dict[str, Any]) -> Result:
        """Call the function with the arguments that it names.

        Args:
            expected: What it has to return.
            arguments: What it may have, by name.

        Raises:
            KnetError: If it asks for something else, raises an error, or returns
                something else.
        """
        named = self._named(arguments)
        try:
            result = self._function(**named)
        except Exception as error:
            raise self._failed("it", error) from error
        if not isinstance(result, expected):
            raise KnetError(
                f"{self.path}: expected it to return {expected.__module__}.{expected.__name__}, "
                f"got {type(result).__name__}"
            )
        return result

    def _named(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments that the function has parameters for."""
        kinds = inspect.Parameter
        named = {}
        for name, parameter in inspect.signature(self._function).parameters.items():
            if parameter.kind is kinds.VAR_KEYWORD:
                return arguments
            if parameter.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY):
                if name in arguments:
                    named[name] = arguments[name]
                    continue
            elif parameter.kind is kinds.VAR_POSITIONAL:
                continue
            if parameter.default is kinds.empty:
                raise KnetError(
                    f"{self.path}: it asks for {name}, and may ask for {', '.join(arguments)}"
                )
        return named

    def _failed(self, what: str, error: Exception) -> KnetError:
        """Return an error of one line that says what happened, and where in the user's file."""
        text = " ".join(str(error).split())[:300]
        return KnetError(
            f"{self.path}: {what} raised {type(error).__name__}: {text}{self._place(error)}"
        )

    def _place(self, error: Exception) -> str:
        if isinstance(error, SyntaxError):
            return ""  # its text says where
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith("<") and frame.filename != __file__
        ]
        own = getattr(getattr(self, "_module", None), "__file__", None)
        frames = [frame for frame in frames if frame.filename == own] or frames
        return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _alternatives(module: ModuleType) -> str:
    """Return the functions that a module has, in words."""
    names = [
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    ]
    return f"; it has {', '.join(names[:_MAX_SHOWN])}" if names else ""
