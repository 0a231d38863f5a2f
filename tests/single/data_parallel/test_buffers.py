"""Buffers that last from step to step."""

import torch

from knet_hvd.data_parallel.buckets.buffers import BufferPool


def test_a_name_keeps_its_memory() -> None:
    pool = BufferPool()
    first = pool.get("codes", 100, torch.uint8, torch.device("cpu"))
    again = pool.get("codes", 60, torch.uint8, torch.device("cpu"))
    assert again.shape == (60,)
    assert again.data_ptr() == first.data_ptr()


def test_names_and_types_share_no_memory() -> None:
    pool = BufferPool()
    cpu = torch.device("cpu")
    buffers = [
        pool.get("codes", 8, torch.uint8, cpu).fill_(1),
        pool.get("levels", 8, torch.uint8, cpu).fill_(2),
        pool.get("codes", 8, torch.int64, cpu).fill_(3),
    ]
    assert [int(buffer[0]) for buffer in buffers] == [1, 2, 3]


def test_a_larger_request_gets_a_larger_buffer() -> None:
    pool = BufferPool()
    pool.get("sums", 8, torch.int16, torch.device("cpu"))
    grown = pool.get("sums", 1000, torch.int16, torch.device("cpu"))
    assert grown.shape == (1000,)
    assert grown.is_contiguous()
