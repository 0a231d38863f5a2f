"""Links: one-way streams of tensors between two ranks.

``SendLink`` and ``ReceiveLink`` carry one tensor at a time, of a size that both ends have
agreed on; ``ProbedLink`` carries lists of tensors of any size.
"""

from knet_hvd.comm.links.agreed import ReceiveLink, SendLink
from knet_hvd.comm.links.probed import ProbedLink
from knet_hvd.comm.links.spec import LinkSpec
from knet_hvd.comm.links.speed import LinkSpeed, measure_links

__all__ = ["LinkSpec", "LinkSpeed", "ProbedLink", "ReceiveLink", "SendLink", "measure_links"]
