"""What every model of recorded runs offers: a prior, a likelihood, and what follows from them.

A model describes the runs of one benchmark: which answers were right, question by question and
round by round. It reduces each question to sufficient statistics, so that its likelihood never
holds one latent variable per transition, and what differs from question to question is integrated
out. Everything a fit needs, and everything that is done with one (prediction, comparison, bounds),
goes through the methods below.
"""

import abc
import copy
from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
import numpyro
from jaxtyping import Array, Bool, Float, Int8

from msjax.errors import InputError
from msjax.posterior.models.prior import Prior, in_words, prior_of

Some = TypeVar("Some", bound="Model")

Parameters = dict[str, Array]
"""Values of a model's parameters: scalars inside the model, [draw] outside it."""

Draws = dict[str, np.ndarray]
"""Posterior or prior draws of a model's parameters, each [draw]."""


class Curves(NamedTuple):
    """Accuracy of a benchmark's kinds of question, draw by draw.

    Attributes:
        weight: share of each kind (probability), rows sum to 1.
        accuracy: P(right after k rounds) of each kind, k = 0..K.
        limit: the same for k to infinity; None where the model says nothing of it.
    """

    weight: Float[np.ndarray, "draw kind"]
    accuracy: Float[np.ndarray, "draw kind k"]
    limit: Float[np.ndarray, "draw kind"] | None

    @property
    def mean_accuracy(self) -> Float[np.ndarray, "draw k"]:
        """Accuracy of the benchmark, over its kinds."""
        return np.einsum("dn,dnk->dk", self.weight, self.accuracy)


class Chains(NamedTuple):
    """Two-state chains (probabilities), one per draw and question or kind of question."""

    p0: Float[np.ndarray, "draw question"]
    p_ic: Float[np.ndarray, "draw question"]
    p_ci: Float[np.ndarray, "draw question"]


class FirstRevision(NamedTuple):
    """What the first revision does (probabilities): the one definition that all models share.

    `p_ic` is P(right after it | first answer wrong), `p_ci` is P(wrong after it | first answer
    right), over the questions of the benchmark.
    """

    p_ic: Float[np.ndarray, " draw"]
    p_ci: Float[np.ndarray, " draw"]


class BetaDistribution(NamedTuple):
    """The exact posterior Beta(alpha, beta) of one parameter."""

    alpha: float
    beta: float


class Factor(NamedTuple):
    """A part of a posterior that is independent of its other parts.

    `log_likelihood` takes values of the parameters by name, in any shapes that broadcast, and
    returns the log-probability of that part of the data.
    """

    parameters: tuple[str, ...]
    priors: tuple[Prior, ...]
    log_likelihood: Callable[[Draws], np.ndarray]


class Model(abc.ABC):
    """A distribution of runs with unknown parameters; without state, as it is a static argument.

    `name` is what users type, `says` the assumption in one sentence, `parameters` the scalars that
    are reported, in this order. `distributions` are the priors of those that have one of their own,
    independent of the others; `joint_prior` says in words what else is assumed. `min_rounds` is the
    number of rounds below which some parameter cannot be told from another. `sees` says what its
    data are: right or wrong (labels, or a verifier's verdicts in their place), or whether each
    revision changed the answer. Accuracy and bounds are known even if the parameters in `nuisance`
    are not identified. `nearly_normal` says whether importance sampling is tried before NUTS,
    `tells_starts_apart` whether kinds of question are told apart by p0 as well; elsewhere p0 may
    differ within a kind.
    """

    name: ClassVar[str]
    says: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]]
    distributions: Mapping[str, Prior] = {}
    joint_prior: ClassVar[str] = ""
    min_rounds: ClassVar[int] = 2
    sees: ClassVar[Literal["labels", "changes"]] = "labels"
    nuisance: ClassVar[tuple[str, ...]] = ()
    nearly_normal: ClassVar[bool] = False
    tells_starts_apart: ClassVar[bool] = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[Hashable, ...]:
        """What two equal models have in common."""
        return type(self), tuple(sorted(self.distributions.items(), key=lambda x: x[0]))

    def with_priors(self: Some, priors: Mapping[str, Any]) -> Some:
        """The same model with other priors of some parameters.

        Args:
            priors: by parameter; see `msjax.posterior.models.prior.prior_of`.

        Raises InputError for a parameter that has no prior of its own here, or a prior that reaches
        beyond the values of its parameter.
        """
        found = copy.copy(self)
        changed = dict(self.distributions)
        known = self.distributions if self._written_since("distributions", "prior") else {}
        for name, given in priors.items():
            if name not in known:
                raise InputError(
                    f"priors has {name}, but in model {self.name} "
                    f"{', '.join(known) or 'no parameter'} can be given another prior; drop it, or "
                    "change `prior` in a subclass"
                )
            prior = prior_of(name, given)
            low, high = type(self).distributions[name].support
            if not (low <= prior.support[0] and prior.support[1] <= high):
                raise InputError(
                    f"prior of {name} is {prior}, but {name} lies between {low:g} and {high:g}; "
                    "give one that does too"
                )
            changed[name] = prior
        object.__setattr__(found, "distributions", changed)
        return found

    def _written_since(self, name: str, *changed: str) -> bool:
        """Whether no subclass changed one of these methods and inherited what is called `name`."""
        order = type(self).__mro__

        def home(name: str) -> int:
            return next(i for i, one in enumerate(order) if name in vars(one))

        return all(home(name) <= home(other) for other in changed)

    def _holds(self, name: str) -> bool:
        return self._written_since(name, "prior", "log_likelihood", "statistics")

    @property
    def priors(self) -> str:
        """The prior in words."""
        if not self._written_since("distributions", "prior"):
            return f"as `prior` of {type(self).__name__} has it"
        return "; ".join(filter(None, (in_words(self.distributions), self.joint_prior)))

    @property
    def largest(self) -> "Model":
        """The model that is sampled in this one's place, with the parameters it adds held at 0.

        Nested models then share one compiled sampler.
        """
        return self

    @property
    def sampled_as(self) -> "Model":
        """`largest`, or the model itself where a subclass changed its prior or its likelihood."""
        return self.largest if self._holds("largest") else self

    @abc.abstractmethod
    def statistics(
        self, correct: Int8[np.ndarray, "question answer"]
    ) -> Float[np.ndarray, "question statistic"]:
        """Sufficient statistics of every question; a run without answers gives zeros."""

    def prior(self) -> Parameters:
        """Sample the parameters as NumPyro sites and return them by name."""
        return {
            name: numpyro.sample(name, prior.numpyro())
            for name, prior in self.distributions.items()
        }

    @abc.abstractmethod
    def log_likelihood(
        self, parameters: Parameters, statistics: Float[Array, "row statistic"]
    ) -> Float[Array, " row"]:
        """Log-probability of each row's run, question effects integrated out; parameters scalar."""

    def additive(self, statistics: Float[np.ndarray, "row statistic"]) -> Bool[np.ndarray, " row"]:
        """Rows whose log-likelihoods are linear in their statistics, so that they may be summed.

        Sampling then sees one row in the place of them all.
        """
        return np.zeros(len(statistics), dtype=bool)

    @abc.abstractmethod
    def identified(self, correct: Int8[np.ndarray, "question answer"]) -> dict[str, bool]:
        """Whether the runs bear on each parameter; where not, its posterior is its prior."""

    @abc.abstractmethod
    def curves(self, draws: Draws, rounds: int) -> Curves:
        """Accuracy after 0..rounds rounds and in the limit, of every kind of question."""

    def first_revision(self, draws: Draws) -> FirstRevision:
        """P(I -> C) and P(C -> I) of the first revision: nothing where a question is settled.

        With p0 independent of the rates of a question, which is so unless a model says otherwise.
        """
        rates = (
            draws[rate] * (1 - np.asarray(draws.get(f"settled_{start}", 0.0)))
            for rate, start in (("p_ic", "wrong"), ("p_ci", "right"))
        )
        return FirstRevision(*rates)

    @abc.abstractmethod
    def continue_runs(
        self,
        random: np.random.Generator,
        draws: Draws,
        correct: Int8[np.ndarray, "question answer"],
        rounds: int,
    ) -> Int8[np.ndarray, "draw question answer_and_round"]:
        """The runs with `rounds` more answers each, simulated given what each showed so far.

        Every run must have all answers of `correct`; with no answers at all, [question, 0], the
        questions are new ones.
        """

    def exact(
        self, correct: Int8[np.ndarray, "question answer"]
    ) -> dict[str, BetaDistribution] | None:
        """The posterior in closed form, where there is one: every prior is a Beta distribution."""
        return None

    def factors(self, correct: Int8[np.ndarray, "question answer"]) -> tuple[Factor, ...] | None:
        """Independent parts of the posterior, of at most three parameters each, where it has them.

        All parameters are in one of them, and the product of their likelihoods is the model's.
        """
        return None

    def updated(
        self, counts: Mapping[str, tuple[float, float]]
    ) -> dict[str, BetaDistribution] | None:
        """`exact` of parameters of which so many successes and failures were seen.

        None if the prior of one is not a Beta distribution.
        """
        found = {}
        for name, (yes, no) in counts.items():
            prior = self.distributions[name].as_beta
            if prior is None:
                return None
            found[name] = BetaDistribution(prior[0] + yes, prior[1] + no)
        return found

    def closed_form(
        self, correct: Int8[np.ndarray, "question answer"]
    ) -> dict[str, BetaDistribution] | None:
        """`exact`, unless a subclass changed prior or likelihood and inherited it."""
        return self.exact(correct) if self._holds("exact") else None

    def to_integrate(
        self, correct: Int8[np.ndarray, "question answer"]
    ) -> tuple[Factor, ...] | None:
        """`factors`, unless a subclass changed prior or likelihood and inherited them."""
        return self.factors(correct) if self._holds("factors") else None


class ChainMixture(Model):
    """A model in which every question follows a two-state chain of its own."""

    @abc.abstractmethod
    def kinds(self, draws: Draws) -> tuple[Chains, Float[np.ndarray, "draw kind"]]:
        """The benchmark of each draw as a mixture: chains of its kinds of question and weights.

        Distributions that are continuous over questions are represented by so many kinds that
        expectations are right to about .001.
        """

    @abc.abstractmethod
    def question_chains(
        self,
        random: np.random.Generator,
        draws: Draws,
        statistics: Float[np.ndarray, "question statistic"],
    ) -> Chains:
        """The chain of each question, drawn given its run: shape [draw, question]."""

    def run_chains(
        self,
        random: np.random.Generator,
        draws: Draws,
        correct: Int8[np.ndarray, "question answer"],
    ) -> Chains:
        """The chain that each run follows: that of its question."""
        return self.question_chains(random, draws, self.statistics(correct))

    def curves(self, draws: Draws, rounds: int) -> Curves:
        (p0, p_ic, p_ci), weight = self.kinds(draws)
        by_round = np.empty((rounds + 1, *p0.shape))
        by_round[0] = p0
        for k in range(rounds):
            by_round[k + 1] = by_round[k] * (1 - p_ic - p_ci) + p_ic
        accuracy = np.moveaxis(by_round, 0, -1)
        moving = p_ic + p_ci
        limit = np.where(moving > 0, p_ic / np.where(moving > 0, moving, 1), p0)
        return Curves(weight, accuracy, limit)

    def continue_runs(
        self,
        random: np.random.Generator,
        draws: Draws,
        correct: Int8[np.ndarray, "question answer"],
        rounds: int,
    ) -> Int8[np.ndarray, "draw question answer_and_round"]:
        p0, p_ic, p_ci = self.run_chains(random, draws, correct)

        def follow(uniform: np.ndarray, k: int, states: np.ndarray) -> np.ndarray:
            now = states[..., k - 1]
            return np.where(now == 1, uniform >= p_ci, uniform < p_ic)

        return simulate(random, p0, follow, correct, rounds)


def simulate(
    random: np.random.Generator,
    p0: Float[np.ndarray, "draw question"],
    follow: Callable[[np.ndarray, int, np.ndarray], np.ndarray],
    correct: Int8[np.ndarray, "question answer"],
    rounds: int,
) -> Int8[np.ndarray, "draw question answer_and_round"]:
    """Runs that begin as `correct` and go on for `rounds` more answers.

    `follow(uniform, k, states)` says which questions are right at answer k, given uniform numbers
    [draw, question] and the states of all answers before.
    """
    answers = correct.shape[1]
    states = np.empty((*p0.shape, answers + rounds), dtype=np.int8)
    states[..., :answers] = correct
    for k in range(answers, answers + rounds):
        uniform = random.random(p0.shape)
        states[..., k] = follow(uniform, k, states) if k else uniform < p0
    return states
