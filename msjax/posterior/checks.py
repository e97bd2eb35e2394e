"""Is one homogeneous first-order chain a fair description? Checks that accompany every fit.

"order 0" asks whether the present state matters at all: were answers independent, a later one would
be right with the same probability whatever came before. The other checks put a homogeneous
first-order chain to the test: given the present state, nothing else predicts the next one. With the
residuals e_t = right_t - P(right_t | state before) of all rounds of all runs:

- order 0: Pearson's chi-square of (state before) x (right or wrong);
- order 2: Pearson's chi-square of (state before the present one) x (left or stayed), summed over
  the present states I and C;
- rounds: Pearson's chi-square of (round) x (left or stayed), summed likewise;
- questions: the C(alpha) statistic for overdispersion, the sum over questions of the products
  e_t e_u of two visits to a state, studentised and summed likewise; one-sided, since questions that
  differ make it positive;
- Chapman-Kolmogorov: s rounds after a visit to state i, s = 2..5, an answer should be right with
  the probability P^s(i, C) of the fitted matrix P. It differs from that by the sum over t = 1..s of
  r^(s-t) e_t, r = 1 - p_ic - p_ci; a run that ended before counts with its forecast, so that no
  stopping rule can bias the mean. Studentised, squared, the greatest over s, summed over the start
  states.

P-values are posterior predictive: the same statistic in replicates drawn from the fitted model (the
chain, or independent answers for order 0) with the observed first answers and run lengths, so small
counts need no approximation. Under a label-free stopping rule lengths are not given in advance; the
statistics, being studentised martingales, keep their large-sample distribution all the same. One
departure may show in several checks.

Reference: docs/theory.md F5; Anderson & Goodman (1957), Statistical inference about Markov chains;
Tarone (1979), Testing the goodness of fit of the binomial distribution; Gelman, Meng & Stern
(1996), Posterior predictive assessment of model fitness, for the p-values.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from msjax.data.runs import MISSING, Runs
from msjax.posterior.models.chains import Pooled
from msjax.posterior.sample import host_generator

LEVEL = 0.05
"""Chance of a false alarm over all the checks of one benchmark's chain (Bonferroni)."""
REPLICATES = 1999
FEWEST_REPLICATES = 199
_MANY = 1_000_000
"""Answers from which fewer sets are simulated."""
CHAIN_NAMES = ("order 2", "rounds", "questions", "Chapman-Kolmogorov")
NAMES = ("order 0", *CHAIN_NAMES)
_MAX_LAG = 5
"""Chapman-Kolmogorov looks at most this many rounds ahead."""
_BATCH = 250_000
"""Answers handled at a time, so that intermediate arrays stay in the cache."""

_CHAIN = "one homogeneous first-order chain"
_EFFECTS = {
    "order 2": "given the present state, the state before still matters",
    "rounds": "the rates change with the round",
    "questions": "questions differ in their rates",
    "Chapman-Kolmogorov": "after several rounds the state is not what as many steps of it give",
}

# A pattern is a run's last answers as bits, the newest lowest, below a 1 that marks their number.
_PATTERNS = np.arange(2 << (_MAX_LAG + 1))
_LENGTHS = np.array([max(int(pattern).bit_length() - 1, 0) for pattern in _PATTERNS])


@dataclass(frozen=True)
class Check:
    """One null hypothesis put to the test.

    `null` is that hypothesis in words. `contradicted` is about one homogeneous first-order chain;
    it is False for "order 0", whatever that finds, because independent answers are such a chain
    too. `statistic`, `p_value` and `contradicted` are None when the data do not allow the check;
    `sentence` says what was found, or why nothing could be.
    """

    name: str
    null: str
    statistic: float | None
    p_value: float | None
    contradicted: bool | None
    sentence: str


def check_chain(
    count: Runs, key: PRNGKeyArray, *, replicates: int | None = None
) -> tuple[Check, ...]:
    """The checks named in `NAMES`, in this order, for one benchmark.

    A p-value comes from `replicates` simulated sets of runs, `REPLICATES` if None; of more than a
    million answers fewer are simulated, at least `FEWEST_REPLICATES`.

    Where the label stops runs at success, replicates are stopped likewise and only the rounds can
    be checked: the state before is always I, and a question's history is its round number.

    Reference: docs/theory.md F5.
    """
    if replicates is None:
        affordable = REPLICATES * _MANY // count.correct.size
        replicates = max(FEWEST_REPLICATES, min(REPLICATES, affordable))
    order_0_key, chain_key = jax.random.split(key)
    return (
        _check_order_0(count, host_generator(order_0_key), replicates),
        *_check_first_order(count, host_generator(chain_key), replicates),
    )


def _check_order_0(count: Runs, random: np.random.Generator, replicates: int) -> Check:
    name, null = "order 0", "answers after the first are independent and equally likely to be right"
    later = count.correct[:, 1:]
    right, wrong = int((later == 1).sum()), int((later == 0).sum())
    if count.n_censored:
        return _unchecked(name, null, "runs stopped at the first right answer hide what follows it")
    if count.rounds < 1:
        return _unchecked(name, null, "it needs runs with at least one round of revision")

    observed, reach = _right_and_reach(count)
    (statistic,), (defined,) = _order_0(_count_patterns(observed, reach))
    if not defined:
        return _unchecked(name, null, "all answers before, or all after, a revision are alike")
    p_right = random.beta(1 + right, 1 + wrong, replicates)
    replicated = [
        _order_0(_count_patterns(correct, reach))[0]
        for correct in _replicate(random, count, np.stack([p_right, p_right], axis=1))
    ]
    p_value = _p_value(statistic, np.concatenate(replicated))

    counts = [later[count.correct[:, :-1] == i] for i in (0, 1)]
    after = ", ".join(
        f"{(x == 1).sum()}/{(x != MISSING).sum()} after {state}"
        for x, state in zip(counts, "IC", strict=True)
    )
    if p_value <= LEVEL:
        start = "rounds are not independent: the present answer predicts the next"
    else:
        start = "no sign that rounds depend on each other: revising may be mere resampling"
    sentence = f"{start}: right {after}; p = {p_value:.3g}, level {LEVEL:.3g}"
    return Check(name, null, float(statistic), p_value, False, sentence)


def _check_first_order(count: Runs, random: np.random.Generator, replicates: int) -> list[Check]:
    oracle = count.n_censored > 0
    observed, reach = _right_and_reach(count)
    (scores,), (informative,) = _chain_scores(observed, reach, oracle)
    allowed = np.array([not oracle or name == "rounds" for name in CHAIN_NAMES])
    usable = informative & allowed[:, None]
    distributions = Pooled().exact(count.observable)
    assert distributions  # its priors are uniform
    p_ic, p_ci = (random.beta(*distributions[name], replicates) for name in ("p_ic", "p_ci"))
    replicated = np.concatenate(
        [
            _chain_scores(correct, reach, oracle)[0]
            for correct in _replicate(random, count, np.stack([p_ic, 1 - p_ci], axis=1))
        ]
    )
    statistics = np.where(usable, scores, 0).sum(axis=1)
    beyond = np.where(usable, replicated, 0).sum(axis=2)
    level = LEVEL / max(int(usable.any(axis=1).sum()), 1)
    checks = []
    for i, (name, states) in enumerate(zip(CHAIN_NAMES, usable, strict=True)):
        if states.any():
            p_value = _p_value(statistics[i], beyond[:, i])
            checks.append(_verdict(count, name, states, float(statistics[i]), p_value, level))
        else:
            checks.append(_unchecked(name, _CHAIN, _why_not(count, name)))
    return checks


def _p_value(statistic: float, replicated: Float[np.ndarray, " replicate"]) -> float:
    # Discrete statistics tie often; ties count as ties whatever the rounding.
    margin = 1e-9 * max(1, abs(statistic))
    return float((1 + (replicated >= statistic - margin).sum()) / (1 + len(replicated)))


def _right_and_reach(
    count: Runs,
) -> tuple[Bool[np.ndarray, "1 answer question"], Bool[np.ndarray, "answer question"]]:
    """Right answers, as if one replicate, and the answers each run had the budget for.

    Those are all answers where the label may have cut a run short.
    """
    right = np.ascontiguousarray(count.correct.T == 1)
    reach = np.ascontiguousarray(count.correct.T != MISSING)
    if count.n_censored:
        reach |= right.any(axis=0)
    return right[None], reach


def _replicate(
    random: np.random.Generator, count: Runs, p_right: Float[np.ndarray, "replicate 2"]
) -> Iterator[Bool[np.ndarray, "batch answer question"]]:
    """Runs with the observed first answers; `p_right` is P(next answer right | I) and (... | C)."""
    parts = len(p_right) * count.correct.size // _BATCH
    for batch in np.array_split(p_right, min(max(1, parts), len(p_right))):
        correct = np.empty((len(batch), *count.correct.T.shape), dtype=bool)
        correct[:, 0] = count.correct[:, 0] == 1
        after_i, after_c = batch.T[..., None]
        for k in range(1, correct.shape[1]):
            uniform = random.random(correct[:, 0].shape)
            correct[:, k] = uniform < np.where(correct[:, k - 1], after_c, after_i)
        yield correct


def _chain_scores(
    correct: Bool[np.ndarray, "replicate answer question"],
    reach: Bool[np.ndarray, "answer question"],
    oracle: bool,
) -> tuple[Float[np.ndarray, "replicate 4 2"], Bool[np.ndarray, "replicate 4 2"]]:
    """Statistics of `CHAIN_NAMES`, each for the states I and C, and whether they are defined.

    Under an oracle a run shows nothing after its first right answer.
    """
    now, following = correct[:, :-1], correct[:, 1:]
    ongoing = np.broadcast_to(reach[1:], now.shape)
    if oracle:
        ongoing = ongoing & ~np.logical_or.accumulate(now, axis=1)
    patterns = _count_patterns(correct, reach)
    steps = _many_steps(patterns, now.shape[1])
    values, defined = [], []
    for state in (0, 1):
        visit = ongoing & (now == state)
        left = visit & (following != state)
        found = (
            _order_2(patterns, state),
            _rounds(left, visit),
            _questions(left, visit),
            (steps.square[:, state].max(axis=1, initial=0), steps.defined[:, state].any(axis=1)),
        )
        values.append(np.stack([value for value, _ in found], axis=1))
        defined.append(np.stack([known for _, known in found], axis=1))
    return np.stack(values, axis=2), np.stack(defined, axis=2)


def _count_patterns(
    correct: Bool[np.ndarray, "replicate answer question"],
    reach: Bool[np.ndarray, "answer question"],
) -> Int[np.ndarray, "replicate pattern"]:
    """How often each pattern of up to 6 answers ends a round, over all rounds of all runs."""
    answers = _MAX_LAG + 1
    counts = np.zeros(len(correct) * len(_PATTERNS), dtype=np.int64)
    row = len(_PATTERNS) * np.arange(len(correct))[:, None]
    history = correct[:, 0].astype(np.uint8)
    for k in range(1, correct.shape[1]):
        history = (history << 1 | correct[:, k]) & ((1 << answers) - 1)
        pattern = history | 1 << min(k + 1, answers)
        counts += np.bincount((pattern + row)[:, reach[k]].ravel(), minlength=len(counts))
    return counts.reshape(len(correct), -1)


def _right(lag: int) -> Int[np.ndarray, " pattern"]:
    """Whether the answer `lag` rounds before the newest was right."""
    return _PATTERNS >> lag & 1


def _shown(lag: int) -> Bool[np.ndarray, " pattern"]:
    """Whether a pattern goes back that far."""
    return _LENGTHS > lag


def _order_0(patterns: Int[np.ndarray, "replicate pattern"]) -> tuple[np.ndarray, np.ndarray]:
    return _pearson(patterns, _right(1), _right(0), _shown(1))


def _order_2(
    patterns: Int[np.ndarray, "replicate pattern"], state: int
) -> tuple[np.ndarray, np.ndarray]:
    return _pearson(patterns, _right(2), _right(0), _shown(2) & (_right(1) == state))


def _pearson(
    patterns: Int[np.ndarray, "replicate pattern"],
    row: Int[np.ndarray, " pattern"],
    column: Int[np.ndarray, " pattern"],
    among: Bool[np.ndarray, " pattern"],
) -> tuple[np.ndarray, np.ndarray]:
    """Pearson's chi-square of two marks of the patterns, and whether both vary."""
    a, b, c, d = (
        (patterns @ (among & (row == i) & (column == j))).astype(float)
        for i in (0, 1)
        for j in (0, 1)
    )
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    defined = margins > 0
    return (a + b + c + d) * (a * d - b * c) ** 2 / np.where(defined, margins, 1), defined


class _Steps(NamedTuple):
    """What follows s = 2, 3, ... rounds after a visit to I or C, given at least one round does.

    `share` is the share of right answers (runs that ended before are forecast), `probability` that
    by s steps of the fitted chain, `square` the squared standardised difference of the two.
    """

    share: Float[np.ndarray, "replicate 2 lag"]
    probability: Float[np.ndarray, "replicate 2 lag"]
    square: Float[np.ndarray, "replicate 2 lag"]
    defined: Bool[np.ndarray, "replicate 2 lag"]


def _many_steps(patterns: Int[np.ndarray, "replicate pattern"], rounds: int) -> _Steps:
    """The s-step transitions against P^s, s = 2, ..., min(rounds, 5).

    The residual e of a round enters the difference after s rounds once for each earlier visit it
    is j <= s rounds away from, with weight r^(s - j). The terms of j = 1 cancel, because P is
    fitted, and the variance is that given the fitted rates.
    """
    lags = range(2, min(rounds, _MAX_LAG) + 1)
    present = np.stack([_shown(1) & (_right(1) == state) for state in (0, 1)])
    visits = patterns @ present.T
    p_right = patterns @ (present & (_right(0) == 1)).T / np.maximum(visits, 1)
    eigenvalue = p_right[:, 1] - p_right[:, 0]
    residual = patterns * (_right(0) - p_right[:, _right(1)])
    spread = p_right * (1 - p_right)
    share, probability, square = np.zeros((3, len(patterns), 2, len(lags)))
    defined = np.zeros(square.shape, dtype=bool)
    for start in (0, 1):
        weight, forecast = np.zeros(patterns.shape), p_right[:, start]
        for i, lag in enumerate(lags):
            weight = eigenvalue[:, None] * weight + (_shown(lag) & (_right(lag) == start))
            forecast = p_right[:, 0] + eigenvalue * forecast
            difference = (residual * weight).sum(axis=1)
            total, squares = (patterns * weight) @ present.T, (patterns * weight**2) @ present.T
            variance = (spread * (squares - total**2 / np.maximum(visits, 1))).sum(axis=1)
            share[:, start, i] = forecast + difference / np.maximum(visits[:, start], 1)
            probability[:, start, i] = forecast
            defined[:, start, i] = variance > 1e-9
            square[:, start, i] = difference**2 / np.where(variance > 1e-9, variance, np.inf)
    return _Steps(share, probability, square, defined)


def _rounds(left: np.ndarray, visit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pearson's chi-square of "leaving is equally likely in every round"."""
    exits, visits = left.sum(axis=2), visit.sum(axis=2)
    rate = exits.sum(axis=1) / np.maximum(visits.sum(axis=1), 1)
    expected = visits * rate[:, None]
    variance = expected * (1 - rate[:, None])
    squares = (exits - expected) ** 2 / np.where(variance > 0, variance, np.inf)
    return squares.sum(axis=1), (variance > 0).sum(axis=1) > 1


def _questions(left: np.ndarray, visit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score test of "a question's earlier residuals do not predict leaving": a standard normal.

    This is the overdispersion test 2 sum_{t<u} e_t e_u = (sum e)^2 - sum e^2, made orthogonal to
    the estimated rate.
    """
    visits = np.maximum(visit.sum(axis=(1, 2)), 1)
    rate = left.sum(axis=(1, 2)) / visits
    history = np.zeros((len(left), left.shape[2]))
    score, total, squares = np.zeros((3, len(left)))
    for k in range(left.shape[1]):
        residual = visit[:, k] * (left[:, k] - rate[:, None])
        relevant = visit[:, k] * history
        score += np.einsum("rq,rq->r", residual, relevant)
        total += relevant.sum(axis=1)
        squares += np.einsum("rq,rq->r", relevant, relevant)
        history += residual
    variance = rate * (1 - rate) * (squares - total**2 / visits)
    defined = variance > 1e-9
    return np.where(defined, score / np.sqrt(np.where(defined, variance, 1)), 0), defined


def _verdict(
    count: Runs,
    name: str,
    states: np.ndarray,
    statistic: float,
    p_value: float,
    level: float,
) -> Check:
    contradicted = p_value <= level
    if contradicted:
        start = f"a homogeneous chain is contradicted: {_EFFECTS[name]}"
    else:
        start = f"no sign that {_EFFECTS[name]}"
    sentence = f"{start}: {_evidence(count, name, states)}; p = {p_value:.3g}, level {level:.3g}"
    return Check(name, _CHAIN, statistic, p_value, contradicted, sentence)


def _evidence(count: Runs, name: str, states: np.ndarray) -> str:
    """The counts behind a check, within each state that could be used."""
    usable = np.flatnonzero(states)
    if name == "Chapman-Kolmogorov":
        patterns = _count_patterns(*_right_and_reach(count))
        share, probability, square, _ = (part[0] for part in _many_steps(patterns, count.rounds))
        worst = square.argmax(axis=1)
        parts = [
            f"{s + 2} rounds after {'IC'[state]} {share[state, s]:.3f} right, "
            f"P^{s + 2} gives {probability[state, s]:.3f}"
            for state, s in zip(usable, worst[usable], strict=True)
        ]
        return "; ".join(parts)
    correct = count.observable
    now, following = correct[:, :-1], correct[:, 1:]
    parts = []
    for state in usable:
        visit = (now == state) & (following != MISSING)
        left = visit & (following != state)
        title = "C->I" if state else "I->C"
        if name == "order 2":
            before = correct[:, :-2]
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


def _why_not(count: Runs, name: str) -> str:
    if count.rounds < 2:
        return "it needs runs with at least two rounds of revision"
    if count.n_censored and name == "order 2":
        return "runs stopped at the first right answer have only I before the present state"
    if count.n_censored and name == "questions":
        return (
            "in runs stopped at the first right answer, questions that differ look the same as "
            "rates that fall with the round"
        )
    if count.n_censored and name == "Chapman-Kolmogorov":
        return "runs stopped at the first right answer hide what follows it"
    return "there are too few changes of state"


def _unchecked(name: str, null: str, reason: str) -> Check:
    return Check(name, null, None, None, None, f"cannot be checked: {reason}")
