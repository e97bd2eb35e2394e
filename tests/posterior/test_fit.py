"""The whole way from runs to a report: what is identified, what is refused, what a file keeps."""

import itertools

import arviz_stats
import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats
import xarray

import msjax.posterior.sample
from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.posterior.analysis import analyse
from msjax.posterior.compare import (
    Candidate,
    _rank,
    compare,
    leave_future_out,
    leave_one_out,
    training_rounds,
)
from msjax.posterior.fit import NotConvergedError, fit
from msjax.posterior.models import find_model
from msjax.posterior.quantities import estimate, push_forward, quantities, question_posterior
from msjax.posterior.sample import Sample, run_nuts, tabulate
from msjax.posterior.store import load, save
from msjax.theory.population import bounds, limit_accuracy, mean_accuracy_curve
from msjax.verify.evidence import FALSE_ALARM

KEY = jax.random.key(0)
Z = scipy.stats.norm.isf(FALSE_ALARM / 2)

# Of the candidates that `auto` tries: each takes seconds to compile.
COMPARED = ("pooled", "heterogeneous", "mover_stayer", "drifting")

IDENTIFIED = {
    # benchmark: p0, p_ic, p_ci
    "ordinary": (True, True, True),
    "all right": (True, False, True),
    "all wrong": (True, True, False),
    "one answer": (True, False, False),
    "censored": (True, True, False),
}


def settled_runs(questions=400, rounds=6):
    """Runs of which half the right and 60 % of the wrong questions are settled."""
    random = np.random.default_rng(5)
    states = np.empty((questions, rounds + 1), dtype=np.int8)
    states[:, 0] = random.random(questions) < 0.5
    settled = random.random(questions) < np.where(states[:, 0] == 1, 0.5, 0.6)
    for k in range(rounds):
        rate = np.where(settled, 0, np.where(states[:, k] == 1, 0.3, 0.5))
        states[:, k + 1] = states[:, k] ^ (random.random(questions) < rate)
    return states


@pytest.fixture(scope="module")
def settled(make_counts):
    return make_counts(settled_runs(), "settled")


@pytest.fixture(scope="module")
def compared(settled):
    return compare(settled, KEY, candidates=[find_model(name) for name in COMPARED])


@pytest.fixture(scope="module")
def five(five_counts):
    """Analyses of five benchmarks that differ in what they identify, under the pooled chain."""
    return {
        count.name: analyse(count, KEY, model="pooled", value=2.0, price=1e-4)
        for count in five_counts.values()
    }


@pytest.mark.parametrize("benchmark", IDENTIFIED)
def test_what_is_not_identified_gets_no_number(five, benchmark):
    found = five[benchmark]
    assert tuple(found.fit.identified.values()) == IDENTIFIED[benchmark]
    q, known = found.quantities, all(IDENTIFIED[benchmark])
    assert estimate(q.bounds.neutral[:, 0]) is not None
    for draws in (q.r, q.limit.neutral, q.limit.upper, q.bounds.neutral[:, 1], q.optimal_rounds):
        assert (estimate(draws) is None) == (not known)
    unknown = [name for name, ok in found.fit.identified.items() if not ok]
    assert [w.split(":")[1].split(",")[0].strip() for w in found.warnings if "NOT IDENT" in w] == (
        unknown
    )


def test_warnings_name_what_is_wrong(five, compared):
    assert any(w.startswith("CENSORED: 12 of ") for w in five["censored"].warnings)
    assert any(w.startswith("NOT CHECKED") for w in five["one answer"].warnings)


def test_prefixes_of_one_trace_are_no_revisions(make_run):
    runs = [make_run([0, 1, 1], f"q{i}", protocol="prefix") for i in range(3)]
    count = Runs.from_records(runs)
    found = analyse(count, KEY, model="pooled", value=1.0, price=0.0)
    assert found.warnings[0].startswith("NOT REVISIONS")
    assert found.contradicted


def test_quantities_are_those_of_the_chain_draw_by_draw(five):
    fit, q = five["ordinary"].fit, five["ordinary"].quantities
    p0, p_ic, p_ci = (fit.draws[name][17] for name in ("p0", "p_ic", "p_ci"))
    curve = [p0]
    for _ in range(10):
        curve.append(curve[-1] * (1 - p_ci) + (1 - curve[-1]) * p_ic)
    limit = p_ic / (p_ic + p_ci)
    assert q.bounds.neutral[17] == pytest.approx(curve)
    assert q.bounds.upper[17] == pytest.approx(np.maximum(p0, curve))
    assert q.r[17] == pytest.approx(1 - p_ic - p_ci)
    assert q.limit.neutral[17] == pytest.approx(limit)
    assert q.limit.upper_most[17] == pytest.approx(p0 + (1 - p0) * limit)
    assert q.limit.lower_most[17] == pytest.approx(p0 * limit)
    assert q.first_round_helps[17] == (p_ic * (1 - p0) > p_ci * p0)
    spent = np.concatenate([[0], np.cumsum([110, 120, 130, *[130] * 7])]) * 1e-4
    net = 2 * np.array(curve) - spent
    assert q.optimal_rounds[17] == np.argmax(net)
    assert q.worth_of_refining[17] == pytest.approx(net.max() - net[0])
    assert q.worth_of_stopping[17] == pytest.approx(net.max() - net[-1])


def test_the_prior_predicts_before_any_data(five):
    """Uniform p0; after a round p0 (1 - p_ci) + (1 - p0) p_ic, of mean 1/2 too, but narrower."""
    found = five["ordinary"]
    assert found.prior_accuracy.shape == (4000, found.quantities.bounds.neutral.shape[1])
    error = Z * np.sqrt(1 / 12 / 4000)
    assert abs(found.prior_accuracy.mean(axis=0) - 0.5).max() < error
    assert np.quantile(found.prior_accuracy[:, 0], [0.05, 0.95]) == pytest.approx(
        [0.05, 0.95], abs=0.02
    )
    assert found.prior_accuracy[:, 1].std() < found.prior_accuracy[:, 0].std()


def test_bounds_enclose_and_add_up(compared):
    q = quantities(compared.chosen, value=1.0, price=0.0)
    for found in (q.limit, q.bounds):
        start = q.bounds.neutral[:, 0]
        start = start if found is q.limit else start[:, None]
        assert (found.upper_most >= found.upper - 1e-9).all()
        assert (found.lower >= found.lower_most - 1e-9).all()
        np.testing.assert_allclose(found.upper + found.lower, start + found.neutral, rtol=1e-9)


def test_push_forward_agrees_with_the_population(compared):
    q = quantities(compared.chosen, value=1.0, price=0.0)
    limit = push_forward(compared.chosen, limit_accuracy)
    np.testing.assert_allclose(limit, q.limit.neutral, atol=1e-5)
    curve = push_forward(compared.chosen, lambda population: mean_accuracy_curve(population, 3))
    np.testing.assert_allclose(curve, q.bounds.neutral[:, :4], atol=1e-5)
    upper = push_forward(compared.chosen, lambda population: bounds(population).upper)
    np.testing.assert_allclose(upper, q.limit.upper, atol=1e-5)
    drifting = next(c.fit for c in compared.candidates if c.model.name == "drifting")
    with pytest.raises(InputError, match="no mixture of two-state chains"):
        push_forward(drifting, limit_accuracy)


@pytest.mark.parametrize(("value", "price"), [(0, 0), (np.nan, 0), (1, -1), (1, np.inf)])
def test_bad_value_and_price(five, value, price):
    with pytest.raises(InputError, match="value is|price is"):
        quantities(five["ordinary"].fit, value=float(value), price=float(price))


def test_the_model_that_made_the_runs_is_chosen(compared):
    """Or one that contains it; and the truth lies inside what it says."""
    assert compared.chosen.model.name.startswith("mover_stayer")
    pooled = next(c for c in compared.candidates if c.model.name == "pooled")
    assert pooled.leave_one_out.difference < -4 * pooled.leave_one_out.difference_error
    mover = next(c.fit for c in compared.candidates if c.model.name == "mover_stayer")
    truth = {"p0": 0.5, "p_ic": 0.5, "p_ci": 0.3, "settled_right": 0.5, "settled_wrong": 0.6}
    for name, draws in mover.sample.flat.items():
        assert abs(draws.mean() - truth[name]) < Z * draws.std(), name


def test_every_candidate_is_scored_or_refused_with_a_reason(compared, five_counts):
    assert {candidate.model.name for candidate in compared.candidates} == set(COMPARED)
    for candidate in compared.candidates:
        assert candidate.refused is None
        assert candidate.leave_one_out.difference <= 0 and candidate.future.difference <= 0
        assert candidate.pareto_k < 0.7
    found = compare(five_counts["one answer"], KEY)
    assert found.chosen.model.name == "pooled"
    assert "only candidate" in found.reason
    assert all("rounds of revision" in c.refused for c in found.candidates[1:])


def test_models_that_half_the_rounds_say_too_little_for_are_named():
    models = [Candidate(find_model(name), None, None) for name in ("pooled", "heterogeneous")]
    losses = {"pooled": np.array([-1.0, -2.0]), "heterogeneous": np.array([-1.1, -1.8])}
    found = _rank(models, losses, {"pooled": np.array([-0.5, -1.0])}, 2)
    assert found.reason.startswith("heterogeneous is best by leave-one-out; later rounds do not")
    assert found.reason.endswith("half of them say too little for heterogeneous")


def test_leave_one_out_is_the_exact_predictive_probability(settled):
    """Of the pooled chain, where leaving a question out is done by subtraction."""
    count = settled
    model = find_model("pooled")
    found, _ = leave_one_out(fit(count, model, KEY, draws=4000))
    whole, expected = model.exact(count.correct), []
    for question in range(count.questions):
        rest = model.exact(np.delete(count.correct, question, axis=0))
        # The run's probability averaged over the rest's posterior is a ratio of Betas.
        expected.append(
            sum(
                scipy.special.betaln(*whole[name]) - scipy.special.betaln(*rest[name])
                for name in model.parameters
            )
        )
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_leave_future_out_is_the_exact_predictive_probability(settled):
    count = settled
    assert [training_rounds(k) for k in range(1, 7)] == [1, 1, 2, 2, 3, 3]
    early = count.truncated(3)
    model = find_model("pooled")
    found = leave_future_out(fit(early, model, KEY, draws=4000), count)
    posterior = model.exact(early.correct)
    for question in range(0, 400, 40):
        later = count.correct[question : question + 1, 3:]
        law = model.exact(later)
        expected = sum(
            scipy.special.betaln(posterior[p].alpha + law[p].alpha - 1,
                                 posterior[p].beta + law[p].beta - 1)
            - scipy.special.betaln(*posterior[p])
            for p in ("p_ic", "p_ci")
        )  # fmt: skip
        assert found[question] == pytest.approx(expected, abs=0.02)


def test_criticism_finds_what_the_pooled_chain_misses(settled, compared):
    wrong = analyse(settled, KEY, model="pooled", value=1.0, price=0.0)
    assert wrong.contradicted
    surprising = {check.statistic for check in wrong.predictive if check.surprising}
    assert {"second order", "never right"} <= surprising
    assert wrong.warnings[0].startswith("CONTRADICTED: the model pooled does not produce")
    right = analyse(settled, KEY, model="mover_stayer", value=1.0, price=0.0)
    assert not any(check.surprising for check in right.predictive)
    assert right.warnings[0].startswith("NOT ONE CHAIN")


def test_censored_runs_are_replicated_as_they_were_stopped(five):
    found = {check.statistic: check for check in five["censored"].predictive}
    assert set(found) == {"solved", "p_ic per round", "never right"}
    assert not any(check.surprising for check in found.values())


def test_each_question_has_its_posterior(compared, settled):
    mover = next(c.fit for c in compared.candidates if c.model.name == "mover_stayer")
    chains = question_posterior(mover, np.random.default_rng(0))
    stays = ((chains.p_ic == 0) & (chains.p_ci == 0)).mean(axis=0)
    moved = (np.diff(settled.correct, axis=1) != 0).any(axis=1)
    assert (stays[moved] == 0).all() and (stays[~moved] > 0.5).all()


def test_a_second_fit_of_the_same_size_compiles_nothing(compared, settled):
    table = tabulate(find_model("mover_stayer"), settled.correct)
    before = msjax.posterior.sample.compiled_nuts._cache_size()
    run_nuts(find_model("mover_stayer"), table, jax.random.key(7))
    run_nuts(find_model("heterogeneous"), table, jax.random.key(8))
    assert msjax.posterior.sample.compiled_nuts._cache_size() == before


def test_a_sampler_that_failed_is_refused(monkeypatch, five_counts):
    def stuck(model, runs, key, **_):
        noise = np.random.default_rng(0).normal(0, 1e-3, (4, 1000))
        draws = 0.5 + np.arange(4)[:, None] / 10 + noise
        return Sample(dict.fromkeys(model.parameters, draws), {})

    monkeypatch.setattr("msjax.posterior.fit.sample_posterior", stuck)
    with pytest.raises(NotConvergedError, match=r"R-hat of p0 is .* take more draws"):
        fit(five_counts["ordinary"], find_model("pooled"), KEY)
    with pytest.raises(NotConvergedError, match="no candidate could be fitted: pooled"):
        compare(five_counts["ordinary"], KEY, candidates=[find_model("pooled")])


def test_a_file_gives_back_what_was_saved(five, compared, settled, tmp_path):
    source = tmp_path / "runs.jsonl"
    source.write_text("{}\n")
    path = tmp_path / "new" / "posterior.nc"
    mixed = analyse(settled, KEY, model="mover_stayer", value=1.0, price=0.0)
    found = [*five.values(), mixed]
    save(path, found, seed=1, sources=[source])
    loaded = load(path)
    assert loaded.benchmarks == (*five, "settled")
    assert loaded.models == ("pooled",) * 5 + ("mover_stayer",)
    assert loaded.identified.tolist() == [all(x) for x in IDENTIFIED.values()] + [True]
    assert loaded.censored.tolist() == [name == "censored" for name in loaded.benchmarks]
    for b, name in itertools.product((0, 5), ("neutral",)):
        saved = getattr(found[b].quantities.bounds, name)
        np.testing.assert_allclose(loaded.accuracy[:, b], saved)
    np.testing.assert_array_equal(loaded.tokens_per_round[0], [100, 110, 120, 130] + [np.nan] * 3)
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        assert np.atleast_1d(tree.attrs["sources"]).tolist() == ["runs.jsonl"]
        assert len(np.atleast_1d(tree.attrs["sha256"])[0]) == 64
        assert tree.attrs["seed"] == 1
        assert tree["posterior"].sizes == {"chain": 8, "draw": 500, "benchmark": 6}
        theirs = arviz_stats.ess(tree, var_names="settled_wrong")["settled_wrong"]
        found = float(theirs.sel(benchmark="settled"))
        assert mixed.fit.diagnostics.bulk_ess["settled_wrong"] == pytest.approx(found)
        assert np.isnan(tree["posterior"]["settled_wrong"].sel(benchmark="ordinary")).all()


def test_files_that_are_no_posterior(five, tmp_path):
    path = tmp_path / "posterior.nc"
    with pytest.raises(InputError, match="no such file"):
        load(path)
    save(path, [five["ordinary"]], seed=1, sources=[])
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="not a readable posterior"):
        load(path)
    path.write_text("p0,p_ic,p_ci\n")
    with pytest.raises(InputError, match="not a readable posterior"):
        load(path)
    xarray.Dataset({"p0": ("draw", [0.5])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(InputError, match="format is None"):
        load(path)
