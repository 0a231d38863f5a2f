"""Time and memory of a device, which a GPU counts otherwise than the CPU."""

import torch


def finish(device: torch.device) -> None:
    """Wait until all that was started on a device is done, so that a clock may be read.

    The CPU has always done it.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
