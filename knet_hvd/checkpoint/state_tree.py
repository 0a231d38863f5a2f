"""Nested dictionaries of tensors and plain values, and how they become a file.

The tensors of a tree go into the file as they are, the rest of it as JSON. Neither can
hold code, and floats come back bit for bit.
"""

import json
from typing import Any

from torch import Tensor

StateTree = Any
"""Tensors, None, bool, int, float and str in dicts (keys str or int), lists, tuples."""


def snapshot(tree: StateTree) -> StateTree:
    """Return a copy that training no longer changes: on the CPU, and contiguous.

    Args:
        tree: See ``StateTree``; what is no tensor and no container is shared.
    """
    if isinstance(tree, Tensor):
        copy = tree.detach().to("cpu", copy=True)
        return copy.contiguous()
    if isinstance(tree, dict):
        return {key: snapshot(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(snapshot(value) for value in tree)
    return tree


def split_tree(tree: StateTree) -> tuple[dict[str, Tensor], str]:
    """Take a tree apart.

    Args:
        tree: See ``StateTree``.

    Returns:
        Its tensors by name, and the JSON that ``join_tree`` needs.

    Raises:
        TypeError: If it holds anything else.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, json.dumps(_encode(tree, "", tensors))


def _encode(value: StateTree, path: str, tensors: dict[str, Tensor]) -> object:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        name = f"{len(tensors)}:{path}"  # the number makes it unique, the path readable
        tensors[name] = value.detach()
        return {"tensor": name}
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"{path}: keys must be str or int, got {key!r}")
        items = [[key, _encode(v, f"{path}/{key}", tensors)] for key, v in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_encode(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]}
    raise TypeError(
        f"{path}: expected tensors, None, bool, int, float or str in dicts, lists and "
        f"tuples, got {type(value).__name__}"
    )


def join_tree(tensors: dict[str, Tensor], text: str) -> StateTree:
    """Put together what ``split_tree`` took apart.

    Raises:
        ValueError: If the text is not what ``split_tree`` writes.
    """
    try:
        return _decode(json.loads(text), tensors)
    except (KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(f"not the structure of a tree: {error!r}") from error


def _decode(value: Any, tensors: dict[str, Tensor]) -> StateTree:
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise TypeError("a bare list")
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in content}
    items = [_decode(item, tensors) for item in content]
    return {"list": list, "tuple": tuple}[kind](items)
