"""The one network interface that an elastic job uses, and which ones it may be."""

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

Addresses = Mapping[str, Sequence[str]]
"""IP addresses of the interfaces of this machine, by name."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface.

    Attributes:
        name: As ``ip link`` shows it.
        address: IPv4, on which the launcher listens.
    """

    name: str
    address: str


def local_addresses() -> dict[str, list[str]]:
    """Return the IP addresses of this machine's interfaces, by name."""
    families = (socket.AF_INET, socket.AF_INET6)
    return {
        name: [a.address.split("%")[0] for a in found if a.family in families]
        for name, found in psutil.net_if_addrs().items()
    }


def choose_interface(wanted: str, allow_public: bool, known: Addresses) -> Interface:
    """Return the interface that is asked for, unless the world can reach it.

    Gloo binds to an interface by its name, so that all addresses of it count.

    Args:
        wanted: A name, such as ``eth1``, or an IPv4 address of this machine.
        allow_public: Whether a public address is meant.
        known: Of ``local_addresses``.

    Raises:
        ValueError: If there is no such interface, it has no IPv4 address, or one of its
            addresses is public and that was not asked for.
    """
    chosen = _find(wanted, known)
    public = [a for a in known[chosen.name] if ipaddress.ip_address(a).is_global]
    if public and not allow_public:
        raise ValueError(
            f"interface {chosen.name} has the public address {', '.join(public)}: "
            "whoever reaches it can disturb the job, since nothing in Horovod's "
            "elastic protocol asks who is there. Choose a private interface, or give "
            "--allow-public-address behind a firewall"
        )
    return chosen


def _find(wanted: str, known: Addresses) -> Interface:
    for name, addresses in known.items():
        if wanted in addresses and "." in wanted:
            return Interface(name, wanted)
        if wanted == name:
            for address in addresses:
                if "." in address:
                    return Interface(name, address)
            raise ValueError(f"interface {name} has no IPv4 address")
    names = ", ".join(f"{n} ({', '.join(a)})" for n, a in known.items() if a)
    raise ValueError(
        f"interface: expected the name or the IPv4 address of one of {names}; got {wanted!r}"
    )


def is_local(host: str, known: Addresses) -> bool:
    """Return whether a host is this machine: any loopback address is, too.

    Args:
        host: A name or an address.
        known: Of ``local_addresses``.

    Raises:
        OSError: If the name cannot be resolved.
    """
    address = socket.gethostbyname(host)
    own = {each for addresses in known.values() for each in addresses}
    return address in own or ipaddress.ip_address(address).is_loopback
