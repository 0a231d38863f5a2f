"""One rank of a pipeline: its blocks, its optimizer, its links, and what reaches it."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from knet_hvd.comm import World, check_agreement
from knet_hvd.models.blocks import blocks_of
from knet_hvd.pipeline.api.placing import Placing, place_blocks, take_values
from knet_hvd.pipeline.api.sharing import BatchShare
from knet_hvd.pipeline.api.targets import SentTargets
from knet_hvd.pipeline.blocks.draws import BlockDraws
from knet_hvd.pipeline.blocks.user_model import UserModel
from knet_hvd.pipeline.build import build_parts
from knet_hvd.pipeline.connect import BuiltStage, connect
from knet_hvd.pipeline.link_settings import LinkSettings
from knet_hvd.pipeline.replicas.base import Replicas
from knet_hvd.pipeline.spec import PipelineSpec
from knet_hvd.pipeline.stage_scalars import StageScalars
from knet_hvd.pipeline.updates.clipping import Clipping

_SEEDS_APART = 2**40
"""Between the seeds of two replicas."""
Optimizers: TypeAlias = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]
OptimizerOf: TypeAlias = Callable[[list[nn.Parameter]], Optimizers]


class Member:
    """Hold what one rank trains with; its links are opened when the first batch is there.

    Attributes:
        world: All ranks.
        plan: Which blocks are on which ranks.
        stage: The blocks of this rank.
        replicas: Of the stage.
        share: What this rank trains on of each batch.
        sent: Brings the targets of each batch, if they travel.
    """

    def __init__(
        self,
        world: World,
        model: UserModel,
        spec: PipelineSpec,
        *,
        replicas: Replicas,
        device: torch.device,
        placing: Placing,
        batch_size: int | None,
        links: LinkSettings,
        log_every: int,
    ) -> None:
        """Place the blocks, and build those of this rank; every rank has to call.

        Args:
            world: All ranks.
            model: The user's network.
            spec: What the stages are built from.
            replicas: Of this rank's stage.
            device: Of this rank.
            placing: Where to cut.
            batch_size: The most samples of a batch, if they are known.
            links: How tensors cross.
            log_every: Steps between those whose metrics are wanted.

        Raises:
            KnetError: If no placement fits the ranks' memory.
            RankMismatchError: If ranks differ in the model or in how it is cut.
            ValueError: If it cannot be cut so, or the decoupler cannot do what is asked for.
        """
        self.world, self._log_every = world, log_every
        self._model, self._spec, self._links = model, spec, links
        self._throttle = placing.throttle
        self._rows = batch_size
        self._built: BuiltStage | None = None
        self.replicas = replicas
        self.share = BatchShare(replicas.index, replicas.number, spec.num_microbatches)
        rows = None if batch_size is None else self.rows_of_part
        self.plan = place_blocks(world, model, spec, placing, links, rows, device, replicas.number)
        take_values(world, model)
        self._parts = build_parts(spec, self.plan, world, replicas, device)
        self.stage = self._parts.stage
        seed = torch.initial_seed() if spec.seed is None else spec.seed
        seed = int(world.gather_text(str(seed), "the seed")[0])
        own_seed = seed + _SEEDS_APART * replicas.index  # replicas drop other units
        first = [0, *self.plan.cuts][self.stage.index]
        self.stage.draws = BlockDraws(own_seed, first, device)
        self.sent: SentTargets | None = None

    @property
    def block_names(self) -> list[str]:
        """Return the names of all blocks of the network."""
        return self._spec.builder.names

    @property
    def sent_bytes(self) -> int:
        """Return the bytes that this rank has sent to other stages."""
        return 0 if self._built is None else self._built.links.sent_bytes

    def clip(self, max_norm: float) -> None:
        """Limit the norm of gradients: of all stages where they wait for each other."""
        self.stage.clipping = Clipping(
            max_norm,
            self.world if self._spec.decoupler.locked else None,
            self.replicas.number,
        )

    def send_targets(self) -> None:
        """Have targets travel from the first stage; every rank has to call."""
        self.sent = SentTargets(self.world, self._parts.mesh)

    def targets_of(self, targets: Tensor | None) -> Tensor:
        """Return the targets of a batch as this rank needs them."""
        if self.sent is not None:
            return self.sent.of_batch(targets)
        if not isinstance(targets, Tensor) or targets.dim() == 0:
            kind = type(targets).__name__
            raise TypeError(f"targets: expected a tensor with the samples first, got {kind}")
        return targets

    def connected(self, num_samples: int) -> BuiltStage:
        """Return what makes steps; every rank has to call with the first batch.

        Raises:
            RankMismatchError: If ranks differ in the size of the first batch.
            ValueError: If a batch is larger than the first one, or too small for the replicas.
        """
        self.share.check(num_samples)
        if self._built is None:
            self._rows = self._rows or num_samples
            check_agreement(self.world, {"samples": self._rows}, "the first batch")
            self._built = connect(
                self._spec,
                self._parts,
                self.world,
                rows=self.rows_of_part,
                links=self._links,
                log_every=self._log_every,
                throttle=self._throttle,
            )
        if not 1 <= num_samples <= (self._rows or 0):
            raise ValueError(
                f"batch: expected 1 to {self._rows} samples, as in the first batch, got "
                f"{num_samples}: give batch_size={num_samples}, the largest there is"
            )
        return self._built

    def connected_for(self, num_samples: int) -> BuiltStage:
        """Return the same for a batch that crosses in parts, however large it is."""
        return self.connected(min(num_samples, self._rows or num_samples))

    @property
    def rows_of_part(self) -> int:
        """Return the most samples that cross at once."""
        rows = self.share.largest(self._rows or 1)
        return -(-rows // self._spec.num_microbatches)

    @property
    def built(self) -> BuiltStage | None:
        """Return what makes steps, if a batch has come."""
        return self._built

    @property
    def spec(self) -> PipelineSpec:
        """Return what the stages are built from."""
        return self._spec

    @property
    def batch_size(self) -> int:
        """Return the most samples of a batch; 0 before the first one."""
        return self._rows or 0

    def scalars(self) -> StageScalars:
        """Return what counts how this rank's stage does, once a batch has come.

        Raises:
            ValueError: If none has.
        """
        if self._built is None:
            raise ValueError("scalars: expected a batch before, got none")
        return StageScalars(self.world, self._built.runner, self._built.links, self.replicas)

    def state(self) -> dict[str, Tensor]:
        """Return the state of this rank's blocks, under the names of the user's network."""
        prefixes = dict(zip(self._spec.builder.names, self._model.prefixes, strict=True))
        return {
            prefixes[name] + key: value
            for name, block in blocks_of(self.stage.blocks)
            for key, value in block.state_dict().items()
        }

    def agree(self) -> None:
        """Have all replicas hold the same network, batch statistics included.

        Raises:
            RankMismatchError: If replicas hold different parameters.
        """
        self.replicas.before_evaluation(self.stage, self._parts.source)

    def poll(self) -> None:
        """Receive what would block another rank while this one waits for all."""
        if self._built is not None:
            self._built.runner.poll_gradients()

    def drain(self) -> None:
        """Learn from all gradients that are still to come back."""
        if self._built is not None:
            self._built.runner.drain()

    def close(self) -> None:
        """Let go of all links; every rank has to call."""
        if self.sent is not None:
            self.sent.close()
        if self._built is not None:
            self._built.links.close()
        self.replicas.close()
