"""How much each model of the runs counts: Bayesian averaging, with exact evidence.

Every candidate is as probable as the others before the data, so its weight is

    w_m = P(runs | m) / sum over candidates of P(runs | .),

where P(runs | m) has its parameters integrated out, exactly (`msjax.posterior.quadrature`). No
model is picked: whatever is said of a benchmark is averaged over the models that say it.

`leave_future_out` is the other question one may ask of a model: how well, fitted to the first
rounds, it predicts the later ones.

Reference: docs/theory.md F3; Hoeting, Madigan, Raftery & Volinsky (1999), Bayesian model averaging;
Buerkner, Gabry & Vehtari (2020), Approximate leave-future-out cross-validation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
import scipy.special
from jaxtyping import Float, Int8, PRNGKeyArray

from msjax.data.runs import Runs
from msjax.posterior.fits import Fit, fit_model
from msjax.posterior.models import CANDIDATES
from msjax.posterior.models.model import Draws, Model
from msjax.posterior.sample import log_likelihoods, tabulate


@dataclass(frozen=True)
class Candidate:
    """One model: its fit and its weight in the average, or why it has none."""

    model: Model
    fit: Fit | None
    refused: str | None = None
    weight: float = 0.0


def weigh(
    count: Runs,
    key: PRNGKeyArray,
    *,
    candidates: Sequence[Model] = CANDIDATES,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Candidate, ...]:
    """Fit the models to one benchmark's runs, and weigh them; from most weight to least.

    A candidate is left out, with the reason, when the runs have too few rounds for it, or when they
    say nothing of what it adds. `progress` is told what is being fitted.

    Reference: docs/theory.md F3.
    """
    fitted, refused = [], []
    for i, model in enumerate(candidates):
        reason = _too_little(model, count)
        if reason:
            refused.append(Candidate(model, None, reason))
            continue
        progress(model.name)
        fitted.append(Candidate(model, fit_model(count, model, jax.random.fold_in(key, i))))
    evidence = [c.fit.log_evidence for c in fitted if c.fit]
    weights = scipy.special.softmax(evidence) if len(evidence) > 1 else np.ones(len(evidence))
    weighed = [replace(c, weight=float(w)) for c, w in zip(fitted, weights, strict=True)]
    return (*sorted(weighed, key=lambda c: -c.weight), *refused)


def leading(candidates: Sequence[Candidate]) -> Fit:
    """The fit with most weight."""
    found = candidates[0].fit
    assert found is not None  # one chain is refused by no runs
    return found


def training_rounds(rounds: int) -> int:
    """The first half of the rounds, rounded up."""
    return (rounds + 1) // 2


def leave_future_out(early: Fit, count: Runs) -> Float[np.ndarray, " question"]:
    """Log-probability of each question's later rounds, given its first ones and the fit to those.

    log mean over draws of P(all rounds | draw) / P(first rounds | draw), where the draws are from
    the posterior given everyone's first rounds.
    """
    draws: Draws = early.sample.flat

    def by_question(correct: Int8[np.ndarray, "question answer"]) -> np.ndarray:
        table = tabulate(early.model, correct)
        return log_likelihoods(early.model, table, draws)[:, table.row]

    later = by_question(count.seen_as(early.model.sees)) - by_question(early.runs)
    return scipy.special.logsumexp(later, axis=0) - np.log(len(later))


def _too_little(model: Model, count: Runs) -> str | None:
    if count.rounds < model.min_rounds:
        return f"it needs at least {model.min_rounds} rounds of revision; there are {count.rounds}"
    seen = model.identified(count.seen_as(model.sees))
    added = [name for name in model.parameters if name not in ("p0", "p_ic", "p_ci")]
    if added and not any(seen[name] for name in added):
        return f"the runs say nothing of {', '.join(added)}"
    return None
