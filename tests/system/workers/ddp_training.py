"""One rank of DistributedDataParallel with ternary_hook: each function shows one thing."""

import io
import os
import sys
import warnings
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from knet_hvd import KnetError, TernaryConfig
from knet_hvd.ddp import TernaryState, ternary_hook
from tests.system.workers.ddp_model import RANK, SIZE, Net, loss_of, make_net, mean_of_codes

warnings.simplefilter("error")
torch.set_num_threads(1)
SMALL_BUCKETS_MB = 0.001


def wrap(net: nn.Module, state: TernaryState, **settings: object) -> DistributedDataParallel:
    model = DistributedDataParallel(net, bucket_cap_mb=SMALL_BUCKETS_MB, **settings)
    model.register_comm_hook(state, ternary_hook)
    return model


def assert_several_buckets(model: DistributedDataParallel) -> None:
    """So that one bucket's codes are on their way while another's scales are shared."""
    sizes = model._get_ddp_logging_data()["rebuilt_bucket_sizes"]
    assert len(sizes.split(",")) >= 3, sizes


def assert_same_on_all_ranks(net: nn.Module) -> None:
    flat = torch.cat([p.detach().reshape(-1).view(torch.int32) for p in net.parameters()])
    gathered = [torch.empty_like(flat) for _ in range(SIZE)]
    dist.all_gather(gathered, flat)
    assert all(torch.equal(each, flat) for each in gathered)


def gradients_are_the_mean_of_all_codes(early: tuple[Net, TernaryState]) -> None:
    """30 steps, some accumulated; the codes are path A's: same seed, streams and ranks."""
    settings = {
        "allgather": {"find_unused_parameters": True},
        "alltoall": {"gradient_as_bucket_view": True},
        "auto": {"static_graph": True},
    }
    for exchange in settings:
        net = make_net(has_unused=exchange == "allgather")
        named = net.named_parameters()
        state = TernaryState(named_parameters=named, exchange=exchange)
        if exchange == "auto":
            net, state = early
        model = wrap(net, state, **settings[exchange])
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        for step in range(10):
            steps = [step, step + 100] if step % 4 == 3 and exchange != "auto" else [step]
            expected = mean_of_codes(net, steps, step, TernaryConfig())
            optimizer.zero_grad(set_to_none=step % 2 == 0)
            for each in steps:
                with nullcontext() if each == steps[-1] else model.no_sync():
                    loss_of(model, RANK, each).backward()
            for name, parameter in net.named_parameters():
                if name.startswith("unused"):
                    continue
                if TernaryConfig().stays_float(name, parameter.numel()):
                    torch.testing.assert_close(parameter.grad, expected[name])
                else:
                    assert torch.equal(parameter.grad, expected[name]), (exchange, step, name)
            optimizer.step()
        if exchange == "alltoall":
            assert_several_buckets(model)
        assert_same_on_all_ranks(net)
        assert 0 < state.wire_bytes < 4 * sum(p.numel() for p in net.parameters())


def train(
    model: DistributedDataParallel, optimizer: torch.optim.Optimizer, steps: range
) -> list[float]:
    losses = []
    for step in steps:
        optimizer.zero_grad()
        loss = loss_of(model, RANK, step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def error_feedback_converges() -> None:
    net = make_net()
    model = wrap(net, TernaryState(error_feedback=True))
    losses = train(model, torch.optim.SGD(net.parameters(), lr=0.05), range(60))
    plain_net = make_net()
    plain = DistributedDataParallel(plain_net)
    plain_losses = train(plain, torch.optim.SGD(plain_net.parameters(), lr=0.05), range(60))
    first, last = sum(plain_losses[:5]), sum(plain_losses[-5:])
    assert last < 0.5 * first, "or it would show nothing"
    assert sum(losses[-5:]) < 1.15 * last, (sum(losses[-5:]), last)
    assert_same_on_all_ranks(net)


def a_resumed_run_is_the_same() -> None:
    def start() -> tuple[Net, TernaryState, DistributedDataParallel, torch.optim.Optimizer]:
        net = make_net()
        named = net.named_parameters()
        state = TernaryState(error_feedback=True, named_parameters=named)
        return net, state, wrap(net, state), torch.optim.SGD(net.parameters(), lr=0.05)

    net, state, model, optimizer = start()
    train(model, optimizer, range(6))
    file = io.BytesIO()
    torch.save({"net": net.state_dict(), "ternary": state.state_dict()}, file)
    train(model, optimizer, range(6, 12))
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert saved["ternary"]["step"] == 6
    assert "middle.weight" in saved["ternary"]["residuals"]
    other_net, other_state, other_model, other_optimizer = start()
    other_net.load_state_dict(saved["net"])
    other_state.load_state_dict(saved["ternary"])
    train(other_model, other_optimizer, range(6, 12))
    for mine, other in zip(net.parameters(), other_net.parameters(), strict=True):
        assert torch.equal(mine, other)


def not_a_number_reaches_all_ranks() -> None:
    for culprit in range(SIZE):
        net = make_net()
        model = wrap(net, TernaryState())
        loss_of(model, RANK, 0).backward()
        net.zero_grad()
        net.middle.weight.register_hook(
            lambda gradient, culprit=culprit: gradient * (torch.nan if culprit == RANK else 1)
        )
        loss_of(model, RANK, 1).backward()
        assert net.middle.weight.grad.isnan().all()
        assert net.first.weight.grad.isfinite().all()


def ranks_with_fewer_batches_may_join() -> None:
    net = make_net()
    model = wrap(net, TernaryState())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    with model.join():
        train(model, optimizer, range(3 + RANK))
    assert_same_on_all_ranks(net)


def a_compiled_model_gets_the_same_gradients() -> None:
    gradients = []
    for is_compiled in (False, True):
        torch.manual_seed(2)
        net = nn.Sequential(*(nn.Linear(600, 600) for _ in range(3)))
        model = DistributedDataParallel(net, bucket_cap_mb=1)  # the compiler takes no less
        model.register_comm_hook(TernaryState(), ternary_hook)
        called = torch.compile(model, backend="eager") if is_compiled else model
        for step in range(3):
            net.zero_grad()
            inputs = torch.full((4, 600), 1.0 + RANK + step)
            called(inputs).square().mean().backward()
        gradients.append([p.grad for p in net.parameters()])
    assert all(map(torch.equal, *gradients))


def sparse_gradients_are_refused() -> None:
    net = nn.Embedding(50, 8, sparse=True)
    model = wrap(net, TernaryState())
    try:
        model(torch.tensor([1, 2])).sum().backward()
    except KnetError as error:
        assert "parameter.0 of shape [50, 8]" in str(error)  # noqa: PT017
    else:
        raise AssertionError("expected an error")


def main() -> None:
    net = make_net()
    early = TernaryState(named_parameters=net.named_parameters())  # as Lightning does
    dist.init_process_group(
        "gloo", init_method=os.environ["KNET_TEST_STORE"], rank=RANK, world_size=SIZE
    )
    gradients_are_the_mean_of_all_codes((net, early))
    error_feedback_converges()
    a_resumed_run_is_the_same()
    not_a_number_reaches_all_ranks()
    ranks_with_fewer_batches_may_join()
    sparse_gradients_are_refused()
    if SIZE == 2:  # it takes seconds
        warnings.simplefilter("default")
        a_compiled_model_gets_the_same_gradients()
    assert "horovod" not in sys.modules


main()
