"""How many more questions and rounds to record, judged before recording them.

A posterior says which runs to expect. For each design, so many new questions with so many rounds
each, future runs are simulated from draws of the posterior, the posterior is updated on them, and
what would be reported then is averaged: width of an interval, error of a decision, and worth of the
best number of rounds. Old and new questions share nothing but the parameters, so updating is
conjugate where the model has a closed form, and elsewhere reweights the draws by the likelihood of
the new runs.

Reference: docs/theory.md F7; Raiffa & Schlaifer (1961), Applied statistical decision theory;
Vehtari et al. (2024), Pareto smoothed importance sampling.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import arviz
import jax
import numpy as np
import scipy.special
from jaxtyping import Float, Int8, PRNGKeyArray
from scipy.stats import qmc

from inference.compare import HIGH_PARETO_K
from inference.fit import Fit
from inference.models.model import MISSING, BetaLaw, Draws
from inference.push_forward import INTERVAL, bounds, round_tokens
from inference.sample import host_generator, log_likelihoods, tabulate
from msjax.errors import InputError, require

Target = Literal["limit", "upper", "accuracy"]
FUTURES = 200
"""Future recordings simulated per design."""
_LOG2_POINTS = 9
"""Closed-form posteriors are averaged over 2^9 quasi-random points."""


@dataclass(frozen=True)
class Expected:
    """A mean over simulated futures and its Monte Carlo standard error."""

    mean: float
    standard_error: float


@dataclass(frozen=True)
class Design:
    """What to expect after recording `questions` new questions with `rounds` rounds each.

    Attributes:
        questions: new questions.
        rounds: rounds of revision of each.
        tokens: what recording costs, at the mean tokens per round of the runs so far.
        width: of the 90 % interval of the target (probability).
        first_round_error: probability that the more probable answer to "does the first round help?"
            is wrong.
        limit_error: the same for "do many rounds help?"; None for a model without a limit.
        evsi: expected value of sample information: how much more a question answered later is worth
            when its number of rounds is chosen after the recording (unit of value).
        pareto_k: Pareto shape of the weights exceeded in a tenth of the futures; None where
            updating is exact.
        ess: median effective number of draws then; None likewise.
    """

    questions: int
    rounds: int
    tokens: float
    width: Expected
    first_round_error: Expected
    limit_error: Expected | None
    evsi: Expected
    pareto_k: float | None
    ess: float | None

    @property
    def reliable(self) -> bool:
        """Whether reweighting is to be trusted in nine of ten futures."""
        return self.pareto_k is None or self.pareto_k <= HIGH_PARETO_K


@dataclass(frozen=True)
class Plan:
    """Designs in the order asked for, and what to expect without new runs and with all of them.

    `now` is the design without new questions, `evpi` the value of knowing the parameters exactly,
    which no recording exceeds (unit of value, per question answered later).
    """

    target: Target
    now: Design
    designs: tuple[Design, ...]
    evpi: Expected

    def smallest(self, enough: Callable[[Design], bool]) -> Design | None:
        """The reliable design of fewest tokens that is `enough`; None if none of those tried is."""
        reached = [d for d in (self.now, *self.designs) if d.reliable and enough(d)]
        return min(reached, key=lambda design: design.tokens, default=None)


class _Outlook(NamedTuple):
    """What designs are judged by, draw by draw: of each future, or `one` set of draws for all."""

    target: Float[np.ndarray, "one draw"]
    first_round_helps: Float[np.ndarray, "one draw"]
    limit_helps: Float[np.ndarray, "one draw"] | None
    net: Float[np.ndarray, "one draw k"]


class _Posteriors(NamedTuple):
    """The posterior in every future: draws, in common or of its own, with weights that sum to 1."""

    outlook: _Outlook
    weight: Float[np.ndarray, "future draw"]
    pareto_k: float | None


def plan(
    fit: Fit,
    key: PRNGKeyArray,
    *,
    questions: Sequence[int],
    rounds: Sequence[int],
    target: Target = "limit",
    value: float = 1.0,
    price: float = 1e-4,
) -> Plan:
    """What every design of so many new questions with so many rounds can be expected to show.

    All designs share the same 200 simulated futures, a smaller one seeing less of them, so that
    their differences are less noisy than their figures.

    Args:
        fit: the posterior so far.
        key: JAX key.
        questions: numbers of new questions, >= 1.
        rounds: numbers of rounds of revision, >= 1.
        target: whose interval is wanted: `limit` accuracy of refining everything, `upper` bound in
            the limit, `accuracy` after max(10, rounds observed) rounds.
        value: worth of a correct answer, > 0.
        price: price of a token in that unit, >= 0.

    Raises:
        InputError: a parameter that the runs do not identify; a target the model does not have;
            questions, rounds, value or price out of range.

    Reference: docs/theory.md F7.
    """
    _check(fit, questions, rounds, value, price)
    random = host_generator(key)
    shuffled = random.permutation(fit.sample.flat[fit.model.parameters[0]].size)
    truth = {name: values[shuffled[:FUTURES]] for name, values in fit.sample.flat.items()}
    others = {name: values[shuffled[FUTURES:]] for name, values in fit.sample.flat.items()}
    # Changes of the answer are seen from the first revision on, labels from the first answer on.
    extra = int(fit.model.sees == "labels")
    new = np.zeros((max(questions), 0), dtype=np.int8)
    runs = fit.model.continue_runs(random, truth, new, max(rounds) + extra)

    def look(draws: Draws) -> _Outlook:
        return _outlook(fit, draws, target, value, price)

    laws = fit.model.exact(fit.runs)
    update = (
        _Reweighting(fit, look, others) if laws is None else _Conjugate(fit, look, laws, random)
    )
    before = _means(update.now)
    tokens = np.pad(fit.count.tokens_per_round, (0, max(rounds)), mode="edge").cumsum()
    designs = [
        _judge(posteriors, before, n, k, n * float(tokens[k]))
        for k in rounds
        for n, posteriors in update.after(runs[..., : k + extra], questions)
    ]
    net = update.now.outlook.net[0]
    evpi = _expected(net.max(axis=1) - net[:, before.net[0].argmax()])
    return Plan(target, _judge(update.now, before, 0, 0, 0.0), tuple(designs), evpi)


class _Conjugate:
    """Closed-form posteriors, all at the same quasi-random quantiles, so that they compare well."""

    def __init__(
        self,
        fit: Fit,
        look: Callable[[Draws], _Outlook],
        laws: dict[str, BetaLaw],
        random: np.random.Generator,
    ) -> None:
        self._fit, self._look = fit, look
        points = qmc.Sobol(len(laws), rng=random).random_base2(_LOG2_POINTS)
        self._quantiles = dict(zip(laws, points.T, strict=True))
        self.now = self._posteriors([laws])

    def after(
        self, runs: Int8[np.ndarray, "future question column"], questions: Sequence[int]
    ) -> Iterator[tuple[int, _Posteriors]]:
        """The posteriors after the first n of the new questions, for every n."""
        seen = self._fit.runs
        columns = max(seen.shape[1], runs.shape[2])
        seen, runs = (
            np.pad(
                x, [(0, 0)] * (x.ndim - 1) + [(0, columns - x.shape[-1])], constant_values=MISSING
            )
            for x in (seen, runs)
        )
        for n in questions:
            found = [self._fit.model.exact(np.concatenate([seen, new[:n]])) for new in runs]
            yield n, self._posteriors([laws for laws in found if laws])

    def _posteriors(self, found: list[dict[str, BetaLaw]]) -> _Posteriors:
        draws = {}
        for name, points in self._quantiles.items():
            alpha, beta = np.array([laws[name] for laws in found]).T[..., None]
            draws[name] = scipy.special.betaincinv(alpha, beta, points)
        outlook = jax.tree.map(
            lambda x: x.reshape(len(found), -1, *x.shape[2:]),
            self._look({name: values.reshape(-1) for name, values in draws.items()}),
        )
        return _Posteriors(outlook, np.full_like(outlook.target, 1 / 2**_LOG2_POINTS), None)


class _Reweighting:
    """Posteriors as weights of present draws: the likelihoods of the new runs, Pareto smoothed."""

    def __init__(self, fit: Fit, look: Callable[[Draws], _Outlook], draws: Draws) -> None:
        self._model, self._draws = fit.model, draws
        self._outlook = look(draws)
        count = self._outlook.target.size
        self.now = _Posteriors(self._outlook, np.full((1, count), 1 / count), None)

    def after(
        self, runs: Int8[np.ndarray, "future question column"], questions: Sequence[int]
    ) -> Iterator[tuple[int, _Posteriors]]:
        """The posteriors after the first n of the new questions, for every n."""
        distinct, inverse = np.unique(runs.reshape(-1, runs.shape[2]), axis=0, return_inverse=True)
        table = tabulate(self._model, distinct)
        values = log_likelihoods(self._model, table, self._draws).T
        row = table.row[inverse].reshape(runs.shape[:2])
        for n in questions:
            times = np.stack([np.bincount(mine[:n], minlength=len(values)) for mine in row])
            with warnings.catch_warnings():
                # ArviZ warns of high Pareto shapes, which are returned and reported here.
                warnings.simplefilter("ignore")
                log_weight, shapes = arviz.psislw(times @ values)
            weight = np.exp(np.asarray(log_weight))
            yield n, _Posteriors(self._outlook, weight, float(np.quantile(shapes, 0.9)))


def _check(
    fit: Fit, questions: Sequence[int], rounds: Sequence[int], value: float, price: float
) -> None:
    needed = [name for name in fit.identified if name not in fit.model.nuisance]
    for name in needed:
        if not fit.identified[name]:
            raise InputError(
                f"benchmark {fit.count.benchmark!r}: the runs do not identify {name}, so its prior "
                "would decide the plan; first record a few runs that are not stopped by looking "
                f"at labels and show it, or take a model without {name}"
            )
    for field, numbers in (("questions", questions), ("rounds", rounds)):
        if not len(numbers):
            raise InputError(f"{field} is empty; give at least one number")
        require(field, numbers, lambda n: n >= 1, "a design needs at least one")
    require(
        "value", value, lambda x: np.isfinite(x) & (x > 0), "a right answer must be worth something"
    )
    require(
        "price", price, lambda x: np.isfinite(x) & (x >= 0), "give a finite price per token, >= 0"
    )


def _outlook(fit: Fit, draws: Draws, target: Target, value: float, price: float) -> _Outlook:
    costs = price * round_tokens(fit.count.tokens_per_round)
    curves = fit.model.curves(draws, len(costs))
    accuracy = np.einsum("dn,dnk->dk", curves.weight, curves.accuracy)
    start = accuracy[:, 0]
    if curves.limit is None:
        if target != "accuracy":
            raise InputError(
                f"target is {target!r}, but model {fit.model.name} says nothing of the limit; "
                "choose target 'accuracy' or another model"
            )
        wanted, limit_helps = accuracy[:, -1], None
    else:
        limit = bounds(curves, curves.limit)
        wanted = {"limit": limit.neutral, "upper": limit.upper, "accuracy": accuracy[:, -1]}[target]
        limit_helps = (limit.neutral > start).astype(float)
    outlook = _Outlook(
        target=wanted,
        first_round_helps=(accuracy[:, 1] > start).astype(float),
        limit_helps=limit_helps,
        net=value * accuracy - np.concatenate([[0], np.cumsum(costs)]),
    )
    return jax.tree.map(lambda values: values[None], outlook)


def _judge(
    posteriors: _Posteriors, before: _Outlook, questions: int, rounds: int, tokens: float
) -> Design:
    """Averages over futures, given the posterior means `before` them."""
    found = _means(posteriors)
    weight, pareto_k = posteriors.weight, posteriors.pareto_k

    def wrong(helps: np.ndarray, expected: np.ndarray) -> Expected:
        return _expected(np.minimum(helps, 1 - helps), helps - expected)

    limit_error = None
    if found.limit_helps is not None and before.limit_helps is not None:
        limit_error = wrong(found.limit_helps, before.limit_helps)
    return Design(
        questions=questions,
        rounds=rounds,
        tokens=tokens,
        width=_expected(_widths(posteriors.outlook.target, weight)),
        first_round_error=wrong(found.first_round_helps, before.first_round_helps),
        limit_error=limit_error,
        evsi=_expected(found.net.max(axis=1) - found.net[:, before.net[0].argmax()]),
        pareto_k=pareto_k,
        ess=None if pareto_k is None else float(np.median(1 / (weight**2).sum(axis=1))),
    )


def _means(posteriors: _Posteriors) -> _Outlook:
    """The outlook averaged over draws: [future] and [future, k]."""
    return jax.tree.map(
        lambda values: np.einsum("fd,fd...->f...", posteriors.weight, values), posteriors.outlook
    )


def _widths(
    values: Float[np.ndarray, "one draw"], weight: Float[np.ndarray, "future draw"]
) -> Float[np.ndarray, " future"]:
    """Widths of equal-tailed 90 % intervals of weighted draws."""
    values = np.broadcast_to(values, weight.shape)
    order = values.argsort(axis=1)
    values = np.take_along_axis(values, order, axis=1)
    below = np.take_along_axis(weight, order, axis=1).cumsum(axis=1)
    tail = (1 - INTERVAL) / 2
    low, high = ((below >= level).argmax(axis=1) for level in (tail, 1 - tail))
    future = np.arange(len(values))
    return values[future, high] - values[future, low]


def _expected(
    values: Float[np.ndarray, " future"], control: Float[np.ndarray, " future"] | None = None
) -> Expected:
    """Mean of what is >= 0; `control`, whose mean is 0, takes away the noise that it explains."""
    n = len(values)
    if control is not None and (spread := ((control - control.mean()) ** 2).sum()) > 0:
        values = values - (control - control.mean()) @ values / spread * control
    error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    return Expected(max(0.0, float(values.mean())), error)
