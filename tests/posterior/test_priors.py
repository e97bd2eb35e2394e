"""Priors as arguments: obeyed by every model that has the parameter, refused by name elsewhere."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats

import msjax
from msjax.cli import main
from msjax.posterior.fits import fit_model
from msjax.posterior.models import CANDIDATES, MODELS, find_model, with_priors
from msjax.posterior.models.chains import Pooled
from msjax.posterior.models.prior import beta, half_normal, normal, prior_of, uniform
from msjax.posterior.sample import draw_independently, sample_prior
from msjax.verify.evidence import FALSE_ALARM

KEY = jax.random.key(0)
CORRECT = np.random.default_rng(0).integers(0, 2, (30, 4)).astype(np.int8)


class Careful(Pooled):
    """Its author holds that revising breaks at most every second answer, and says so in NumPyro."""

    name = "careful"

    def prior(self):
        ends = {"p_ci": 0.5}
        return {x: numpyro.sample(x, dist.Uniform(0.0, ends.get(x, 1.0))) for x in self.parameters}


class Named(Pooled):
    """The same as a table."""

    name = "named"
    distributions = Pooled.distributions | {"p_ci": uniform(0, 0.5)}


@pytest.mark.parametrize(
    "given", ["beta:1,99", dist.Beta(1.0, 99.0), scipy.stats.beta(1, 99), beta(1, 99)]
)
def test_a_prior_is_read_from_text_numpyro_and_scipy(given) -> None:
    assert prior_of("p_ci", given) == beta(1, 99)


def test_the_other_families_are_read_too() -> None:
    assert prior_of("p0", scipy.stats.uniform(0.2, 0.3)) == uniform(0.2, 0.5)
    assert prior_of("drift_ic", dist.Normal(0.0, 0.5)) == normal(0, 0.5)
    assert prior_of("sd_p0", "halfnormal:2") == prior_of("sd_p0", scipy.stats.halfnorm(0, 2))
    assert prior_of("sd_p0", dist.HalfNormal(2.0)) == half_normal(2)


@pytest.mark.parametrize(
    ("priors", "says"),
    [
        ({"p_x": "beta:1,1"}, "priors has p_x, which no model to be fitted has"),
        ({"p_ci": "normal:0,1"}, "p_ci lies between 0 and 1"),
        ({"p_ci": "uniform:0.5,0.1"}, "LOW below HIGH"),
        ({"p_ci": "beta:0,1"}, "must be positive"),
        ({"p_ci": "beta:1,inf"}, "finite"),
        ({"p_ci": "beta:1"}, "give uniform:LOW,HIGH"),
        ({"p_ci": "gamma:1,1"}, "give uniform:LOW,HIGH"),
        ({"p_ci": dist.Beta(np.ones(2), np.ones(2))}, "give uniform:LOW,HIGH"),
        ({"p_ci": scipy.stats.beta(1, 1, scale=2)}, "give uniform:LOW,HIGH"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name(priors, says) -> None:
    with pytest.raises(msjax.InputError, match=says):
        msjax.fit(CORRECT, priors=priors)


def test_a_model_without_the_parameter_refuses_it() -> None:
    for model in ("label_free", Careful()):
        with pytest.raises(msjax.InputError, match="in model .* no parameter can be given"):
            msjax.fit(CORRECT, model=model, priors={"p_ic": "beta:1,2"})
    with pytest.raises(msjax.InputError, match="in model pooled p0, p_ic, p_ci can be given"):
        msjax.fit(CORRECT, model="pooled", priors={"drift_ic": "normal:0,1"})


def test_a_beta_prior_counts_as_successes_and_failures() -> None:
    found = Pooled().with_priors({"p_ci": "beta:3,40"}).exact(CORRECT)
    plain = Pooled().exact(CORRECT)
    assert found["p_ci"] == (plain["p_ci"].alpha + 2, plain["p_ci"].beta + 39)
    assert found["p_ic"] == plain["p_ic"]


def test_evidence_is_the_beta_binomial_with_that_prior() -> None:
    """By a ratio of Beta functions, and by quadrature where a uniform end stops the closed form."""
    runs = msjax.Runs.from_arrays(CORRECT)
    model = Pooled().with_priors({"p0": "beta:2,5", "p_ci": "beta:1,99"})
    right, fixed = int((CORRECT[:, 0] == 1).sum()), model.exact(CORRECT)
    assert fixed["p0"] == (2 + right, 5 + 30 - right)
    expected = sum(
        scipy.special.betaln(*fixed[name])
        - scipy.special.betaln(*model.distributions[name].as_beta)
        for name in model.parameters
    )
    assert fit_model(runs, model, KEY).log_evidence == pytest.approx(expected, abs=1e-6)
    # Uniform to all but a millionth of the whole interval: integrated, and equal.
    nearly = Pooled().with_priors({"p_ic": uniform(0, 1 - 1e-9)})
    assert nearly.exact(CORRECT) is None
    plain = fit_model(runs, Pooled(), KEY)
    found = fit_model(runs, nearly, KEY)
    assert found.log_evidence == pytest.approx(plain.log_evidence, abs=1e-3)
    p_value = scipy.stats.ks_2samp(found.sample.flat["p_ic"], plain.sample.flat["p_ic"]).pvalue
    assert p_value > FALSE_ALARM


@pytest.mark.parametrize("model", CANDIDATES, ids=lambda model: model.name)
def test_every_candidate_obeys_and_says_so(model) -> None:
    (changed,) = with_priors([model], {"p_ci": "beta:1,99"})
    assert "p_ci ~ Beta(1, 99)" in changed.priors
    assert changed != model and changed == model.with_priors({"p_ci": beta(1, 99)})
    drawn = sample_prior(changed, KEY, 2000)["p_ci"]
    assert scipy.stats.kstest(drawn, "beta", (1, 99)).pvalue > FALSE_ALARM
    runs = msjax.Runs.from_arrays(CORRECT)
    plain, found = (fit_model(runs, x, KEY).sample.flat["p_ci"] for x in (model, changed))
    assert found.mean() < plain.mean() - 0.1


def test_models_keep_their_priors_where_they_share_a_sampler() -> None:
    for name in ("mover_stayer", "drifting", "repeated"):
        changed = MODELS[name].with_priors({"p_ci": "beta:1,99"})
        assert changed.sampled_as.distributions["p_ci"] == beta(1, 99)


def test_a_subclass_that_changes_the_prior_is_not_integrated_as_if_it_had_not() -> None:
    model = Careful()
    assert draw_independently(model, CORRECT, KEY) is None
    assert model.sampled_as is model
    assert Pooled().sampled_as.name == "mover_stayer_beta"
    assert model.priors == "as `prior` of Careful has it"
    drawn = sample_prior(model, KEY, 2000)["p_ci"]
    assert scipy.stats.kstest(drawn, "uniform", (0, 0.5)).pvalue > FALSE_ALARM
    named = fit_model(msjax.Runs.from_arrays(CORRECT), Named(), KEY).sample.flat["p_ci"]
    whole = scipy.stats.beta(*Pooled().exact(CORRECT)["p_ci"])
    below = scipy.stats.kstest(named, lambda x: whole.cdf(x) / whole.cdf(0.5))
    assert named.max() <= 0.5 and below.pvalue > FALSE_ALARM


@pytest.mark.study
def test_the_sampler_obeys_a_subclass_that_changes_the_prior() -> None:
    found = fit_model(msjax.Runs.from_arrays(CORRECT), Careful(), KEY).sample.draws["p_ci"]
    whole = scipy.stats.beta(*Pooled().exact(CORRECT)["p_ci"])
    exact = whole.expect(lambda x: x, ub=0.5, conditional=True)
    chains = found.mean(axis=1)
    error = chains.std(ddof=1) / np.sqrt(len(chains))
    assert abs(chains.mean() - exact) < scipy.stats.t(len(chains) - 1).isf(FALSE_ALARM) * error


def test_models_and_priors_are_named_on_the_command_line(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_models.py").write_text(
        "from msjax.posterior.models.chains import Pooled\n"
        "from msjax.posterior.models.prior import beta\n"
        "class Mine(Pooled):\n"
        "    name = 'mine'\n"
        "    distributions = Pooled.distributions | {'p_ic': beta(2, 2)}\n"
        "other = 3\n"
    )
    rows = [f"q{i},{k},{CORRECT[i, k]}\n" for i in range(30) for k in range(4)]
    (tmp_path / "pilot.csv").write_text("question,round,correct\n" + "".join(rows))
    assert main(["fit", "pilot.csv", "--model", "my_models:Mine", "--prior", "p_ci=beta:1,99"]) == 0
    printed = capsys.readouterr().out
    assert "p0 ~ Uniform(0, 1); p_ic ~ Beta(2, 2); p_ci ~ Beta(1, 99)" in " ".join(printed.split())
    for words, says in (
        (["--prior", "p_ci"], "p_ci=beta:1,99"),
        (["--prior", "p_ci=beta:1,9", "p_ci=beta:1,9"], "once"),
        (["--prior", "nothing=beta:1,9"], "no model to be fitted has"),
        (["--model", "my_models:other"], "no msjax.posterior.models.Model"),
        (["--model", "partial_pooling", "--prior", "p0=beta:1,9"], "drop one of the two"),
    ):
        assert main(["fit", "pilot.csv", *words]) == 2
        assert says in capsys.readouterr().err


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(msjax.InputError, match="or module:Class"):
        find_model("poold")
