"""Take a device on every rank, and tell each rank what the others have taken."""

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from knet_hvd.devices.choice import choose_device
from knet_hvd.errors import KnetError

GatherText = Callable[[str, str], list[str]]
"""(this rank's text, what it is) -> the texts of all ranks; every rank has to call."""


@dataclass(frozen=True, slots=True)
class TakenDevice:
    """Hold what a rank computes on.

    Attributes:
        device: This rank's.
        line: Says which device each rank took, the same on every rank.
    """

    device: torch.device
    line: str


def take_device(
    choice: str | torch.device, gather_text: GatherText, local_rank: int | None = None
) -> TakenDevice:
    """Take the device of this rank, and make it the current one; every rank has to call.

    Args:
        choice: See ``choose_device``; ranks may differ in it.
        gather_text: Brings a text of each rank to every rank.
        local_rank: The number of this rank on its host; the launcher's if not given.

    Raises:
        KnetError: On every rank, if one finds no device, or two took the same GPU.
    """
    own: dict[str, Any] = {"error": ""}
    device = torch.device("cpu")
    try:
        device = choose_device(choice, local_rank)
        own |= _description(device)
    except (KnetError, ValueError) as error:
        own["error"] = str(error)
    found = [json.loads(text) for text in gather_text(json.dumps(own), "the devices of all ranks")]
    _check(found)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return TakenDevice(device, _line(found))


def _description(device: torch.device) -> dict[str, str]:
    """Return what tells this rank's device from those of others."""
    if device.type != "cuda":
        return {"device": str(device)}
    properties = torch.cuda.get_device_properties(device)
    unit = getattr(properties, "uuid", None)  # older releases of PyTorch do not know it
    return {
        "device": f"{device} ({properties.name})",
        "host": socket.gethostname(),
        "unit": "" if unit is None else str(unit),
    }


def _check(found: list[dict[str, Any]]) -> None:
    """Raise where a rank has no device, or two have the same GPU."""
    for rank, each in enumerate(found):
        if each["error"]:
            raise KnetError(f"rank {rank}: {each['error']}")
    takers: dict[tuple[str, str], int] = {}
    for rank, each in enumerate(found):
        if not each.get("unit"):
            continue
        place = each["host"], each["unit"]
        if place in takers:
            raise KnetError(
                f"device: expected at most one rank for each GPU, got ranks {takers[place]} and "
                f"{rank} on {each['device']} of {each['host']}: start fewer ranks on the host, "
                "or take the CPU (device cpu)"
            )
        takers[place] = rank


def _line(found: list[dict[str, Any]]) -> str:
    names = [" on ".join(filter(None, (each["device"], each.get("host")))) for each in found]
    if len(set(names)) == 1:
        return f"device: {names[0]}" + (f" on all {len(names)} ranks" if len(names) > 1 else "")
    shown = []
    for name, group in groupby(enumerate(names), key=lambda pair: pair[1]):
        ranks = [rank for rank, _ in group]
        which = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
        shown.append(f"{which} {name}")
    return f"devices: {', '.join(shown)}"
