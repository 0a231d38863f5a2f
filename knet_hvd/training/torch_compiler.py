"""Jobs start without PyTorch's compiler, which they do not use.

Whoever makes an optimizer of PyTorch, or runs a network without memory, imports the whole
compiler, only for PyTorch to say which of its functions are not to be compiled. That is up
to a third of the time in which a rank starts, and 100 MB of its memory.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

import torch

_NAME = "torch._dynamo"


class _LateCompiler(ModuleType):
    """Stand for the compiler until something of it is used that is not below."""

    @classmethod
    def disable(cls, function: Any = None, *_: Any, **__: Any) -> Any:
        """Return a function as it is, since nothing is compiled; without one, a decorator."""
        return cls.disable if function is None else function

    @staticmethod
    def graph_break(message: str = "") -> None:
        """Do nothing, as PyTorch's own does where nothing is compiled."""

    def __getattr__(self, name: str) -> Any:
        """Import the compiler after all.

        Not for what any module may be asked, as ``inspect`` asks all of them for their files.
        """
        if name.startswith("__") and name != "__path__":
            raise AttributeError(f"module {_NAME!r} has no attribute {name!r} yet")
        if sys.modules.get(_NAME) is self:
            del sys.modules[_NAME]
        return getattr(importlib.import_module(_NAME), name)


def import_compiler_late() -> None:
    """Import PyTorch's compiler only when something is to be compiled.

    For programs that compile nothing before: a function of PyTorch that was excluded from
    compilation until then is no longer excluded.
    """
    if _NAME not in sys.modules:
        compiler = _LateCompiler(_NAME)
        sys.modules[_NAME] = compiler
        setattr(torch, _NAME.rpartition(".")[2], compiler)
