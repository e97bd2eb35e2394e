"""Keep of saved results what figures read, so that they are small enough to ship.

    python -m paper_figures.shrink RESULTS

Numbers are rounded to four significant digits, residuals to two decimals.
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from msjax._io import write_bytes, write_text

__all__ = ["Shrink"]

_FIT = ("model", "questions", "observed", "warnings")
_RULE = ("accuracy", "uncached", "efficient")


@dataclass(frozen=True)
class Shrink:
    """Keep of the results in a folder what figures read, beside the study that made them.

    python -m paper_figures.shrink RESULTS
    """

    results: Annotated[Path, tyro.conf.Positional]
    """folder with the files that `msjax` commands wrote"""
    out: Path = Path()
    """folder that holds inference/results and simulate/results"""

    def run(self) -> None:
        """Write every file that is known and there, the greatest compressed."""
        for name, (study, keep) in _KEEP.items():
            source = self.results / f"{name}.json"
            if not source.is_file():
                print(f"skipped: {source} is not there")
                continue
            text = json.dumps(_rounded(keep(json.loads(source.read_text()))))
            path = self.out / study / "results" / source.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if len(text) > 50_000:
                path = path.with_suffix(".json.gz")
                write_bytes(path, gzip.compress(text.encode(), mtime=0))
            else:
                write_text(path, text + "\n")
            print(f"{path}: {path.stat().st_size:,} bytes")


def _all(found: Any) -> Any:
    return found


def _fit(found: dict[str, Any]) -> dict[str, Any]:
    benchmarks = {
        name: {key: one[key] for key in _FIT}
        | {
            "quantities": {key: one["quantities"][key] for key in ("accuracy", "pi")},
            "bounds": one["bounds"],
        }
        for name, one in found["benchmarks"].items()
    }
    return {**{key: found[key] for key in ("seed", "worth", "price")}, "benchmarks": benchmarks}


def _replay(found: dict[str, Any]) -> dict[str, Any]:
    pools = {}
    for name, pool in found["pools"].items():
        few = {
            kind: {rule: {key: one[key] for key in _RULE} for rule, one in pool[kind].items()}
            for kind in ("rules", "yardsticks")
        }
        pools[name] = pool | few
    return found | {"pools": pools}


def _verify(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        claim | {"residuals": [z and round(z, 2) for z in claim["residuals"]]} for claim in found
    ]


_KEEP = {
    "audit": ("simulate", _all),
    "calibration": ("inference", _all),
    "fit": ("inference", _fit),
    "heterogeneity": ("simulate", _all),
    "regret": ("simulate", _all),
    "replay": ("inference", _replay),
    "verify": ("simulate", _verify),
}


def _rounded(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _rounded(value) for key, value in found.items()}
    if isinstance(found, list):
        return [_rounded(value) for value in found]
    return float(f"{found:.4g}") if isinstance(found, float) else found


if __name__ == "__main__":
    tyro.cli(Shrink).run()
