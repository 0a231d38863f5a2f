"""The exchanges by name: the only list of them."""

from knet_hvd import ops
from knet_hvd.collectives import Collectives
from knet_hvd.compression import TernaryCodec
from knet_hvd.data_parallel.exchanges.allgather import AllgatherExchange
from knet_hvd.data_parallel.exchanges.alltoall import AlltoallExchange
from knet_hvd.data_parallel.exchanges.base import Exchange
from knet_hvd.performance import cheapest

EXCHANGES: dict[str, type[Exchange]] = {
    exchange.formula.name: exchange for exchange in (AllgatherExchange, AlltoallExchange)
}
"""Of two that send as much, ``"auto"`` takes the first."""

ExchangeChoice = str
"""``"auto"``, or a name of ``EXCHANGES``."""


def check_exchange(choice: str) -> None:
    """Check the name of an exchange.

    Raises:
        ValueError: If there is none of that name.
    """
    if choice not in ("auto", *EXCHANGES):
        names = ", ".join(EXCHANGES)
        raise ValueError(f"exchange: expected auto, {names}; got {choice!r}")


def make_exchange(
    choice: ExchangeChoice, codec: TernaryCodec, collectives: Collectives, divisor: int
) -> Exchange:
    """Return the exchange of that name; ``"auto"`` takes the one that sends least."""
    if choice == "auto":
        formulas = [exchange.formula for exchange in EXCHANGES.values()]
        choice = cheapest(formulas, collectives.size, ops.code_bits(codec.config.wire_format)).name
    return EXCHANGES[choice](codec, collectives, divisor)
