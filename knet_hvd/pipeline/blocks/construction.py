"""Write down how a network gets its initial values, and repeat a part of it.

On the meta device tensors have shapes but no values. What is done to them there, to set
initial values, is written down operation by operation and can be repeated later with memory
for some of the tensors only. Random operations are all repeated, so that each draws the
numbers that it would draw in the whole network; one tensor at a time, if nobody needs it.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from knet_hvd.models.blocks import truncated_normal_


class _Operation(NamedTuple):
    """What was called, and the storages that it gave values."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    written: frozenset[int]
    is_random: bool

    @property
    def read(self) -> Iterator[int]:
        """The storages of the arguments."""
        return (_storage(each) for each in _tensors((self.args, self.kwargs)))


class Construction:
    """Record what a function does to tensors of the meta device."""

    def __init__(self) -> None:
        """Begin with nothing recorded."""
        self.operations: list[_Operation] = []
        self.is_repeatable = True

    def __enter__(self) -> "Construction":
        """Record until the end of the block; tensors are made on the meta device."""
        self._modes = (torch.device("meta"), _Functions(self), _Operations(self))
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop recording."""
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    def add(self, function: Any, args: Any, kwargs: Any, result: Any, written: Any) -> None:
        """Record an operation that gave values to storages."""
        random = function is truncated_normal_ or _is_random(function)
        # Tensors of our own: a parameter may get other memory later, as by Module.half().
        args, kwargs, result = tree_map_only(Tensor, Tensor.detach, (args, kwargs, result))
        self.operations.append(
            _Operation(function, args, kwargs, result, frozenset(written), random)
        )

    def sets(self, tensor: Tensor) -> bool:
        """Return whether a tensor of the meta device got values."""
        key = _storage(tensor)
        return any(key in operation.written for operation in self.operations)

    @torch.no_grad()
    def repeat(self, wanted: Iterable[Tensor], *, draw_others: bool) -> "Values":
        """Repeat what gives some tensors their values.

        Args:
            wanted: Of the meta device.
            draw_others: Draw the random numbers of all others too.
        """
        needed = {_storage(tensor) for tensor in wanted}
        chosen = []
        for operation in reversed(self.operations):
            is_needed = not operation.written.isdisjoint(needed)
            if is_needed:
                needed.update(operation.read)
            if is_needed or (draw_others and operation.is_random):
                chosen.append((operation, is_needed))
        values = Values()
        for operation, is_needed in reversed(chosen):
            # What nobody needs gets memory of its own, for this operation only.
            _run(operation, values if is_needed else Values())
        return values


class Values:
    """Hold the memory of tensors that had none on the meta device."""

    def __init__(self) -> None:
        """Begin without memory."""
        self._storages: dict[int, torch.UntypedStorage] = {}

    def of(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the meta device with memory; another one is returned as it is."""
        if not tensor.is_meta:
            return tensor
        meta = tensor.untyped_storage()
        storage = self._storages.get(_storage(tensor))
        if storage is None:
            storage = torch.UntypedStorage(meta.nbytes(), device="cpu")
            self._storages[_storage(tensor)] = storage
        empty = torch.empty(0, dtype=tensor.dtype)
        return empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def _run(operation: _Operation, values: Values) -> None:
    """Repeat an operation on tensors with memory."""
    args, kwargs = tree_map_only(Tensor, values.of, (operation.args, operation.kwargs))
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    results = operation.function(*args, **kwargs)
    pairs = zip(_tensors(operation.result), _tensors(results), strict=True)
    for meta, result in pairs:
        target = values.of(meta)
        if target.data_ptr() != result.data_ptr():
            target.copy_(result)


class _Operations(TorchDispatchMode):
    """Record every operation that makes or changes values."""

    def __init__(self, construction: Construction) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._construction = construction

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        passed = {_storage(each) for each in _tensors((args, kwargs))}
        written = {_storage(each) for each in _tensors(result)} - passed
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written.update(_storage(each) for each in _tensors(value))
        if written and not func._schema.name.startswith("aten::empty"):
            self._construction.add(func, args, kwargs, result, written)
        return result


class _Functions(TorchFunctionMode):
    """See what the dispatcher does not: values that are looked at, and constants."""

    def __init__(self, construction: Construction) -> None:
        super().__init__()
        self._construction = construction

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is truncated_normal_:  # it looks at values, to draw again
            self._construction.add(func, args, kwargs, args[0], {_storage(args[0])})
            return args[0]
        if func == Tensor.is_meta.__get__:  # type: ignore[attr-defined]
            # Such as torch.nn.init.orthogonal_, which then does nothing.
            self._construction.is_repeatable = False
        if func in (torch.tensor, torch.as_tensor):
            with torch._C.DisableTorchFunctionSubclass():
                constant = func(*args, **{**kwargs, "device": "cpu"})
            return torch.empty_like(constant, device="meta").copy_(constant)
        return func(*args, **kwargs)


def _tensors(tree: Any) -> list[Tensor]:
    return [each for each in tree_leaves(tree) if isinstance(each, Tensor)]


def _storage(tensor: Tensor) -> int:
    """Return what tensors that share memory have in common."""
    return int(tensor.untyped_storage()._cdata)


def _is_random(function: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in function.tags
