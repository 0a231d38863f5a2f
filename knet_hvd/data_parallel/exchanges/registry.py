"""The exchanges by name."""

import horovod.torch as hvd

from knet_hvd import ops
from knet_hvd.compression import LevelsCodec, TernaryCodec
from knet_hvd.data_parallel.exchanges.allgather import AllgatherExchange
from knet_hvd.data_parallel.exchanges.alltoall import AlltoallExchange
from knet_hvd.data_parallel.exchanges.base import Exchange, ExchangeChoice
from knet_hvd.performance import cheapest_exchange

_KINDS: dict[str, type[Exchange]] = {"allgather": AllgatherExchange, "alltoall": AlltoallExchange}


def check_exchange(choice: str) -> None:
    """Check the name of an exchange.

    Raises:
        ValueError: If there is none of that name.
    """
    if choice not in ("auto", *_KINDS):
        names = ", ".join(_KINDS)
        raise ValueError(f"exchange: expected auto, {names}; got {choice!r}")


def make_exchange(
    choice: ExchangeChoice, codec: TernaryCodec, process_set: hvd.ProcessSet, divisor: int
) -> Exchange:
    """Return the exchange of that name; ``"auto"`` takes the one that sends least."""
    if choice == "auto":
        num_ranks = int(process_set.size())
        block = ops.block_values(codec.config.wire_format)
        choice = cheapest_exchange(
            num_ranks, 8 * ops.BLOCK_BYTES / block, LevelsCodec(num_ranks).bits_per_value
        )
    return _KINDS[choice](codec, process_set, divisor)
