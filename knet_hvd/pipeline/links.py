"""The links between a stage and its neighbors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from knet_hvd.comm import Encoding, LinkSpec, Mesh, ReceiveLink, SendLink, World, check_agreement
from knet_hvd.devices import CPU
from knet_hvd.pipeline.activation import Signature
from knet_hvd.pipeline.crossing import ReceiveCrossing, SendCrossing
from knet_hvd.pipeline.link_settings import LinkSettings

_ACTIVATIONS_TAG = 1
_GRADIENTS_TAG = 2
_TAGS_PER_TENSOR = 16
"""More than there are kinds of messages, so that every tensor of a tuple has tags of its own."""


@dataclass(slots=True, eq=False)
class StageLinks:
    """Hold the links of one rank; those that its stage does not need are None.

    Attributes:
        inputs: Activations from the stage before.
        outputs: Activations to the next stage.
        output_gradients: Gradients of the outputs, from the next stage.
        input_gradients: Gradients of the inputs, to the stage before.
    """

    inputs: ReceiveCrossing | None = None
    outputs: SendCrossing | None = None
    output_gradients: ReceiveCrossing | None = None
    input_gradients: SendCrossing | None = None

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
    cuts: Sequence[Signature],
    settings: LinkSettings,
    *,
    gradients_return: bool,
    device: torch.device = CPU,
) -> StageLinks:
    """Agree with the neighbors on what crosses, and open the links.

    Args:
        world: All ranks; every rank has to call.
        mesh: Which rank is which stage.
        cuts: What crosses each cut, the largest that there is.
        settings: How it crosses.
        gradients_return: Whether gradients cross as well.
        device: Of this rank's stage.

    Raises:
        RankMismatchError: If two ends expect different shapes or encodings.
        ValueError: If there are neither one nor as many encodings as cuts.
    """
    before, after = _neighbor_specs(world.rank, mesh, cuts, settings)
    specs = [spec for cut in (before, after) if cut is not None for spec in cut.all]
    if _needs_progress(world, specs, settings.mpi_progress):
        world.start_progress()
    facts = {key: value for spec in specs for key, value in spec.facts().items()}
    check_agreement(world, facts, "what crosses between stages")
    links = StageLinks()
    # Those that send first: a receiver waits until its sender has opened its end.
    if after is not None:
        sent = [SendLink(world, spec, device) for spec in after.activations]
        links.outputs = SendCrossing(sent)
    if before is not None and gradients_return:
        sent = [SendLink(world, spec, device) for spec in before.gradients]
        links.input_gradients = SendCrossing(sent)
    if before is not None:
        received = [ReceiveLink(world, spec, device) for spec in before.activations]
        links.inputs = ReceiveCrossing(received, before.signature)
    if after is not None and gradients_return:
        received = [ReceiveLink(world, spec, device) for spec in after.gradients]
        links.output_gradients = ReceiveCrossing(received, after.signature.learnable)
    return links


def _needs_progress(world: World, specs: Sequence[LinkSpec], setting: str) -> bool:
    """Return whether MPI has to be called while this rank computes."""
    hosts = world.hosts()
    if setting == "auto":
        return any(hosts[spec.source] != hosts[spec.target] for spec in specs)
    return setting == "on"


class _CutSpecs(NamedTuple):
    """What crosses a cut, one way and the other."""

    activations: list[LinkSpec]
    gradients: list[LinkSpec]
    signature: Signature

    @property
    def all(self) -> list[LinkSpec]:
        """Both."""
        return [*self.activations, *self.gradients]


def _neighbor_specs(
    rank: int, mesh: Mesh, cuts: Sequence[Signature], settings: LinkSettings
) -> tuple[_CutSpecs | None, _CutSpecs | None]:
    """Return what crosses the cuts before and after a rank's stage."""
    stage, previous, following = mesh.stage_of(rank), mesh.previous(rank), mesh.next(rank)
    before = after = None
    if previous is not None:
        before = _cut_specs(previous, rank, stage - 1, cuts, settings)
    if following is not None:
        after = _cut_specs(rank, following, stage, cuts, settings)
    return before, after


def _cut_specs(
    source: int, target: int, cut: int, cuts: Sequence[Signature], settings: LinkSettings
) -> _CutSpecs:
    # A stage runs ahead by as many batches as stages follow: with fewer credits two
    # neighbors could wait for each other.
    num_credits = max(settings.credits, len(cuts) + 1)

    def specs(name: str, tag: int, signature: Signature, encoding: Encoding) -> list[LinkSpec]:
        tensors = zip(signature.shapes, signature.dtypes, strict=True)
        return [
            LinkSpec(
                name=f"{name} ({index})" if signature.is_tuple else name,
                source=source,
                target=target,
                tag=tag + _TAGS_PER_TENSOR * index,
                shape=shape,
                dtype=dtype,
                encoding=encoding if dtype == torch.float32 else "raw",
                credits=num_credits,
            )
            for index, (shape, dtype) in enumerate(tensors)
        ]

    forward = encoding_of_cut(settings.activation_encodings, cut, len(cuts))
    backward = encoding_of_cut(settings.gradient_encodings, cut, len(cuts))
    gradients = specs("gradients", _GRADIENTS_TAG, cuts[cut].learnable, backward)
    return _CutSpecs(
        specs("activations", _ACTIVATIONS_TAG, cuts[cut], forward),
        [replace(spec, source=target, target=source) for spec in gradients],
        cuts[cut],
    )


def encoding_of_cut(encodings: Sequence[Encoding], cut: int, num_cuts: int) -> Encoding:
    """Return the encoding of a cut, of one for all or one for each.

    Raises:
        ValueError: If there are neither one nor as many encodings as cuts.
    """
    if len(encodings) not in (1, num_cuts):
        raise ValueError(
            f"encodings: expected one, or one for each of {num_cuts} cuts, got {len(encodings)}"
        )
    return encodings[cut if len(encodings) > 1 else 0]
