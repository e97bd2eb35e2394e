"""Posteriors on disk: netCDF files that ArviZ opens as InferenceData.

Groups: `posterior` and `sample_stats` are the NUTS draws and how they were made, so that
`arviz.summary` repeats the diagnostics that were reported; `posterior_exact` holds as many
independent draws from the exact posterior, which is what `load` returns and everything downstream
uses; `observed_data` the sufficient statistics; `constant_data` tokens per round and what is
identified. Written and read by xarray alone, so no difference between ArviZ versions matters.
"""

from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray

from inference.posterior import PARAMETERS, ChainPosterior
from msjax.chain import TwoStateChain, eigenvalue, stationary_accuracy
from msjax.errors import InputError

if TYPE_CHECKING:
    from inference.fit import ChainFit

FORMAT = "msjax chain posterior 1"


def save(path: Path, fit: "ChainFit", *, seed: int, sources: Sequence[Path]) -> None:
    """Write a fit to `path` (netCDF), creating the folder if need be.

    `sources` are the files that the data came from: their names and SHA-256 are recorded.
    """
    posterior, chains = fit.posterior, fit.nuts.draws.shape[0]
    sampled = ("chain", "draw", "benchmark")
    exact = {
        name: (sampled, getattr(posterior, name).reshape(chains, -1, len(posterior.benchmarks)))
        for name in PARAMETERS
    }
    nuts = {name: (sampled, fit.nuts.draws[:, :, i]) for i, name in enumerate(PARAMETERS)}
    observed = {
        f"{name}_{what}": (("benchmark",), values[i])
        for what, values in fit.tally._asdict().items()
        for i, name in enumerate(PARAMETERS)
    }
    constant = {
        "tokens_per_round": (("benchmark", "round"), posterior.tokens_per_round),
        "censored": (("benchmark",), posterior.censored),
        "contradicted": (("benchmark",), posterior.contradicted),
        **{
            f"{n}_identified": (("benchmark",), posterior.identified[i])
            for i, n in enumerate(PARAMETERS)
        },
    }
    labels = {"benchmark": np.array(posterior.benchmarks, dtype=object)}
    groups = {
        "posterior": xarray.Dataset(_with_derived(nuts), labels),
        "sample_stats": xarray.Dataset(
            {name: (("chain", "draw"), values) for name, values in fit.nuts.stats.items()}
        ),
        "posterior_exact": xarray.Dataset(_with_derived(exact), labels),
        "observed_data": xarray.Dataset(observed, labels),
        "constant_data": xarray.Dataset(constant, labels),
    }
    attributes = {
        "format": FORMAT,
        "msjax_version": _version(),
        "model": fit.counts[0].model,
        "seed": seed,
        "prior": list(fit.prior),
        "sources": [source.name for source in sources],
        "sha256": [sha256(source.read_bytes()).hexdigest() for source in sources],
    }
    tree = xarray.DataTree.from_dict({"/": xarray.Dataset(attrs=attributes), **groups})
    path.parent.mkdir(parents=True, exist_ok=True)
    tree.to_netcdf(path, engine="h5netcdf")


def load(path: Path) -> ChainPosterior:
    """The independent draws that `save` wrote.

    Raises InputError when the file is absent, damaged, or not a chain posterior of this version.
    """
    remedy = "make one with `msjax fit RUNS --out FILE`"
    if not path.is_file():
        raise InputError(f"{path}: no such file; {remedy}")
    try:
        with xarray.open_datatree(path, engine="h5netcdf") as tree:
            found = tree.attrs.get("format")
            if found != FORMAT:
                raise InputError(f"{path}: format is {found!r}, not {FORMAT!r}; {remedy}")
            groups = tree.children
            draws = groups["posterior_exact"].to_dataset()
            constant = groups["constant_data"].to_dataset()
            pooled = {
                name: draws[name].values.reshape(-1, draws.sizes["benchmark"])
                for name in PARAMETERS
            }
            return ChainPosterior(
                benchmarks=tuple(map(str, draws["benchmark"].values)),
                identified=np.stack(
                    [constant[f"{name}_identified"].values.astype(bool) for name in pooled]
                ),
                tokens_per_round=constant["tokens_per_round"].values,
                censored=constant["censored"].values.astype(bool),
                contradicted=constant["contradicted"].values.astype(bool),
                **pooled,
            )
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(f"{path}: not a readable posterior ({error}); {remedy}") from None


def _with_derived(draws: dict[str, Any]) -> dict[str, Any]:
    """Add r and pi, so that ArviZ summarises and plots them too."""
    dims = draws["p0"][0]
    chain = TwoStateChain(**{name: values for name, (_, values) in draws.items()})
    return draws | {
        "r": (dims, np.asarray(eigenvalue(chain))),
        "pi": (dims, np.asarray(stationary_accuracy(chain))),
    }


def _version() -> str:
    try:
        return version("msjax")
    except PackageNotFoundError:
        return "unknown (not installed)"
