"""Between tensors and compiled kernels: when a kernel computes, and the arrays that it is given."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def compiles(tensor: Tensor) -> bool:
    """Whether a kernel computes this: float32 on the CPU. Anything else is left to torch."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def arrays(*tensors: Tensor) -> tuple[NDArray[Any], ...]:
    """Tensors as contiguous arrays, of the same memory where they are contiguous."""
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)
