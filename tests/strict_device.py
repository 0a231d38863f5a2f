"""A device for tests: its tensors lie in the CPU's memory, and mix with none of the CPU's.

It shows without a GPU what a GPU would: a tensor that was left on the CPU raises, and so does
a copy that was forgotten. What it computes is what the CPU computes, bit for bit. It shows no
fault of streams: nothing here is asynchronous.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "strict"
_COPIES = ("aten::copy_", "aten::_to_copy", "aten::_copy_from")
"""Operations between two devices."""


class StrictTensor(Tensor):
    """Hold a tensor of the CPU that only this device's operations may touch."""

    _inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "StrictTensor":
        """Wrap a tensor of the CPU."""
        wrapper: StrictTensor = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=f"{NAME}:0",
        )
        wrapper._inner = inner
        return wrapper

    def __init__(self, inner: Tensor) -> None:
        """Take what ``__new__`` took."""

    def __repr__(self, *_: object, **__: object) -> str:  # type: ignore[override]
        """Return the values and the device."""
        return f"StrictTensor({self._inner})"

    def tolist(self) -> Any:
        """Return the values as numbers, which PyTorch refuses to subclasses."""
        return self._inner.tolist()

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None) -> Tensor:
        """Return new values on this device, which PyTorch does for its own devices only."""
        return StrictTensor(self._inner.new_tensor(data, dtype=dtype))

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Name what is inside, so that ``nn.Module.to`` keeps its parameters' identity."""
        return ["_inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: object) -> "StrictTensor":
        """Return the tensor of ``__tensor_flatten__``."""
        return StrictTensor(inner["_inner"])

    def data_ptr(self) -> int:
        """Return where the values lie, which tells tensors apart."""
        return self._inner.data_ptr()

    @property
    def data(self) -> Tensor:
        """Return the values, with neither their graph nor their count of changes."""
        return StrictTensor(self._inner.detach())

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, StrictTensor):
            raise RuntimeError(f"data: expected a tensor on {NAME}, got one on {value.device}")
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self._inner = value._inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute on the CPU, unless an argument lies there."""
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name
    inputs = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    if name not in _COPIES:
        _check_same_device(name, inputs)
    wrappers = {id(each._inner): each for each in inputs if isinstance(each, StrictTensor)}
    stays = not any(type(each) is Tensor and each.dim() for each in inputs[:1])
    if "device" in kwargs and kwargs["device"] is not None:
        stays = torch.device(kwargs["device"]).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu")}
    inner_args, inner_kwargs = tree_map_only(StrictTensor, lambda t: t._inner, (args, kwargs))
    result = func(*inner_args, **inner_kwargs)

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor) or not stays:
            return value
        return wrappers[id(value)] if id(value) in wrappers else StrictTensor(value)

    return tree_map(wrapped, result)


def _check_same_device(name: str, inputs: list[Tensor]) -> None:
    """Raise as CUDA does where tensors of two devices meet; numbers may lie on the CPU."""
    places = {str(each.device) for each in inputs if each.dim() or isinstance(each, StrictTensor)}
    if len(places) > 1:
        raise RuntimeError(
            f"{name}: expected all tensors on the same device, got {', '.join(sorted(places))}"
        )


class _Module:
    """What ``torch.strict`` answers."""

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        pass

    @staticmethod
    def get_rng_state(device: object = None) -> Tensor:
        """Return no state: values are drawn on the CPU."""
        return torch.empty(0, dtype=torch.uint8)

    @staticmethod
    def set_rng_state(state: Tensor, device: object = None) -> None:
        pass

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)


def _in_low_precision(operation: Any) -> Callable[..., Any]:
    """Return an operation as autocast has it: its floating point inputs are cast."""

    def call(*args: Any) -> Any:
        dtype = torch.get_autocast_dtype(NAME)
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            cast = tree_map_only(Tensor, lambda each: each.to(dtype), args)
            return operation(*cast)

    return call


_libraries: list[torch.library.Library] = []
_tensor = torch.tensor


def new_tensor(data: Any, **kwargs: Any) -> Tensor:
    """Make a tensor as ``torch.tensor`` does, which cannot on a device written in Python."""
    device = kwargs.get("device")
    if device is None or torch.device(device).type != NAME:
        return _tensor(data, **kwargs)
    return _tensor(data, **{**kwargs, "device": None}).to(device)


def register() -> torch.device:
    """Make the device known to PyTorch, once in a process, and return it."""
    if not _libraries:
        _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
        everything = torch.library.Library("_", "IMPL")
        everything.fallback(lambda op, *args, **kwargs: _run(op, args, kwargs), "PrivateUse1")
        everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
        layers = torch.library.Library("aten", "IMPL")
        for name in ("linear", "conv2d"):
            operation = getattr(torch.ops.aten, name).default
            layers.impl(name, _in_low_precision(operation), "AutocastPrivateUse1")
        _libraries.extend((everything, layers))
    return torch.device(NAME, 0)


def inner(tensor: Tensor) -> Tensor:
    """Return what a tensor of the device holds, for calls that no device knows, such as MPI's."""
    return tensor._inner if isinstance(tensor, StrictTensor) else tensor


def wrap_like(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of CPU tensors as one that takes and returns this device's as well."""

    def call(*args: Any, **kwargs: Any) -> Any:
        strict = any(isinstance(each, StrictTensor) for each in tree_leaves((args, kwargs)))
        result = function(*tree_map_only(StrictTensor, inner, args), **kwargs)
        return tree_map_only(Tensor, StrictTensor, result) if strict else result

    return call
