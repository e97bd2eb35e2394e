"""Where msjax keeps what it need not make twice."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$MSJAX_CACHE``, or ``~/.cache/msjax``."""
    cache = os.environ.get("MSJAX_CACHE")
    return Path(cache) if cache else Path.home() / ".cache" / "msjax"
