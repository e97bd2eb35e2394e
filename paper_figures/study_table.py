"""Table: every way to ask again that the study has recorded, on every model and benchmark.

Reference: MarkovScale (arXiv 2602.01120), Table 1, on recordings of this project.
"""

from pathlib import Path

from msjax.decision.card import PolicyRow, decide
from msjax.report.figures import table
from paper_figures.sources import PaperSources
from paper_figures.study_front import WAYS

__all__ = ["SAYS", "make"]

SAYS = "MarkovScale Table 1 on our study: methods by models and benchmarks"


def make(sources: PaperSources, stem: Path) -> None:
    """One row per policy; two columns, accuracy and tokens, per model and benchmark."""
    found: dict[tuple[str, str], dict[tuple[str, str], PolicyRow]] = {}
    for way, words in WAYS.items():
        recorded = sources.study(way)
        for decision in decide(recorded).decisions if recorded is not None else ():
            runs = decision.pilot.runs
            cell = found.setdefault((runs.models[0], runs.benchmarks[0]), {})
            for row in decision.policies:
                # The first answers of all ways but the longer one are the same.
                first = row.policy.stop == "fixed" and row.policy.asks == 1
                group = words if way == "longer" or not first else ""
                cell.setdefault((group, row.policy.name), row)
    methods = sorted(
        dict.fromkeys(method for cell in found.values() for method in cell),
        key=lambda method: ["", *WAYS.values()].index(method[0]),
    )
    header = ["asked how: policy"]
    for model, benchmark in found:
        header += [f"{model.removesuffix('-Instruct')}, {benchmark}", "tokens"]
    rows, better = [], []
    for i, (way, policy) in enumerate(methods):
        cells = [f"{way}: {policy}" if way else policy]
        for j, cell in enumerate(found.values()):
            done = cell.get((way, policy))
            cells += ["-", "-"] if done is None else _shown(done)
            if done is not None and done.gain is not None and done.gain.low > 0:
                better.append((i, 1 + 2 * j))
        rows.append(cells)
    note = (
        "Accuracy with 90 % interval and number of questions; uncached tokens per question. "
        "Intervals hold for all policies of one way of asking and one column at once. Bold: better "
        "than the first answer by that band."
    )
    table.write(header, rows, stem, "ours, recorded with msjax (inference/study)", note, better)


def _shown(row: PolicyRow) -> list[str]:
    tokens = row.uncached
    return [
        f"{row.accuracy.estimate:.2f} [{row.accuracy.low:.2f}, {row.accuracy.high:.2f}], "
        f"{row.questions}",
        "not reported" if tokens is None else f"{tokens.estimate:,.0f}",
    ]
