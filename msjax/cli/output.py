"""What commands share: JSON for machines, and the use of all cores."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

from msjax.cache import cache_folder


def plain(value: Any) -> Any:
    """`value` in JSON's own types; NaN and infinities become null, arrays become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    elif hasattr(value, "tolist"):
        value = value.tolist()
    elif hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def write_json(path: Path, result: Any) -> None:
    """Write `result` as JSON, whole or not at all, creating the folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(plain(result), indent=2, allow_nan=False) + "\n")
    part.replace(path)


def prepare_sampling() -> None:
    """Make every core a device of JAX's CPU backend, and keep compiled samplers in the cache.

    Chains then run in parallel, and a sampler is compiled once for all processes. The number of
    devices has an effect only before JAX is first used; what the user chose is left alone.
    """
    flag = "--xla_force_host_platform_device_count"
    flags = os.environ.get("XLA_FLAGS", "")
    if flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}={os.cpu_count() or 1}".strip()
    keep_compiled()


def keep_compiled() -> None:
    """Keep what takes long to compile in the cache, for later processes; the user's own is left."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 2.0)
