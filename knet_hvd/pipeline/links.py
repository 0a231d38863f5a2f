"""The links between a stage and its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knet_hvd.comm import Encoding, LinkSpec, Mesh, ReceiveLink, SendLink, World, check_agreement

if TYPE_CHECKING:
    from knet_hvd.training.pipeline.config import PipelineConfig

_ACTIVATIONS_TAG = 1
_GRADIENTS_TAG = 2


@dataclass(slots=True, eq=False)
class StageLinks:
    """Hold the links of one rank; those that its stage does not need are None.

    Attributes:
        inputs: Activations from the stage before.
        outputs: Activations to the next stage.
        output_gradients: Gradients of the outputs, from the next stage.
        input_gradients: Gradients of the inputs, to the stage before.
    """

    inputs: ReceiveLink | None = None
    outputs: SendLink | None = None
    output_gradients: ReceiveLink | None = None
    input_gradients: SendLink | None = None

    @property
    def sent_bytes(self) -> int:
        """Return the bytes that this rank has sent."""
        sends = (self.outputs, self.input_gradients)
        return sum(link.sent_bytes for link in sends if link is not None)

    def close(self) -> None:
        """Wait until all frames are taken, and take posted receives back."""
        for send in (self.outputs, self.input_gradients):
            if send is not None:
                send.flush()
        for receive in (self.inputs, self.output_gradients):
            if receive is not None:
                receive.close()


def open_links(
    world: World,
    mesh: Mesh,
    cut_shapes: Sequence[tuple[int, ...]],
    config: PipelineConfig,
    gradients_return: bool,
) -> StageLinks:
    """Agree with the neighbours on what crosses, and open the links.

    Args:
        world: All ranks; every rank has to call.
        mesh: Which rank is which stage.
        cut_shapes: What crosses each cut for one image.
        config: The job's configuration.
        gradients_return: Whether gradients cross as well.

    Raises:
        RankMismatchError: If two ends expect different shapes or encodings.
        ValueError: If there are neither one nor as many encodings as cuts.
    """
    before, after = _neighbour_specs(world.rank, mesh, cut_shapes, config)
    specs = [spec for spec in (*before, *after) if spec is not None]
    if _needs_progress(world, specs, config):
        world.start_progress()
    facts = {key: value for spec in specs for key, value in spec.facts().items()}
    check_agreement(world, facts, "what crosses between stages")
    links = StageLinks()
    if before[0] is not None and before[1] is not None:
        links.inputs = ReceiveLink(world, before[0])
        if gradients_return:
            links.input_gradients = SendLink(world, before[1])
    if after[0] is not None and after[1] is not None:
        links.outputs = SendLink(world, after[0])
        if gradients_return:
            links.output_gradients = ReceiveLink(world, after[1])
    return links


def _needs_progress(world: World, specs: Sequence[LinkSpec], config: PipelineConfig) -> bool:
    """Return whether MPI has to be called while this rank computes."""
    hosts = world.hosts()
    if config.mpi_progress == "auto":
        return any(hosts[spec.source] != hosts[spec.target] for spec in specs)
    return config.mpi_progress == "on"


_Pair = tuple[LinkSpec, LinkSpec] | tuple[None, None]


def _neighbour_specs(
    rank: int, mesh: Mesh, cut_shapes: Sequence[tuple[int, ...]], config: PipelineConfig
) -> tuple[_Pair, _Pair]:
    """Return activations' and gradients' links across the cuts before and after."""
    stage, previous, following = (mesh.stage_of(rank), mesh.previous(rank), mesh.next(rank))
    before: _Pair = (None, None)
    after: _Pair = (None, None)
    if previous is not None:
        before = _cut_specs(previous, rank, stage - 1, cut_shapes, config)
    if following is not None:
        after = _cut_specs(rank, following, stage, cut_shapes, config)
    return before, after


def _cut_specs(
    source: int,
    target: int,
    cut: int,
    cut_shapes: Sequence[tuple[int, ...]],
    config: PipelineConfig,
) -> tuple[LinkSpec, LinkSpec]:
    shape = (config.microbatch_size, *cut_shapes[cut])
    # A stage runs ahead by as many batches as stages follow: with fewer credits two
    # neighbours could wait for each other.
    num_credits = max(config.credits, len(cut_shapes) + 1)
    num_cuts = len(cut_shapes)
    forward = _of_cut(config.activation_encodings, cut, num_cuts)
    backward = _of_cut(config.gradient_encodings, cut, num_cuts)
    return (
        LinkSpec("activations", source, target, _ACTIVATIONS_TAG, shape, forward, num_credits),
        LinkSpec("gradients", target, source, _GRADIENTS_TAG, shape, backward, num_credits),
    )


def _of_cut(encodings: Sequence[Encoding], cut: int, num_cuts: int) -> Encoding:
    """Return the encoding of a cut, of one for all or one for each."""
    if len(encodings) not in (1, num_cuts):
        raise ValueError(
            f"encodings: expected one, or one for each of {num_cuts} cuts, got {len(encodings)}"
        )
    return encodings[cut if len(encodings) > 1 else 0]
