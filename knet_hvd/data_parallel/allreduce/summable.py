"""Path B's arithmetic: codes as numbers that an allreduce over N ranks adds."""

import torch
from torch import Tensor

from knet_hvd.compression import LevelsCodec, TernaryCodec, TernaryConfig
from knet_hvd.data_parallel.allreduce.words import (
    HEADER_WORDS,
    one_value,
    sum_dtype,
    word_bits,
)


class SummableCodes:
    """Turn gradients into numbers whose sum over ranks holds the sum of the codes, and back.

    Attributes:
        num_ranks: N, ranks that add.
        average: Whether they average, which float64 carries, or sum, in int64.
    """

    def __init__(self, config: TernaryConfig, job_rank: int, num_ranks: int, average: bool) -> None:
        """Choose the words.

        Args:
            config: Settings of the codes.
            job_rank: This rank's number in the job, for its random numbers.
            num_ranks: N.
            average: Whether ranks average.
        """
        self.num_ranks, self.average = num_ranks, average
        self._codec = TernaryCodec(config, job_rank)
        self._levels = LevelsCodec(num_ranks, word_bits(average, num_ranks))

    @property
    def config(self) -> TernaryConfig:
        """Settings of the codes."""
        return self._codec.config

    def num_bytes(self, numel: int) -> int:
        """Return the bytes of a gradient's buffer, its header included."""
        return 8 * (HEADER_WORDS + self._levels.num_words(numel))

    def encode(self, values: Tensor, scale: float, stream: int, step: int) -> Tensor:
        """Return this rank's codes of a contiguous gradient, uint8 [payload_bytes]."""
        scales = one_value(scale, values.device)
        payload = values.new_empty(self._codec.payload_bytes(values.numel()), dtype=torch.uint8)
        return self._codec.encode([values], scales, [stream], step, payload)

    def decode(self, payload: Tensor, scale: float, out: Tensor) -> Tensor:
        """Write what this rank's codes stand for, which error feedback compares."""
        scales = one_value(scale, out.device)
        self._codec.decode(payload[None], scales, [out])
        return out

    def to_words(self, payload: Tensor, numel: int, header: list[int]) -> Tensor:
        """Return header and codes as what Horovod sums, [HEADER_WORDS + num_words]."""
        codes = torch.empty(numel, dtype=torch.int16, device=payload.device)
        self._codec.unpack(payload, codes)
        words = self._levels.pack_own(codes)
        head = [one_value(word, payload.device, torch.int64) for word in header]
        return torch.cat([*head, words]).to(sum_dtype(self.average))

    def from_words(self, words: Tensor, scale: float, out: Tensor) -> Tensor:
        """Write the mean or sum of all ranks' gradients, of the sums of their words.

        Args:
            words: int64 [num_words].
            scale: What all ranks encoded with.
            out: A contiguous gradient, overwritten.

        Returns:
            ``out``.
        """
        sums = torch.empty(out.numel(), dtype=torch.int16, device=out.device)
        self._levels.unpack(words, sums)
        scales = one_value(scale, out.device)
        self._codec.dequantize(sums, scales, [out], self.num_ranks if self.average else 1)
        return out
