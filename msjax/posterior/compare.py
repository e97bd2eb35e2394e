"""Which model of the runs to use: fit the candidates, compare how well they predict.

Two comparisons, both of the log-probability of what was left out (elpd, larger is better):

- leave-one-out: each question's run given all others, by Pareto-smoothed importance sampling;
- leave-future-out: fitted to the first half of the rounds (rounded up), scored on the later ones,
  question by question given its own first half.

The first uses all the data, the second asks what a stopping rule and a limit need: what comes next.
`compare` keeps the candidates that are within two standard errors of the best by leave-one-out and
takes from them the best by leave-future-out. This rule was fixed before any data were looked at.

Reference: docs/theory.md F3; Vehtari, Gelman & Gabry (2017), Practical Bayesian model evaluation;
Buerkner, Gabry & Vehtari (2020), Approximate leave-future-out cross-validation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
import scipy.special
from jaxtyping import Float, Int8, PRNGKeyArray

from msjax.data.runs import Runs
from msjax.posterior.diagnostics import HIGH_PARETO_K, pareto_smoothed
from msjax.posterior.fit import Fit, NotConvergedError, fit
from msjax.posterior.models import CANDIDATES
from msjax.posterior.models.model import Draws, Model
from msjax.posterior.sample import log_likelihoods, tabulate

INDISTINGUISHABLE = 2.0
"""Standard errors within which two leave-one-out scores count as equal."""


@dataclass(frozen=True)
class Score:
    """Expected log predictive density of what was left out, question by question (nats).

    `difference` and its standard error compare with the best candidate, paired by question.
    """

    elpd: float
    standard_error: float
    difference: float
    difference_error: float


@dataclass(frozen=True)
class Candidate:
    """One model in a comparison: its fit and scores, or why it has none.

    `pareto_k` is the largest Pareto shape among the questions, `high_pareto_k` how many questions
    have one above 0.7. `future` is None where half the rounds do not suffice for the model.
    """

    model: Model
    fit: Fit | None
    refused: str | None
    leave_one_out: Score | None = None
    pareto_k: float = np.nan
    high_pareto_k: int = 0
    future: Score | None = None


@dataclass(frozen=True)
class Comparison:
    """Candidates from best to worst (refused ones last), and why the first was chosen."""

    candidates: tuple[Candidate, ...]
    reason: str

    @property
    def chosen(self) -> Fit:
        """The fit of the chosen model."""
        best = self.candidates[0].fit
        assert best is not None
        return best


def compare(
    count: Runs,
    key: PRNGKeyArray,
    *,
    candidates: Sequence[Model] = CANDIDATES,
    progress: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Fit and compare models of one benchmark's runs, and choose one.

    A candidate is left out, with the reason, when the runs have too few rounds for it, when they
    say nothing of what it adds, or when its sampler does not converge. `progress` is told what is
    being fitted.

    Raises:
        NotConvergedError: no candidate could be fitted.

    Reference: docs/theory.md F3.
    """
    early = count.truncated(training_rounds(count.rounds))
    found: list[Candidate] = []
    losses: dict[str, np.ndarray] = {}
    futures: dict[str, np.ndarray] = {}
    for i, model in enumerate(candidates):
        refused = _too_little(model, count)
        if refused:
            found.append(Candidate(model, None, refused))
            continue
        progress(model.name)
        full_key, early_key = jax.random.split(jax.random.fold_in(key, i))
        try:
            whole = fit(count, model, full_key)
            losses[model.name], pareto_k = leave_one_out(whole)
            if early.rounds and early.rounds < count.rounds and not _too_little(model, early):
                before = fit(early, model, early_key, like=count)
                futures[model.name] = leave_future_out(before, count)
        except NotConvergedError as error:
            losses.pop(model.name, None)
            found.append(Candidate(model, None, str(error)))
            continue
        high = int((pareto_k > HIGH_PARETO_K).sum())
        found.append(Candidate(model, whole, None, None, float(pareto_k.max()), high))
    if not losses:
        raise NotConvergedError(
            f"{count.name}: no candidate could be fitted: "
            + "; ".join(f"{c.model.name}: {c.refused}" for c in found)
        )
    return _rank(found, losses, futures, early.rounds)


def training_rounds(rounds: int) -> int:
    """The first half of the rounds, rounded up."""
    return (rounds + 1) // 2


def leave_one_out(
    fit: Fit,
) -> tuple[Float[np.ndarray, " question"], Float[np.ndarray, " question"]]:
    """Log-probability of each question's run given all the others, and its Pareto shape."""
    table = tabulate(fit.model, fit.runs)
    values = log_likelihoods(fit.model, table, fit.sample.flat).T
    weights, shapes = pareto_smoothed(-values)
    elpd = scipy.special.logsumexp(values + weights, axis=1)
    return elpd[table.row], shapes[table.row]


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


def _rank(
    found: list[Candidate],
    losses: dict[str, np.ndarray],
    futures: dict[str, np.ndarray],
    early_rounds: int,
) -> Comparison:
    best = max(losses, key=lambda name: losses[name].sum())
    loo = {name: _score(values, losses[best]) for name, values in losses.items()}
    ahead = max(futures, key=lambda name: futures[name].sum()) if futures else None
    future = {
        name: _score(values, futures[ahead])
        for name, values in futures.items()
        if ahead is not None
    }
    close = {
        name
        for name, score in loo.items()
        if -score.difference <= INDISTINGUISHABLE * score.difference_error or name == best
    }
    if close <= set(future):
        chosen = max(close, key=lambda name: future[name].elpd)
        reason = (
            f"{chosen} predicts the later rounds best, given the first {early_rounds}, among the "
            f"{len(close)} not told apart by leave-one-out ({', '.join(sorted(close))})"
        )
    else:
        chosen = best
        reason = f"{chosen} is best by leave-one-out"
        if close - set(future):
            unscored = ", ".join(sorted(close - set(future)))
            reason += f"; later rounds do not decide: half of them say too little for {unscored}"
    scored = [
        Candidate(
            c.model,
            c.fit,
            c.refused,
            loo.get(c.model.name),
            c.pareto_k,
            c.high_pareto_k,
            future.get(c.model.name),
        )  # fmt: skip
        for c in found
    ]

    def order(c: Candidate) -> tuple[bool, bool, bool, float]:
        name = c.model.name
        score = c.leave_one_out
        return name != chosen, name not in close, score is None, -score.elpd if score else 0.0

    if len(loo) == 1:
        reason = f"{chosen} is the only candidate that these runs allow"
    return Comparison(tuple(sorted(scored, key=order)), reason)


def _score(values: np.ndarray, best: np.ndarray) -> Score:
    difference = values - best

    def error(x: np.ndarray) -> float:
        return float(np.sqrt(len(x) * x.var(ddof=1))) if len(x) > 1 else float("nan")

    return Score(float(values.sum()), error(values), float(difference.sum()), error(difference))
