"""Numbers that others published, transcribed as facts, and whether they fit together.

OptScale (arXiv 2506.22376): the table at N = 8, 16, 32, 64 and its curves thinned to powers of two,
from results/results_table.csv, BoN_OptScale/, SC/ and Seq/ of github.com/Albertwyk/OptScale, commit
a7dd91429262f48afcb0b758a4e27ec83ad358f0, MIT licence; model DeepSeek-R1-Distill-Qwen-7B. A cell is
accuracy in percent at mean completion tokens per question, one per dataset. The whole result files
are read from a folder the user names, as CSV with the columns that `complete` reads.
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from msjax.report.figures.gallery import Difference

__all__ = [
    "DATASETS",
    "Cell",
    "complete",
    "curves",
    "differences",
    "panels",
    "summary",
    "table",
]

DATASETS = {"MATH500": 500, "GSM8K": 1319, "AIME24": 30, "AIME25": 30, "AMC23": 40}
"""Questions of each dataset."""
TOLERANCE = {"accuracy": 0.05, "tokens": 0.5}
"""Half a unit of the last place published, in percent and tokens."""

_TABLE = """\
BoN 8 94.8@22135 92.4@3582 70.0@79367 43.3@84342 95.0@40511
SC 8 93.4@22135 90.1@3582 60.0@79367 40.0@84342 85.0@40511
MR-Thinking 8 91.2@21396 88.4@4792 56.7@78432 40.0@86568 87.5@36780
ESC 8 93.4@16607 90.1@2955 60.0@74964 40.0@79664 85.0@33949
ASC 8 93.4@14369 90.1@2637 60.0@68686 40.0@68792 85.0@31029
DSC 8 93.2@13645 90.1@2444 60.0@77857 40.0@79868 82.5@31541
OptScale0 8 94.8@11354 92.4@1687 70.0@49505 43.3@78803 95.0@29288
OptScale-t 8 94.8@18236 92.4@3492 70.0@53855 46.7@69661 95.0@30671
BoN 16 93.8@43909 93.5@7160 76.7@159479 46.7@168080 95.0@79881
SC 16 93.4@43909 90.8@7160 66.7@159479 36.7@168080 87.5@79881
MR-Thinking 16 91.6@42422 88.3@9615 53.3@157507 43.3@171853 87.5@72877
ESC 16 93.4@22555 90.8@4566 66.7@137752 36.7@136202 87.5@51009
ASC 16 93.4@17722 90.8@3656 66.7@112390 36.7@99947 87.5@39450
DSC 16 93.2@16931 90.7@2447 66.7@121561 36.7@105667 87.5@41095
OptScale0 16 95.2@18123 93.5@4372 76.7@122001 50.0@126874 95.0@52310
OptScale-t 16 94.4@22487 93.5@6860 76.7@122896 50.0@143181 95.0@47061
BoN 32 94.4@87160 93.1@14270 70.0@317453 50.0@338555 95.0@157962
SC 32 93.2@87160 90.9@14270 63.3@317453 40.0@338555 90.0@157962
MR-Thinking 32 91.4@84234 88.4@19135 63.3@313463 33.3@341517 90.0@143178
ESC 32 93.4@30189 90.9@6855 63.3@229286 40.0@228189 90.0@70789
ASC 32 93.2@20759 90.9@4802 63.3@172043 40.0@143663 90.0@51928
DSC 32 93.0@19874 90.9@3797 63.3@179131 40.0@153624 87.5@47684
OptScale0 32 95.0@34732 93.5@4757 73.3@256177 50.0@291402 95.0@66086
OptScale-t 32 95.0@35317 93.5@6337 76.7@221290 50.0@304676 95.0@65792
BoN 64 94.0@174693 94.0@28547 80.0@637293 53.3@676533 95.0@312241
SC 64 93.4@174693 91.2@28547 60.0@637293 40.0@676533 92.5@312241
MR-Thinking 64 92.0@168331 88.2@38305 70.0@625850 40.0@684446 90.0@286639
ESC 64 93.4@39862 91.1@10360 60.0@359467 40.0@390280 92.5@79727
ASC 64 93.4@24523 91.1@6220 60.0@232872 40.0@205269 92.5@62708
DSC 64 93.2@23465 91.1@4966 60.0@239960 40.0@210989 90.0@60378
OptScale0 64 94.6@110001 94.1@11086 83.3@503002 50.0@549344 95.0@119777
OptScale-t 64 94.6@76284 94.0@21386 80.0@343491 53.3@649900 95.0@119282
"""

_CURVES = """\
BoN 1 89.6@2767 87.0@454 53.3@9884 36.7@10381 82.5@4802
BoN 2 93.4@5546 89.8@900 66.7@19652 43.3@20957 87.5@9900
BoN 4 94.6@11060 91.3@1796 66.7@40000 40.0@42408 92.5@20057
BoN 8 94.8@22135 92.4@3582 70.0@79367 43.3@84342 95.0@40511
BoN 16 93.8@43909 93.5@7160 76.7@159479 46.7@168080 95.0@79881
BoN 32 94.4@87160 93.1@14270 70.0@317453 50.0@338555 95.0@157962
BoN 64 94.0@174693 94.0@28547 80.0@637293 53.3@676533 95.0@312241
SC 1 89.6@2767 87.0@454 53.3@9884 36.7@10381 82.5@4802
SC 2 89.6@5546 87.0@900 53.3@19652 36.7@20957 82.5@9900
SC 4 92.2@11060 89.0@1796 56.7@40000 36.7@42408 90.0@20057
SC 8 93.4@22135 90.1@3582 60.0@79367 40.0@84342 85.0@40511
SC 16 93.4@43909 90.8@7160 66.7@159479 36.7@168080 87.5@79881
SC 32 93.2@87160 90.9@14270 63.3@317453 40.0@338555 90.0@157962
SC 64 93.4@174693 91.2@28547 60.0@637293 40.0@676533 92.5@312241
MR-Thinking 1 89.6@2747 86.1@442 53.3@9884 36.7@10381 82.5@4802
MR-Thinking 2 92.0@5417 87.6@1106 46.7@19719 40.0@21224 90.0@9402
MR-Thinking 4 91.6@10751 88.0@2333 56.7@38704 36.7@42996 87.5@18557
MR-Thinking 8 91.2@21396 88.4@4792 56.7@78432 40.0@86568 87.5@36780
MR-Thinking 16 91.6@42422 88.3@9615 53.3@157507 43.3@171853 87.5@72877
MR-Thinking 32 91.4@84234 88.4@19135 63.3@313463 33.3@341517 90.0@143178
MR-Thinking 64 92.0@168331 88.2@38305 70.0@625850 40.0@684446 90.0@286639
"""

_SUMMARY = (
    # model, dataset, OptScale accuracy and tokens, best-of-N accuracy and tokens, at N = 60
    ("QwQ-32B", "MATH500", 95.8, 107_720, 94.8, 230_402),
    ("QwQ-32B", "AMC23", 100.0, 190_633, 97.5, 420_481),
)


class Cell(NamedTuple):
    """One method with one budget on one dataset: accuracy in percent, tokens per question."""

    method: str
    budget: int
    dataset: str
    accuracy: float
    tokens: float

    @property
    def key(self) -> tuple[str, int, str]:
        """What the cell is about."""
        return self.method, self.budget, self.dataset


def table() -> list[Cell]:
    """The published table."""
    return list(_cells(_TABLE))


def curves() -> list[Cell]:
    """The published curves at powers of two."""
    return list(_cells(_CURVES))


def summary() -> list[Cell]:
    """What OptScale's summary quotes of QwQ-32B, named "method, model"."""
    found = []
    for model, dataset, accuracy, tokens, best, best_tokens in _SUMMARY:
        found.append(Cell(f"OptScale, {model}", 60, dataset, accuracy, tokens))
        found.append(Cell(f"BoN, {model}", 60, dataset, best, best_tokens))
    return found


def complete(folder: Path) -> tuple[list[Cell], dict[str, list[Cell]]]:
    """The table and, by file, the curves and sweeps of the whole result files.

    Files: results_table.csv, bon_curves.csv, sc_majority_curves.csv, mr_thinking_curves.csv,
    sc_esc_asc.csv, sc_dsc.csv, optscale_panels.csv. Of OptScale's own sweeps over thresholds the
    cell is the one its authors report: best accuracy on the test questions, ties to fewest tokens.
    """
    names = {
        "Best-of-N (BoN)": "BoN",
        "Self-Consistency": "SC",
        "MR-Thinking": "MR-Thinking",
        "Early-stopping SC (ESC)": "ESC",
        "Adaptive SC (ASC)": "ASC",
        "Difficulty-Adaptive SC (DSC)": "DSC",
        "OptScale$^0$ (MLE)": "OptScale0",
        "OptScale$^t$ (MAP)": "OptScale-t",
    }
    cells = []
    for row in _rows(folder / "results_table.csv"):
        if label := re.match(r"(.*?)(?: \(Ours\))?\s*\(\$N=(\d+)\$\)", row["Baseline"] or ""):
            method, budget = names[label.group(1)], int(label.group(2))
            cells += [
                Cell(method, budget, x, float(row[f"{x} acc."]), float(row[f"{x} token."]))
                for x in DATASETS
            ]
    found: dict[str, list[Cell]] = {}
    for method, file, column in (
        ("BoN", "bon_curves.csv", "N"),
        ("SC", "sc_majority_curves.csv", "N"),
        ("MR-Thinking", "mr_thinking_curves.csv", "max_N"),
    ):
        found[file] = [_cell(method, int(row[column]), row) for row in _rows(folder / file)]
    for method, file, section, name in (
        ("ESC", "sc_esc_asc.csv", "esc_max_n_sweep", "max_n"),
        ("ASC", "sc_esc_asc.csv", "asc_max_n_sweep", "max_n"),
        ("DSC", "sc_dsc.csv", "dsc_max_sample_size_sweep", "max_sample_size"),
    ):
        found.setdefault(file, []).extend(
            _cell(method, int(json.loads(row["setting_json"])[name]), row)
            for row in _rows(folder / file)
            if row["section"] == section
        )
    found["optscale_panels.csv"] = [
        min(tried, key=lambda x: (-x.accuracy, x.tokens)) for tried in panels(folder).values()
    ]
    return cells, found


def panels(folder: Path) -> dict[tuple[str, int, str], list[Cell]]:
    """By method, budget and dataset: what every setting of OptScale's thresholds gave."""
    found: dict[tuple[str, int, str], list[Cell]] = {}
    for row in _rows(folder / "optscale_panels.csv"):
        method = {"MLE": "OptScale0", "MAP": "OptScale-t"}[row["method"]]
        cell = _cell(method, int(row["max_N"]), row)
        found.setdefault(cell.key, []).append(cell)
    return found


def differences(cells: list[Cell], found: dict[str, list[Cell]]) -> list[Difference]:
    """Every number of `cells` beside the one for the same thing in `found`, where there is one."""
    known = {cell.key: (cell, name) for name, others in found.items() for cell in others}
    return [
        Difference(*cell.key, quantity, getattr(cell, quantity), getattr(other, quantity), name, t)
        for cell in cells
        if cell.key in known
        for other, name in [known[cell.key]]
        for quantity, t in TOLERANCE.items()
    ]


def _cells(text: str) -> Iterator[Cell]:
    for line in text.splitlines():
        method, budget, *pairs = line.split()
        for dataset, pair in zip(DATASETS, pairs, strict=True):
            accuracy, tokens = pair.split("@")
            yield Cell(method, int(budget), dataset, float(accuracy), float(tokens))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def _cell(method: str, budget: int, row: dict[str, str]) -> Cell:
    return Cell(
        method, budget, row["dataset"], 100 * float(row["accuracy"]), float(row["avg_tokens"])
    )
