"""Where training runs and in which type its large products are made."""

from __future__ import annotations

import functools
import time

import torch

PROBE_SIZE = 512
PROBE_ROUNDS = 4
WORTH_IT = 1.5  # times faster than float32 before bfloat16 is taken


def choose_device(wanted: str) -> torch.device:
    """'auto' takes a GPU where there is one; 'cpu' and 'cuda' are taken at their word."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


@functools.cache  # so that all of a training is made in one type, however busy the machine is
def choose_product(wanted: str, device: torch.device) -> torch.dtype:
    """The type of large products: 'float32', 'bfloat16', or 'auto' for whichever is worth it here.

    On a CPU 'auto' times both for some milliseconds: bfloat16 is several times faster where the
    processor multiplies it and slower than float32 where it does not. On a GPU it asks the driver.
    """
    if wanted == "float32":
        return torch.float32
    if wanted == "bfloat16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    narrow, wide = _seconds(torch.bfloat16), _seconds(torch.float32)
    return torch.bfloat16 if narrow * WORTH_IT < wide else torch.float32


def narrow_network(product: torch.dtype, device: torch.device) -> bool:
    """Whether the network itself, not only its large products, can run in `product` = bfloat16.

    A processor without it refuses a recurrent layer in bfloat16, so a tiny one is tried.
    """
    if product != torch.bfloat16:
        return False
    layer = torch.nn.LSTM(8, 8, batch_first=True).to(device)
    try:
        with torch.autocast(device.type, torch.bfloat16):
            layer(torch.zeros(1, 2, 8, device=device))[0].float().sum().backward()
    except RuntimeError:
        return False
    return True


def gemm_gflops(dtype: torch.dtype = torch.float32, size: int = 2_048, rounds: int = 3) -> float:
    """What the machine multiplies in `dtype`, in GFLOP/s: the best of some square products."""
    return 2 * size**3 / _seconds(dtype, size, rounds) / 1e9


def _seconds(dtype: torch.dtype, size: int = PROBE_SIZE, rounds: int = PROBE_ROUNDS) -> float:
    """The best of some rounds of one square product."""
    matrix = torch.ones(size, size, dtype=dtype)
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - started)
    return best
