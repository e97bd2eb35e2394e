"""One part in a process of its own: a line of JSON for each measurement, as soon as it is made."""

from __future__ import annotations

import importlib
import os
import sys

from benchmarks.accelerator.measurement import Clock


def main(name: str, seconds: float, small: bool) -> None:
    """Measures and prints.

    Args:
        name: the module of this folder that measures.
        seconds: what it may take.
        small: shrink everything.
    """
    # Torch is measured without JAX, which would take the memory of the device.
    if name != "peer":
        import jax

        from msjax.cli.output import keep_compiled

        keep_compiled()
        if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
            jax.config.update("jax_num_cpu_devices", 2)
    measure = importlib.import_module(f"benchmarks.accelerator.{name}").measure
    for measurement in measure(Clock(seconds), small):
        print(measurement.line(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), "--small" in sys.argv[3:])
