"""The ternary codec: a gradient and its shared scales to packed codes and back."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression.config import TernaryConfig


@dataclass(frozen=True, slots=True)
class TernaryCodec:
    """Encode and decode gradients under scales that all ranks share.

    Attributes:
        config: Settings, the same on all ranks.
        rank: This rank, which draws random numbers of its own.
    """

    config: TernaryConfig
    rank: int

    def payload_bytes(self, numel: int) -> int:
        """Return the bytes of a payload of ``numel`` codes."""
        return ops.payload_bytes(numel, self.config.wire_format)

    def num_scales(self, numel: int) -> int:
        """Return the number of scales of a tensor of ``numel`` values."""
        return ops.num_scale_groups(numel, self.config.scale_group_size)

    def compression_ratio(self, numel: int) -> float:
        """Return fp32 bytes over payload and scale bytes, without compressing."""
        sent = self.payload_bytes(numel) + 4 * self.num_scales(numel)
        return 4 * numel / sent

    def encode(
        self,
        values: Sequence[Tensor],
        scales: Tensor,
        streams: Sequence[int],
        step: int,
        payload: Tensor,
        first_values: Sequence[int] | None = None,
    ) -> Tensor:
        """Ternarize and pack gradients, or parts of them, into one payload.

        Args:
            values: One contiguous gradient [any shape] or more.
            scales: Shared scales [num_scales of all], fp32.
            streams: The tensors' numbers, the same on all ranks.
            step: The step's number.
            payload: uint8 [payload_bytes of all], overwritten.
            first_values: Where each of ``values`` begins in its tensor; 0 if None.

        Returns:
            ``payload``.
        """
        return ops.ternarize(
            values,
            scales,
            payload,
            key=(self.config.seed, self.rank, step),
            streams=streams,
            first_values=first_values,
            scale_group_size=self.config.scale_group_size,
            wire_format=self.config.wire_format,
            stochastic=not self.config.error_feedback,
        )

    def decode(
        self, payloads: Tensor, scales: Tensor, outs: Sequence[Tensor], divisor: int = 1
    ) -> None:
        """Decode and add payloads of the same tensors, and divide the sums.

        Args:
            payloads: uint8 [num_payloads, at least payload_bytes of all].
            scales: Shared scales [num_scales of all], fp32.
            outs: One contiguous gradient [any shape] or more, overwritten.
            divisor: Number of ranks for a mean, 1 for a sum.
        """
        ops.decode_mean(
            payloads,
            scales,
            outs,
            divisor=divisor,
            scale_group_size=self.config.scale_group_size,
            wire_format=self.config.wire_format,
        )

    def unpack(self, payload: Tensor, codes: Tensor) -> Tensor:
        """Unpack one payload [payload_bytes] to codes [n], int16, -1 to 1."""
        return ops.unpack_sum(payload.unsqueeze(0), self.config.wire_format, codes)

    def dequantize(
        self, sums: Tensor, scales: Tensor, outs: Sequence[Tensor], divisor: int
    ) -> None:
        """Turn sums of codes, int16, each tensor's in whole blocks, into gradients."""
        ops.dequantize(
            sums,
            scales,
            outs,
            divisor=divisor,
            scale_group_size=self.config.scale_group_size,
            wire_format=self.config.wire_format,
        )
