"""Path B asks nothing of the host that would have it wait for a GPU, but for two numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from knet_hvd.compression import TernaryConfig
from knet_hvd.data_parallel.allreduce.summable import SummableCodes
from knet_hvd.data_parallel.allreduce.words import full_precision_buffer, one_value


class HostCopies(TorchFunctionMode):
    """Note every call that makes a tensor of a device from numbers of the host.

    Reading numbers of a device is an error by itself: meta tensors have none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in ("tensor", "as_tensor", "new_tensor", "to", "copy_", "cuda"):
            origins = [a for a in args if isinstance(a, Tensor)] if name != "new_tensor" else []
            if not result.is_cpu and not any(origin.device == result.device for origin in origins):
                self.found.append(name)
        return result


@pytest.mark.parametrize("average", [False, True])
def test_codes_are_made_and_read_without_a_copy_from_the_host(average) -> None:
    codes = SummableCodes(TernaryConfig(), 0, 2, average)
    values = torch.empty(1000, device="meta")
    with HostCopies() as copies:
        payload = codes.encode(values, 0.5, stream=1, step=2)
        codes.decode(payload, 0.5, torch.empty_like(values))
        words = codes.to_words(payload, values.numel(), [1, 2, 3, 4])
        codes.from_words(words[4:].to(torch.int64), 0.5, torch.empty_like(values))
        full_precision_buffer(values, 0.5)
    assert copies.found == []
    with HostCopies() as copies:
        torch.tensor([0.5], device="meta")
        values.new_tensor([0.5])
    assert copies.found == ["tensor", "new_tensor"]  # it does notice them


@pytest.mark.parametrize(
    "value", [0.1, 1e-46, 3.4028234663852886e38, 3.402823466385289e38, 1e39, float("inf")]
)
def test_a_number_is_rounded_as_a_list_would_be(value) -> None:
    assert one_value(value, torch.device("cpu")).tolist() == torch.tensor([value]).tolist()


def test_whole_numbers_stay_exact() -> None:
    made = one_value(2**62 + 1, torch.device("cpu"), torch.int64)
    assert made.tolist() == [2**62 + 1]
