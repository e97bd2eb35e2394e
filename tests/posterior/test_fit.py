"""The whole way from runs to a posterior: what is averaged, identified, refused, kept in a file."""

import jax
import numpy as np
import numpyro
import pytest
import scipy.special
import scipy.stats

from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.intervals import Interval
from msjax.posterior import fit, inference_data, predictive
from msjax.posterior.average import apportion
from msjax.posterior.compare import leave_future_out, training_rounds, weigh
from msjax.posterior.fits import NotConvergedError, fit_model
from msjax.posterior.models import CANDIDATES, find_model
from msjax.posterior.posterior import Quantity
from msjax.posterior.quantities import push_forward, quantities, question_posterior
from msjax.posterior.sample import Sample, log_likelihoods, run_nuts, tabulate
from msjax.posterior.store import load, save
from msjax.posterior.words import as_dict
from msjax.theory.population import bounds, limit_accuracy, mean_accuracy_curve
from msjax.verify.evidence import FALSE_ALARM

KEY = jax.random.key(0)
Z = scipy.stats.norm.isf(FALSE_ALARM / 2)
FACTORISED = [model for model in CANDIDATES if model.name not in ("pooled", "second_order")]

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
def averaged(settled):
    return fit(settled)


@pytest.fixture(scope="module")
def five(five_counts):
    """Posteriors of five benchmarks that differ in what they identify, under the pooled chain."""
    return {count.name: fit(count, model="pooled") for count in five_counts.values()}


# Exact posteriors


@pytest.mark.parametrize("model", FACTORISED, ids=lambda model: model.name)
def test_factors_multiply_up_to_the_likelihood(model, simulate):
    """Up to nothing: at any values of the parameters, for runs of different lengths."""
    random = np.random.default_rng(3)
    runs = simulate(random, 0.5, 0.3, 0.2, 30, 4)
    runs[np.arange(30)[:, None] % 5 < np.arange(5) - 1] = -1
    draws = {
        name: random.normal(0, 0.5, 20) if name.startswith("drift") else random.random(20)
        for name in model.parameters
    }
    table = tabulate(model, runs)
    expected = log_likelihoods(model, table, draws) @ table.multiplicity
    found = sum(factor.log_likelihood(draws) for factor in model.factors(runs))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    names = [name for factor in model.factors(runs) for name in factor.parameters]
    assert sorted(names) == sorted(model.parameters)


@pytest.mark.slow
@pytest.mark.parametrize("model", FACTORISED, ids=lambda model: model.name)
def test_evidence_is_the_likelihood_averaged_over_the_prior(model, simulate):
    """By plain Monte Carlo, which few questions allow."""
    runs = simulate(np.random.default_rng(4), 0.5, 0.4, 0.3, 6, 3)
    keys = jax.random.split(KEY, 40_000)
    sites = jax.vmap(lambda key: numpyro.handlers.seed(model.prior, key)())(keys)
    prior = {name: np.asarray(x, dtype=float) for name, x in sites.items()}
    table = tabulate(model, runs)
    likelihood = np.exp(log_likelihoods(model, table, prior) @ table.multiplicity)
    error = Z * likelihood.std() / np.sqrt(len(likelihood))
    evidence = np.exp(fit_model(Runs.from_arrays(runs), model, KEY).log_evidence)
    assert abs(likelihood.mean() - evidence) < error < 0.5 * evidence


@pytest.mark.study
def test_the_grid_agrees_with_the_sampler(settled, compiling_nothing):
    """NUTS knows nothing of factors; drawn for the model with most parameters.

    Other models of its family and other runs of about as many rows compile nothing more.
    """
    model = find_model("mover_stayer_beta")
    exact = fit_model(settled, model, KEY).sample.flat
    sampled = run_nuts(model, tabulate(model, settled.correct), KEY)
    for name, draws in sampled.flat.items():
        chains = sampled.draws[name].mean(axis=1)
        error = 6 * (chains.std(ddof=1) + draws.std() / 60) / np.sqrt(len(chains))
        assert abs(draws.mean() - exact[name].mean()) < error, name
        assert exact[name].std() == pytest.approx(draws.std(), rel=0.15), name
    smaller, other = find_model("mover_stayer"), jax.random.key(8)
    with compiling_nothing():
        run_nuts(smaller, tabulate(smaller, settled.correct), other)


def test_a_grid_finds_a_narrow_posterior():
    """20,000 questions of 8 rounds, whose posterior is a thousandth of the prior."""
    runs = np.random.default_rng(0).random((20_000, 9)) < 0.3
    found = fit_model(Runs.from_arrays(runs), find_model("heterogeneous"), KEY)
    draws = found.sample.flat
    for name, truth in {"p0": 0.3, "p_ic": 0.3, "p_ci": 0.7}.items():
        assert abs(draws[name].mean() - truth) < Z * draws[name].std(), name
        assert draws[name].std() < 0.004
    assert draws["icc_ic"].mean() < 0.01


# Averaging


def test_weights_are_posterior_probabilities_of_the_models(averaged):
    evidence = {c.model.name: c.fit.log_evidence for c in averaged.candidates}
    expected = scipy.special.softmax(list(evidence.values()))
    assert list(averaged.models.values()) == pytest.approx(expected.tolist())
    assert sum(averaged.models.values()) == pytest.approx(1)
    assert averaged.leading.model.name == "mover_stayer"
    assert averaged.models["pooled"] < 1e-6


def test_draws_are_shared_out_by_weight(averaged):
    assert apportion([0.5, 0.3, 0.2], 10) == [5, 3, 2]
    assert (
        apportion([1.0, 1.0, 1.0], 10) == [4, 3, 3] and sum(apportion([0.999, 5e-4, 5e-4], 7)) == 7
    )
    drifting = sum(w for name, w in averaged.models.items() if name.startswith("drifting"))
    assert averaged.limit.share == pytest.approx(1 - drifting, abs=0.002)
    mixture = [w * averaged.by_model[n].p_ic.mean() for n, w in averaged.models.items() if w > 0.05]
    assert averaged.p_ic.mean == pytest.approx(sum(mixture), abs=0.01)


def test_rates_mean_the_same_under_every_model(averaged):
    """Shares of all questions that the first revision repaired and broke, settled ones included."""
    correct = averaged.runs.correct
    for name, state in (("p_ic", 0), ("p_ci", 1)):
        visits = correct[:, 0] == state
        share = (correct[visits, 1] != state).mean()
        for model, drawn in averaged.by_model.items():
            rate = getattr(drawn, name)
            if averaged.models[model] > 0.05:
                assert abs(rate.mean() - share) < 4 * np.sqrt(share * (1 - share) / visits.sum())
        assert 0 < getattr(averaged, name).mean < 1
    # The rate of the questions that are not settled is another number.
    assert averaged.leading.draws["p_ic"].mean() > 1.5 * averaged.p_ic.mean


def test_a_limit_is_said_by_models_that_have_one(five, make_counts, simulate):
    random = np.random.default_rng(1)
    drifting = simulate(random, 0.5, 0.6, 0.3, 300, 1)
    for k in range(5):
        change = np.where(drifting[:, -1] == 1, 0.3 * 0.5**k, 0.6 * 0.5**k)
        now = drifting[:, -1] ^ (random.random(300) < change)
        drifting = np.column_stack([drifting, now.astype(np.int8)])
    found = fit(make_counts(drifting))
    assert found.limit.share < 0.5
    assert str(found.limit) == str(found.upper) == "not identified" and np.isnan(found.limit.mean)
    assert any(w.startswith("NO LIMIT") for w in found.warnings)
    assert found.accuracy[3].identified
    assert five["ordinary"].limit.share == 1


def test_later_rounds_are_ranges_over_models(averaged):
    assert len(averaged.later) == 10 - averaged.runs.rounds
    for k, found in enumerate(averaged.later, averaged.runs.rounds + 1):
        for name, drawn in averaged.by_model.items():
            if averaged.models[name] >= 0.05 and name not in averaged.contradicted_models:
                low, high = np.quantile(drawn.bounds.neutral[:, k], [0.06, 0.94])
                assert found.low <= low and high <= found.high


def test_what_all_models_fail_to_produce_has_no_later_rounds(make_counts):
    """Every question changes in the third round, and in no other."""
    found = fit(make_counts([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]] * 40))
    assert found.contradicted and found.warnings[0].startswith("CONTRADICTED: the average")
    assert not any(interval.identified for interval in found.later)


def test_few_rounds_allow_one_chain_only(five_counts):
    found = weigh(five_counts["one answer"], KEY)
    assert [c.weight for c in found] == [1.0] + [0.0] * (len(found) - 1)
    assert found[0].model.name == "pooled"
    assert all("rounds of revision" in c.refused for c in found[1:])


def test_the_same_runs_give_the_same_numbers(settled, averaged):
    again = fit(settled)
    np.testing.assert_array_equal(again.limit.draws, averaged.limit.draws)
    assert str(again.summary()) == str(averaged.summary())


def test_leave_future_out_is_the_exact_predictive_probability(settled):
    count = settled
    assert [training_rounds(k) for k in range(1, 7)] == [1, 1, 2, 2, 3, 3]
    early = count.truncated(3)
    model = find_model("pooled")
    found = leave_future_out(fit_model(early, model, KEY, draws=1500), count)
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


# Quantities


@pytest.mark.parametrize("benchmark", IDENTIFIED)
def test_what_is_not_identified_gets_no_number(five, benchmark):
    found = five[benchmark]
    assert tuple(found.leading.identified.values()) == IDENTIFIED[benchmark]
    known = all(IDENTIFIED[benchmark])
    assert found.p0.identified and found.accuracy[0].identified
    assert (found.p_ic.identified, found.p_ci.identified) == IDENTIFIED[benchmark][1:]
    shown = [found.limit, Quantity(found.draws.bounds.neutral[:, 1])]
    assert all(quantity.identified == known for quantity in shown)
    assert found.upper.interval().identified == known
    assert np.isnan(found.first_round_helps) == (not known)
    unknown = [name for name, ok in found.leading.identified.items() if not ok]
    assert [w.split(":")[1].split(",")[0].strip() for w in found.warnings if "NOT IDENT" in w] == (
        unknown
    )


def test_warnings_name_what_is_wrong(five):
    assert any(w.startswith("CENSORED: 12 of ") for w in five["censored"].warnings)
    assert any(w.startswith("NOT CHECKED") for w in five["one answer"].warnings)


def test_runs_that_are_not_independent_are_announced(five):
    rows, names = [[1, 1], [0, 1], [0, 0], [1, 0]], ["a", "a", "b", "b"]
    for what in ("question_ids", "cluster"):
        found = fit(Runs.from_arrays(rows, **{what: names}), model="pooled")
        assert found.warnings[0].startswith("NOT INDEPENDENT: 4 runs come from 2 ")
    assert not any("INDEPENDENT" in w for w in five["ordinary"].warnings)


def test_prefixes_of_one_trace_are_no_revisions(make_run):
    runs = [make_run([0, 1, 1], f"q{i}", protocol="prefix") for i in range(3)]
    found = fit(Runs.from_records(runs), model="pooled")
    assert found.warnings[0].startswith("NOT REVISIONS")
    assert found.contradicted


def test_quantities_are_those_of_the_chain_draw_by_draw(five):
    post = five["ordinary"]
    q = post.draws
    p0, p_ic, p_ci = (post.leading.draws[name][17] for name in ("p0", "p_ic", "p_ci"))
    assert (q.p0[17], q.p_ic[17], q.p_ci[17]) == pytest.approx((p0, p_ic, p_ci))
    curve = [p0]
    for _ in range(10):
        curve.append(curve[-1] * (1 - p_ci) + (1 - curve[-1]) * p_ic)
    limit = p_ic / (p_ic + p_ci)
    assert q.bounds.neutral[17] == pytest.approx(curve)
    assert post.accuracy.draws[17] == pytest.approx(curve[:4])
    assert q.bounds.upper[17] == pytest.approx(np.maximum(p0, curve))
    assert q.limit.neutral[17] == pytest.approx(limit)
    assert post.upper.least.draws[17] == pytest.approx(max(p0, limit))
    assert post.upper.most.draws[17] == pytest.approx(p0 + (1 - p0) * limit)
    assert post.lower.least.draws[17] == pytest.approx(p0 * limit)
    assert q.first_round_helps[17] == (p_ic * (1 - p0) > p_ci * p0)
    spent = np.cumsum([0, 110, 120, 130])
    net = 2 * np.array(curve[:4]) - 1e-4 * spent
    assert post.best_rounds(2.0, 1e-4).draws[17] == np.argmax(net)
    assert post.break_even(2).draws[17] == pytest.approx((curve[2] - curve[0]) / 230)


def test_intervals_print_themselves(averaged):
    found = averaged.p_ic.interval(0.8)
    assert isinstance(found, Interval)
    assert found.low == np.quantile(averaged.p_ic.draws, 0.1, method="inverted_cdf")
    assert str(found) == f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"
    assert f"{found:+.2f}" == f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    upper = averaged.upper.interval()
    assert upper.low == averaged.upper.least.interval().low
    assert upper.high == averaged.upper.most.interval().high
    text = averaged.summary()
    for part in (averaged.upper, averaged.limit, averaged.p_ic, *averaged.accuracy.interval()[1:]):
        assert str(part) in text
    assert repr(text) == str(text)
    assert averaged._repr_html_().startswith("<pre>")
    with pytest.raises(InputError, match="level is 90"):
        averaged.p_ic.interval(90.0)


def test_the_prior_predicts_before_any_data(five):
    """Uniform p0; after a round p0 (1 - p_ci) + (1 - p0) p_ic, of mean 1/2 too, but narrower."""
    found = five["ordinary"]
    assert found.prior_accuracy.shape == (4000, found.draws.bounds.neutral.shape[1])
    error = Z * np.sqrt(1 / 12 / 4000)
    assert abs(found.prior_accuracy.mean(axis=0) - 0.5).max() < error
    assert np.quantile(found.prior_accuracy[:, 0], [0.05, 0.95]) == pytest.approx(
        [0.05, 0.95], abs=0.02
    )
    assert found.prior_accuracy[:, 1].std() < found.prior_accuracy[:, 0].std()


def test_bounds_enclose_and_add_up(averaged):
    q = quantities(averaged.leading)
    for found in (q.limit, q.bounds):
        start = q.p0 if found is q.limit else q.p0[:, None]
        assert (found.upper_most >= found.upper - 1e-9).all()
        assert (found.lower >= found.lower_most - 1e-9).all()
        np.testing.assert_allclose(found.upper + found.lower, start + found.neutral, rtol=1e-9)


def test_push_forward_agrees_with_the_population(averaged, settled):
    mover = averaged.leading
    q = quantities(mover)
    limit = push_forward(mover, limit_accuracy)
    np.testing.assert_allclose(limit, q.limit.neutral, atol=1e-5)
    curve = push_forward(mover, lambda population: mean_accuracy_curve(population, 3))
    np.testing.assert_allclose(curve, q.bounds.neutral[:, :4], atol=1e-5)
    upper = push_forward(mover, lambda population: bounds(population).upper)
    np.testing.assert_allclose(upper, q.limit.upper, atol=1e-5)
    drifting = fit_model(settled, find_model("drifting"), KEY)
    with pytest.raises(InputError, match="no mixture of two-state chains"):
        push_forward(drifting, limit_accuracy)


@pytest.mark.parametrize(("worth", "price"), [(0, 0), (np.nan, 0), (1, -1), (1, np.inf)])
def test_bad_worth_and_price(five, worth, price):
    with pytest.raises(InputError, match="value is|price is"):
        five["ordinary"].best_rounds(float(worth), float(price))


def test_rounds_that_were_not_recorded_have_no_break_even(five):
    with pytest.raises(InputError, match="rounds is 4; give 1 to 3"):
        five["ordinary"].break_even(4)


def test_what_is_no_single_benchmark_is_refused(five_counts):
    runs = Runs.from_arrays([[1, 0], [0, 1]], benchmark=["a", "b"])
    with pytest.raises(InputError, match=r"2 groups \(a, b\); fit one after the other"):
        fit(runs)
    with pytest.raises(InputError, match="choose from pooled"):
        fit(five_counts["ordinary"], model="pooledd")
    assert fit([[1, 1], [0, 1], [0, 0]]).runs.questions == 3


# Criticism


def test_criticism_finds_what_the_pooled_chain_misses(settled, averaged):
    wrong = fit(settled, model="pooled")
    assert wrong.contradicted and wrong.contradicted_models == ("pooled",)
    surprising = {check.statistic for check in wrong.predictive if check.surprising}
    assert {"second order", "never right"} <= surprising
    assert wrong.warnings[0].startswith("CONTRADICTED: the model pooled does not produce")
    assert not any(check.surprising for check in averaged.predictive)
    assert not averaged.contradicted
    assert averaged.warnings[0].startswith("NOT ONE CHAIN")


def test_censored_runs_are_replicated_as_they_were_stopped(five):
    found = {check.statistic: check for check in five["censored"].predictive}
    assert set(found) == {"solved", "p_ic per round", "never right"}
    assert not any(check.surprising for check in found.values())


def test_each_question_has_its_posterior(averaged, settled):
    chains = question_posterior(averaged.leading, np.random.default_rng(0))
    stays = ((chains.p_ic == 0) & (chains.p_ci == 0)).mean(axis=0)
    moved = (np.diff(settled.correct, axis=1) != 0).any(axis=1)
    assert (stays[moved] == 0).all() and (stays[~moved] > 0.5).all()


def test_a_sampler_that_failed_is_refused(monkeypatch, five_counts):
    def stuck(model, runs, key, **_):
        noise = np.random.default_rng(0).normal(0, 1e-3, (4, 1000))
        draws = 0.5 + np.arange(4)[:, None] / 10 + noise
        return Sample(dict.fromkeys(model.parameters, draws), {})

    monkeypatch.setattr("msjax.posterior.fits.sample_posterior", stuck)
    with pytest.raises(NotConvergedError, match=r"R-hat of p0 is .* take more draws"):
        fit(five_counts["ordinary"], model="logit_normal")


# Keeping


def test_a_file_gives_back_what_was_saved(five, averaged, tmp_path):
    source = tmp_path / "runs.jsonl"
    source.write_text("{}\n")
    path = tmp_path / "new" / "posterior.nc"
    found = [*five.values(), averaged]
    save(path, found, seed=1, sources=[source])
    loaded = load(path)
    assert loaded.benchmarks == (*five, "settled")
    assert loaded.models == ("pooled",) * 5 + ("mover_stayer",)
    assert loaded.identified.tolist() == [all(x) for x in IDENTIFIED.values()] + [True]
    assert loaded.censored.tolist() == [name == "censored" for name in loaded.benchmarks]
    for b in (0, 5):  # in another order, and of five as many as of an average
        kept, drawn = loaded.accuracy[:, b], found[b].draws.bounds.neutral
        np.testing.assert_allclose(kept.mean(0), drawn.mean(0), atol=1e-9 if b else 0.01)
    assert np.isfinite(loaded.accuracy).all()
    np.testing.assert_array_equal(loaded.tokens_per_round[0], [100, 110, 120, 130] + [np.nan] * 3)
    import xarray

    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        assert np.atleast_1d(tree.attrs["sources"]).tolist() == ["runs.jsonl"]
        assert len(np.atleast_1d(tree.attrs["sha256"])[0]) == 64
        assert tree.attrs["seed"] == 1
        sizes = tree["posterior"].sizes
        assert (sizes["chain"], sizes["draw"], sizes["benchmark"]) == (4, 250, 6)
        rates = tree["models/mover_stayer/posterior/settled_wrong"]
        assert rates["benchmark"].to_numpy().tolist() == ["settled"]
        kept = averaged.leading.draws["settled_wrong"]
        np.testing.assert_array_equal(rates.to_numpy().ravel(), kept)


def test_json_says_what_the_posterior_says(averaged):
    found = as_dict(averaged)
    assert found["quantities"]["p_ic"]["median"] == averaged.p_ic.median
    assert found["bounds"]["limit"]["upper_most"]["high"] == averaged.upper.interval().high
    weights = {model["model"]: model["weight"] for model in found["models"]}
    assert weights == pytest.approx(averaged.models)
    assert found["quantities"]["accuracy"][8]["low"] == averaged.later[8 - 7].low


def test_files_that_are_no_posterior(five, tmp_path):
    import xarray

    path = tmp_path / "posterior.nc"
    with pytest.raises(InputError, match="no such file"):
        load(path)
    save(path, [five["ordinary"]], seed=1, sources=[])
    whole = path.read_bytes()
    for damaged in (whole[:5000], whole[:-1], whole[:7000] + b"xxxxx" + whole[7005:], b"", b"p0\n"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="is damaged or is something else"):
            load(path)
    xarray.Dataset({"p0": ("draw", [0.5])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(InputError, match="does not end as a posterior"):
        load(path)


def test_prices_that_rest_on_a_missing_count_are_not_identified():
    correct = np.tile([[0, 1, 1], [1, 1, 0], [0, 0, 1], [1, 1, 1]], (10, 1))
    tokens = np.full(correct.shape, 100.0)
    tokens[3, 2] = np.nan
    post = fit(Runs.from_arrays(correct, tokens=tokens), model="pooled")
    assert post.break_even(1).interval().identified
    assert not post.break_even(2).interval().identified
    assert not post.best_rounds(1.0, 1e-4).interval().identified


def test_replicates_come_in_parts_that_fit_in_memory(monkeypatch) -> None:
    runs = Runs.from_arrays(np.random.default_rng(0).random((40, 3)) < 0.5)
    whole = fit(runs, model="pooled").predictive
    monkeypatch.setattr(predictive, "QUESTIONS_AT_ONCE", 130)  # three replicates at a time
    for one, other in zip(fit(runs, model="pooled").predictive, whole, strict=True):
        assert one.statistic == other.statistic and one.observed.shape == other.observed.shape
        np.testing.assert_allclose(one.median, other.median, atol=0.05)
    monkeypatch.setattr(predictive, "MANY", 40 * 250)
    assert len(fit(runs, model="pooled").predictive) == len(whole)


def test_a_posterior_of_many_questions_holds_no_entry_for_each(tmp_path, monkeypatch) -> None:
    post = fit(Runs.from_arrays([[1, 0], [0, 1], [1, 1]]), model="pooled")
    assert "log_likelihood" in inference_data.groups([post])
    monkeypatch.setattr(inference_data, "PER_QUESTION", 2)
    found = inference_data.groups([post])
    assert "posterior" in found and not {"log_likelihood", "posterior_predictive"} & found.keys()
    save(tmp_path / "a.nc", [post])
    assert load(tmp_path / "a.nc").benchmarks == ("benchmark",)
