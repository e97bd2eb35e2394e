"""Table: accuracy and tokens of every method on every benchmark.

Reference: MarkovScale (arXiv 2602.01120), Table 1.
"""

from pathlib import Path

from msjax.report.figures import table
from msjax.report.figures.sources import MODEL_RUNS, Sources

__all__ = ["SAYS", "make"]

SAYS = "MarkovScale Table 1: methods by benchmarks"


def make(sources: Sources, stem: Path) -> None:
    """One row per method; settings are chosen on other questions than those reported."""
    pools = sources.json("replay.json")["pools"]
    names = list(dict.fromkeys(rule for pool in pools.values() for rule in pool["rules"]))
    header = ["method"]
    for name, pool in pools.items():
        header += [f"{name} (n = {pool['questions']})", "tokens"]
    rows = []
    for name in names:
        cells = [name]
        for pool in pools.values():
            rule = pool["rules"].get(name)
            found = rule and rule["accuracy"]
            cells += (
                [f"{found['estimate']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"]
                + [f"{rule['uncached']:,.0f}"]
                if rule
                else ["-", "-"]
            )
        rows.append(cells)
    best = [
        (i, 1 + 2 * j)
        for j, pool in enumerate(pools.values())
        for i in _most(
            [(pool["rules"].get(name) or _NONE)["accuracy"]["estimate"] for name in names]
        )
    ]
    note = (
        "Accuracy with 90 % interval over questions; uncached tokens per question. Bold: the "
        "highest accuracy of a column, which is no proof of a difference."
    )
    table.write(header, rows, stem, sources.origin(MODEL_RUNS), note, best)


_NONE = {"accuracy": {"estimate": -1.0}}


def _most(numbers: list[float]) -> list[int]:
    """Where the largest number stands, each time."""
    return [i for i, x in enumerate(numbers) if x == max(numbers)]
