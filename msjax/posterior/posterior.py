"""What recorded runs say of a benchmark: one posterior, averaged over models of the runs."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from msjax.data.runs import Runs
from msjax.errors import InputError, require_extra, require_uncertain, require_value_and_cost
from msjax.intervals import LEVEL, NOT_IDENTIFIED, Interval
from msjax.posterior.average import DRAWS, MATERIAL, apportion, average, part
from msjax.posterior.checks import Check, check_chain
from msjax.posterior.compare import Candidate, leading, weigh
from msjax.posterior.fits import Fit, fit_model
from msjax.posterior.judge import JudgePosterior, fit_judge
from msjax.posterior.models import CANDIDATES, find_model, with_priors
from msjax.posterior.models.label_free import LabelFree, LabelFreeMirrored, swap_statement
from msjax.posterior.models.model import Draws, Model
from msjax.posterior.models.repeated import Repeated
from msjax.posterior.predictive import PredictiveCheck, predictive_checks
from msjax.posterior.quantities import Quantities, estimate, quantities, round_tokens
from msjax.posterior.sample import sample_prior

if TYPE_CHECKING:
    from xarray import DataTree

AUTO = "auto"
_IDENTIFIED = 0.5
"""Share of the weight that models must have which say something of a quantity."""
_PRIOR_DRAWS = 4000


@dataclass(frozen=True)
class Quantity:
    """Posterior draws of one number, NaN under models that say nothing of it.

    It prints as its median and 90 % interval. Models that say nothing are left out of every
    summary; where they have more than half the weight the quantity is not identified, and NaN.
    """

    draws: Float[np.ndarray, " draw"]

    @property
    def share(self) -> float:
        """Weight of the models that say something of it."""
        return float(np.mean(~np.isnan(self.draws)))

    @property
    def identified(self) -> bool:
        """Whether models with at least half the weight say something of it."""
        return self.share >= _IDENTIFIED

    @property
    def _said(self) -> Float[np.ndarray, " draw"]:
        return self.draws[~np.isnan(self.draws)] if self.identified else np.full(1, np.nan)

    @property
    def mean(self) -> float:
        """Posterior mean."""
        return float(self._said.mean())

    @property
    def median(self) -> float:
        """Posterior median."""
        return self.interval().estimate

    def interval(self, level: float = LEVEL) -> Interval:
        """Posterior median and central credible interval."""
        require_uncertain("level", level)
        return estimate(self._said, level)

    def __format__(self, form: str) -> str:
        return format(self.interval(), form)

    def __str__(self) -> str:
        return format(self, "")


@dataclass(frozen=True)
class Curve:
    """Posterior draws of the accuracy after 0, 1, 2, ... rounds, as far as rounds were recorded."""

    draws: Float[np.ndarray, "draw round_and_first"]

    def __len__(self) -> int:
        return self.draws.shape[1]

    def __getitem__(self, rounds: int) -> Quantity:
        return Quantity(self.draws[:, rounds])

    @property
    def mean(self) -> Float[np.ndarray, " round_and_first"]:
        """Posterior means."""
        return np.array([self[k].mean for k in range(len(self))])

    def interval(self, level: float = LEVEL) -> tuple[Interval, ...]:
        """Posterior medians and central credible intervals, round by round."""
        return tuple(self[k].interval(level) for k in range(len(self)))

    def __str__(self) -> str:
        return "\n".join(f"{k}: {interval}" for k, interval in enumerate(self.interval()))


@dataclass(frozen=True)
class IdentifiedSet:
    """A number of which the runs show no more than that it lies between two ends.

    Attributes:
        least, most: the ends, each with its posterior.
    """

    least: Quantity
    most: Quantity

    def interval(self, level: float = LEVEL) -> Interval:
        """The middle of the set, and an interval that holds the whole set with this probability.

        It begins at the lower end of the interval of `least` and ends at the upper end of that of
        `most`, so it holds each end, and whatever lies between.
        """
        least, most = self.least.interval(level), self.most.interval(level)
        if not (least.identified and most.identified):
            return NOT_IDENTIFIED
        return Interval((least.estimate + most.estimate) / 2, least.low, most.high)

    def __format__(self, form: str) -> str:
        found, form = self.interval(), form or ".3f"
        if not found.identified:
            return format(found, form)
        least, most = format(self.least.median, form), format(self.most.median, form)
        return f"{least} to {most} [{found.low:{form}}, {found.high:{form}}]"

    def __str__(self) -> str:
        return format(self, "")


class Summary(str):
    """Text that prints as it is in a notebook too."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self)}</pre>"


@dataclass(frozen=True, repr=False)
class Posterior:
    """What the runs of one benchmark say, averaged over models in proportion to their weight.

    Made by `fit`. Quantities have one meaning whatever the model, and hold draws; bounds are sets
    with two ends.

    Attributes:
        runs: the data.
        candidates: the models, from most weight to least, with their fits.
        draws: draws of everything that is said, and `by_model` the same for each model by itself.
        contradicted_models: names of models that do not produce runs like these.
        checks: tests of one homogeneous chain.
        predictive: posterior predictive checks of the average.
        prior: draws of the parameters of the model with most weight before any data, and
            `prior_accuracy` [draw, round] the accuracies that these predict.
        convention: on what reading of the data everything rests, if there are several.
    """

    runs: Runs
    candidates: tuple[Candidate, ...]
    draws: Quantities = field(repr=False)
    by_model: dict[str, Quantities] = field(repr=False)
    contradicted_models: tuple[str, ...]
    checks: tuple[Check, ...] = field(repr=False)
    predictive: tuple[PredictiveCheck, ...] = field(repr=False)
    prior: Draws = field(repr=False)
    prior_accuracy: Float[np.ndarray, "draw rounds_plus_1"] = field(repr=False)
    convention: str | None = None

    # Quantities

    @property
    def p0(self) -> Quantity:
        """Accuracy of first answers."""
        return Quantity(self.draws.p0)

    @property
    def p_ic(self) -> Quantity:
        """Fix: share of questions with a wrong first answer that the first revision repairs."""
        return Quantity(self.draws.p_ic)

    @property
    def p_ci(self) -> Quantity:
        """Damage: share of questions with a right first answer that the first revision breaks."""
        return Quantity(self.draws.p_ci)

    @property
    def accuracy(self) -> Curve:
        """Accuracy after 0, 1, ..., K rounds, K being the rounds recorded."""
        return Curve(self.draws.bounds.neutral[:, : self.runs.rounds + 1])

    @property
    def limit(self) -> Quantity:
        """Mean accuracy over questions after many rounds, if rates stay as they are.

        Under models whose rates drift there is none; `limit.share` is the weight of the others.
        """
        return Quantity(self.draws.limit.neutral)

    @property
    def upper(self) -> IdentifiedSet:
        """Limit if only the questions that gain are revised, E[max(p0, limit)], as a set.

        One run per question does not show how p0 differs among questions of one kind.
        """
        return IdentifiedSet(
            Quantity(self.draws.limit.upper), Quantity(self.draws.limit.upper_most)
        )

    @property
    def lower(self) -> IdentifiedSet:
        """Limit if only the questions that lose are revised, E[min(p0, limit)], as a set."""
        return IdentifiedSet(
            Quantity(self.draws.limit.lower_most), Quantity(self.draws.limit.lower)
        )

    @property
    def first_round_helps(self) -> float:
        """P(the first revision raises accuracy | data); NaN where not identified."""
        return Quantity(self.draws.first_round_helps).mean

    @property
    def limit_helps(self) -> float:
        """P(many rounds raise accuracy | data, rates stay as they are); NaN if not identified."""
        return Quantity(self.draws.limit_helps).mean

    @property
    def later(self) -> tuple[Interval, ...]:
        """Accuracy after more rounds than were recorded, up to 10: ranges over models.

        A range holds the 90 % intervals of every model with a material weight that the runs do not
        contradict, about the median of the average. Not identified if there is no such model.
        """
        return tuple(
            self.over_models("neutral", k)
            for k in range(self.runs.rounds + 1, self.draws.bounds.neutral.shape[1])
        )

    def over_models(self, bound: str, rounds: int) -> Interval:
        """The range of one of `Bounds` after so many rounds, over models that count.

        Those do which have a material weight and are not contradicted by the runs.
        """

        def of(draws: Quantities) -> Float[np.ndarray, " draw"]:
            values: np.ndarray = getattr(draws.bounds, bound)
            return values[:, rounds]

        middle = Quantity(of(self.draws)).interval()
        found = [
            estimate(of(self.by_model[c.model.name]))
            for c in self.candidates
            if c.weight >= MATERIAL and c.model.name not in self.contradicted_models
        ]
        found = [interval for interval in found if interval.identified]
        if not (found and middle.identified):
            return NOT_IDENTIFIED
        low, high = min(x.low for x in found), max(x.high for x in found)
        return Interval(min(max(middle.estimate, low), high), low, high)

    def best_rounds(self, worth: float, price: float) -> Quantity:
        """The number of rounds, of those recorded, with the largest net value.

        Net value is worth E[p_k] - price (uncached tokens of rounds 1..k); equal ones favour fewer
        rounds.

        Args:
            worth: what a right answer is worth, > 0, in any unit.
            price: price of one token in that unit, >= 0.

        Raises InputError for a worth or price out of range.

        Reference: docs/theory.md A6.
        """
        require_value_and_cost(worth, price=price)
        value = worth * self.accuracy.draws - price * self._spent
        known = ~np.isnan(value.sum(axis=1))
        best = np.where(known[:, None], value, 0).argmax(axis=1)
        return Quantity(np.where(known, best, np.nan))

    def break_even(self, rounds: int) -> Quantity:
        """Price of a token, in right answers, below which so many rounds pay: gain / tokens."""
        if not 1 <= rounds <= self.runs.rounds:
            raise InputError(
                f"rounds is {rounds}; give 1 to {self.runs.rounds}, which were recorded"
            )
        curve = self.accuracy.draws
        return Quantity((curve[:, rounds] - curve[:, 0]) / self._spent[rounds])

    @property
    def _spent(self) -> Float[np.ndarray, " round_and_first"]:
        """Mean uncached tokens of rounds 1..k; NaN from the first that some run does not report."""
        tokens = round_tokens(self.runs.tokens_per_round)[: self.runs.rounds]
        missing = (self.runs.real & np.isnan(self.runs.uncached)).any(axis=0)[1:]
        tokens = np.where(missing, np.nan, tokens)
        return np.concatenate([[0], np.cumsum(tokens)])

    @cached_property
    def judge(self) -> JudgePosterior | None:
        """How often a judge accepts right and wrong answers; None where none gave verdicts."""
        return fit_judge(self.runs)

    # Models

    @property
    def models(self) -> dict[str, float]:
        """Weight of every model in the average, from most to least."""
        return {c.model.name: c.weight for c in self.candidates if c.fit}

    @property
    def leading(self) -> Fit:
        """The fit of the model with most weight."""
        return leading(self.candidates)

    @property
    def known(self) -> bool:
        """Whether accuracies after revising rest on data in all that they need."""
        return Quantity(self.draws.bounds.neutral[:, 1]).identified

    @property
    def contradicted(self) -> bool:
        """Whether the data, or how they came about, speak against what was fitted."""
        if not self.runs.revises:
            return True
        return bool(self._misfits) or (self._one_chain and bool(self._broken))

    @cached_property
    def warnings(self) -> list[str]:
        """What a reader must know before any number, most serious first."""
        found = []
        name = self.leading.model.name if len(self.models) == 1 else "average of models"
        if not self.runs.revises:
            found.append(
                "NOT REVISIONS: the answers of a question come from prefixes of one reasoning "
                "trace, which as a rule gets better where it ends; the rates of rounds not "
                "observed do not follow from those observed, so no limit and no prediction of "
                "later rounds can be trusted"
            )
        units = self.runs.questions
        if isinstance(self.leading.model, Repeated):
            units = len(set(self.runs.question_ids))
        groups = self.runs.cluster or self.runs.question_ids
        if len(set(groups)) < units:
            found.append(
                f"NOT INDEPENDENT: {units} runs come from {len(set(groups))} "
                f"{'clusters' if self.runs.cluster else 'questions'} but are taken as independent, "
                "so intervals are too narrow"
            )
        if self.convention:
            found.append(f"UP TO A SWAP: {self.convention}")
        if self._misfits:
            found.append(
                f"CONTRADICTED: the {'model ' * (len(self.models) == 1)}{name} does not produce "
                f"runs like these ({', '.join(check.statistic for check in self._misfits)}); its "
                "intervals and whatever it says of rounds not observed cannot be trusted"
            )
        if self._broken and self._one_chain:
            found.append(
                "CONTRADICTED: one homogeneous chain does not describe these runs "
                f"({', '.join(check.name for check in self._broken)}); its numbers are averages "
                "over what differs, and its intervals and its limit cannot be trusted"
            )
        elif self._broken:
            found.append(
                "NOT ONE CHAIN: one homogeneous chain does not describe these runs "
                f"({', '.join(check.name for check in self._broken)})"
            )
        if self.runs.n_censored:
            found.append(
                f"CENSORED: {self.runs.n_censored} of {self.runs.questions} runs were stopped by "
                "looking at the label; what revising breaks cannot be estimated, nor any limit or "
                "bound"
            )
        found.extend(
            f"NOT IDENTIFIED: {parameter}, as the runs do not show it; its posterior is its prior"
            for parameter, known in self.leading.identified.items()
            if not known
        )
        drifting = 1 - self.limit.share
        if self.known and not self.limit.identified:
            found.append(
                f"NO LIMIT: rates change with the round with probability {drifting:.2f}, so the "
                "accuracy after many rounds is not identified"
            )
        elif self.known and drifting >= MATERIAL:
            found.append(
                f"IF RATES STAY: rates change with the round with probability {drifting:.2f}; "
                "limit and bounds are those of the models in which they do not"
            )
        if self.judge:
            found.extend(f"JUDGE: {warning}" for warning in self.judge.warnings)
        unchecked = [check.name for check in self.checks if check.contradicted is None]
        if unchecked:
            found.append(
                f"NOT CHECKED: these runs do not allow the check of {', '.join(unchecked)}"
            )
        return found

    @property
    def _one_chain(self) -> bool:
        """Whether one chain is the only model, or has most of the weight."""
        return sum(w for name, w in self.models.items() if name in ONE_CHAIN) > _IDENTIFIED

    @property
    def _misfits(self) -> list[PredictiveCheck]:
        return [check for check in self.predictive if check.surprising]

    @property
    def _broken(self) -> list[Check]:
        return [check for check in self.checks if check.contradicted]

    # Showing and keeping

    def summary(self) -> Summary:
        """What a reader needs to know, as text: warnings first, then numbers, then models."""
        from msjax.posterior.words import summarise

        return Summary(summarise(self))

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def save(self, path: str | Path) -> None:
        """Write it to `path` (netCDF), for stopping rules and ArviZ, creating the folder."""
        from msjax.posterior.store import save

        save(Path(path), [self])

    def to_arviz(self) -> "DataTree":
        """Draws, likelihoods and predictions as ArviZ has them: what `save` writes.

        `msjax.posterior.inference_data` lists the groups; `tree["models"]["pooled"]` holds those of
        one model, for `arviz_stats.compare`.

        Raises MissingExtraError where ArviZ is not installed.
        """
        require_extra("arviz", "arviz_base", "xarray")
        from xarray import Dataset, DataTree

        from msjax.posterior.inference_data import groups

        found = {path: Dataset(dict(group)) for path, group in groups([self]).items()}
        tree = DataTree.from_dict(found)
        tree.attrs = {"benchmark": self.runs.name, "language_model": self.runs.model}
        return tree


ONE_CHAIN = ("pooled", "partial_pooling")
"""Models in which all questions share one chain."""


def fit(
    runs: Any,
    *,
    model: str | Model = AUTO,
    priors: Mapping[str, Any] | None = None,
    seed: int | PRNGKeyArray = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Posterior:
    """What the runs of one benchmark say: the posterior of its accuracies, rates, limit and bounds.

    Averaged over models of the runs in proportion to their probability given the runs, unless one
    is named. `msjax.posterior.models.MODELS` lists them. Questions that were run several times are
    described by the model `repeated` alone.

    Args:
        runs: `Runs` of one benchmark and language model, or what `Runs.from_arrays` takes.
        model: "auto", or one model, by name, as "module:Class", or itself.
        priors: of parameters by name, obeyed by every model that has the parameter: text such as
            "beta:1,99", or a distribution of NumPyro or SciPy.
        seed: of all random draws; or a JAX key.
        progress: told what is being fitted.

    Raises:
        InputError: an unknown model, several benchmarks, parallel samples, or a prior of a
            parameter that no model has, or that reaches beyond its values.
        NotConvergedError: a model that needs a sampler, which failed its diagnostics.

    Reference: docs/theory.md F1 to F4.
    """
    runs = Runs.of(runs)
    if len(runs.groups) > 1:
        raise InputError(
            f"runs hold {len(runs.groups)} groups ({', '.join(x.name for x in runs.groups)}); "
            "fit one after the other: [msjax.fit(group) for group in runs.groups]"
        )
    key = jax.random.key(seed) if isinstance(seed, int) else seed
    fit_key, rest = split_key(key)
    if model == AUTO and runs.repeated:
        model = Repeated(runs.question_numbers)
    if model == AUTO:
        candidates = with_priors(CANDIDATES, priors or {})
        return criticise(weigh(runs, fit_key, candidates=candidates, progress=progress), rest)
    chosen = (find_model(model) if isinstance(model, str) else model).with_priors(priors or {})
    progress(chosen.name)
    single = fit_model(runs, chosen, fit_key)
    convention = None
    if isinstance(chosen, LabelFree):
        other = fit_model(runs, LabelFreeMirrored(), jax.random.fold_in(fit_key, 1))
        convention = swap_statement(single.draws, other.draws)
    return criticise((Candidate(chosen, single, weight=1.0),), rest, convention)


def fit_together(groups: Sequence[Runs], key: PRNGKeyArray) -> list[Posterior]:
    """Posteriors of several benchmarks whose rates are drawn towards each other, in their order.

    Raises:
        InputError: fewer than two benchmarks, or two of one name.
        NotConvergedError: the sampler failed its diagnostics.

    Reference: docs/theory.md F8.
    """
    from msjax.posterior.models.partial_pooling import partially_pool

    together = partially_pool(groups, key)
    found = []
    for b, name in enumerate(together.benchmarks):
        single = together.fit_of(name)
        _, rest = split_key(jax.random.fold_in(key, b))
        found.append(criticise((Candidate(single.model, single, weight=1.0),), rest))
    return found


def criticise(
    candidates: tuple[Candidate, ...], key: PRNGKeyArray, convention: str | None = None
) -> Posterior:
    """What follows from fitted models, and what speaks against them."""
    check_key, predictive_key, prior_key = _criticism_keys(key)
    fits = [c.fit for c in candidates if c.fit]
    weights = [c.weight for c in candidates if c.fit]
    by_model, counting = {}, []
    for one, weight, share in zip(fits, weights, apportion(weights, DRAWS), strict=True):
        if share:
            by_model[one.model.name] = quantities(one if weight >= MATERIAL else part(one, share))
            counting.append(weight)
    first = leading(candidates)
    count = first.count
    criticism = predictive_checks(fits, weights, predictive_key)
    prior = sample_prior(first.model, prior_key, _PRIOR_DRAWS)
    drawn = average(list(by_model.values()), counting)
    return Posterior(
        runs=count,
        candidates=candidates,
        draws=drawn,
        by_model=by_model,
        contradicted_models=tuple(
            one.model.name for one, wrong in zip(fits, criticism.contradicted, strict=True) if wrong
        ),
        checks=check_chain(_one_run_each(count), check_key) if first.model.sees == "labels" else (),
        predictive=criticism.checks,
        prior=prior,
        prior_accuracy=first.model.curves(prior, drawn.bounds.neutral.shape[1] - 1).mean_accuracy,
        convention=convention,
    )


def _one_run_each(runs: Runs) -> Runs:
    """The first run of every question, as checks take questions for independent."""
    return runs.take(np.unique(runs.question_numbers, return_index=True)[1])


def split_key(key: PRNGKeyArray) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """Keys of the fit of a benchmark and of its criticism, from the benchmark's own."""
    fit_key, rest = jax.random.split(key)
    return fit_key, rest


def check_benchmark(count: Runs, key: PRNGKeyArray) -> tuple[Check, ...]:
    """`check_chain` with the key it has in `fit`: all commands find the same p-values."""
    return check_chain(count, _criticism_keys(split_key(key)[1])[0])


def _criticism_keys(key: PRNGKeyArray) -> Key[Array, "3"]:
    return jax.random.split(key, 3)
