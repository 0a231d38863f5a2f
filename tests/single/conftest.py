"""What the tests of the codec share: devices, awkward gradients, comparison of bits."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import settings
from torch import Tensor

settings.register_profile("reproducible", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("reproducible")

SPECIAL_VALUES = (
    *(0.0, -0.0, float("nan"), float("inf"), -float("inf")),
    *(1e-45, -1e-40, 6e-8, -(2.0**-101), 1e-30, 65504.0, -65520.0, 3e38, -1e300),
)
BITS_OF = {
    **{torch.float64: torch.int64, torch.float32: torch.int32},
    **{torch.float16: torch.int16, torch.bfloat16: torch.int16},
}


def _devices() -> list[object]:
    gpu = [pytest.param("cuda", marks=pytest.mark.gpu)]
    return ["cpu", *(gpu if torch.cuda.is_available() else [])]


@pytest.fixture(scope="session", params=_devices())
def device(request: pytest.FixtureRequest) -> str:
    """Every kind of device here: a GPU's tests are the CPU's on another device."""
    return str(request.param)


@pytest.fixture(scope="session", params=list(BITS_OF), ids=lambda d: str(d)[6:])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Every dtype of a gradient."""
    found: torch.dtype = request.param
    return found


def _random_bits(numel: int, dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = numel * torch.finfo(dtype).bits // 8
    raw = torch.randint(0, 256, (size,), generator=generator, dtype=torch.uint8)
    return raw.view(dtype)


@pytest.fixture(scope="session")
def gradient() -> Callable[..., Tensor]:
    """Make a gradient [numel]: normal, with special values, zero or random bits."""

    def make(
        numel: int, dtype: torch.dtype = torch.float32, kind: str = "normal", seed: int = 0
    ) -> Tensor:
        if kind == "zero":
            return torch.zeros(numel, dtype=dtype)
        if kind == "bits":
            return _random_bits(numel, dtype, seed)
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(numel, generator=generator, dtype=torch.float64)
        if kind == "special":
            special = torch.tensor(SPECIAL_VALUES, dtype=torch.float64)
            values[::7] = special[torch.arange(len(values[::7])) % len(special)]
        return values.to(dtype)

    return make


@pytest.fixture(scope="session")
def assert_same_bits() -> Callable[[Tensor, Tensor, object], None]:
    """Assert equality of every bit (so 0.0 is not -0.0); any NaN equals any other."""

    def check(actual: Tensor, expected: Tensor, case: object = "") -> None:
        actual = actual.cpu()
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), case
        if actual.dtype in BITS_OF:
            assert torch.equal(actual.isnan(), expected.isnan()), case
            bits = BITS_OF[actual.dtype]
            actual = actual.nan_to_num(nan=0.0, posinf=None, neginf=None).view(bits)
            expected = expected.nan_to_num(nan=0.0).view(bits)
        assert torch.equal(actual, expected), case

    return check
