"""Runs as a table with one row per answer, which `records_of_rows` and other tools read."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msjax._io import replacing
from msjax.data.trajectory import Trajectory
from msjax.errors import InputError, require_extra

__all__ = ["rows_of_records", "write_parquet"]

_NUMBERS = {"sequential": "round", "parallel": "sample"}


def rows_of_records(records: Sequence[Trajectory]) -> Iterator[dict[str, Any]]:
    """One row per answer; settings, metadata and why runs ended have no column.

    Raises InputError where runs of several protocols would share a table, or answers come from
    prefixes of one reasoning trace.
    """
    protocols = {run.protocol for run in records}
    if len(protocols) > 1 or "prefix" in protocols:
        raise InputError(
            f"protocol is {' and '.join(sorted(protocols))}; a table holds rounds (sequential) or "
            "samples (parallel), so write a .jsonl file, or each apart"
        )
    for run in records:
        for k, right in enumerate(run.correct):
            usage = run.tokens[k]
            yield {
                "benchmark": run.benchmark,
                "model": run.model,
                "question_id": run.question_id,
                "repeat": run.repeat,
                _NUMBERS[run.protocol]: k,
                "question": run.question,
                "gold": run.gold,
                "answer": run.answers[k],
                "correct": right,
                "score": run.scores[k],
                "verdict": run.verdicts[k],
                "prompt_tokens": usage.prompt,
                "cached_tokens": usage.cached,
                "completion_tokens": usage.completion,
                "tokens": usage.total,
                "finish": run.finish[k],
                "completion": run.completions[k],
                "cluster": run.cluster,
            }


def write_parquet(path: Path, records: Sequence[Trajectory]) -> None:
    """Write `rows_of_records` as Parquet, whole or not at all.

    Raises InputError as `rows_of_records`, and where the file cannot be written.
    """
    require_extra("parquet", "pyarrow")
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(list(rows_of_records(records)))
    with replacing(path) as part:
        pyarrow.parquet.write_table(table, part)
