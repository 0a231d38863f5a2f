"""Point-to-point transport between ranks on MPI; the only package that imports mpi4py.

``World`` is this process among all, ``Mesh`` says which rank is which stage and
replica, ``SendLink`` and ``ReceiveLink`` carry tensors one way in framed buffers, ``ProbedLink``
lists of them; ``Notices`` tell the other ranks why one gives up.
"""

from typing import TYPE_CHECKING

from knet_hvd.agreement import check_agreement
from knet_hvd.comm.encoding_names import ENCODINGS, Encoding
from knet_hvd.comm.mesh import Mesh
from knet_hvd.lazy import lazy_names

if TYPE_CHECKING:
    from knet_hvd.comm.links import (
        LinkSpec,
        LinkSpeed,
        ProbedLink,
        ReceiveLink,
        SendLink,
        measure_links,
    )
    from knet_hvd.comm.notices import NoticeError, Notices
    from knet_hvd.comm.world import World, abort

__getattr__ = lazy_names(__name__, "links", "notices", "world")

__all__ = [
    "ENCODINGS",
    "Encoding",
    "LinkSpec",
    "LinkSpeed",
    "Mesh",
    "NoticeError",
    "Notices",
    "ProbedLink",
    "ReceiveLink",
    "SendLink",
    "World",
    "abort",
    "check_agreement",
    "measure_links",
]
