"""What every command does with its results: JSON for machines."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any


def _plain(value: Any) -> Any:
    """`value` in JSON's own types; NaN and infinities become null, arrays become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    elif hasattr(value, "tolist"):
        value = value.tolist()
    elif hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def write_json(path: Path, result: Any) -> None:
    """Write `result` as JSON, whole or not at all, creating the folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(_plain(result), indent=2, allow_nan=False) + "\n")
    part.replace(path)
