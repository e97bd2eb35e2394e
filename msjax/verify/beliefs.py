"""Claims on beliefs without labels, and on when to revise: C1, C2 and C3.

Simulated runs hide whether they are right and show only whether each revision changed the answer,
or which earlier answer it gave again. Runs that are alike are thinned at once.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key

from msjax.simulation.enumeration import all_paths, exact_curve, path_distribution
from msjax.theory import belief as theory
from msjax.theory.answer_posterior import AnswerDistribution, answer_posterior
from msjax.theory.chain import TwoStateChain
from msjax.verify.benchmarks import QuestionCounts, thin
from msjax.verify.chain import SETTINGS as CHAINS
from msjax.verify.chain import ChainSetting
from msjax.verify.claim import Claim, Laboratory, compiled
from msjax.verify.evidence import Evidence, join, of_counts, of_means
from msjax.verify.sampling import generator

__all__ = ["CLAIMS", "hidden_runs", "named_answers", "revisions", "scored_answers"]

Values = Float[np.ndarray, "..."]
RunCounts = list[Int[np.ndarray, "2 _"]]
"""Wrong and right runs after k = 0, 1, ... revisions, by what was seen: bit j is change j + 1."""

HiddenSetting = tuple[float, float, float, float]
"""(belief before anything is seen, p_ic, p_ci, keep_wrong)."""

DecisionSetting = tuple[float, float, float, float]
"""(p_ic, p_ci, value, cost)."""

BlindSetting = tuple[float, float, float, float, float]
"""(belief, p_ic, p_ci, value, cost)."""

SeeingSetting = tuple[float, float, float, float, float, float]
"""(belief, p_ic, p_ci, keep_wrong, value, cost)."""

ScoreSetting = tuple[float, tuple[float, ...], tuple[float, ...]]
"""(belief, distribution of the score of right answers, distribution of that of wrong answers)."""

NamedSetting = tuple[float, float, float, float, int]
"""(belief before anything is seen, p_ic, p_ci, keep_wrong, wrong answers)."""

REVISIONS = 3
"""Revisions of which the changes are seen, and as many may be made.

Values are then interpolated between beliefs, which errs only where a kink lies between two of the
grid; no setting comes to such a place.
"""

_ROUNDS = 16
_LEFT = np.array([1, 3, _ROUNDS])
_BLIND_GRID = 21
_BELIEFS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
_TIE = 1e-12

HIDDEN: tuple[HiddenSetting, ...] = (
    (0.2, 0.3, 0.1, 0.8),
    (0.9, 0.4, 0.2, 0.5),
    (0.1, 0.7, 0.8, 0.3),  # r = -.5
    (0.6, 0.25, 0.75, 0.9),  # r = 0
    (0.35, 0.0, 0.0, 0.9),  # frozen: a change shows that the answer is wrong
    (0.3, 1.0, 1.0, 0.5),  # alternating: every revision changes the answer
    (1.0, 0.3, 0.2, 1.0),  # wrong answers are kept
    (0.0, 0.3, 0.2, 0.0),  # wrong answers are never kept
    (0.5, 0.2, 0.0, 1.0),  # a change is a repair
)
DECISIONS: tuple[DecisionSetting, ...] = (
    (0.3, 0.1, 1.0, 0.05),
    (0.3, 0.1, 2.0, 0.2),  # a tie at b = .5
    (0.2, 0.0, 1.0, 0.05),  # a tie at b = .75
    (0.7, 0.8, 1.0, 0.1),  # r = -.5
    (0.4, 0.2, 1.0, 0.0),  # free
    (0.3, 0.1, 1.0, 0.5),  # never pays
    (0.0, 0.2, 1.0, 0.05),
    (0.0, 0.0, 1.0, 0.1),  # frozen
    (1.0, 1.0, 5.0, 1.0),  # alternating
)
BLIND: tuple[BlindSetting, ...] = (
    (0.2, 0.3, 0.1, 1.0, 0.02),
    (0.2, 0.3, 0.1, 2.0, 0.5),  # does not pay
    (0.5, 0.3, 0.1, 2.0, 0.2),  # a tie
    (0.1, 0.7, 0.8, 1.0, 0.1),  # r = -.5
    (0.9, 0.8, 0.8, 1.0, 0.0),  # r = -.6: two rounds lose less than one
    (0.1, 0.2, 0.05, 1.0, 0.0),
    (0.35, 0.0, 0.0, 1.0, 0.1),
    (0.3, 1.0, 1.0, 1.0, 0.1),
)
SEEING: tuple[SeeingSetting, ...] = (
    (0.7, 0.5, 0.1, 0.2, 1.0, 0.1),  # one revision does not pay, several do
    (0.3, 0.3, 0.1, 0.8, 1.0, 0.02),
    (0.5, 0.25, 0.1, 0.9, 2.0, 0.05),
    (0.1, 0.7, 0.8, 0.3, 1.0, 0.05),  # r = -.5
    (0.6, 0.2, 0.1, 0.5, 1.0, 0.3),  # never pays
    (0.35, 0.0, 0.0, 0.9, 1.0, 0.1),  # frozen
    (0.3, 1.0, 1.0, 0.5, 1.0, 0.1),  # alternating
    (0.0, 0.3, 0.2, 1.0, 1.0, 0.04),  # certain
)
NAMED: tuple[NamedSetting, ...] = (
    (0.4, 0.3, 0.2, 0.6, 3),
    (0.8, 0.1, 0.3, 0.9, 3),  # revising hurts: the first answer is the best
    (0.3, 0.5, 0.05, 0.2, 5),
    (0.2, 0.7, 0.8, 0.3, 4),  # r = -.5
    (0.5, 0.2, 0.0, 0.5, 3),  # right answers stay
    (0.6, 0.0, 0.4, 0.5, 3),  # wrong answers are never repaired
    (1.0, 0.3, 0.2, 0.5, 3),  # right at first
)
SCORES: tuple[ScoreSetting, ...] = (
    (0.3, (0.1, 0.2, 0.3, 0.4), (0.4, 0.3, 0.2, 0.1)),
    (0.95, (0.05, 0.05, 0.1, 0.8), (0.1, 0.2, 0.3, 0.4)),
    (0.5, (0.0, 0.25, 0.25, 0.5), (0.5, 0.25, 0.25, 0.0)),  # the extreme scores settle it
    (0.001, (0.001, 0.009, 0.09, 0.9), (0.9, 0.09, 0.009, 0.001)),
    (0.0, (0.1, 0.2, 0.3, 0.4), (0.5, 0.25, 0.25, 0.0)),
    (1.0, (0.0, 0.2, 0.3, 0.5), (0.5, 0.25, 0.2, 0.05)),
)


def revisions(
    key: Key[Array, ""],
    laboratory: Laboratory,
    belief: float,
    p_ic: float,
    p_ci: float,
    run: str = "run",
) -> QuestionCounts:
    """Counts of runs of which a share `belief` is right at first; `run` names independent runs."""
    paths = np.array([laboratory.n_ensemble])
    start, repair, breaking = (np.array([p]) for p in (belief, p_ic, p_ci))
    return thin(generator(key), paths, start, repair, breaking, _ROUNDS)


def hidden_runs(
    key: Key[Array, ""], laboratory: Laboratory, setting: HiddenSetting, run: str = "run"
) -> RunCounts:
    """Wrong and right runs by what was seen of them; `run` names independent runs."""
    belief, p_ic, p_ci, keep_wrong = setting
    rng = generator(key)
    right = rng.binomial([laboratory.n_ensemble], belief)
    wrong = laboratory.n_ensemble - right
    counts = [np.stack([wrong, right])]
    for _ in range(REVISIONS):
        repaired, broken = rng.binomial(wrong, p_ic), rng.binomial(right, p_ci)
        replaced = rng.binomial(wrong - repaired, 1 - keep_wrong)
        wrong = np.concatenate([wrong - repaired - replaced, replaced + broken])
        right = np.concatenate([right - broken, repaired])
        counts.append(np.stack([wrong, right]))
    return counts


def named_answers(
    key: Key[Array, ""], laboratory: Laboratory, setting: NamedSetting
) -> Int[np.ndarray, " sequences"]:
    """How often every sequence of answers came, the last varying fastest; 0 is the right one."""
    rng = generator(key)
    start, move = _naming(setting)
    counts = rng.multinomial(laboratory.n_ensemble, start)
    for _ in range(REVISIONS):
        last = np.arange(len(counts)) % len(start)
        counts = rng.multinomial(counts, move[last]).reshape(-1)
    return counts


def scored_answers(
    key: Key[Array, ""], laboratory: Laboratory, setting: ScoreSetting
) -> Int[np.ndarray, "2 scores"]:
    """Wrong and right answers by their score."""
    belief, if_right, if_wrong = setting
    rng = generator(key)
    right = rng.binomial(laboratory.n_ensemble, belief)
    wrong = laboratory.n_ensemble - right
    return np.stack([rng.multinomial(wrong, if_wrong), rng.multinomial(right, if_right)])


def _chain(p_ic: float, p_ci: float, belief: float = 0.5) -> TwoStateChain:
    return TwoStateChain(belief, p_ic, p_ci)


def _predictions(setting: ChainSetting) -> ArrayLike:
    """Beliefs after 1, ..., _ROUNDS revisions, each from the one before."""
    return np.hstack(_predicted(_chain(*setting[1:]), setting[0], _ROUNDS)[1:])


def _predicted(chain: TwoStateChain, belief: float, rounds: int) -> list[ArrayLike]:
    """Beliefs after 0, ..., rounds revisions of which nothing is seen."""
    beliefs: list[ArrayLike] = [belief]
    predict = compiled(theory.predict)
    for _ in range(rounds):
        beliefs.append(predict(chain, beliefs[-1]))
    return beliefs


def _exact_predictions(setting: ChainSetting) -> Values:
    p0, p_ic, p_ci = setting
    return np.array(exact_curve(p0, p_ic, p_ci, _ROUNDS)[1:], float)


def _simulated_predictions(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    return of_counts(lab.run(revisions, *setting).correct[0, 1:], lab.n_ensemble, predicted)


def _decisions(setting: DecisionSetting) -> ArrayLike:
    """The threshold, and the decisions at `_BELIEFS`."""
    p_ic, p_ci, value, cost = setting
    chain = _chain(p_ic, p_ci)
    threshold = compiled(theory.continue_threshold)(chain, value, cost)
    return np.hstack([threshold, compiled(theory.worth_continuing)(chain, _BELIEFS, value, cost)])


def _exact_decisions(setting: DecisionSetting) -> Values:
    """From the net worth of one more round, which is linear in the belief."""
    p_ic, p_ci, value, cost = setting

    def net(belief: float) -> Fraction:
        before, after = exact_curve(belief, p_ic, p_ci, 1)
        return Fraction(value) * (after - before) - Fraction(cost)

    at_wrong, at_right = net(0.0), net(1.0)
    slope = at_right - at_wrong
    threshold = -at_wrong / slope if slope else -np.inf
    return np.array([float(threshold), *(net(belief) > _TIE for belief in _BELIEFS.tolist())])


def _one_round(lab: Laboratory, setting: BlindSetting, side: int) -> Evidence:
    """One round gains no less (side 1), no more (-1) or just as much (0) as it costs."""
    *start, value, cost = setting
    found, n = lab.run(revisions, *start), lab.n_ensemble
    repaired, broken = found.repaired[0, 0] / n, found.broken[0, 0] / n
    gain = repaired - broken
    variance = value**2 * (repaired + broken - gain**2) / n
    return of_means(value * gain, cost, variance, 2 * value / n, side)


def _simulated_decisions(lab: Laboratory, setting: DecisionSetting, predicted: Values) -> Evidence:
    p_ic, p_ci, value, cost = setting
    threshold, *decisions = predicted.tolist()
    parts = [
        _one_round(lab, (b, p_ic, p_ci, value, cost), 1 if round(continues) else -1)
        for b, continues in zip(_BELIEFS.tolist(), decisions, strict=True)
    ]
    if 0 <= threshold <= 1:
        parts.append(_one_round(lab, (threshold, p_ic, p_ci, value, cost), 0))
    return join(*parts)


def _with_horizon(function: Callable[..., Any]) -> Callable[..., Any]:
    return compiled(function, "horizon", "grid_size")


def _at(values: Array, belief: float) -> Values:
    """Column of a belief that lies on the grid, without the row of no revision left."""
    return np.asarray(values, float)[1:, round(belief * (values.shape[1] - 1))]


def _blind(setting: BlindSetting) -> ArrayLike:
    """Values with `_LEFT` revisions left, and whether one revision pays."""
    belief, p_ic, p_ci, value, cost = setting
    chain = _chain(p_ic, p_ci)
    best = _with_horizon(theory.optimal_continuation)(
        chain, value, cost, horizon=_ROUNDS, grid_size=_BLIND_GRID
    )
    pays = compiled(theory.worth_continuing)(chain, belief, value, cost)
    return np.hstack([_at(best.value_to_go, belief)[_LEFT - 1], pays])


def _exact_blind(setting: BlindSetting) -> Values:
    belief, p_ic, p_ci, value, cost = setting
    curve = exact_curve(belief, p_ic, p_ci, _ROUNDS)
    worth = [Fraction(value) * p - k * Fraction(cost) for k, p in enumerate(curve)]
    best = [float(max(worth[: left + 1])) for left in _LEFT.tolist()]
    return np.array([*best, float(max(worth) > worth[0] + Fraction(_TIE))])


def _simulated_blind(lab: Laboratory, setting: BlindSetting, predicted: Values) -> Evidence:
    """No number of rounds earns more, and the one that was best in a pilot earns as much."""
    *start, value, cost = setting
    n, spent = lab.n_ensemble, cost * np.arange(_ROUNDS + 1)
    pilot, run = (lab.run(revisions, *start, name).correct[0] / n for name in ("pilot", "run"))
    worth, variance, largest = value * run - spent, value**2 * run * (1 - run) / n, value / n
    *values, pays = predicted
    parts = []
    for left, best in zip(_LEFT.tolist(), values, strict=True):
        chosen = np.argmax((value * pilot - spent)[: left + 1])
        parts.append(of_means(worth[chosen], best, variance[chosen], largest))
        parts.append(of_means(worth[: left + 1], best, variance[: left + 1], largest, side=-1))
    if round(pays):
        parts.append(_one_round(lab, setting, 1))
    else:
        parts.append(of_means(worth, value * start[0], variance, largest, side=-1))
    return join(*parts)


def _seeing(setting: SeeingSetting) -> ArrayLike:
    """Values with 1, ..., REVISIONS revisions left, and where one-step look-ahead falls short."""
    belief, p_ic, p_ci, keep_wrong, value, cost = setting
    best, differs = (
        _with_horizon(function)(
            _chain(p_ic, p_ci), value, cost, horizon=REVISIONS, keep_wrong=keep_wrong
        )
        for function in (theory.optimal_continuation, theory.look_ahead_differs)
    )
    return np.hstack([_at(best.value_to_go, belief), _at(differs, belief)])


def exact_seeing(setting: SeeingSetting) -> Values:
    """Net value of going on with 1, 2, ... rounds left, and where only later rounds make it pay."""
    belief, p_ic, p_ci, keep_wrong, value, cost = map(Fraction, setting)

    def best(right: Fraction, wrong: Fraction, left: int) -> Fraction:
        """Worth of the best rule on all runs that have shown the same, right and wrong."""
        return max(value * right, going_on(right, wrong, left)) if left else value * right

    def going_on(right: Fraction, wrong: Fraction, left: int) -> Fraction:
        repaired, broken = wrong * p_ic, right * p_ci
        replaced = (wrong - repaired) * (1 - keep_wrong)
        kept = best(right - broken, wrong - repaired - replaced, left - 1)
        changed = best(repaired, broken + replaced, left - 1)
        return kept + changed - cost * (right + wrong)

    lefts, stopped = range(1, REVISIONS + 1), value * belief
    continued = [going_on(belief, 1 - belief, left) for left in lefts]
    pays = [gain > stopped + Fraction(_TIE) for gain in continued]
    return np.array(
        [float(max(stopped, gain)) for gain in continued]
        + [float(later and not pays[0]) for later in pays]
    )


def _rule_sums(
    counts: RunCounts, value: float, cost: float, left: int, done: int = 0, seen: int = 0
) -> Float[np.ndarray, "rules 2"]:
    """Sums of worth and of its square over runs, for every rule: which histories go on."""
    wrong, right = counts[done][:, seen]
    if_right, if_wrong = value - cost * done, -cost * done
    stop = [right * if_right + wrong * if_wrong, right * if_right**2 + wrong * if_wrong**2]
    if left == 0:
        return np.array([stop])
    kept, changed = (
        _rule_sums(counts, value, cost, left - 1, done + 1, later)
        for later in (seen, seen + 2**done)
    )
    return np.concatenate([[stop], (kept[:, None] + changed[None]).reshape(-1, 2)])


def _simulated_seeing(lab: Laboratory, setting: SeeingSetting, predicted: Values) -> Evidence:
    """No rule earns more, and the one that was best in a pilot earns as much."""
    belief, p_ic, p_ci, _, value, cost = setting
    n, stopped = lab.n_ensemble, value * belief
    pilot, run = (lab.run(hidden_runs, setting[:4], name) for name in ("pilot", "run"))
    parts = []
    for left, best, differs in zip(
        range(1, REVISIONS + 1), *predicted.reshape(2, REVISIONS), strict=True
    ):
        mean, square = _rule_sums(run, value, cost, left).T / n
        variance, largest = (square - mean**2) / n, (value + cost * left) / n
        chosen = np.argmax(_rule_sums(pilot, value, cost, left)[:, 0])
        parts.append(of_means(mean[chosen], best, variance[chosen], largest))
        parts.append(of_means(mean, best, variance, largest, side=-1))
        if round(differs):
            parts.append(_one_round(lab, (belief, p_ic, p_ci, value, cost), -1))
            parts.append(of_means(mean[chosen], stopped, variance[chosen], largest, side=1))
    return join(*parts)


def _scores(setting: ScoreSetting) -> ArrayLike:
    belief, if_right, if_wrong = setting
    with np.errstate(divide="ignore"):
        ratio = np.log(if_right) - np.log(if_wrong)
    return compiled(theory.update_on_score)(belief, ratio)


def _exact_scores(setting: ScoreSetting) -> Values:
    """Bayes' rule in fractions; who is certain stays so after an impossible score."""
    belief, distributions = Fraction(setting[0]), zip(*setting[1:], strict=True)
    posterior = []
    for if_right, if_wrong in distributions:
        right, wrong = belief * Fraction(if_right), (1 - belief) * Fraction(if_wrong)
        posterior.append(right / (right + wrong) if right + wrong else belief)
    return np.array([float(b) for b in posterior])


def _simulated_scores(lab: Laboratory, setting: ScoreSetting, predicted: Values) -> Evidence:
    wrong, right = lab.run(scored_answers, setting)
    seen = wrong + right > 0
    return of_counts(right[seen], (wrong + right)[seen], predicted[seen])


def _changes(setting: HiddenSetting) -> ArrayLike:
    """Belief after each sequence of changes, NaN if it cannot be, and its probability."""
    belief, p_ic, p_ci, keep_wrong = setting
    observed = (_chain(p_ic, p_ci, belief), all_paths(REVISIONS), keep_wrong)
    filtered = np.asarray(compiled(theory.filter_changes)(*observed))[:, -1]
    distribution = np.exp(compiled(theory.log_likelihood_of_changes)(*observed))
    return np.hstack([np.where(distribution > 0, filtered, np.nan), distribution])


def _hidden_paths(
    setting: HiddenSetting,
) -> tuple[Values, Values, Float[np.ndarray, "paths revisions"]]:
    """Distribution of the hidden paths, whether each ends right, and how likely its changes are."""
    belief, p_ic, p_ci, keep_wrong = setting
    paths = all_paths(REVISIONS + 1)
    before, after = paths[:, :-1], paths[:, 1:]
    changes = np.where(before != after, 1.0, np.where(before, 0.0, 1 - keep_wrong))
    distribution = path_distribution(belief, p_ic, p_ci, REVISIONS + 1)
    return distribution, paths[:, -1].astype(float), changes


def _exact_changes(setting: HiddenSetting) -> Values:
    distribution, ends_right, changes = _hidden_paths(setting)
    observed = all_paths(REVISIONS)
    shows = np.prod(np.where(observed, changes[:, None], 1 - changes[:, None]), axis=2)
    total = distribution @ shows
    with np.errstate(invalid="ignore"):
        return np.concatenate([(distribution * ends_right) @ shows / total, total])


def _simulated_changes(lab: Laboratory, setting: HiddenSetting, predicted: Values) -> Evidence:
    wrong, right = lab.run(hidden_runs, setting)[-1]
    belief, distribution = predicted.reshape(2, -1)
    seen = wrong + right > 0
    return join(
        of_counts(right[seen], (wrong + right)[seen], belief[seen]),
        of_counts(wrong + right, lab.n_ensemble, distribution),
    )


def _change_probabilities(setting: HiddenSetting) -> ArrayLike:
    """P(revision k changes the answer) for k = 1, ..., REVISIONS, nothing seen before."""
    belief, p_ic, p_ci, keep_wrong = setting
    chain = _chain(p_ic, p_ci)
    beliefs = np.hstack(_predicted(chain, belief, REVISIONS - 1))
    return compiled(theory.change_probability)(chain, beliefs, keep_wrong)


def _exact_change_probabilities(setting: HiddenSetting) -> Values:
    distribution, _, changes = _hidden_paths(setting)
    return distribution @ changes


def _simulated_change_probabilities(
    lab: Laboratory, setting: HiddenSetting, predicted: Values
) -> Evidence:
    runs = lab.run(hidden_runs, setting)
    # The latest change is the highest bit, so those that changed fill the second half.
    changed = [counts[:, counts.shape[1] // 2 :].sum() for counts in runs[1:]]
    return of_counts(np.array(changed), lab.n_ensemble, predicted)


def _naming(
    setting: NamedSetting,
) -> tuple[Float[np.ndarray, " name"], Float[np.ndarray, "name name"]]:
    """Distribution of the first answer, and of each given the one before; answer 0 is right."""
    belief, p_ic, p_ci, keep_wrong, m = setting
    start = np.array([belief, *[(1 - belief) / m] * m])
    move = np.full((m + 1, m + 1), (1 - p_ic) * (1 - keep_wrong) / (m - 1))
    np.fill_diagonal(move, (1 - p_ic) * keep_wrong)
    move[0], move[:, 0] = p_ci / m, p_ic
    move[0, 0] = 1 - p_ci
    return start, move


def _orders() -> Int[np.ndarray, "orders answers"]:
    """Every way in which answers can repeat each other, numbered by first appearance."""
    found = [[0]]
    for _ in range(REVISIONS):
        found = [[*order, number] for order in found for number in range(max(order) + 2)]
    return np.array(found)


def _by_order(
    setting: NamedSetting, weight: Float[np.ndarray, " sequences"] | Int[np.ndarray, " sequences"]
) -> Values:
    """Weight of every order of answers [order, j] in which answer number j is the right one.

    The last column is the weight of the order.
    """
    orders = {tuple(order): row for row, order in enumerate(_orders().tolist())}
    found = np.zeros((len(orders), REVISIONS + 2))
    names = np.ndindex(*[setting[-1] + 1] * (REVISIONS + 1))
    for sequence, w in zip(names, weight.tolist(), strict=True):
        number: dict[int, int] = {}
        row = orders[tuple(number.setdefault(name, len(number)) for name in sequence)]
        found[row, -1] += w
        if 0 in number:
            found[row, number[0]] += w
    return found


@cache
def _of_each_order(of_one: Callable[..., Array]) -> Callable[..., Array]:
    return jax.vmap(of_one, in_axes=(None, 0))


def _named_posteriors(setting: NamedSetting) -> ArrayLike:
    """P(answer number j is right) for every order of answers, one after the other."""
    belief, p_ic, p_ci, keep_wrong, m = setting
    distribution = AnswerDistribution(_chain(p_ic, p_ci, belief), keep_wrong, m)
    of_each = compiled(_of_each_order(answer_posterior))
    return np.asarray(of_each(distribution, _orders())).reshape(-1)


def _exact_named_posteriors(setting: NamedSetting) -> Values:
    start, move = _naming(setting)
    distribution = start
    for _ in range(REVISIONS):
        distribution = (distribution.reshape(-1, len(start))[..., None] * move).reshape(-1)
    *right, total = _by_order(setting, distribution).T
    return (np.array(right) / total).T.reshape(-1)


def _simulated_named_posteriors(
    lab: Laboratory, setting: NamedSetting, predicted: Values
) -> Evidence:
    found = _by_order(setting, lab.run(named_answers, setting)).astype(int)
    trials = np.broadcast_to(found[:, -1:], found[:, :-1].shape).reshape(-1)
    seen = trials > 0
    return of_counts(found[:, :-1].reshape(-1)[seen], trials[seen], predicted[seen])


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "C1.predict",
        "belief after an unseen revision: b' = p_ic + r b",
        "docs/theory.md C1",
        CHAINS,
        _predictions,
        _exact_predictions,
        _simulated_predictions,
        compiled=False,
    ),
    Claim(
        "C1.threshold",
        "one more revision pays iff b < (p_ic - c/V) / (p_ic + p_ci)",
        "docs/theory.md C1",
        DECISIONS,
        _decisions,
        _exact_decisions,
        _simulated_decisions,
        compiled=False,
    ),
    Claim(
        "C1.nothing_seen",
        "nothing seen, the best rule revises iff one revision pays",
        "docs/theory.md C1",
        BLIND,
        _blind,
        _exact_blind,
        _simulated_blind,
        compiled=False,
    ),
    Claim(
        "C1.look_ahead",
        "V_h(b) = max(V b, E[V_(h-1)(b')] - c), which can exceed one-step look-ahead",
        "docs/theory.md C1",
        SEEING,
        _seeing,
        exact_seeing,
        _simulated_seeing,
        compiled=False,
    ),
    Claim(
        "C2.score",
        "logit b' = logit b + log(f_C(s) / f_I(s))",
        "docs/theory.md C2",
        SCORES,
        _scores,
        _exact_scores,
        _simulated_scores,
        compiled=False,
    ),
    Claim(
        "C2.change",
        "b_k is the share of right answers among runs with the same changes",
        "docs/theory.md C2",
        HIDDEN,
        _changes,
        _exact_changes,
        _simulated_changes,
        compiled=False,
    ),
    Claim(
        "C2.change_probability",
        "P(changed) = b p_ci + (1-b) (p_ic + (1-p_ic) (1-rho))",
        "docs/theory.md C2",
        HIDDEN,
        _change_probabilities,
        _exact_change_probabilities,
        _simulated_change_probabilities,
        compiled=False,
    ),
    Claim(
        "C3.answers",
        "P(answer j is right) is the share of runs with the same order of answers in which it is",
        "docs/theory.md C3",
        NAMED,
        _named_posteriors,
        _exact_named_posteriors,
        _simulated_named_posteriors,
        compiled=False,
    ),
)
