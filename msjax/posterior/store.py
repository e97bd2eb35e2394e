"""Posteriors on disk: netCDF files with the groups that ArviZ expects.

`msjax.posterior.inference_data` says what is in them. Written and read by h5netcdf alone, so that
neither xarray nor pandas is needed here; ArviZ and `xarray.open_datatree` open the files.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import h5netcdf
import h5py
import numpy as np
from jaxtyping import Bool, Float

from msjax._io import reading, sha256_of, write_bytes
from msjax.errors import InputError
from msjax.posterior.fits import THINNED
from msjax.posterior.inference_data import Group, groups

if TYPE_CHECKING:
    from msjax.posterior.posterior import Posterior

FORMAT = "msjax posterior 4"
_LARGE = 10_000
"""Entries from which an array is compressed."""


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
    attributes = {
        "format": FORMAT,
        "msjax_version": _version(),
        "seed": -1 if seed is None else seed,
        "sources": [source.name for source in sources],
        "sha256": [sha256_of(source) for source in sources],
    }
    # HDF5 does not survive a full disk, so it writes into memory.
    written = io.BytesIO()
    with h5netcdf.File(written, "w") as file:
        file.attrs.update(attributes)
        for path_inside, variables in groups(found, seed or 0).items():
            _write_group(file.create_group(path_inside), variables)
    content = written.getvalue()
    write_bytes(path, content + _seal(content))


def load(path: Path) -> SavedPosterior:
    """What `save` wrote, as far as a stopping rule needs it.

    Raises InputError when the file is absent, damaged, or not a posterior of this version.
    """
    remedy = "make one with `msjax fit RUNS --out FILE`"
    with reading(path, remedy):
        whole = path.read_bytes()
        content, seal = whole[:-_SEALED], whole[-_SEALED:]
        if not seal.startswith(_SEAL):
            raise ValueError("it does not end as a posterior of this version of msjax does")
        # A few wrong bytes can keep HDF5 busy for ever.
        if seal != _seal(content):
            raise ValueError("its content is not what was written")
        with h5netcdf.File(io.BytesIO(content), decode_vlen_strings=True) as file:
            found = file.attrs.get("format")
            if found != FORMAT:
                raise InputError(f"{path}: format is {found!r}, not {FORMAT!r}; {remedy}")
            drawn = file.groups["posterior"].variables
            constant = file.groups["constant_data"].variables
            return SavedPosterior(
                benchmarks=tuple(map(str, constant["benchmark"][...])),
                models=tuple(map(str, constant["model"][...])),
                accuracy=_flat(drawn["accuracy"][...]),
                identified=constant["identified"][...].astype(bool),
                tokens_per_round=constant["tokens_per_round"][...],
                censored=constant["censored"][...].astype(bool),
                contradicted=constant["contradicted"][...].astype(bool),
            )


_SEAL = b"\nmsjax sha256 "
_SEALED = len(_SEAL) + 64


def _seal(content: bytes) -> bytes:
    """What follows the content, where readers of HDF5 do not look: its hash."""
    return _SEAL + sha256(content).hexdigest().encode()


def _flat(
    drawn: Float[np.ndarray, "chain draw benchmark k"],
) -> Float[np.ndarray, "kept benchmark k"]:
    """About 1,000 draws of all chains."""
    flat = drawn.reshape(-1, *drawn.shape[2:])
    return flat[:: max(1, len(flat) // THINNED)]


def _write_group(group: h5netcdf.Group, variables: Group) -> None:
    """Variables with the names of their axes: text, numbers and truth values."""
    for name, (axes, values) in variables.items():
        for axis, size in zip(axes, values.shape, strict=True):
            if axis not in group.dimensions:
                group.dimensions[axis] = size
        text, truth = values.dtype == object, values.dtype == bool
        kind = h5py.string_dtype() if text else np.int8 if truth else values.dtype
        data = values.astype(kind) if truth else values
        packed = {"compression": "gzip", "compression_opts": 1} if values.size > _LARGE else {}
        variable = group.create_variable(name, axes, kind, data=data, **packed)
        if truth:
            variable.attrs["dtype"] = "bool"  # what xarray writes, and reads as truth values


def _version() -> str:
    try:
        return version("msjax")
    except PackageNotFoundError:
        return "unknown (not installed)"
