"""A fit as ArviZ has it: every group with its coordinates, and ArviZ's functions on it."""

import warnings

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats

import msjax
from msjax.posterior.compare import weigh
from msjax.posterior.inference_data import groups
from msjax.posterior.models import with_priors
from msjax.posterior.models.chains import MoverStayer, Pooled
from msjax.posterior.models.prior import beta
from msjax.posterior.posterior import criticise
from msjax.verify.evidence import FALSE_ALARM

arviz_stats = pytest.importorskip("arviz_stats")
xarray = pytest.importorskip("xarray")

CORRECT = np.random.default_rng(0).integers(0, 2, (30, 4)).astype(np.int8)
PRIOR = {"p_ci": "beta:1,9"}
PRIOR_POST = ("prior", "posterior")


@pytest.fixture(scope="module")
def post():
    """Averaged over two models, with another prior of one rate."""
    runs, key = msjax.Runs.from_arrays(CORRECT, benchmark="coins"), jax.random.key(0)
    candidates = with_priors((Pooled(), MoverStayer()), PRIOR)
    return criticise(weigh(runs, key, candidates=candidates), key)


@pytest.fixture(scope="module")
def tree(post, tmp_path_factory):
    """What `save` writes."""
    path = tmp_path_factory.mktemp("fit") / "posterior.nc"
    post.save(path)
    with xarray.open_datatree(path, engine="h5netcdf") as found:
        yield found.load()


def test_the_average_obeys_the_prior() -> None:
    found = msjax.fit(CORRECT[:, :2], priors=PRIOR)
    assert len(found.candidates) > 5
    assert all(c.model.distributions["p_ci"] == beta(1, 9) for c in found.candidates)


def test_every_group_has_chains_draws_and_names(post, tree) -> None:
    for name in ("posterior", "prior", "log_likelihood", *(f"{x}_predictive" for x in PRIOR_POST)):
        group = tree[name]
        for axis in group.dims:
            assert axis in group.coords, (name, axis)
        assert {"chain", "draw"} <= set(group.dims)
    assert tree["posterior"]["p_ic"].dims == ("chain", "draw", "benchmark")
    assert tree["posterior"]["accuracy"].sel(benchmark="coins")["round"].size == 11
    assert tree["observed_data"]["correct"].dims == ("question", "answer")
    np.testing.assert_array_equal(tree["observed_data"]["correct"], CORRECT)
    assert tree["observed_data"]["question"].to_numpy().tolist() == list(post.runs.question_ids)
    assert set(tree["models"]) == set(post.models)


def test_no_parameter_and_no_likelihood_is_missing(tree) -> None:
    for node in tree.subtree:
        if node.name in ("posterior", "prior", "log_likelihood"):
            for name, values in node.data_vars.items():
                assert np.isfinite(values).all(), (node.path, name)


def test_the_draws_are_those_of_the_posterior(post, tree) -> None:
    for name in ("p0", "p_ic", "p_ci"):
        drawn = np.sort(tree["posterior"][name].to_numpy().ravel())
        np.testing.assert_allclose(drawn, np.sort(getattr(post, name).draws))
    pooled = tree["models/pooled"]
    p0 = pooled["prior"]["p0"].to_numpy().ravel()
    assert scipy.stats.kstest(p0, "uniform").pvalue > FALSE_ALARM
    p_ci = pooled["prior"]["p_ci"].to_numpy().ravel()
    assert scipy.stats.kstest(p_ci, "beta", (1, 9)).pvalue > FALSE_ALARM


def test_the_likelihood_is_that_of_each_run(tree) -> None:
    """Under one chain, by multiplying up."""
    pooled = tree["models/pooled"]
    p0, p_ic, p_ci = (pooled["posterior"][x].to_numpy()[1, 7, 0] for x in Pooled.parameters)
    right = np.where(CORRECT[:, :-1] == 1, 1 - p_ci, p_ic)
    moves = np.where(CORRECT[:, 1:] == 1, right, 1 - right)
    first = np.where(CORRECT[:, 0] == 1, p0, 1 - p0)
    expected = np.log(first) + np.log(moves).sum(axis=1)
    found = pooled["log_likelihood"]["correct"].to_numpy()[1, 7]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_new_runs_come_from_the_distributions_they_are_named_after(tree) -> None:
    """Shares of right first answers: as probable as p0 says."""
    for group in PRIOR_POST:
        new = tree[f"{group}_predictive"]["correct"].to_numpy()
        assert new.shape == (4, 25, 30, 4) and set(np.unique(new)) == {0, 1}
        p0 = tree[group]["p0"].to_numpy().ravel()
        shares = new[..., 0].mean(axis=-1).ravel()
        error = np.sqrt((p0.var() + (p0 * (1 - p0)).mean() / 30) / 100 + p0.var() / len(p0))
        assert abs(shares.mean() - p0.mean()) < scipy.stats.norm.isf(FALSE_ALARM / 2) * error


def test_arviz_compares_models_by_what_they_predict(post, tree) -> None:
    """The pooled model's is the exact leave-one-out of a product of Betas."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights beyond its comfort
        average = arviz_stats.loo(tree)
        table = arviz_stats.compare({name: tree["models"][name] for name in tree["models"]})
    assert average.n_data_points == 30 and np.isfinite(average.elpd)
    assert set(table.index) == set(post.models)
    pooled = Pooled().with_priors(PRIOR)
    exact = 0.0
    for q in range(30):
        rest, whole = pooled.exact(np.delete(CORRECT, q, axis=0)), pooled.exact(CORRECT)
        exact += sum(
            scipy.special.betaln(*whole[x]) - scipy.special.betaln(*rest[x])
            for x in pooled.parameters
        )
    assert table.loc["pooled", "elpd"] == pytest.approx(exact, abs=0.3)


@pytest.mark.slow
def test_arviz_draws_what_was_fitted(tree) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # matplotlib's of names that ArviZ looks for
        import matplotlib.style.core  # noqa: F401

        plots = pytest.importorskip("arviz_plots")
        plots.style.use("arviz-variat")
        for drawn in (
            plots.plot_trace(tree, var_names=["p_ic"]),
            plots.plot_ppc_dist(tree, kind="ecdf"),
            plots.plot_prior_posterior(tree, var_names=["p_ci"]),
        ):
            assert drawn.viz["figure"].item() is not None
        matplotlib.pyplot.close("all")


def test_benchmarks_follow_each_other_along_one_axis() -> None:
    several = [
        msjax.fit(msjax.Runs.from_arrays(x, benchmark=name), model="pooled")
        for name, x in (("whole", CORRECT), ("short", CORRECT[:5, :2]))
    ]
    found = groups(several)
    assert found["log_likelihood"]["question"].values[-1] == "short: 4"
    assert np.isfinite(found["log_likelihood"]["correct"].values).all()
    assert found["observed_data"]["correct"].values[30:, 2:].tolist() == [[-1, -1]] * 5
    assert (found["posterior_predictive"]["correct"].values[..., 30:, 2:] == -1).all()
    assert found["posterior"]["p_ic"].values.shape == (8, 125, 2)
    assert "sample_stats" not in found  # nothing was sampled


def test_to_arviz_is_what_save_writes(post, tree) -> None:
    here = post.to_arviz()
    assert here.attrs["benchmark"] == "coins"
    for path in ("posterior/p_ic", "models/mover_stayer/posterior/settled_right", "prior/accuracy"):
        np.testing.assert_allclose(here[path].to_numpy(), tree[path].to_numpy())
