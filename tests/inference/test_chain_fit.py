"""The whole fit: what is identified, what is refused, what a file keeps."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import inference.fit
from inference.counts import count_runs
from inference.fit import NotConvergedError, NutsRun, fit
from inference.push_forward import estimate, push_forward, quantities, round_tokens
from inference.store import load, save
from msjax.chain import TwoStateChain, accuracy_after
from msjax.errors import InputError

IDENTIFIED = {
    # benchmark: p0, p_ic, p_ci
    "ordinary": (True, True, True),
    "all right": (True, False, True),
    "all wrong": (True, True, False),
    "one answer": (True, False, False),
    "censored": (True, True, False),
}


@pytest.fixture(scope="module")
def arviz():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return pytest.importorskip("arviz")


@pytest.fixture(scope="module")
def derived(five_fits):
    return quantities(five_fits.posterior, value=2.0, price=1e-4)


@pytest.mark.parametrize("benchmark", IDENTIFIED)
def test_what_is_not_identified_is_the_prior_and_gets_no_number(five_fits, derived, benchmark):
    row = five_fits.posterior.benchmarks.index(benchmark)
    identified = five_fits.posterior.identified[:, row]
    assert tuple(identified) == IDENTIFIED[benchmark]
    prior = (five_fits.exact.alpha[:, row] == 1) & (five_fits.exact.beta[:, row] == 1)
    assert (prior == ~identified).all()
    assert estimate(derived.accuracy[:, row, 0]) is not None
    for draws in (derived.r, derived.pi, derived.accuracy[..., 1], derived.optimal_rounds):
        assert (estimate(draws[:, row]) is None) == (not identified.all())
    assert np.isnan(derived.helps[:, row]).all() == (not identified.all())


def test_quantities_are_those_of_the_chain_draw_by_draw(five_fits, derived):
    posterior = five_fits.posterior
    p0, p_ic, p_ci = (float(getattr(posterior, name)[17, 0]) for name in ("p0", "p_ic", "p_ci"))
    curve = [p0]
    for _ in range(10):
        curve.append(curve[-1] * (1 - p_ci) + (1 - curve[-1]) * p_ic)
    assert derived.accuracy[17, 0] == pytest.approx(curve, abs=1e-5)
    assert derived.r[17, 0] == pytest.approx(1 - p_ic - p_ci, abs=1e-6)
    assert derived.pi[17, 0] == pytest.approx(p_ic / (p_ic + p_ci), abs=1e-5)
    assert derived.helps[17, 0] == (p_ic * (1 - p0) > p_ci * p0)
    spent = np.concatenate([[0], np.cumsum([110, 120, 130, *[130] * 7])]) * 1e-4
    assert derived.optimal_rounds[17, 0] == np.argmax(2 * np.array(curve) - spent)


def test_rounds_beyond_the_observed_cost_what_the_last_did(five_fits):
    tokens = round_tokens(five_fits.posterior)
    assert tokens[0].tolist() == [110, 120, 130, *[130] * 7]
    assert tokens[3].tolist() == [100] * 10


def test_push_forward_of_any_function(five_fits, derived):
    posterior = five_fits.posterior
    after_two = push_forward(posterior, lambda chain: accuracy_after(chain, 2))
    np.testing.assert_allclose(after_two, derived.accuracy[..., 2], atol=1e-6)
    both = push_forward(posterior, lambda c: jnp.stack([c.p0, 1 - c.p0], axis=-1), ["p0"])
    assert both.shape == (*posterior.p0.shape, 2) and not np.isnan(both).any()
    with pytest.raises(InputError, match="p_oops"):
        push_forward(posterior, TwoStateChain, ["p_oops"])


@pytest.mark.parametrize(("value", "price"), [(0, 0), (np.nan, 0), (1, -1), (1, np.inf)])
def test_bad_value_and_price(five_fits, value, price):
    with pytest.raises(InputError, match="value is|price is"):
        quantities(five_fits.posterior, value=float(value), price=float(price))


def test_no_counts():
    with pytest.raises(InputError, match="none given"):
        fit([], jax.random.key(0))


def test_a_sampler_that_failed_is_refused(monkeypatch, make_run):
    def stuck(data, key, **_):
        draws = np.full((4, 1000, 3, 1), 0.5) + np.arange(4)[:, None, None, None] / 10
        noise = np.random.default_rng(0).normal(0, 1e-3, draws.shape)
        return NutsRun(draws + noise, {"diverging": np.zeros((4, 1000), dtype=bool)})

    monkeypatch.setattr(inference.fit, "run_nuts", stuck)
    with pytest.raises(NotConvergedError, match=r"R-hat.*more draws"):
        fit(count_runs([make_run([0, 1])]), jax.random.key(0))


def test_a_file_gives_back_what_was_saved(five_fits, tmp_path):
    source = tmp_path / "runs.jsonl"
    source.write_text("{}\n")
    path = tmp_path / "new" / "posterior.nc"
    save(path, five_fits, seed=1, sources=[source])
    loaded = load(path)
    for field, value in vars(five_fits.posterior).items():
        np.testing.assert_array_equal(getattr(loaded, field), value)
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        assert np.atleast_1d(tree.attrs["sources"]).tolist() == ["runs.jsonl"]
        assert len(np.atleast_1d(tree.attrs["sha256"])[0]) == 64
        assert tree.attrs["seed"] == 1


def test_arviz_opens_the_file_and_repeats_the_diagnostics(five_fits, tmp_path, arviz):
    path = tmp_path / "posterior.nc"
    save(path, five_fits, seed=1, sources=[])
    data = arviz.from_netcdf(path)
    assert data["posterior"].sizes == {"chain": 4, "draw": 1000, "benchmark": 5}
    assert set(data["posterior"].data_vars) == {"p0", "p_ic", "p_ci", "r", "pi"}
    assert data["sample_stats"]["diverging"].sum() == 0
    r_hat, ess = arviz.rhat(data["posterior"]), arviz.ess(data["posterior"])
    for row, name in enumerate(("p0", "p_ic", "p_ci")):
        found = five_fits.diagnostics
        np.testing.assert_allclose(found.r_hat[row], r_hat[name], rtol=1e-4)
        # The two truncate the autocorrelations at lags that may differ by one pair.
        np.testing.assert_allclose(found.bulk_ess[row], ess[name], rtol=0.15)


def test_files_that_are_no_posterior(five_fits, tmp_path):
    path = tmp_path / "posterior.nc"
    with pytest.raises(InputError, match="no such file"):
        load(path)
    save(path, five_fits, seed=1, sources=[])
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="not a readable posterior"):
        load(path)
    path.write_text("p0,p_ic,p_ci\n")
    with pytest.raises(InputError, match="not a readable posterior"):
        load(path)
    xarray.Dataset({"p0": ("draw", [0.5])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(InputError, match="format is None"):
        load(path)
