"""Collective operations over ranks: one interface, and one file for each transport.

The transports are not imported here: ``horovod`` needs Horovod.
"""

from knet_hvd.collectives.base import Collectives, Handle, check_devices

__all__ = ["Collectives", "Handle", "check_devices"]
