"""Bring all stages to the end of one step, so that their states belong together."""

import json

from knet_hvd.comm import World
from knet_hvd.errors import KnetError
from knet_hvd.pipeline.links import StageLinks
from knet_hvd.pipeline.runners.base import Runner

_PATIENCE = 2
"""How many timeouts to wait for stages that have not made the step yet."""


def settle(
    world: World, links: StageLinks, runner: Runner, next_rank: int | None, error: str = ""
) -> None:
    """Wait until all ranks have made the step, and take in what was sent back.

    Activations of the step have then all been taken; gradients on their way back are
    received, but learned from only when the run would have done so anyway.

    Args:
        world: All ranks; every rank has to call after the same step.
        links: Of this rank.
        runner: Of this rank.
        next_rank: The rank of the next stage, if any.
        error: What is wrong on this rank; empty if nothing is.

    Raises:
        KnetError: On every rank, if something is wrong on any, or a rank is lost.
    """
    link = links.input_gradients
    own = {"sent": 0 if link is None else link.sent_frames, "error": error}
    texts = world.gather_text(
        json.dumps(own),
        "all stages to make the step of a checkpoint",
        _PATIENCE,
        runner.poll_gradients,
    )
    found = [json.loads(text) for text in texts]
    for each in found:
        if each["error"]:
            raise KnetError(each["error"])
    if next_rank is not None:
        runner.receive_gradients(found[next_rank]["sent"])
