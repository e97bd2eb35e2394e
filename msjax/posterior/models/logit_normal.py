"""Question effects that are correlated: log-odds of p0, p_ic, p_ci from one normal distribution.

    (logit p0, logit p_ic, logit p_ci) of a question ~ Normal(mu, diag(sd) R diag(sd)).

The effects are integrated out. Given a question's rates its first answer is one Bernoulli trial, so
p0 enters by its conditional mean g = E[p0 | p_ic, p_ci] alone, and two dimensions are left:

    P(run) = sum_z w_z [g or 1 - g] p_ic^IC (1 - p_ic)^II p_ci^CI (1 - p_ci)^CC,

over fixed nodes z = (z_ic, z_ci) of the standard normal distribution, with
logit p_ic = mu_ic + sd_ic z_ic, logit p_ci = mu_ci + sd_ci (r z_ic + sqrt(1 - r^2) z_ci).

Reference: docs/theory.md F8; Lewandowski, Kurowicka & Joe (2009), Generating random correlation
matrices based on vines and extended onion method.
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.special
from jaxtyping import Array, Float, Int, Int8

from msjax.posterior.models.chains import UNIFORM, started, transition_counts
from msjax.posterior.models.model import ChainMixture, Chains, Draws, FirstRevision, Parameters
from msjax.posterior.models.prior import half_normal

SPREAD = half_normal(1.5)


class Rule(NamedTuple):
    """Nodes of a standard normal distribution and their probabilities, which sum to 1."""

    nodes: Float[np.ndarray, "dimension node"]
    weight: Float[np.ndarray, " node"]


def normal_rule(dimensions: int, spacing: float, radius: float) -> Rule:
    """The trapezoidal rule in a ball.

    On smooth integrands it is as fast as Gauss-Hermite's, whose tensor grid is mostly nodes
    without weight. The rule being a distribution itself, probabilities of all runs sum to 1.

    Reference: Trefethen & Weideman (2014), The exponentially convergent trapezoidal rule.
    """
    steps = int(radius / spacing)
    axis = spacing * np.arange(-steps, steps + 1)
    nodes = np.stack([x.ravel() for x in np.meshgrid(*[axis] * dimensions, indexing="ij")])
    square = (nodes**2).sum(axis=0)
    inside = square <= radius**2
    return Rule(
        nodes[:, inside].astype(np.float32),
        scipy.special.softmax(-square[inside] / 2).astype(np.float32),
    )


RATES_RULE = normal_rule(2, 0.5, 5.0)
"""Kinds of question (p_ic, p_ci): log P(run) is right to .01 for 10 rounds and sd <= 2.5."""

P0_RULE = normal_rule(1, 0.9, 4.5)
"""What the rates leave open of p0; the mean of a logistic is smoother than a run's probability."""

_MEAN = normal_rule(1, 0.5, 5.0)
_NEWTON_STEPS = 6


class Nodes(NamedTuple):
    """Log-odds at the nodes; p0 also at those of what the rates leave open."""

    p0: Float[Array, "*draw part node"]
    ic: Float[Array, "*draw node"]
    ci: Float[Array, "*draw node"]


class LogitNormal(ChainMixture):
    """Log-odds of p0, p_ic and p_ci of a question are jointly normal.

    `p0`, `p_ic`, `p_ci` are means over questions, as in the other models; `sd_*` are standard
    deviations of log-odds between questions and `corr_*` their correlations.

    One first answer per question does not tell a question whose p0 is .5 from two with p0 of 0 and
    1: the runs show how the mean g of p0 depends on the rates, and no more. Up to the shape of a
    logistic g has the slopes sd_p0 corr_p0_* / sqrt(1 + .35 v), v = sd_p0^2 (1 - R^2) being what
    the rates leave open. So `sd_p0` is not identified, and `corr_p0_ic`, `corr_p0_ci` are so in
    sign and ratio, while their size rests on the prior of sd_p0. Accuracies and bounds depend on g.

    Statistics of a question: started right, started wrong, I -> C, I -> I, C -> I, C -> C.
    """

    name = "logit_normal"
    says = "every question has log-odds of p0, p_ic, p_ci of its own, from one normal distribution"
    parameters = (
        "p0", "p_ic", "p_ci", "sd_p0", "sd_ic", "sd_ci", "corr_p0_ic", "corr_p0_ci", "corr_ic_ci"
    )  # fmt: skip
    distributions = dict.fromkeys(parameters[:3], UNIFORM) | dict.fromkeys(parameters[3:6], SPREAD)
    joint_prior = "correlations ~ LKJ(2)"
    nuisance: ClassVar[tuple[str, ...]] = ("sd_p0",)

    def statistics(
        self, correct: Int8[np.ndarray, "question answer"]
    ) -> Float[np.ndarray, "question statistic"]:
        ii, ic, ci, cc = transition_counts(correct).T
        return np.stack([*started(correct), ic, ii, ci, cc], axis=1).astype(np.float32)

    def prior(self) -> Parameters:
        sites = super().prior()
        root = numpyro.sample("root", dist.LKJCholesky(3, concentration=2.0))
        correlation = root @ root.T
        for name, (i, j) in {"p0_ic": (0, 1), "p0_ci": (0, 2), "ic_ci": (1, 2)}.items():
            sites[f"corr_{name}"] = numpyro.deterministic(f"corr_{name}", correlation[i, j])
        return sites

    def log_likelihood(
        self, parameters: Parameters, statistics: Float[Array, "row statistic"]
    ) -> Float[Array, " row"]:
        terms = jnp.vstack(
            [_log_terms(nodes_of(parameters, RATES_RULE, P0_RULE)), np.log(RATES_RULE.weight)]
        )
        joint = terms.T @ jnp.pad(statistics, ((0, 0), (0, 1)), constant_values=1).T
        # Nodes first and the sum written out: half the time of logsumexp over the last axis.
        most = jax.lax.stop_gradient(joint.max(axis=0))
        return jnp.log(jnp.exp(joint - most).sum(axis=0)) + most

    def identified(self, correct: Int8[np.ndarray, "question answer"]) -> dict[str, bool]:
        ii, ic, ci, cc = transition_counts(correct).T
        right, wrong = started(correct)
        from_i, from_c = ic + ii, ci + cc
        sd_ic, sd_ci = bool((from_i > 1).any()), bool((from_c > 1).any())
        return {
            "p0": bool((right | wrong).any()),
            "p_ic": bool(from_i.any()),
            "p_ci": bool(from_c.any()),
            "sd_p0": False,
            "sd_ic": sd_ic,
            "sd_ci": sd_ci,
            "corr_p0_ic": sd_ic and bool(from_i[right].any() and from_i[wrong].any()),
            "corr_p0_ci": sd_ci and bool(from_c[right].any() and from_c[wrong].any()),
            "corr_ic_ci": sd_ic and sd_ci and bool((from_i * from_c).any()),
        }

    def kinds(self, draws: Draws) -> tuple[Chains, Float[np.ndarray, "draw kind"]]:
        """Kinds are pairs of rates, and p0 of a kind is its mean given them."""
        nodes, _ = _nodes_of_draws(draws)
        p0, p_ic, p_ci = (scipy.special.expit(np.asarray(x, dtype=float)) for x in nodes)
        weight = np.broadcast_to(RATES_RULE.weight.astype(float), p_ic.shape)
        return Chains(P0_RULE.weight @ p0, p_ic, p_ci), weight

    def first_revision(self, draws: Draws) -> FirstRevision:
        """Among the questions that start wrong, or right, which differ in their rates."""
        (p0, p_ic, p_ci), weight = self.kinds(draws)

        def mean(rate: np.ndarray, among: np.ndarray) -> np.ndarray:
            return (among * rate).sum(axis=1) / np.maximum(among.sum(axis=1), 1e-300)

        return FirstRevision(mean(p_ic, weight * (1 - p0)), mean(p_ci, weight * p0))

    def question_chains(
        self,
        random: np.random.Generator,
        draws: Draws,
        statistics: Float[np.ndarray, "question statistic"],
    ) -> Chains:
        """The chain of each question at a node drawn given its run; p0 differs within a kind."""
        rows, row = np.unique(statistics, axis=0, return_inverse=True)
        row = row.reshape(-1)
        first = np.where(rows[:, 0] > 0, 1, np.where(rows[:, 1] > 0, 0, 2))[row]
        nodes, terms = _nodes_of_draws(draws)
        p0, p_ic, p_ci = (scipy.special.expit(np.asarray(x, dtype=float)) for x in nodes)
        chains = Chains(*(np.empty((len(p_ic), len(row))) for _ in range(3)))
        # Draw by draw: all draws, questions and nodes at once would not fit in memory.
        for i, (p, term) in enumerate(zip(p0, np.asarray(terms), strict=True)):
            log_weight = rows @ term + np.log(RATES_RULE.weight)
            node = choose(random, scipy.special.softmax(log_weight, axis=1), row)
            # First answer wrong, right, not seen.
            distribution = np.stack([1 - p, p, np.ones_like(p)]) * P0_RULE.weight[:, None]
            distribution = distribution.swapaxes(1, 2).reshape(-1, len(p))
            chains.p0[i] = p[choose(random, distribution, first * p.shape[1] + node), node]
            chains.p_ic[i], chains.p_ci[i] = p_ic[i, node], p_ci[i, node]
        return chains


def nodes_of(parameters: Parameters, rates: Rule, starts: Rule) -> Nodes:
    """Log-odds at the nodes of two rules: of the rates, and of what these leave open of p0."""
    sd = jnp.stack([parameters[name] for name in ("sd_p0", "sd_ic", "sd_ci")])
    mu = _location(jnp.stack([parameters[name] for name in ("p0", "p_ic", "p_ci")]), sd)
    # Cholesky factor of the correlations, in the order ic, ci, p0.
    r, on_ic = parameters["corr_ic_ci"], parameters["corr_p0_ic"]
    rest = jnp.sqrt(1 - r**2)
    on_ci = (parameters["corr_p0_ci"] - r * on_ic) / rest
    left = jnp.sqrt(jnp.maximum(1 - on_ic**2 - on_ci**2, 1e-9))
    z_ic, z_ci = rates.nodes
    return Nodes(
        mu[0] + sd[0] * (on_ic * z_ic + on_ci * z_ci + left * starts.nodes.T),
        mu[1] + sd[1] * z_ic,
        mu[2] + sd[2] * (r * z_ic + rest * z_ci),
    )


def _location(mean: Float[Array, " 3"], sd: Float[Array, " 3"]) -> Float[Array, " 3"]:
    """The mu with E[sigmoid(mu + sd z)] = mean, z standard normal.

    By Newton's method on log-odds, which are nearly linear in mu. Only the last step is
    differentiated: at the solution its derivative is that of the solution.
    """
    log_odds = jnp.log(mean) - jnp.log1p(-mean)

    def step(mu: Array, sd: Array, log_odds: Array) -> Array:
        yes, no = _yes_and_no(mu[:, None] + sd[:, None] * _MEAN.nodes)
        slope = (yes * no) @ _MEAN.weight
        yes, no = yes @ _MEAN.weight, no @ _MEAN.weight
        return mu - (jnp.log(yes / no) - log_odds) * jax.lax.stop_gradient(yes * no / slope)

    fixed = jax.lax.stop_gradient((sd, log_odds))
    mu = jax.lax.fori_loop(0, _NEWTON_STEPS, lambda _, mu: step(mu, *fixed), fixed[1])
    return step(mu, sd, log_odds)


def _yes_and_no(log_odds: Array) -> Array:
    """Probabilities p and 1 - p, each to its own relative precision; a new first axis."""
    return jax.nn.sigmoid(jnp.stack([log_odds, -log_odds]))


def _log_terms(nodes: Nodes) -> Float[Array, "6 node"]:
    """What each statistic adds to the log-probability of a run."""
    first = jnp.log(P0_RULE.weight @ _yes_and_no(nodes.p0))
    moves = jax.nn.log_sigmoid(jnp.stack([nodes.ic, -nodes.ic, nodes.ci, -nodes.ci]))
    return jnp.concatenate([first, moves])


@jax.jit
@jax.vmap
def _nodes_of_draws(draws: Parameters) -> tuple[Nodes, Array]:
    nodes = nodes_of(draws, RATES_RULE, P0_RULE)
    return nodes, _log_terms(nodes)


def choose(
    random: np.random.Generator,
    weight: Float[np.ndarray, "distribution node"],
    distribution: Int[np.ndarray, " question"],
) -> Int[np.ndarray, " question"]:
    """A node for every question from its distribution, by inversion of the cumulative one."""
    up_to = np.cumsum(weight, axis=1, dtype=float)
    up_to = up_to / up_to[:, -1:] + np.arange(len(weight))[:, None]
    found = np.searchsorted(
        up_to.ravel(), distribution + random.random(len(distribution)), side="right"
    )
    return np.minimum(found - distribution * weight.shape[1], weight.shape[1] - 1)
