"""Which rank is which stage and which replica of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mesh:
    """Number ranks stage by stage: rank = stage * num_replicas + replica.

    Replicas of a stage are neighbours because launchers fill a host with neighbours,
    and replicas exchange gradients every step; a cut between stages may be the slow
    network.

    Attributes:
        num_stages: Stages of the pipeline.
        num_replicas: Ranks that share each stage.

    Raises:
        ValueError: If a number is below 1.
    """

    num_stages: int
    num_replicas: int = 1

    def __post_init__(self) -> None:
        """Refuse an empty mesh."""
        for name in ("num_stages", "num_replicas"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: expected at least 1, got {getattr(self, name)}"
                )

    @property
    def num_ranks(self) -> int:
        """Return the number of ranks that the mesh needs."""
        return self.num_stages * self.num_replicas

    def stage_of(self, rank: int) -> int:
        """Return the stage that a rank holds."""
        return self._checked(rank) // self.num_replicas

    def replica_of(self, rank: int) -> int:
        """Return which of its stage's replicas a rank is."""
        return self._checked(rank) % self.num_replicas

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
        return stage * self.num_replicas + replica

    def previous(self, rank: int) -> int | None:
        """Return the rank that sends activations to this one, if any."""
        return rank - self.num_replicas if self.stage_of(rank) > 0 else None

    def next(self, rank: int) -> int | None:
        """Return the rank that takes this one's activations, if any."""
        last = self.stage_of(rank) == self.num_stages - 1
        return None if last else rank + self.num_replicas

    def replicas(self, stage: int) -> list[int]:
        """Return all ranks that hold a stage."""
        return [self.rank_of(stage, replica) for replica in range(self.num_replicas)]

    def _checked(self, rank: int) -> int:
        if not 0 <= rank < self.num_ranks:
            raise ValueError(f"expected a rank below {self.num_ranks}, got {rank}")
        return rank
