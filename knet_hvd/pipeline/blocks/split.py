"""Cut a module whose forward calls named parts one after the other, with torch.fx.

Only the forward of the modules that contain a part is traced; the parts themselves, such
as the layers of a transformer, run as they are and may do what they like.
"""

import inspect
import traceback
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from operator import getitem
from typing import Any

from torch import fx, nn

_ROOT = "__root__"


def split_module(model: nn.Module, names: Sequence[str], num_inputs: int = 1) -> nn.Sequential:
    """Return blocks that together compute what a module does.

    A block begins where ``forward`` calls a part of that name; the first block begins with
    the inputs. Each takes what the one before returns, a tensor or a tuple of tensors. The
    blocks hold the module's own parts, under the names that they have in it.

    Args:
        model: Calls each named part once; what lies between may be any code that torch.fx
            can trace.
        names: Parts such as "layers.4".
        num_inputs: Arguments of ``forward`` that are inputs; others keep their defaults.

    Raises:
        ValueError: If a part is missing or not called once, or if ``forward`` cannot be
            traced; with the line.
    """
    for name in names:
        _check_part(model, name)
    graph = _trace(model, names, num_inputs)
    segments = _segments(graph, names)
    blocks = [fx.GraphModule(model, each, f"Block{i}") for i, each in enumerate(segments)]
    for block in blocks:
        _keep_out_of_state(model, block)
    keys = ["inputs", *(name.replace(".", "_") for name in names)]
    return nn.Sequential(OrderedDict(zip(keys, blocks, strict=True)))


def _keep_out_of_state(model: nn.Module, block: fx.GraphModule) -> None:
    """Leave out of a block's state dictionary the buffers that the model's leaves out."""
    own = {path.rpartition(".")[::2] for path, _ in block.named_buffers()}
    for owner, name in own:
        if name in model.get_submodule(owner)._non_persistent_buffers_set:
            block.get_submodule(owner)._non_persistent_buffers_set.add(name)


def _check_part(model: nn.Module, name: str) -> None:
    try:
        model.get_submodule(name)
    except AttributeError:
        parts = ", ".join(part for part, _ in model.named_children())
        raise ValueError(
            f"split: expected parts of {type(model).__name__}, such as {parts}, got {name!r}"
        ) from None


class _Tracer(fx.Tracer):
    """Trace the modules that contain a part to cut at, and nothing within others."""

    proxy_buffer_attributes = True  # a slice of a buffer, such as a mask, is a node as well

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.record_stack_traces = True
        self._containers = {
            container
            for name in names
            for container in accumulate(name.split(".")[:-1], "{}.{}".format)
        }

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether to call a module instead of tracing what it does."""
        return module_qualified_name not in self._containers


def _trace(model: nn.Module, names: Sequence[str], num_inputs: int) -> fx.Graph:
    parameters = list(inspect.signature(model.forward).parameters.values())[num_inputs:]
    fixed = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    try:
        graph = _Tracer(names).trace(model, concrete_args=fixed or None)
    except Exception as error:  # what a user's forward raises under proxies is of any type
        raise ValueError(
            f"split: {type(model).__name__}.forward cannot be cut: {_place(error)}: {error}. Move "
            "what depends on values, or cannot be traced, into a part of the module, or give "
            "the model as nn.Sequential"
        ) from error
    for placeholder in graph.find_nodes(op="placeholder")[num_inputs:]:
        # torch.fx keeps arguments with fixed values, to compare what is passed for them.
        for user in (*placeholder.users, placeholder):
            graph.erase_node(user)
    return graph


def _place(error: Exception) -> str:
    """Return the line of the user's code at which tracing stopped."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/torch/" not in f.filename and f.filename != __file__]
    frame = (own or frames)[-1]
    return f"{frame.filename}:{frame.lineno}: {frame.line}"


def _segments(graph: fx.Graph, names: Sequence[str]) -> list[fx.Graph]:
    """Return the graphs of the blocks."""
    segment_of = _number_segments(graph, names)
    body = [n for n in graph.nodes if n.op not in ("placeholder", "output", "get_attr")]
    (output,) = (n for n in graph.nodes if n.op == "output")
    last_use = {n: max((segment_of[user] for user in n.users), default=0) for n in graph.nodes}
    incoming: list[fx.Node] = [n for n in graph.nodes if n.op == "placeholder"]
    segments = []
    for index in range(len(names) + 1):
        own = [n for n in body if segment_of[n] == index]
        outgoing = [n for n in [*incoming, *own] if last_use[n] > index]
        is_last = index == len(names)
        segments.append(_one_segment(incoming, own, output.args[0] if is_last else outgoing))
        incoming = outgoing
    return segments


def _number_segments(graph: fx.Graph, names: Sequence[str]) -> dict[fx.Node, int]:
    """Return the block of each node: the output belongs to the last."""
    targets = [n.target for n in graph.nodes if n.op == "call_module"]
    for name in names:
        if targets.count(name) != 1:
            raise ValueError(
                f"split: expected that forward calls {name} once, got {targets.count(name)} calls"
            )
    numbers, index = {}, 0
    for node in graph.nodes:
        if node.op == "call_module" and node.target in names:
            index += 1
        numbers[node] = index
    return numbers


def _one_segment(incoming: Sequence[fx.Node], own: Sequence[fx.Node], result: Any) -> fx.Graph:
    """Return a graph with one argument: what the block before returned."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    argument = graph.placeholder("inputs")
    if len(incoming) == 1:
        copies[incoming[0]] = argument
    else:
        for index, node in enumerate(incoming):
            copies[node] = graph.call_function(getitem, (argument, index))

    def copied(node: fx.Node) -> fx.Node:
        if node.op == "get_attr" and node not in copies:  # each block reads its own
            copies[node] = graph.node_copy(node, copied)
        return copies[node]

    for node in own:
        copies[node] = graph.node_copy(node, copied)
    if isinstance(result, list):
        result = result[0] if len(result) == 1 else tuple(result)
    graph.output(fx.map_arg(result, copied))
    graph.lint()
    return graph
