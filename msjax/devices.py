"""What the devices are that JAX computes on: their memory, their numbers, whether there are any."""

from __future__ import annotations

import os
from functools import cache

import jax
import numpy as np

from msjax._io import available_memory
from msjax.errors import InputError

__all__ = ["free_memory", "has_float64", "memory", "missing_device", "require_float64"]


def memory(device: jax.Device) -> int | None:
    """Bytes of memory that a device has; a CPU has that of the machine. None: not known."""
    statistics = device.memory_stats() or {}
    if "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    if device.platform != "cpu" or not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_memory(device: jax.Device) -> int | None:
    """Bytes of it that are free; CPU devices share those of the machine. None: not known."""
    statistics = device.memory_stats() or {}
    if "bytes_limit" in statistics:
        return int(statistics["bytes_limit"]) - int(statistics.get("bytes_in_use", 0))
    return available_memory() if device.platform == "cpu" else None


@cache
def has_float64(device: jax.Device) -> bool:
    """Whether it computes in float64: some refuse such numbers, some round them to fewer digits."""
    with jax.enable_x64(True):
        try:
            one = jax.device_put(np.float64(1), device)
            return float(jax.jit(lambda x: x + 2.0**-40)(one)) != 1
        except (jax.errors.JaxRuntimeError, NotImplementedError):
            return False


def require_float64(what: str) -> None:
    """Checks that the default device computes in float64, which `what` needs.

    Raises:
        InputError: it does not.
    """
    device = jax.devices()[0]
    if not has_float64(device):
        raise InputError(
            f"{what} needs float64, which the device {device.platform}:{device.id} "
            f"({device.device_kind}) does not have; set JAX_PLATFORMS=cpu"
        )


def missing_device() -> str | None:
    """Why JAX has no device to compute on, as a sentence with the remedy; None: it has one."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
        return (
            f"JAX_PLATFORMS is {os.environ.get('JAX_PLATFORMS', '')!r}, and JAX finds no device of "
            f"that kind{reason}; unset it to compute on what there is, or install the driver and "
            "the JAX of the device (`pip install 'msjax[cuda]'` for NVIDIA)"
        )
    return None
