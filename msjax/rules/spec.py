"""What is known of a rule before it runs: its settings, what it needs and what it learns."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from msjax.data.runs import Runs
from msjax.rules.protocol import StoppingRule, restopped
from msjax.theory.chain import TwoStateChain

__all__ = [
    "ANSWERS",
    "NEEDS",
    "PROBABILITIES",
    "SCORES",
    "VERDICTS",
    "ChainPosterior",
    "Curve",
    "RuleSpec",
    "Training",
    "at_most",
    "constant",
    "offered_by",
]

ANSWERS, SCORES = frozenset({"answers"}), frozenset({"scores"})
PROBABILITIES, VERDICTS = frozenset({"probabilities"}), frozenset({"verdicts"})
NEEDS = {
    "answers": "answers",
    "scores": "a score for every answer",
    "probabilities": "a score in [0, 1] for every answer",
    "verdicts": "a judge's verdict on every answer",
}
"""What each need is in words."""


def offered_by(runs: Runs) -> frozenset[str]:
    """Which needs the runs meet."""
    judged = bool((runs.verdicts[runs.real] >= 0).all())
    met = (runs.answered, runs.scored, runs.scores_are_probabilities, judged)
    return frozenset(need for need, there in zip(NEEDS, met, strict=True) if there)


@runtime_checkable
class ChainPosterior(Protocol):
    """Where rules take their posterior from (`msjax.posterior.for_rules` has the one there is)."""

    def accuracy(self, runs: Runs, rounds: int) -> Float[np.ndarray, "draw rounds_plus_1"]:
        """Posterior draws of E[p_0], ..., E[p_rounds]."""

    def rates(self, runs: Runs) -> TwoStateChain:
        """Posterior draws of the rates of one chain for all questions, each [draw]."""


@dataclass(frozen=True)
class Training:
    """Labelled questions from which a rule may learn: not those it is judged on.

    Attributes:
        runs: recorded answers.
        chosen: which of the questions may be looked at.
        value: utility of a correct answer.
        price: price of one token.
        posterior: of the accuracy curve and of the rates, from the questions that may be looked at.
    """

    runs: Runs
    chosen: Bool[np.ndarray, " question"]
    value: float
    price: float
    posterior: ChainPosterior

    @property
    def known(self) -> Runs:
        """The questions that may be looked at; copied at each call, so that nothing is held."""
        return replace(self.runs, records=None, details=None).take(self.chosen)

    @cached_property
    def accuracy(self) -> Float[np.ndarray, "draw rounds_plus_1"]:
        """Posterior draws of the accuracy after every round that was recorded."""
        return self.posterior.accuracy(self.known, self.runs.rounds)

    @cached_property
    def rates(self) -> TwoStateChain:
        """Posterior draws of the rates of one chain for all questions."""
        return self.posterior.rates(self.known)

    @cached_property
    def tokens(self) -> Float[np.ndarray, " rounds"]:
        """Mean uncached tokens of rounds 1, ..., K over the questions that reached them.

        At price 0 they decide nothing, so that counts which were not reported are 0.
        """
        # Where the longest questions are not among these, they are among the others.
        known = self.known
        longest = known.rounds == self.runs.rounds
        tokens = (known if longest else self.runs).tokens_per_round[1:]
        return tokens if self.price else np.nan_to_num(tokens)


class Curve(NamedTuple):
    """What is left of `Training` in a posterior that was saved: enough for a rule `from_curve`.

    Attributes:
        accuracy: posterior draws of the accuracy after every round.
        tokens: mean uncached tokens of rounds 1, ..., K.
        value: utility of a correct answer.
        price: price of one token.
    """

    accuracy: Float[np.ndarray, "draw rounds_plus_1"]
    tokens: Float[np.ndarray, " rounds"]
    value: float
    price: float


@dataclass(frozen=True)
class RuleSpec:
    """A rule by name, with the settings it may have.

    Attributes:
        name: what users type, such as "markovscale" or "fixed+majority".
        says: the rule in one sentence.
        make: the rule, from one setting's parameters and from the side information on the question.
        settings: the settings, each "name=value" or several of these with commas; "" where there
            is nothing to choose.
        parameters: their parameters, first axis the setting, or a `Grid`, which is not
            learnt; may look at `Training`.
        default: the setting used where none is chosen.
        needs: of "answers", "scores", "probabilities" (scores in [0, 1]) and "verdicts", what it
            needs.
        looks: whether it decides by what the question showed.
        from_curve: whether `parameters` looks at no more of `Training` than `Curve` holds.
        side_info: what it is told of every question beforehand, if anything.
    """

    says: str
    make: Callable[[Any, Any], StoppingRule]
    settings: tuple[str, ...]
    parameters: Callable[[Training], Any]
    default: int = 0
    needs: frozenset[str] = field(default_factory=frozenset)
    looks: bool = True
    from_curve: bool = False
    side_info: Callable[[Runs], Shaped[np.ndarray, "question ..."]] | None = None
    name: str = ""


def at_most(rule: StoppingRule, answers: Int[Array, ""] | int) -> StoppingRule:
    """The rule, stopped at the latest after so many answers."""
    return restopped(rule, lambda n_used, stop: stop | (n_used >= answers))


def constant(values: Any) -> Callable[[Training], Any]:
    """Parameters that nothing is learnt for."""
    array = np.asarray(values)
    return lambda _: array
