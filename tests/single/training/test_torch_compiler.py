"""A job imports PyTorch's compiler only if something is compiled."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
import torch
from knet_hvd.training.torch_compiler import import_compiler_late

import_compiler_late()
for kind in (torch.optim.SGD, torch.optim.Adam):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = kind([parameter], lr=0.5)
    parameter.sum().backward()
    optimizer.step()
    assert torch.allclose(parameter, torch.tensor(0.5)), parameter
    assert parameter.requires_grad
    assert parameter.grad_fn is None
    optimizer.zero_grad()
    assert parameter.grad is None
    optimizer.load_state_dict(optimizer.state_dict())
for left_out in (torch._dynamo.disable(len), torch._dynamo.disable(recursive=False)(len)):
    assert left_out("abc") == 3
from knet_hvd import ops
assert ops.scales([torch.ones(128)], 0, rule="rms", clip_factor=2.5) == 2.5
with torch.device("meta"):
    assert torch.relu(torch.nn.Linear(3, 4)(torch.ones(2, 3))).shape == (2, 4)
print("torch._dynamo.eval_frame" in sys.modules)
"""
COMPILE = """
twice = torch.compile(lambda x: x * 2, backend="eager", fullgraph=True)
assert twice(torch.ones(2)).tolist() == [2, 2]
print("torch._dynamo.eval_frame" in sys.modules)
"""


def imported(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("late", [True, False])
def test_optimizers_and_networks_without_memory(late: bool) -> None:
    script = SCRIPT if late else SCRIPT.replace("\nimport_compiler_late()\n", "\n")
    assert imported(script) == [str(not late)]


def test_what_is_compiled_imports_it() -> None:
    assert imported(SCRIPT + COMPILE) == ["False", "True"]


def test_the_codec_s_first_call_imports_nothing_large() -> None:
    calls = "ops.scales([torch.ones(128)], 0, rule='rms', clip_factor=2.5)"
    names = "'torch._dynamo', 'sympy'"
    script = f"import sys, torch\nfrom knet_hvd import ops\n{calls}\n"
    assert imported(f"{script}print(*[name in sys.modules for name in ({names})])") == ["False"] * 2
