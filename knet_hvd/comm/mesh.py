"""Which rank is which stage and which replica of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mesh:
    """Number places stage by stage: place = stage * num_replicas + replica.

    Unless an order says otherwise, each rank takes the place of its number. Replicas of
    a stage are neighbors because launchers fill a host with neighbors, and replicas
    exchange gradients every step; a cut between stages may be the slow network.

    Attributes:
        num_stages: Stages of the pipeline.
        num_replicas: Ranks that share each stage.
        order: The rank of each place; all ranks in their order if empty.

    Raises:
        ValueError: If a number is below 1, or the order leaves a rank out.
    """

    num_stages: int
    num_replicas: int = 1
    order: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse an empty mesh."""
        for name in ("num_stages", "num_replicas"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")

        if self.order and sorted(self.order) != list(range(self.num_ranks)):
            raise ValueError(
                f"order: expected each rank below {self.num_ranks} once, got {self.order}"
            )

    @property
    def num_ranks(self) -> int:
        """Return the number of ranks that the mesh needs."""
        return self.num_stages * self.num_replicas

    def stage_of(self, rank: int) -> int:
        """Return the stage that a rank holds."""
        return self._place(rank) // self.num_replicas

    def replica_of(self, rank: int) -> int:
        """Return which of its stage's replicas a rank is."""
        return self._place(rank) % self.num_replicas

    def rank_of(self, stage: int, replica: int = 0) -> int:
        """Return the rank that holds a stage's replica.

        Raises:
            ValueError: If there is no such stage or replica.
        """
        if not (0 <= stage < self.num_stages and 0 <= replica < self.num_replicas):
            raise ValueError(
                f"expected a stage below {self.num_stages} and a replica below "
                f"{self.num_replicas}, got stage {stage}, replica {replica}"
            )
        place = stage * self.num_replicas + replica
        return self.order[place] if self.order else place

    def previous(self, rank: int) -> int | None:
        """Return the rank that sends activations to this one, if any."""
        stage = self.stage_of(rank)
        return self.rank_of(stage - 1, self.replica_of(rank)) if stage > 0 else None

    def next(self, rank: int) -> int | None:
        """Return the rank that takes this one's activations, if any."""
        stage = self.stage_of(rank)
        if stage == self.num_stages - 1:
            return None
        return self.rank_of(stage + 1, self.replica_of(rank))

    def replicas(self, stage: int) -> list[int]:
        """Return all ranks that hold a stage."""
        return [self.rank_of(stage, replica) for replica in range(self.num_replicas)]

    def _place(self, rank: int) -> int:
        if not 0 <= rank < self.num_ranks:
            raise ValueError(f"expected a rank below {self.num_ranks}, got {rank}")
        return self.order.index(rank) if self.order else rank
