"""The levels codec: sums of N ranks' codes, -N to N, as base 2N + 1 digits.

TernGrad needs only log2(2N + 1) bits a value on the way back (section 3.2 of the
paper). A 64-bit word holds 27 such digits on 2 ranks (2.37 bits), 20 on 4, 15 on 8.
"""

from dataclasses import dataclass

from torch import Tensor

from knet_hvd import ops

MAX_RANKS = 512


@dataclass(frozen=True, slots=True)
class LevelsCodec:
    """Pack sums of ternary codes.

    Attributes:
        num_ranks: N, 1 to 512: how many codes went into each sum.
        word_bits: Bits of a word that may be used: 64, or fewer where the words are to
            be summed by something that keeps fewer bits exact.

    Raises:
        ValueError: If ``num_ranks`` is out of range.
    """

    num_ranks: int
    word_bits: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.num_ranks <= MAX_RANKS:
            raise ValueError(f"num_ranks: expected 1 to {MAX_RANKS}, got {self.num_ranks}")

    @property
    def base(self) -> int:
        """Base of the digits, 2N + 1."""
        return 2 * self.num_ranks + 1

    @property
    def digits_per_word(self) -> int:
        """Sums in a word."""
        return ops.digits_per_word(self.base, self.word_bits)

    @property
    def bits_per_value(self) -> float:
        """64 bits over the sums in a word."""
        return 64 / self.digits_per_word

    def num_words(self, numel: int) -> int:
        """Return the 64-bit words that ``numel`` sums take."""
        return ops.num_words(numel, self.digits_per_word)

    def pack(self, sums: Tensor, words: Tensor | None = None) -> Tensor:
        """Pack sums [n], int16, -N to N, into words [num_words(n)], int64."""
        return ops.pack_digits(
            sums,
            base=self.base,
            offset=self.num_ranks,
            num_digits=self.digits_per_word,
            words=words,
        )

    def pack_own(self, codes: Tensor, words: Tensor | None = None) -> Tensor:
        """Pack one rank's codes [n], int16, -1 to 1, so that N ranks' words add up.

        The sum of N such words, digit by digit, is what ``pack`` makes of the sums.
        """
        return ops.pack_digits(
            codes, base=self.base, offset=1, num_digits=self.digits_per_word, words=words
        )

    def unpack(self, words: Tensor, sums: Tensor) -> Tensor:
        """Unpack words [num_words(n)], int64, to sums [n], int16."""
        return ops.unpack_digits(
            words, sums, base=self.base, offset=self.num_ranks, num_digits=self.digits_per_word
        )
