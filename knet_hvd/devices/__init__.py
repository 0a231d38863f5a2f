"""The device of a rank: which one it takes, and what differs between kinds of devices.

Nothing here knows ranks but by the launcher's variables and a function that gathers texts.
"""

from knet_hvd.devices.choice import CPU, DEVICE_CHOICES, choose_device
from knet_hvd.devices.determinism import compute_deterministically
from knet_hvd.devices.taken import TakenDevice, take_device

__all__ = [
    "CPU",
    "DEVICE_CHOICES",
    "TakenDevice",
    "choose_device",
    "compute_deterministically",
    "take_device",
]
