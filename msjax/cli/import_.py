"""`msjax import`: recorded runs from a table, a log or a list of answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from msjax.cli.output import OutputFile
from msjax.errors import InputError


@dataclass(frozen=True)
class Import:
    """Write what another tool recorded as runs that every command takes, and say what was read.

    Tables have one row per answer: question or question_id, round or sample, and correct, or answer
    and gold; maybe tokens, score, verdict, benchmark, model, cluster. Other columns are kept as
    metadata. lm-eval's samples and inspect_ai's logs are recognised. Commands that take runs take
    such files directly, where columns have these names.

    Example: msjax import logs.csv --columns question=prompt correct=is_right --out runs.jsonl
    """

    source: tyro.conf.Positional[Path]
    """CSV, JSON Lines, JSON or Parquet file of rows, lm-eval samples, or a log of inspect_ai."""
    out: OutputFile | None = None
    """JSON Lines file of runs to write, or Parquet file of their answers (.parquet); without one,
    only what was read is said."""
    columns: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD=COLUMN ...")] = ()
    """Names of columns that are called otherwise, such as correct=is_right."""
    scorer: str = "math"
    """Grades answers of rows that have a gold answer and no label: math, number, choice, exact, or
    module:function."""
    benchmark: str | None = None
    """For rows that name none; default: the name of the file."""
    model: str = "model"
    """For rows that name none."""
    filter: str | None = None
    """Of lm-eval's filters, which one to read; default: the first."""
    metric: str | None = None
    """Of lm-eval's metrics or inspect_ai's scorers, which one is the label; default: the first."""
    json: OutputFile | None = None
    """Write what was read, guessed and left out as JSON."""

    def run(self) -> int:
        """Read, write, say what was read; 0 when done."""
        from msjax._io import write_text
        from msjax.cli.output import write_json
        from msjax.data.importers.reading import import_records
        from msjax.data.importers.tables import write_parquet
        from msjax.data.runs import Runs

        wrong = [pair for pair in self.columns if "=" not in pair]
        if wrong:
            raise InputError(f"--columns is {wrong[0]!r}; write FIELD=COLUMN")
        found = import_records(
            self.source,
            columns=dict(pair.partition("=")[::2] for pair in self.columns),
            scorer=self.scorer,
            benchmark=self.benchmark,
            model=self.model,
            filter=self.filter,
            metric=self.metric,
        )
        groups = []
        for runs in Runs.from_records(found.records).groups:
            right = [int(column.sum()) for column in runs.right.T]
            groups.append(
                {
                    "benchmark": runs.benchmark,
                    "model": runs.model,
                    "protocol": runs.protocol,
                    "questions": runs.questions,
                    "answers": int(runs.recorded.sum()),
                    "right": right,
                    "tokens": float(runs.tokens_per_round.sum()),
                }
            )
            what = "samples" if runs.parallel else "rounds"
            print(f"{runs.name} ({runs.model}): {runs.questions} questions, {what}")
            print(f"  right: {', '.join(map(str, right))} of {runs.questions}")
        for note in found.notes:
            print(f"note: {note}")
        if self.out:
            if self.out.suffix.lower() == ".parquet":
                write_parquet(self.out, found.records)
            else:
                write_text(self.out, "".join(x.model_dump_json() + "\n" for x in found.records))
            print(f"runs: {self.out}")
        if self.json:
            write_json(self.json, {"groups": groups, "notes": found.notes, "file": self.out})
        return 0
