"""One rank of a pipeline: its blocks, its optimizer, its links, and what reaches it."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from knet_hvd.comm import World, check_agreement
from knet_hvd.comm.reports import Reports
from knet_hvd.flat_config import Scalar, to_flat_dict
from knet_hvd.models.blocks import blocks_of
from knet_hvd.pipeline.api.checkpoint import load_stage, restore_stage, save_stage
from knet_hvd.pipeline.api.placing import Cuts, place_blocks, take_values
from knet_hvd.pipeline.api.targets import SentTargets
from knet_hvd.pipeline.blocks.draws import BlockDraws
from knet_hvd.pipeline.blocks.user_model import UserModel
from knet_hvd.pipeline.build import build_parts
from knet_hvd.pipeline.clipping import Clipping
from knet_hvd.pipeline.connect import BuiltStage, connect
from knet_hvd.pipeline.link_settings import LinkSettings
from knet_hvd.pipeline.loss_head import Loss
from knet_hvd.pipeline.spec import PipelineSpec

OptimizerOf = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Member:
    """Hold what one rank trains with; its links are opened when the first batch is there.

    Attributes:
        world: All ranks.
        plan: Which blocks are on which ranks.
        stage: The blocks of this rank.
        reports: Bring the loss of each step from the last stage.
        sent: Brings the targets of each batch, if they travel.
    """

    def __init__(
        self,
        world: World,
        model: UserModel,
        spec: PipelineSpec,
        *,
        cuts: Cuts,
        links: LinkSettings,
        batch_size: int | None,
    ) -> None:
        """Place the blocks, and build those of this rank; every rank has to call.

        Args:
            world: All ranks.
            model: The user's network.
            spec: What the stages are built from.
            cuts: Where to cut.
            links: How tensors cross.
            batch_size: The most samples of a batch, if they are known.
        """
        self.world = world
        self._model, self._spec, self._links = model, spec, links
        self._rows = batch_size
        self._built: BuiltStage | None = None
        self.plan = place_blocks(world, model, spec, cuts, links, batch_size)
        take_values(world, model)
        self._parts = build_parts(spec, self.plan, world)
        self.stage = self._parts.stage
        seed = torch.initial_seed() if spec.seed is None else spec.seed
        seed = int(world.gather_text(str(seed), "the seed")[0])
        self.stage.draws = BlockDraws(seed, [0, *self.plan.cuts][self.stage.index])
        last = self.plan.order[-1]
        others = [rank for rank in range(world.size) if rank != last]
        self.reports = Reports(world, last, others)
        self.sent: SentTargets | None = None

    @property
    def block_names(self) -> list[str]:
        """Return the names of all blocks of the network."""
        return self._spec.builder.names

    @property
    def loss(self) -> Loss:
        """Return what the network is trained for."""
        return self._spec.loss

    @property
    def is_locked(self) -> bool:
        """Return whether stages wait for each other in every step."""
        return self._spec.decoupler.locked

    @property
    def sent_bytes(self) -> int:
        """Return the bytes that this rank has sent to other stages."""
        return 0 if self._built is None else self._built.links.sent_bytes

    def clip(self, max_norm: float) -> None:
        """Limit the norm of gradients: of all stages where they wait for each other."""
        self.stage.clipping = Clipping(
            max_norm, self.world if self._spec.decoupler.locked else None
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
            ValueError: If a batch is larger than the first one.
        """
        if self._built is None:
            self._rows = self._rows or num_samples
            check_agreement(self.world, {"samples": self._rows}, "the first batch")
            self._built = connect(
                self._spec, self._parts, self.world, rows=self.rows_of_part, links=self._links
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
        return -(-(self._rows or 1) // self._spec.num_microbatches)

    def save(self, folder: Path, step: int, keep: int) -> None:
        """Save the state of all ranks after so many steps; every rank has to call."""
        if self._built is None:
            raise ValueError("save: expected at least one step before, got none")
        configuration = self._configuration(self._rows or 0)
        save_stage(
            self.world, self._built, folder, step=step, configuration=configuration, keep=keep
        )

    def load(self, folder: Path, num_samples: int) -> int:
        """Continue from the latest checkpoint; every rank has to call.

        Args:
            folder: Of the checkpoints.
            num_samples: The most samples of a batch.

        Returns:
            The steps made by then; 0 if there is no checkpoint.
        """
        saved = load_stage(self.world, folder, self._configuration(num_samples))
        if saved is None:
            return 0
        step, tree = saved
        restore_stage(self.connected(num_samples), tree)
        return step

    def _configuration(self, num_samples: int) -> dict[str, Scalar]:
        """Return what a pipeline that continues has to have as well."""
        decoupler = to_flat_dict(self._spec.decoupler)
        return {
            "cuts": json.dumps(self.plan.cuts),
            "order": json.dumps(self.plan.order),
            "batch_size": num_samples,
            "microbatches": self._spec.num_microbatches,
            "decoupler": self._spec.decoupler.name,
            **{f"decoupler.{name}": value for name, value in decoupler.items()},
        }

    def state(self) -> dict[str, Tensor]:
        """Return the state of this rank's blocks, under the names of the user's network."""
        prefixes = dict(zip(self._spec.builder.names, self._model.prefixes, strict=True))
        return {
            prefixes[name] + key: value
            for name, block in blocks_of(self.stage.blocks)
            for key, value in block.state_dict().items()
        }

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
        self.reports.close()
        if self.sent is not None:
            self.sent.close()
        if self._built is not None:
            self._built.links.close()
