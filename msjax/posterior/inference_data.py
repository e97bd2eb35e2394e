"""A posterior as ArviZ has it: groups of arrays with named axes and coordinates.

    posterior, prior         p0, p_ic, p_ci and accuracy of every benchmark, averaged over models
    log_likelihood           of every question's run under each draw of the posterior
    posterior_predictive, prior_predictive    runs of new questions, as long as those recorded
    observed_data            the runs
    sample_stats             what NUTS reports of each draw, where it drew them
    quantities               limits and bounds; NaN under models that say nothing of them
    constant_data            weights of models, tokens per round, what is identified
    models/NAME/...          posterior, prior, log_likelihood and sample_stats of one model, of its
                             own parameters

Draws of an average are independent, in random order and in four chains. Runs of all benchmarks
follow each other along one axis, so that no likelihood is missing. What is not identified has draws
from its prior; `constant_data` says of what that is so.

Reference: the InferenceData schema of ArviZ.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, Int8, Shaped

from msjax.data.runs import MISSING, Runs
from msjax.posterior.average import DRAWS, apportion
from msjax.posterior.fits import Fit
from msjax.posterior.models.model import Draws
from msjax.posterior.predictive import replicates
from msjax.posterior.quantities import Bounds
from msjax.posterior.sample import log_likelihoods, sample_prior, tabulate

if TYPE_CHECKING:
    from msjax.posterior.posterior import Posterior

__all__ = ["Group", "Variable", "groups"]

_CHAINS = 4
_PREDICTED = 100
"""Draws that new runs are simulated from."""
_AT_ONCE = 1000
"""Draws that are carried through accuracy curves together."""
PER_QUESTION = 20_000
"""Questions up to which there are groups with an entry for each of them; of more they would take
gigabytes, while everything else takes the same for any number.
"""
_OF_NUTS = {"accept_prob": "acceptance_rate", "num_steps": "n_steps"}
"""ArviZ's names for what NumPyro reports; the others are the same."""


class Variable(NamedTuple):
    """An array and the names of its axes."""

    axes: tuple[str, ...]
    values: Shaped[np.ndarray, "..."]


Group = dict[str, Variable]


class _Source(NamedTuple):
    """Draws of one benchmark: models with their draws, one after the other, and their order."""

    runs: Runs
    parts: list[tuple[Fit, Draws]]
    order: Int[np.ndarray, "chain draw"]

    def each(
        self, function: Callable[[Fit, Draws], Shaped[np.ndarray, "part *any"]]
    ) -> Shaped[np.ndarray, "chain draw *any"]:
        """A function of every draw, in chains."""
        return np.concatenate([function(fit, draws) for fit, draws in self.parts])[self.order]


def groups(found: "Sequence[Posterior]", seed: int = 0) -> dict[str, Group]:
    """Posteriors of several benchmarks, as groups by path.

    Args:
        found: one posterior per benchmark.
        seed: of new runs, and of draws from priors.
    """
    random = np.random.default_rng(seed)
    horizon = min(post.draws.bounds.neutral.shape[1] for post in found)
    likelihood = _likelihood()

    def tree(
        fits: Sequence[Sequence[Fit]],
        weights: Sequence[Sequence[float]],
        variables: Callable[[Sequence[_Source]], Group],
        predict: bool = False,
    ) -> dict[str, Group]:
        sources = _alike([_posterior(f, w, random) for f, w in zip(fits, weights, strict=True)])
        priors = [_prior(f, random) for f in fits]
        found = {
            "posterior": variables(sources),
            "prior": variables(priors),
            "sample_stats": _sample_stats(sources),
        }
        if sum(each[0].count.questions for each in fits) > PER_QUESTION:
            return found
        found["log_likelihood"] = _log_likelihood(sources, likelihood)
        if predict:
            found["posterior_predictive"] = _new_runs(sources, random)
            found["prior_predictive"] = _new_runs(priors, random)
            found["observed_data"] = _observed(sources)
        return found

    fits = [[c.fit for c in post.candidates if c.fit] for post in found]
    weights = [[c.weight for c in post.candidates if c.fit] for post in found]
    result = tree(fits, weights, lambda sources: _rates(sources, horizon), predict=True)
    result["quantities"] = _quantities(found)
    result["constant_data"] = _constant(found)
    for name in dict.fromkeys(fit.model.name for each in fits for fit in each):
        of_model = [[fit] for each in fits for fit in each if fit.model.name == name]
        of_this = tree(of_model, [[1.0]] * len(of_model), _parameters)
        result |= {f"models/{name}/{group}": x for group, x in of_this.items()}
    return {path: group for path, group in result.items() if group}


def _posterior(
    fits: Sequence[Fit], weights: Sequence[float], random: np.random.Generator
) -> _Source:
    """Draws of one model as they came, or of an average over models in random order."""
    if len(fits) == 1:
        # What NUTS says of its energy is about consecutive draws, so all are kept.
        (fit,) = fits
        draws = fit.sample.flat if fit.sample.stats else fit.draws
        number = len(next(iter(draws.values())))
        chains = len(next(iter(fit.sample.draws.values())))
        chains = chains if number % chains == 0 else 1
        return _Source(fit.count, [(fit, draws)], np.arange(number).reshape(chains, -1))
    shares = apportion(weights, DRAWS)
    parts = [
        (fit, {name: x[:share] for name, x in fit.draws.items()})
        for fit, share in zip(fits, shares, strict=True)
        if share
    ]
    return _Source(fits[0].count, parts, random.permutation(DRAWS).reshape(_CHAINS, -1))


def _prior(fits: Sequence[Fit], random: np.random.Generator) -> _Source:
    """Draws before any data, where every model is as probable as the others."""
    parts = [
        (fit, sample_prior(fit.model, jax.random.key(random.integers(2**31)), share))
        for fit, share in zip(fits, apportion([1.0] * len(fits), DRAWS), strict=True)
    ]
    return _Source(fits[0].count, parts, random.permutation(DRAWS).reshape(_CHAINS, -1))


def _alike(sources: Sequence[_Source]) -> Sequence[_Source]:
    """The sources with as many chains and draws each: those they have, if these are the same."""
    if len({source.order.shape for source in sources}) == 1:
        return sources
    return [
        source._replace(
            order=source.order.ravel()[
                np.linspace(0, source.order.size - 1, DRAWS).astype(int)
            ].reshape(_CHAINS, -1)
        )
        for source in sources
    ]


def _rates(sources: Sequence[_Source], horizon: int) -> Group:
    """What has one meaning whatever the model: see `msjax.posterior.quantities.Quantities`."""

    def accuracy(fit: Fit, draws: Draws) -> Float[np.ndarray, "part round"]:
        number = len(next(iter(draws.values())))
        pieces = [
            {name: x[i : i + _AT_ONCE] for name, x in draws.items()}
            for i in range(0, number, _AT_ONCE)
        ]
        return np.concatenate(
            [fit.model.curves(piece, horizon - 1).mean_accuracy for piece in pieces]
        )

    curves = [source.each(accuracy) for source in sources]
    first = [
        source.each(lambda fit, draws: np.stack(fit.model.first_revision(draws), axis=1))
        for source in sources
    ]
    axes = ("chain", "draw", "benchmark")
    rates = {
        "p0": Variable(axes, np.stack([x[..., 0] for x in curves], axis=2)),
        "p_ic": Variable(axes, np.stack([x[..., 0] for x in first], axis=2)),
        "p_ci": Variable(axes, np.stack([x[..., 1] for x in first], axis=2)),
        "accuracy": Variable((*axes, "round"), np.stack(curves, axis=2)),
    }
    return rates | _coordinates(rates, sources)


def _parameters(sources: Sequence[_Source]) -> Group:
    """The parameters of the one model that all sources have."""

    def of(name: str) -> Variable:
        values = [source.each(lambda fit, draws: draws[name]) for source in sources]
        return Variable(("chain", "draw", "benchmark"), np.stack(values, axis=2))

    found = {name: of(name) for name in sources[0].parts[0][0].model.parameters}
    return found | _coordinates(found, sources)


def _likelihood() -> Callable[[Fit, Draws], Float[np.ndarray, "part question"]]:
    """Log-probability of each question's runs; of 1,000 draws at a time, as these are compiled."""
    known: dict[int, Float[np.ndarray, "draw question"]] = {}

    def of(fit: Fit, draws: Draws) -> Float[np.ndarray, "part question"]:
        number, kept = len(next(iter(draws.values()))), fit.draws
        all_draws = number > len(next(iter(kept.values())))
        if all_draws or id(fit) not in known:
            table = tabulate(fit.model, fit.runs)
            found = log_likelihoods(fit.model, table, draws if all_draws else kept)[:, table.row]
            if all_draws:
                return found
            known[id(fit)] = found
        return known[id(fit)][:number]

    return of


def _log_likelihood(
    sources: Sequence[_Source],
    likelihood: Callable[[Fit, Draws], Float[np.ndarray, "part question"]],
) -> Group:
    each = [source.each(likelihood).astype(np.float32) for source in sources]
    found = {_seen(sources): Variable(("chain", "draw", "question"), np.concatenate(each, axis=2))}
    return found | _coordinates(found, sources)


def _new_runs(sources: Sequence[_Source], random: np.random.Generator) -> Group:
    order = random.permutation(_PREDICTED)
    each: list[np.ndarray] = []
    for source in sources:
        shares = apportion(
            [float(len(next(iter(draws.values())))) for _, draws in source.parts], _PREDICTED
        )
        new = [
            replicates(fit, {name: x[:share] for name, x in draws.items()}, random)
            for (fit, draws), share in zip(source.parts, shares, strict=True)
            if share
        ]
        each.append(np.concatenate(new)[order])
    together = _together(each)
    runs = together.reshape(_CHAINS, -1, *together.shape[1:])
    found = {_seen(sources): Variable(("chain", "draw", *_axes(sources)), runs)}
    return found | _coordinates(found, sources)


def _observed(sources: Sequence[_Source]) -> Group:
    runs = _together([source.parts[0][0].runs for source in sources])
    found = {_seen(sources): Variable(_axes(sources), runs)}
    return found | _coordinates(found, sources)


def _sample_stats(sources: Sequence[_Source]) -> Group:
    """What NUTS reports; nothing where not all draws are its own."""
    stats = [source.parts[0][0].sample.stats for source in sources]
    whole = all(len(source.parts) == 1 for source in sources)
    shape = sources[0].order.shape
    if not (whole and all(x and next(iter(x.values())).shape == shape for x in stats)):
        return {}
    found = {
        _OF_NUTS.get(name, name): Variable(
            ("chain", "draw", "benchmark"), np.stack([x[name] for x in stats], axis=2)
        )
        for name in stats[0]
    }
    return found | _coordinates(found, sources)


def _quantities(found: "Sequence[Posterior]") -> Group:
    """Limits and bounds, as `Posterior` has them; their draws are those of no other group."""
    size = min(len(post.draws.p0) for post in found)
    result = {
        f"limit_{name}": Variable(
            ("draw", "benchmark"),
            np.stack([getattr(post.draws.limit, name)[:size] for post in found], axis=1),
        )
        for name in Bounds._fields
    }
    names = np.array([post.runs.name for post in found], dtype=object)
    return result | {
        "draw": Variable(("draw",), np.arange(size)),
        "benchmark": Variable(("benchmark",), names),
    }


def _constant(found: "Sequence[Posterior]") -> Group:
    runs = [post.runs for post in found]
    names = list(dict.fromkeys(name for post in found for name in post.models))

    def of_each(values: Sequence[object], kind: type = object) -> Variable:
        return Variable(("benchmark",), np.array(values, dtype=kind))

    tokens = _padded([x.tokens_per_round for x in runs], np.nan)
    weights = np.array([[post.models.get(name, 0.0) for name in names] for post in found])
    return {
        "model": of_each([post.leading.model.name for post in found]),
        "language_model": of_each([x.model for x in runs]),
        "tokens_per_round": Variable(("benchmark", "answer"), tokens),
        "identified": of_each([post.known for post in found], bool),
        **{
            f"identified_{name}": of_each([getattr(post, name).identified for post in found], bool)
            for name in ("p0", "p_ic", "p_ci")
        },
        "censored": of_each([x.n_censored > 0 for x in runs], bool),
        "contradicted": of_each([post.contradicted for post in found], bool),
        "weight": Variable(("benchmark", "fitted_model"), weights),
        "fitted_model": Variable(("fitted_model",), np.array(names, dtype=object)),
        "benchmark": of_each([x.name for x in runs]),
        "answer": Variable(("answer",), np.arange(tokens.shape[1])),
    }


def _seen(sources: Sequence[_Source]) -> str:
    """What the data say of each answer."""
    return "correct" if sources[0].parts[0][0].model.sees == "labels" else "changed"


def _axes(sources: Sequence[_Source]) -> tuple[str, str]:
    """Of runs: questions, unless some were run several times; answers, or rounds that changed."""
    repeated = any(source.runs.repeated for source in sources)
    return "run" if repeated else "question", "answer" if _seen(sources) == "correct" else "round"


def _together(runs: Sequence[Int8[np.ndarray, "*draw _ _"]]) -> Int8[np.ndarray, "*draw run _"]:
    """Runs of all benchmarks, one after the other, -1 beyond the answers of one."""
    width = max(x.shape[-1] for x in runs)
    fill = [(0, 0)] * (runs[0].ndim - 1)
    padded = [np.pad(x, [*fill, (0, width - x.shape[-1])], constant_values=MISSING) for x in runs]
    return np.concatenate(padded, axis=-2)


def _padded(rows: Sequence[np.ndarray], fill: float) -> np.ndarray:
    padded = np.full((len(rows), max(len(row) for row in rows)), fill)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded


def _coordinates(variables: Group, sources: Sequence[_Source]) -> Group:
    """Names and numbers along the axes of the variables."""
    sizes = {
        axis: size
        for variable in variables.values()
        for axis, size in zip(variable.axes, variable.values.shape, strict=True)
    }
    several = len(sources) > 1

    def names(unique: bool) -> np.ndarray:
        found = []
        for source in sources:
            ids = list(source.runs.question_ids)
            ids = list(dict.fromkeys(ids)) if unique else ids
            found += [f"{source.runs.name}: {name}" if several else name for name in ids]
        return np.array(found, dtype=object)

    texts = {
        "benchmark": lambda: np.array([source.runs.name for source in sources], dtype=object),
        "question": lambda: names(unique=True),
        "run": lambda: names(unique=False),
    }
    return {
        axis: Variable((axis,), texts[axis]() if axis in texts else np.arange(size))
        for axis, size in sizes.items()
    }
