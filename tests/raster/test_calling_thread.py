"""Copies and fills in the calling thread are those of PyTorch."""

from __future__ import annotations

import pytest
import torch

from ex4d.calling_thread import copied, filled, overwrite


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float16])
def test_a_copy_is_contiguous_and_apart(dtype) -> None:
    values = (torch.arange(24).reshape(4, 6) % 3).to(dtype).T
    copy = copied(values)
    assert copy.is_contiguous() and copy.dtype == dtype and torch.equal(copy, values)

    overwrite(copy, torch.zeros_like(values))

    assert not copy.any() and values.any()


def test_all_of_a_new_tensor_has_the_value() -> None:
    keys = filled((2, 3), -1, torch.int64, torch.device("cpu"))
    assert torch.equal(keys, torch.full((2, 3), -1))
