"""Posteriors on disk: netCDF files with the groups that ArviZ expects.

Groups: `posterior` holds rates, accuracies and bounds averaged over models [chain, draw,
benchmark], one chain, NaN in draws of models that say nothing of them; `model_NAME` the parameters
of one model for the benchmarks it was fitted to; `observed_data` the runs; `constant_data` weights
of the models, tokens per round and what is identified. Written and read by
h5netcdf alone, so that neither xarray nor pandas is needed here; ArviZ and
`xarray.open_datatree` open the files.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5netcdf
import h5py
import numpy as np
from jaxtyping import Bool, Float

from msjax._io import write_bytes
from msjax.data.runs import MISSING
from msjax.errors import InputError
from msjax.posterior.average import average_accuracy
from msjax.posterior.fits import Fit
from msjax.posterior.quantities import Bounds

if TYPE_CHECKING:
    from msjax.posterior.posterior import Posterior

FORMAT = "msjax posterior 3"


@dataclass(frozen=True)
class SavedPosterior:
    """What a stopping rule needs of a fit, for several benchmarks.

    `accuracy[d, b, k]` is E[p_k] of benchmark b under draw d of the average; where something it
    needs is not `identified` it rests on the prior. `models` are those with most weight.
    `tokens_per_round[b, k]` is the mean number of uncached tokens of round k in benchmark b's runs,
    NaN beyond its rounds. `censored` marks benchmarks with runs that were stopped by looking at the
    label, `contradicted` those whose data speak against what was fitted.
    """

    benchmarks: tuple[str, ...]
    models: tuple[str, ...]
    accuracy: Float[np.ndarray, "draw benchmark k"]
    identified: Bool[np.ndarray, " benchmark"]
    tokens_per_round: Float[np.ndarray, "benchmark answer"]
    censored: Bool[np.ndarray, " benchmark"]
    contradicted: Bool[np.ndarray, " benchmark"]


def save(
    path: Path,
    found: "Sequence[Posterior]",
    *,
    seed: int | None = None,
    sources: Sequence[Path] = (),
) -> None:
    """Write posteriors to `path` (netCDF), creating the folder if need be.

    `sources` are the files that the data came from: their names and SHA-256 are recorded.
    """
    counts = [post.runs for post in found]
    labels = (("benchmark",), np.array([count.name for count in counts], dtype=object))
    sampled = ("chain", "draw", "benchmark")
    horizon = min(post.draws.bounds.neutral.shape[1] for post in found)

    def of_all(drawn: Sequence[np.ndarray]) -> np.ndarray:
        size = min(len(x) for x in drawn)
        return np.stack([x[:size] for x in drawn], axis=1)[None]

    groups: dict[str, dict[str, Any]] = {
        "posterior": {
            **{
                name: (sampled, of_all([getattr(post.draws, name) for post in found]))
                for name in ("p0", "p_ic", "p_ci")
            },
            "accuracy": (
                (*sampled, "k"),
                of_all([average_accuracy(post.candidates, horizon - 1) for post in found]),
            ),
            **{
                f"limit_{name}": (
                    sampled,
                    of_all([getattr(post.draws.limit, name) for post in found]),
                )
                for name in Bounds._fields
            },
        },
        "observed_data": {"correct": (("benchmark", "question", "answer"), _ragged(counts))},
        "constant_data": {
            "model": (
                ("benchmark",),
                np.array([post.leading.model.name for post in found], dtype=object),
            ),
            "language_model": (("benchmark",), np.array([c.model for c in counts], dtype=object)),
            "tokens_per_round": (
                ("benchmark", "answer"),
                _pad([count.tokens_per_round for count in counts], np.nan),
            ),
            "identified": (("benchmark",), np.array([post.known for post in found])),
            "censored": (("benchmark",), np.array([count.n_censored > 0 for count in counts])),
            "contradicted": (("benchmark",), np.array([post.contradicted for post in found])),
        },
    }
    names = list(dict.fromkeys(name for post in found for name in post.models))
    weights = [[post.models.get(name, 0.0) for name in names] for post in found]
    groups["constant_data"]["weight"] = (("benchmark", "fitted_model"), np.array(weights))
    groups["constant_data"]["fitted_model"] = (("fitted_model",), np.array(names, dtype=object))
    for name in names:
        fits = [_fit_of(post, name) for post in found]
        parameters = next(fit for fit in fits if fit is not None).model.parameters
        groups[f"model_{name}"] = {
            parameter: (
                sampled,
                _stack([None if fit is None else fit.sample.draws[parameter] for fit in fits]),
            )
            for parameter in parameters
        }
    attributes = {
        "format": FORMAT,
        "msjax_version": _version(),
        "seed": -1 if seed is None else seed,
        "sources": [source.name for source in sources],
        "sha256": [sha256(source.read_bytes()).hexdigest() for source in sources],
    }
    # HDF5 does not survive a full disk, so it writes into memory.
    written = io.BytesIO()
    with h5netcdf.File(written, "w") as file:
        file.attrs.update(attributes)
        for name, variables in groups.items():
            _write_group(file.create_group(name), variables | {"benchmark": labels})
    write_bytes(path, written.getvalue())


def _fit_of(post: "Posterior", name: str) -> Fit | None:
    return next((c.fit for c in post.candidates if c.model.name == name), None)


def load(path: Path) -> SavedPosterior:
    """What `save` wrote, as far as a stopping rule needs it.

    Raises InputError when the file is absent, damaged, or not a posterior of this version.
    """
    remedy = "make one with `msjax fit RUNS --out FILE`"
    if not path.is_file():
        raise InputError(f"{path}: no such file; {remedy}")
    try:
        with h5netcdf.File(path, decode_vlen_strings=True) as file:
            found = file.attrs.get("format")
            if found != FORMAT:
                raise InputError(f"{path}: format is {found!r}, not {FORMAT!r}; {remedy}")
            drawn = file.groups["posterior"].variables
            constant = file.groups["constant_data"].variables
            return SavedPosterior(
                benchmarks=tuple(map(str, constant["benchmark"][...])),
                models=tuple(map(str, constant["model"][...])),
                accuracy=drawn["accuracy"][0],
                identified=constant["identified"][...].astype(bool),
                tokens_per_round=constant["tokens_per_round"][...],
                censored=constant["censored"][...].astype(bool),
                contradicted=constant["contradicted"][...].astype(bool),
            )
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(f"{path}: not a readable posterior ({error}); {remedy}") from None


def _write_group(group: h5netcdf.Group, variables: dict[str, tuple[Sequence[str], Any]]) -> None:
    """Variables with the names of their axes: text, numbers and truth values."""
    for name, (axes, values) in variables.items():
        for axis, size in zip(axes, values.shape, strict=True):
            if axis not in group.dimensions:
                group.dimensions[axis] = size
        text, truth = values.dtype == object, values.dtype == bool
        kind = h5py.string_dtype() if text else np.int8 if truth else values.dtype
        data = values.astype(kind) if truth else values
        variable = group.create_variable(name, axes, kind, data=data)
        if truth:
            variable.attrs["dtype"] = "bool"  # what xarray writes, and reads as truth values


def _stack(values: list[np.ndarray | None]) -> Float[np.ndarray, "chain draw benchmark"]:
    """One array of what some benchmarks have, NaN for the others."""
    draws = min(value.shape[1] for value in values if value is not None)
    shape = next(value.shape[0] for value in values if value is not None), draws
    columns = [np.full(shape, np.nan) if x is None else x[:, :draws] for x in values]
    return np.stack(columns, axis=-1).astype(float)


def _pad(rows: Sequence[np.ndarray], fill: float) -> np.ndarray:
    padded = np.full((len(rows), max(len(row) for row in rows)), fill)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded


def _ragged(counts: Sequence[Any]) -> np.ndarray:
    """States of all benchmarks' runs, -1 where there is none."""
    shape = tuple(max(count.correct.shape[axis] for count in counts) for axis in (0, 1))
    states = np.full((len(counts), *shape), MISSING, dtype=np.int8)
    for target, count in zip(states, counts, strict=True):
        target[: count.correct.shape[0], : count.correct.shape[1]] = count.correct
    return states


def _version() -> str:
    try:
        return version("msjax")
    except PackageNotFoundError:
        return "unknown (not installed)"
