"""Is one homogeneous chain a fair description? Three checks that accompany every fit.

A homogeneous chain says that, given the present state, nothing else predicts the next one. Each
check puts one thing up against that: the state before (order), the round (rounds), and what the
same question did when it was in this state before (questions). All are score statistics of the
residuals `e = left - P(leave)` at the visits to a state, summed over the present states I and C:

- order: Pearson's chi-square of (state before) x (left or stayed);
- rounds: Pearson's chi-square of (round) x (left or stayed);
- questions: the C(alpha) statistic for overdispersion, the sum over questions of the products
  e_t e_u of two visits, studentised; one-sided, since questions that differ make it positive.

P-values are posterior predictive: the same statistic in replicates drawn from the fitted chain with
the observed first answers and run lengths, so small counts need no approximation. Under a
label-free stopping rule lengths are not given in advance; the statistics, being studentised
martingales, keep their large-sample law all the same. One departure may show in several checks.

Reference: Anderson & Goodman (1957), Statistical inference about Markov chains; Tarone (1979),
Testing the goodness of fit of the binomial distribution; Gelman, Meng & Stern (1996), Posterior
predictive assessment of model fitness, for the p-values.
"""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from inference.counts import MISSING, BenchmarkCounts
from inference.models import UNIFORM, BetaPrior, exact_posterior, host_generator, tally

LEVEL = 0.05
"""Chance of a false alarm over all the checks of one benchmark (Bonferroni)."""
REPLICATES = 1999
NAMES = ("order", "rounds", "questions")
_BATCH = 250_000
"""Answers handled at a time, so that intermediate arrays stay in the cache."""

_EFFECTS = {
    "order": "given the present state, the state before still matters",
    "rounds": "the rates change with the round",
    "questions": "questions differ in their rates",
}


@dataclass(frozen=True)
class Check:
    """One assumption put to the test.

    `statistic`, `p_value` and `contradicted` are None when the data do not allow the check;
    `sentence` says what was found, or why nothing could be.
    """

    name: str
    statistic: float | None
    p_value: float | None
    contradicted: bool | None
    sentence: str


def check_chain(
    count: BenchmarkCounts,
    key: PRNGKeyArray,
    *,
    prior: BetaPrior = UNIFORM,
    replicates: int = REPLICATES,
) -> tuple[Check, ...]:
    """The checks named in `NAMES`, in this order, for one benchmark.

    Where the label stops runs at success, replicates are stopped likewise and only the rounds can
    be checked: the state before is always I, and a question's history is its round number.
    """
    oracle = count.censored > 0
    draw_key, replicate_key = jax.random.split(key)
    draws = exact_posterior(tally([count]), prior).sample(draw_key, replicates)[:, 1:, 0]
    correct, reach = count.correct == 1, _reach(count)
    (scores,), (informative,) = _statistics(correct[None], reach, oracle)
    usable = informative & np.array([[not oracle], [True], [not oracle]])
    replicated = _replicated_scores(
        host_generator(replicate_key), correct[:, 0], reach, draws, oracle
    )
    statistics = np.where(usable, scores, 0).sum(axis=1)
    beyond = np.where(usable, replicated, 0).sum(axis=2)
    # Discrete statistics tie often; ties count as ties whatever the rounding.
    margin = 1e-9 * np.maximum(1, np.abs(statistics))
    p_values = (1 + (beyond >= statistics - margin).sum(axis=0)) / (1 + replicates)
    done = usable.any(axis=1)
    level = LEVEL / max(int(done.sum()), 1)
    checks = []
    for name, states, statistic, p_value in zip(NAMES, usable, statistics, p_values, strict=True):
        if states.any():
            checks.append(_verdict(count, name, states, float(statistic), float(p_value), level))
        else:
            checks.append(Check(name, None, None, None, _why_not(count, name)))
    return tuple(checks)


def _reach(count: BenchmarkCounts) -> Bool[np.ndarray, "question answer"]:
    """Answers each run had the budget for; all of them where the label may have cut it short."""
    reached = count.correct != MISSING
    if count.censored:
        reached = reached | (count.correct == 1).any(axis=1, keepdims=True)
    return reached


def _statistics(
    correct: Bool[np.ndarray, "replicate question answer"],
    reach: Bool[np.ndarray, "question answer"],
    oracle: bool,
) -> tuple[Float[np.ndarray, "replicate 3 2"], Bool[np.ndarray, "replicate 3 2"]]:
    """Statistic of every check in the present states I and C, and whether it is defined.

    Under an oracle a run shows nothing after its first right answer.
    """
    now, following = correct[..., :-1], correct[..., 1:]
    ongoing = np.broadcast_to(reach[:, 1:], now.shape)
    if oracle:
        ongoing = ongoing & ~np.logical_or.accumulate(now, axis=-1)
    columns = []
    for state in (False, True):
        visit = ongoing & (now == state)
        left = visit & (following != state)
        order, order_defined = _score(left[..., 1:], visit[..., 1:], now[..., :-1].astype(float))
        residual = np.where(visit, left - _rate(left, visit), 0)
        history = np.cumsum(residual, axis=-1) - residual
        columns.append(
            [(order**2, order_defined), _chi_square(left, visit), _score(left, visit, history)]
        )
    scores = [[column[check][0] for column in columns] for check in range(3)]
    defined = [[column[check][1] for column in columns] for check in range(3)]
    return np.moveaxis(np.array(scores), 2, 0), np.moveaxis(np.array(defined), 2, 0)


def _total(values: np.ndarray) -> np.ndarray:
    return values.sum(axis=(-2, -1), keepdims=True)


def _rate(left: np.ndarray, visit: np.ndarray) -> np.ndarray:
    return _total(left) / np.maximum(_total(visit), 1)


def _score(
    left: np.ndarray, visit: np.ndarray, covariate: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Score test of "the covariate does not predict leaving" over visits: a standard normal.

    With the sum of a question's earlier residuals as covariate, this is the overdispersion test:
    2 sum_{t<u} e_t e_u = (sum e)^2 - sum e^2, made orthogonal to the estimated rate.
    """
    rate = _rate(left, visit)
    centred = np.where(visit, covariate - _rate(covariate * visit, visit), 0)
    variance = (rate * (1 - rate))[..., 0, 0] * (centred**2).sum(axis=(-2, -1))
    defined = variance > 1e-9
    score = ((left - rate) * centred).sum(axis=(-2, -1))
    return np.where(defined, score / np.sqrt(np.where(defined, variance, 1)), 0), defined


def _chi_square(left: np.ndarray, visit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pearson's chi-square of "leaving is equally likely in every round"."""
    rate = _rate(left, visit)[..., 0]
    visits = visit.sum(axis=-2)
    variance = visits * rate * (1 - rate)
    squares = (left.sum(axis=-2) - visits * rate) ** 2 / np.where(variance > 0, variance, np.inf)
    return squares.sum(axis=-1), (variance > 0).sum(axis=-1) > 1


def _replicated_scores(
    random: np.random.Generator,
    first: Bool[np.ndarray, " question"],
    reach: Bool[np.ndarray, "question answer"],
    draws: Float[np.ndarray, "draw 2"],
    oracle: bool,
) -> Float[np.ndarray, "draw 3 2"]:
    """The statistics in one replicate per draw of (p_ic, p_ci)."""
    correct = np.empty((len(draws), *reach.shape), dtype=bool)
    correct[..., 0] = first
    p_ic, p_ci = draws.T[..., None]
    for k in range(1, reach.shape[1]):
        now = correct[..., k - 1]
        correct[..., k] = now ^ (random.random(now.shape) < np.where(now, p_ci, p_ic))
    batches = np.array_split(correct, max(1, correct.size // _BATCH))
    return np.concatenate([_statistics(batch, reach, oracle)[0] for batch in batches])


def _verdict(
    count: BenchmarkCounts,
    name: str,
    states: np.ndarray,
    statistic: float,
    p_value: float,
    level: float,
) -> Check:
    contradicted = p_value <= level
    evidence = _evidence(count, name, states)
    if contradicted:
        start = f"a homogeneous chain is contradicted: {_EFFECTS[name]}"
    else:
        start = f'not contradicted (no sign that "{_EFFECTS[name]}", which proves nothing)'
    sentence = f"{start}: {evidence}; p = {p_value:.2g}, level {level:.2g}"
    return Check(name, statistic, p_value, contradicted, sentence)


def _evidence(count: BenchmarkCounts, name: str, states: np.ndarray) -> str:
    """The counts behind a check: exits / visits, within each present state that could be used."""
    now, following = count.correct[:, :-1], count.correct[:, 1:]
    parts = []
    for state in np.flatnonzero(states):
        visit = (now == state) & (following != MISSING)
        left = visit & (following != state)
        title = "C->I" if state else "I->C"
        if name == "order":
            before = count.correct[:, :-2]
            cases = [
                (left[:, 1:][before == i].sum(), visit[:, 1:][before == i].sum(), f" after {s}")
                for i, s in enumerate("IC")
            ]
        elif name == "rounds":
            cases = [(*pair, "") for pair in zip(left.sum(axis=0), visit.sum(axis=0), strict=True)]
        else:
            cases = [(left.sum(), visit.sum(), f" in {visit.any(axis=1).sum()} questions")]
        parts.append(f"{title} " + ", ".join(f"{x}/{n}{label}" for x, n, label in cases))
    return "; ".join(parts)


def _why_not(count: BenchmarkCounts, name: str) -> str:
    if count.rounds < 2:
        reason = "it needs runs with at least two rounds of revision"
    elif count.censored and name == "order":
        reason = "runs stopped at the first right answer have only I before the present state"
    elif count.censored and name == "questions":
        reason = (
            "in runs stopped at the first right answer, questions that differ look the same as "
            "rates that fall with the round"
        )
    else:
        reason = "there are too few changes of state"
    return f"cannot be checked: {reason}"
