"""How many more questions and rounds to record, judged before recording them.

A posterior says which runs to expect. For each design, so many new questions with so many rounds
each, future runs are simulated from draws of the posterior, the posterior is updated on them, and
what would be reported then is averaged: width of an interval, error of a decision, and worth of the
best number of rounds. Old and new questions share nothing but the parameters, so updating is
conjugate where the model has a closed form. Elsewhere the draws are reweighted by the likelihood of
the new runs, or where these say too much for that, replaced by weighted draws around the new mode.

Reference: docs/theory.md F7; Raiffa & Schlaifer (1961), Applied statistical decision theory;
Vehtari et al. (2024), Pareto smoothed importance sampling.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int8, PRNGKeyArray
from numpyro import handlers
from numpyro.infer.util import initialize_model

from msjax.data.runs import MISSING
from msjax.errors import InputError, require, require_value_and_cost
from msjax.intervals import LEVEL
from msjax.posterior.diagnostics import HIGH_PARETO_K, pareto_smoothed
from msjax.posterior.fits import Fit
from msjax.posterior.models.model import Draws, Model, Parameters
from msjax.posterior.quantities import bounds, round_tokens
from msjax.posterior.sample import host_generator, joint, log_likelihoods, tabulate

Target = Literal["limit", "upper", "accuracy"]
FUTURES = 200
"""Future recordings simulated, which all designs share."""
_LOG2_POINTS = 9
"""Closed-form posteriors are averaged over 2^9 quasi-random points."""
_REFITTED, _LOG2_REFIT = 50, 8
"""Futures of a design, and points of each, whose posterior is approached anew."""
_DEGREES, _WIDER = 5.0, 1.5
"""Proposals are t with 5 degrees of freedom, and wider than the curvature at the mode says, because
rates near 0 have skew posteriors."""
_NEWTON_STEPS = 25
_ROWS = 128
"""Tables of runs have a multiple of so many rows, so that one shape is compiled."""
_AT_ONCE = 2000
"""Draws that are carried through the curves together, to bound memory."""


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
        pareto_k: Pareto shape of the weights exceeded in a tenth of the futures, inf where none can
            be fitted; None where updating is exact.
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
        """Whether the weights are to be trusted in nine of ten futures."""
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
    price: float = 0.0,
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
    columns = np.arange(max(runs.shape[2], fit.runs.shape[1]))
    runs, seen = (_widened(x, len(columns)) for x in (runs, fit.runs))

    def look(draws: Draws) -> _Outlook:
        return _outlook(fit, draws, target, value, price)

    update = (
        _Weighting(fit.model, look, seen, others, random)
        if fit.model.closed_form(seen) is None
        else _Conjugate(fit.model, look, seen, random)
    )
    before = _means(update.now)
    usual = int(before.net[0].argmax())

    def regret(outlook: _Outlook) -> np.ndarray:
        return outlook.net[0].max(axis=1) - outlook.net[0, :, usual]

    evpi = _expected(regret(update.now.outlook))
    surplus = regret(look(truth)) - evpi.mean
    tokens = np.pad(fit.count.tokens_per_round, (0, max(rounds)), mode="edge").cumsum()
    designs = []
    for k in rounds:
        cut = np.where(columns < k + extra, runs, np.int8(MISSING))
        designs += [
            _judge(update.after(cut[:, :n]), before, surplus, n, k, n * float(tokens[k]))
            for n in questions
        ]
    now = _judge(update.now, before, np.zeros(1), 0, 0, 0.0)
    return Plan(target, now, tuple(designs), evpi)


class _Conjugate:
    """Closed-form posteriors, all at the same quasi-random quantiles, so that they compare well."""

    def __init__(
        self,
        model: Model,
        look: Callable[[Draws], _Outlook],
        seen: Int8[np.ndarray, "question column"],
        random: np.random.Generator,
    ) -> None:
        self._model, self._look, self._seen = model, look, seen
        self._points = _sobol(random, len(model.parameters), _LOG2_POINTS).T
        self.now = self.after(seen[None, :0])

    def after(self, runs: Int8[np.ndarray, "future new_question column"]) -> _Posteriors:
        """The posteriors given the old runs and each future's new ones."""
        found = [self._model.closed_form(np.concatenate([self._seen, new])) for new in runs]
        draws = {}
        for name, points in zip(self._model.parameters, self._points, strict=True):
            alpha, beta = np.array(
                [distributions[name] for distributions in found if distributions]
            ).T[..., None]
            draws[name] = scipy.special.betaincinv(alpha, beta, points)
        weight = np.full((len(runs), self._points.shape[1]), 1 / self._points.shape[1])
        return _Posteriors(_look_each(self._look, draws), weight, None)


class _Weighting:
    """Posteriors as weighted draws, Pareto smoothed."""

    def __init__(
        self,
        model: Model,
        look: Callable[[Draws], _Outlook],
        seen: Int8[np.ndarray, "question column"],
        draws: Draws,
        random: np.random.Generator,
    ) -> None:
        self._model, self._look, self._seen, self._draws = model, look, seen, draws
        uniform = _sobol(random, len(model.parameters) + 1, _LOG2_REFIT)
        spread = np.sqrt(_DEGREES / scipy.stats.chi2.ppf(uniform[:, :1], _DEGREES))
        self._steps = (scipy.stats.norm.ppf(uniform[:, 1:]) * spread).astype(np.float32)
        outlook = look(draws)
        count = outlook.target.size
        self.now = _Posteriors(outlook, np.full((1, count), 1 / count), None)

    def after(self, runs: Int8[np.ndarray, "future new_question column"]) -> _Posteriors:
        """The posteriors given the old runs and each future's new ones.

        The present draws are weighted by the likelihood of the new runs. Where that fails, the
        posteriors of the first 50 futures are sampled from t distributions around their modes.
        """
        old = np.broadcast_to(self._seen, (len(runs), *self._seen.shape))
        both = np.concatenate([old, runs], axis=1)
        distinct, inverse = np.unique(both.reshape(-1, both.shape[2]), axis=0, return_inverse=True)
        table = tabulate(self._model, distinct)
        row = table.row[inverse].reshape(both.shape[:2])
        size = len(table.statistics)
        times = np.stack([np.bincount(one, minlength=size) for one in row])
        added = times - np.bincount(row[0, : len(self._seen)], minlength=size)
        values = log_likelihoods(self._model, table, self._draws)
        weight, pareto_k = smoothed_weights(added @ values.T)
        if pareto_k <= HIGH_PARETO_K:
            return _Posteriors(self.now.outlook, weight, pareto_k)
        unused = -size % _ROWS
        draws, log_weight = _draws_around_modes(
            self._model,
            np.pad(table.statistics, ((0, unused), (0, 0)), mode="edge"),
            np.pad(times[:_REFITTED], ((0, 0), (0, unused))).astype(np.float32),
            self._steps,
        )
        outlook = _look_each(self._look, {name: np.asarray(x, float) for name, x in draws.items()})
        return _Posteriors(outlook, *smoothed_weights(np.asarray(log_weight, dtype=float)))


@partial(jax.jit, static_argnums=0)
def _draws_around_modes(
    model: Model,
    statistics: Float[Array, "row statistic"],
    multiplicity: Float[Array, "future row"],
    steps: Float[Array, "draw coordinate"],
) -> tuple[dict[str, Float[Array, "future draw"]], Float[Array, "future draw"]]:
    """Draws from a t distribution around each future's mode, and their log importance weights.

    Modes and curvatures are those of the density of unconstrained parameters, by damped Newton
    steps; `steps` are standard t variates.
    """
    free = {name: jnp.ones(()) for name in model.parameters}
    info, potential_of, constrain_of, _ = initialize_model(
        jax.random.key(0),
        joint,
        model_args=(model, free, statistics, multiplicity[0]),
        dynamic_args=True,
    )
    start, unravel = ravel_pytree(jax.tree.map(jnp.zeros_like, info.z))
    halves = 0.5 ** jnp.arange(6.0)

    def one(multiplicity: Array) -> tuple[Parameters, Array]:
        arguments = (model, free, statistics, multiplicity)

        def potential(z: Array) -> Array:
            return potential_of(*arguments)(unravel(z))

        def axes(z: Array) -> tuple[Array, Array]:
            curvature, vectors = jnp.linalg.eigh(jax.hessian(potential)(z))
            return jnp.maximum(jnp.abs(curvature), 1e-2), vectors

        def newton(z: Array, _: None) -> tuple[Array, None]:
            curvature, vectors = axes(z)
            step = -vectors @ ((vectors.T @ jax.grad(potential)(z)) / curvature)
            step = step * jnp.minimum(1.0, 2.0 / jnp.linalg.norm(step))
            tried = z + halves[:, None] * step
            heights = jax.vmap(potential)(tried)
            return tried[jnp.argmin(jnp.where(jnp.isfinite(heights), heights, jnp.inf))], None

        def parameters(z: Array) -> Parameters:
            sites = constrain_of(*arguments)(unravel(z))
            return handlers.substitute(model.prior, data=sites)()

        mode, _ = jax.lax.scan(newton, start, length=_NEWTON_STEPS)
        curvature, vectors = axes(mode)
        drawn = mode + (_WIDER * steps / jnp.sqrt(curvature)) @ vectors.T
        power = (_DEGREES + start.size) / 2
        log_proposal = -power * jnp.log1p((steps**2).sum(axis=1) / _DEGREES)
        return jax.vmap(parameters)(drawn), -jax.vmap(potential)(drawn) - log_proposal

    return jax.vmap(one)(multiplicity)


def smoothed_weights(
    log_weight: Float[np.ndarray, "future draw"],
) -> tuple[Float[np.ndarray, "future draw"], float]:
    """Pareto smoothed weights that sum to 1, and the shape exceeded in a tenth of the futures."""
    log_smoothed, shapes = pareto_smoothed(log_weight)
    return np.exp(log_smoothed), float(np.quantile(shapes, 0.9, method="higher"))


def _sobol(random: np.random.Generator, dimension: int, log2: int) -> np.ndarray:
    return scipy.stats.qmc.Sobol(dimension, rng=random).random_base2(log2)


def _widened(
    runs: Int8[np.ndarray, "*any column"], columns: int
) -> Int8[np.ndarray, "*any all_columns"]:
    unseen = [(0, 0)] * (runs.ndim - 1) + [(0, columns - runs.shape[-1])]
    return np.pad(runs, unseen, constant_values=MISSING)


def _look_each(look: Callable[[Draws], _Outlook], draws: Draws) -> _Outlook:
    """The outlook of draws [future, draw]."""
    shape = next(iter(draws.values())).shape
    flat = {name: values.reshape(-1) for name, values in draws.items()}
    parts = [
        look({name: values[i : i + _AT_ONCE] for name, values in flat.items()})
        for i in range(0, shape[0] * shape[1], _AT_ONCE)
    ]
    return jax.tree.map(
        lambda *x: np.concatenate(x, axis=1).reshape(*shape, *x[0].shape[2:]), *parts
    )


def _check(
    fit: Fit, questions: Sequence[int], rounds: Sequence[int], value: float, price: float
) -> None:
    needed = [name for name in fit.identified if name not in fit.model.nuisance]
    for name in needed:
        if not fit.identified[name]:
            raise InputError(
                f"benchmark {fit.count.name!r}: the runs do not identify {name}, so its prior "
                "would decide the plan; first record a few runs that are not stopped by looking "
                f"at labels and show it, or take a model without {name}"
            )
    for field, numbers in (("questions", questions), ("rounds", rounds)):
        if not len(numbers):
            raise InputError(f"{field} is empty; give at least one number")
        require(field, numbers, lambda n: n >= 1, "a design needs at least one")
    require_value_and_cost(value, price=price)


def _outlook(fit: Fit, draws: Draws, target: Target, value: float, price: float) -> _Outlook:
    costs = price * round_tokens(fit.count.tokens_per_round)
    curves = fit.model.curves(draws, len(costs))
    accuracy = curves.mean_accuracy
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
    posteriors: _Posteriors,
    before: _Outlook,
    surplus: Float[np.ndarray, " all_futures"],
    questions: int,
    rounds: int,
    tokens: float,
) -> Design:
    """Averages over futures.

    `before` are the posterior means without new runs; `surplus` is by how much it is worth more
    than on average to know the parameters of each future.
    """
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
        evsi=_expected(_gains(posteriors, int(before.net[0].argmax())), surplus[: len(weight)]),
        pareto_k=pareto_k,
        ess=None if pareto_k is None else float(np.median(1 / (weight**2).sum(axis=1))),
    )


def _means(posteriors: _Posteriors) -> _Outlook:
    """The outlook averaged over draws: [future] and [future, k]."""
    return jax.tree.map(
        lambda values: np.einsum("fd,fd...->f...", posteriors.weight, values), posteriors.outlook
    )


def _gains(posteriors: _Posteriors, usual: int) -> Float[np.ndarray, " future"]:
    """By how much the best number of rounds beats the usual one.

    It is chosen by one half of the draws and judged by the other, and the reverse, because the best
    of several noisy means looks better than it is.
    """
    half = posteriors.weight.shape[1] // 2
    means = []
    for part in (slice(None, half), slice(half, None)):
        weight = posteriors.weight[:, part]
        mean = np.einsum("fd,fdk->fk", weight, posteriors.outlook.net[:, part])
        means.append(mean / weight.sum(axis=1, keepdims=True))
    future = np.arange(len(means[0]))
    return sum(
        (judge[future, choose.argmax(axis=1)] - judge[:, usual]) / 2
        for choose, judge in (means, means[::-1])
    )


def _widths(
    values: Float[np.ndarray, "one draw"], weight: Float[np.ndarray, "future draw"]
) -> Float[np.ndarray, " future"]:
    """Widths of equal-tailed 90 % intervals of weighted draws."""
    values = np.broadcast_to(values, weight.shape)
    order = values.argsort(axis=1)
    values = np.take_along_axis(values, order, axis=1)
    below = np.take_along_axis(weight, order, axis=1).cumsum(axis=1)
    tail = (1 - LEVEL) / 2
    low, high = ((below >= level).argmax(axis=1) for level in (tail, 1 - tail))
    future = np.arange(len(values))
    return values[future, high] - values[future, low]


def _expected(
    values: Float[np.ndarray, " future"], control: Float[np.ndarray, " future"] | None = None
) -> Expected:
    """Mean of what is >= 0, with a jackknife-like standard error (HC3).

    `control`, whose mean is 0, takes away the noise that it explains by regression, unless one
    future has most of its spread.
    """
    n = len(values)
    share, leverage = np.full(n, 1 / n), np.full(n, 1 / n)
    residual = values - values.mean()
    if control is not None:
        apart = control - control.mean()
        spread = apart @ apart
        if spread > 0 and (apart**2).max() < spread / 2:
            share = share - control.mean() * apart / spread
            leverage = leverage + apart**2 / spread
            residual = residual - (apart @ values) / spread * apart
    error = np.sqrt(((share * residual / (1 - leverage)) ** 2).sum()) if n > 1 else 0.0
    return Expected(max(0.0, float(share @ values)), float(error))
