"""Everything a report says of one benchmark: model, posterior, checks, and warnings first."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from msjax.data.runs import Runs
from msjax.posterior.checks import Check, check_chain
from msjax.posterior.compare import Comparison, compare
from msjax.posterior.fit import Fit, fit
from msjax.posterior.models import find_model
from msjax.posterior.models.chains import Pooled
from msjax.posterior.models.label_free import LabelFree, LabelFreeMirrored, swap_statement
from msjax.posterior.models.model import Draws, Model
from msjax.posterior.predictive import PredictiveCheck, predictive_checks
from msjax.posterior.quantities import Quantities, quantities
from msjax.posterior.sample import sample_prior

AUTO = "auto"
_PRIOR_DRAWS = 4000


@dataclass(frozen=True)
class Analysis:
    """One benchmark: the fit, how its model was chosen, what follows, and what speaks against it.

    `comparison` is None where the user named the model. `checks` put one homogeneous chain to the
    test, `predictive` the model that was fitted. `prior` holds draws of the parameters before any
    data, `prior_accuracy` [draw, round] the accuracies that these predict. `convention` says on
    what reading of the data everything rests, if there are several.
    """

    fit: Fit
    comparison: Comparison | None
    quantities: Quantities
    checks: tuple[Check, ...]
    predictive: tuple[PredictiveCheck, ...]
    prior: Draws
    prior_accuracy: Float[np.ndarray, "draw rounds_plus_1"]
    convention: str | None = None

    @property
    def contradicted(self) -> bool:
        """Whether the data, or how they came about, speak against the model that was fitted."""
        if not self.fit.count.revises:
            return True
        return bool(self._misfits) or (isinstance(self.fit.model, Pooled) and bool(self._broken))

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before any number, most serious first."""
        fit, found = self.fit, []
        name = fit.model.name
        if not fit.count.revises:
            found.append(
                "NOT REVISIONS: the answers of a question come from prefixes of one reasoning "
                "trace, which as a rule gets better where it ends; the rates of rounds not "
                "observed do not follow from those observed, so no limit and no prediction of "
                "later rounds can be trusted"
            )
        if self.convention:
            found.append(f"UP TO A SWAP: {self.convention}")
        if self._misfits:
            found.append(
                f"CONTRADICTED: the model {name} does not produce runs like these "
                f"({', '.join(check.statistic for check in self._misfits)}); its intervals and "
                "whatever it says of rounds not observed cannot be trusted"
            )
        if self._broken and isinstance(fit.model, Pooled):
            found.append(
                "CONTRADICTED: one homogeneous chain does not describe these runs "
                f"({', '.join(check.name for check in self._broken)}); its numbers are averages "
                "over what differs, and its intervals and its limit cannot be trusted"
            )
        elif self._broken:
            found.append(
                "NOT ONE CHAIN: one homogeneous chain does not describe these runs "
                f"({', '.join(check.name for check in self._broken)}); the numbers are those of "
                f"the model {name}: {fit.model.says}"
            )
        if fit.count.n_censored:
            found.append(
                f"CENSORED: {fit.count.n_censored} of {fit.count.questions} runs were stopped by "
                "looking at the label; what revising breaks cannot be estimated, nor any limit or "
                "bound, and p_ic is that of the questions still wrong, which get harder"
            )
        found.extend(
            f"NOT IDENTIFIED: {parameter}, as the runs do not show it; its posterior is its prior"
            for parameter, known in fit.identified.items()
            if not known
        )
        if fit.known and np.isnan(self.quantities.limit.neutral).any():
            found.append(
                f"NO LIMIT: under the model {name} the rates still change with the round, so the "
                "accuracy after many rounds is not identified"
            )
        chosen = self.comparison and self.comparison.candidates[0]
        if chosen and chosen.high_pareto_k:
            found.append(
                f"LEAVE-ONE-OUT: the Pareto shape is above 0.7 in {chosen.high_pareto_k} of "
                f"{fit.count.questions} questions, so the comparison of models is not reliable"
            )
        unchecked = [check.name for check in self.checks if check.contradicted is None]
        if unchecked:
            found.append(
                f"NOT CHECKED: these runs do not allow the check of {', '.join(unchecked)}"
            )
        return found

    @property
    def _misfits(self) -> list[PredictiveCheck]:
        return [check for check in self.predictive if check.surprising]

    @property
    def _broken(self) -> list[Check]:
        return [check for check in self.checks if check.contradicted]


def split_key(key: PRNGKeyArray) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """Keys of the fit of a benchmark and of its criticism, from the benchmark's own."""
    fit_key, rest = jax.random.split(key)
    return fit_key, rest


def check_benchmark(count: Runs, key: PRNGKeyArray) -> tuple[Check, ...]:
    """`check_chain` with the key it has in `analyse`: all commands find the same p-values."""
    return check_chain(count, _criticism_keys(split_key(key)[1])[0])


def _criticism_keys(key: PRNGKeyArray) -> Key[Array, "3"]:
    return jax.random.split(key, 3)


def analyse(
    count: Runs,
    key: PRNGKeyArray,
    *,
    model: str | Model = AUTO,
    value: float,
    price: float,
    progress: Callable[[str], None] = lambda _: None,
) -> Analysis:
    """Fit one benchmark, with the model named or the one that predicts best, and criticise it.

    `value` is the worth of a correct answer, `price` that of a token, as in
    `msjax.posterior.quantities.quantities`; `progress` is told what is being fitted.

    Raises:
        InputError: unknown model, or value or price out of range.
        NotConvergedError: see `msjax.posterior.fit.fit` and `msjax.posterior.compare.compare`.
    """
    fit_key, rest = split_key(key)
    if model == AUTO:
        comparison = compare(count, fit_key, progress=progress)
        return criticise(comparison.chosen, rest, comparison, value=value, price=price)
    chosen = find_model(model) if isinstance(model, str) else model
    progress(chosen.name)
    found = criticise(fit(count, chosen, fit_key), rest, None, value=value, price=price)
    if not isinstance(chosen, LabelFree):
        return found
    other = fit(count, LabelFreeMirrored(), jax.random.fold_in(fit_key, 1))
    return replace(found, convention=swap_statement(found.fit.draws, other.draws))


def criticise(
    fit: Fit,
    key: PRNGKeyArray,
    comparison: Comparison | None = None,
    *,
    value: float,
    price: float,
) -> Analysis:
    """What follows from a fit, and what speaks against it."""
    check_key, predictive_key, prior_key = _criticism_keys(key)
    found = quantities(fit, value=value, price=price)
    prior = sample_prior(fit.model, prior_key, _PRIOR_DRAWS)
    return Analysis(
        fit=fit,
        comparison=comparison,
        quantities=found,
        checks=check_chain(fit.count, check_key) if fit.model.sees == "labels" else (),
        predictive=predictive_checks(fit, predictive_key),
        prior=prior,
        prior_accuracy=fit.model.curves(prior, found.bounds.neutral.shape[1] - 1).mean_accuracy,
    )


def observed_accuracy(count: Runs) -> Float[np.ndarray, " answer"]:
    """Share of right answers at every round, among the runs that reached it."""
    return (count.correct == 1).sum(axis=0) / np.maximum((count.correct >= 0).sum(axis=0), 1)
