"""The mesh: ranks, stages and replicas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knet_hvd.comm.mesh import Mesh


@st.composite
def meshes(draw: st.DrawFn) -> Mesh:
    stages, replicas = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    order = draw(st.one_of(st.just(()), st.permutations(range(stages * replicas))))
    return Mesh(stages, replicas, tuple(order))


MESHES = meshes()


@given(mesh=MESHES)
def test_every_rank_is_one_replica_of_one_stage(mesh: Mesh) -> None:
    seen = {(mesh.stage_of(r), mesh.replica_of(r)) for r in range(mesh.num_ranks)}
    assert len(seen) == mesh.num_ranks
    for rank in range(mesh.num_ranks):
        assert mesh.rank_of(mesh.stage_of(rank), mesh.replica_of(rank)) == rank
        assert rank in mesh.replicas(mesh.stage_of(rank))


@given(mesh=MESHES)
def test_neighbors_are_the_same_replica_of_the_next_stage(mesh: Mesh) -> None:
    for rank in range(mesh.num_ranks):
        following = mesh.next(rank)
        if following is None:
            assert mesh.stage_of(rank) == mesh.num_stages - 1
        else:
            assert mesh.previous(following) == rank
            assert mesh.replica_of(following) == mesh.replica_of(rank)
    assert mesh.previous(mesh.rank_of(0)) is None


def test_ranks_and_stages_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="num_stages: expected at least 1, got 0"):
        Mesh(0)
    with pytest.raises(ValueError, match="expected a rank below 6, got 6"):
        Mesh(3, 2).stage_of(6)
    with pytest.raises(ValueError, match="expected each rank below 2 once"):
        Mesh(2, 1, (0, 0))
    with pytest.raises(ValueError, match="got stage 1, replica 2"):
        Mesh(3, 2).rank_of(1, 2)
