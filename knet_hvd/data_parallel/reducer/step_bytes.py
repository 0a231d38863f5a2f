"""Bytes that one rank sends of a bucket in a step."""

import torch

from knet_hvd.data_parallel.buckets.plan import FloatBucket, TernaryBucket
from knet_hvd.data_parallel.exchanges.base import Exchange
from knet_hvd.data_parallel.reducer.sparse import SparseBucket
from knet_hvd.performance import allgather_bytes, allreduce_bytes


def bucket_bytes(bucket: TernaryBucket | FloatBucket | SparseBucket, exchange: Exchange) -> float:
    """Return what crosses, by formula; of sparse gradients in their latest step."""
    num_ranks = exchange.collectives.size
    if isinstance(bucket, TernaryBucket):
        codes = sum(map(exchange.wire_bytes, bucket.payloads))
        return codes + allreduce_bytes(4 * bucket.num_scales, num_ranks)
    if isinstance(bucket, SparseBucket):
        return allgather_bytes(bucket.num_bytes, num_ranks)
    size = torch.empty((), dtype=bucket.dtype).element_size()
    return allreduce_bytes(size * bucket.numel, num_ranks)


def uncompressed_bytes(bucket: TernaryBucket | FloatBucket | SparseBucket, num_ranks: int) -> float:
    """Return what Horovod would send in the gradients' own dtypes: of sparse ones the same."""
    if isinstance(bucket, SparseBucket):
        return allgather_bytes(bucket.num_bytes, num_ranks)
    sizes = [each.tensor.numel() * each.tensor.element_size() for each in bucket.parameters]
    return sum(allreduce_bytes(size, num_ranks) for size in sizes)
