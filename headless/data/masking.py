"""The task of a masked language model (Devlin et al. 2019, §3.1, without next-sentence prediction).

Masks are drawn by hashing (seed, epoch, block, position): a function of these alone, whichever
process asks, in whichever batch, before or after a stop. So every rank knows all others' targets.

Shapes: R blocks, T time, K targets a block, V vocabulary.
"""

import math

import numpy as np

from headless.data.blocks import Blocks
from headless.data.collate import IGNORE_INDEX, Collator, Examples

SHARE_MASK, SHARE_RANDOM = 0.8, 0.1  # of the chosen positions; the others stay as they are
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014): uint64 to uint64, one to one."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _bits(key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Random bits, uint64, that belong to a key and a value; the result may be a key itself."""
    return _mix(key + _GOLDEN * (value.astype(np.uint64) + np.uint64(1)))


def _uniform(bits: np.ndarray) -> np.ndarray:
    """Bits to numbers in [0, 1)."""
    return (bits >> np.uint64(11)) * 2.0**-53


class MaskedCollator(Collator):
    """The task of a masked language model: the token that stood where something else stands now.

    Of each sequence exactly ceil(mask_probability · T) positions are chosen, as in the paper's
    code: all batches have the same shapes. (A sequence with fewer ordinary tokens gives fewer.) A
    chosen token becomes the mask token (80 %), a random one (10 %) or stays (10 %). The target is
    the token of the text in all three cases. Only `ordinary_ids`, those of tokens that are not
    special, are chosen and drawn; only chosen positions are scored: the batch has `rows`.
    """

    def __init__(
        self,
        vocab_size: int,
        mask_token_id: int,
        ordinary_ids: np.ndarray,
        mask_probability: float = 0.15,
        seed: int = 0,
    ) -> None:
        super().__init__(vocab_size)
        self.mask_token_id = mask_token_id
        self.ordinary_ids = np.sort(np.asarray(ordinary_ids, dtype=np.int64))
        self.mask_probability = mask_probability
        self.seed = seed
        self._is_ordinary_V = np.zeros(vocab_size, dtype=bool)
        self._is_ordinary_V[self.ordinary_ids] = True

    def num_targets(self, length: int) -> int:
        """K: how many positions of a sequence are chosen."""
        return min(length, math.ceil(self.mask_probability * length - 1e-9))  # 0.07 · 100 is 7

    def examples(self, blocks: Blocks) -> Examples:
        tokens_RT = blocks.tokens_RS
        length = tokens_RT.shape[1]
        key_R1 = self._keys(blocks)[:, None]
        bits_RT = _bits(key_R1, np.arange(length))
        eligible_RT = self._is_ordinary_V[tokens_RT]
        eligible_RT &= np.arange(length) < blocks.lengths_R[:, None]
        bits_RT[~eligible_RT] = np.iinfo(np.uint64).max  # chosen last
        last = self.num_targets(length) - 1
        # Sorted, for which of the K comes first is the library's affair.
        positions_RK = np.sort(np.argpartition(bits_RT, last, axis=1)[:, : last + 1], axis=1)
        is_target_RK = np.take_along_axis(eligible_RT, positions_RK, axis=1)
        clean_RK = np.take_along_axis(tokens_RT, positions_RK, axis=1)

        bits_RK = _bits(key_R1, positions_RK + length)
        kind_RK = _uniform(bits_RK)
        drawn_RK = _mix(bits_RK + _GOLDEN) % np.uint64(len(self.ordinary_ids))
        replaced_RK = np.select(
            [~is_target_RK, kind_RK < SHARE_MASK, kind_RK < SHARE_MASK + SHARE_RANDOM],
            [clean_RK, self.mask_token_id, self.ordinary_ids[drawn_RK.astype(np.int64)]],
            default=clean_RK,
        )
        inputs_RT = tokens_RT.copy()
        np.put_along_axis(inputs_RT, positions_RK, replaced_RK, axis=1)
        return Examples(inputs_RT, np.where(is_target_RK, clean_RK, IGNORE_INDEX), positions_RK)

    def _keys(self, blocks: Blocks) -> np.ndarray:
        """Where the random bits of each block begin: uint64 [R]."""
        seed = np.array([self.seed % 2**64], dtype=np.uint64)
        return _bits(_bits(_mix(seed), np.array([blocks.epoch])), blocks.indices_R)
