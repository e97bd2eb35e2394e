"""Which stopping rule a pilot speaks for, and what choosing it so is worth on other questions.

The rule and its setting are those of greatest net value on all questions. What is reported of the
choice is made on questions that had no part in it: in each of five folds the same choice is made on
the other four, and judged on this one.

Reference: docs/stopping.md; `msjax.evaluate.crossfit`, which does the same for one rule at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from msjax.data.runs import Runs
from msjax.evaluate.crossfit import FOLDS
from msjax.evaluate.paired import Interval, paired_accuracy_gain, paired_mean_difference
from msjax.evaluate.replay import outcome, replay
from msjax.evaluate.streams import streams
from msjax.evaluate.summary import proportion
from msjax.rules.registry import entries
from msjax.rules.spec import Entry, Training

RULES = ("fixed", "posterior", "until_repeated", "belief_answers")
"""Rules that a pilot is asked about; those that need answers are left out where none are known."""
_ORDERS = 100


@dataclass(frozen=True)
class Choice:
    """The rule chosen, and what choosing so gave on questions that had no part in the choice.

    Attributes:
        rule, says, setting: what to use.
        folds: what each fold chose in its place.
        rounds: mean rounds of revision per question.
        accuracy: share right of the answers returned.
        gain: accuracy less that of the first answer, paired.
        tokens: computed tokens per question.
        saved: computed tokens per question saved against all rounds recorded, paired.
        all_tokens: what all rounds recorded take per question.
        right, spent: question by question.
    """

    rule: str
    says: str
    setting: str
    folds: tuple[str, ...]
    rounds: float
    accuracy: Interval
    gain: Interval
    tokens: float
    saved: Interval
    all_tokens: float
    right: Bool[np.ndarray, " question"]
    spent: Float[np.ndarray, " question"]


@dataclass(frozen=True)
class ParallelAlternative:
    """The majority of independent samples that cost about as much as the rule chosen.

    Attributes:
        samples: the greatest number whose mean tokens do not exceed those of the rule, at least 1.
        questions: those that both recordings hold.
        accuracy: of the majority, over random orders of the samples.
        tokens: per question.
        difference: its accuracy less that of the rule on the same questions, paired.
    """

    samples: int
    questions: int
    accuracy: float
    tokens: float
    difference: Interval


def choose_rule(pool: Runs, key: PRNGKeyArray, *, value: float, price: float) -> Choice:
    """The rule of greatest net value among `RULES`, cross-fitted.

    `pool` holds rounds of at least 5 questions. Ties go to the rule named first, and to fewer
    rounds.

    Raises InputError for a value that is not positive or a price that is negative.
    """
    fold_key, order_key = jax.random.split(key)
    fold = np.asarray(jax.random.permutation(fold_key, np.arange(pool.questions) % FOLDS))
    offered = [entry for entry in entries(pool) if entry.name in RULES]
    names = [(entry, setting) for entry in offered for setting in entry.settings]
    everyone = np.ones(pool.questions, dtype=bool)
    met = streams(pool, order_key, 1)

    def outcomes(learn: Bool[np.ndarray, " question"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Accuracy, computed tokens and answers asked, [option, question]."""
        train = Training(pool, learn, value, price)
        found = [
            outcome(pool, met, replay(entry.make, met, entry.parameters(train)))
            for entry in offered
        ]
        parts = [(x.accuracy, x.computed, x.asked) for x in found]
        accuracy, computed, asked = (np.concatenate(x) for x in zip(*parts, strict=True))
        return accuracy, computed, asked

    def best(found: Sequence[np.ndarray], learn: np.ndarray) -> int:
        accuracy, computed, _ = found
        net = value * accuracy[:, learn].mean(axis=1) - price * computed[:, learn].mean(axis=1)
        # Sums in another order must not break ties.
        return int(np.argmax(net >= net.max() - 1e-9))

    right = np.zeros(pool.questions, dtype=bool)
    spent, asked = np.zeros((2, pool.questions))
    chosen = []
    for number in range(FOLDS):
        mine = fold == number
        found = outcomes(~mine)
        pick = best(found, ~mine)
        chosen.append(_title(*names[pick]))
        right[mine] = found[0][pick, mine] > 0
        spent[mine], asked[mine] = found[1][pick, mine], found[2][pick, mine]
    entry, setting = names[best(outcomes(everyone), everyone)]
    everything = np.where(pool.real, pool.uncached, 0).sum(axis=1)
    return Choice(
        rule=entry.name,
        says=entry.says,
        setting=setting,
        folds=tuple(chosen),
        rounds=float(asked.mean() - 1),
        accuracy=proportion(int(right.sum()), pool.questions),
        gain=paired_accuracy_gain(right, pool.right[:, 0]),
        tokens=float(spent.mean()),
        saved=paired_mean_difference(everything, spent),
        all_tokens=float(everything.mean()),
        right=right,
        spent=spent,
    )


def parallel_alternative(
    rounds: Runs, choice: Choice, samples: Runs, key: PRNGKeyArray
) -> ParallelAlternative | None:
    """Majority of as many samples as the tokens of the choice pay for; None if none can be had.

    That is so where the two recordings have no question in common, or answers are not known.
    """
    place = {name: i for i, name in enumerate(samples.question_ids)}
    pairs = [(i, place[name]) for i, name in enumerate(rounds.question_ids) if name in place]
    if not pairs or not samples.answered:
        return None
    mine, other = np.array(pairs).T
    most = int(samples.recorded[other].min())
    asked = np.arange(1, most + 1)
    prompts = np.cumsum(samples.position_tokens[other, :most], axis=1)
    answers = np.where(samples.real, samples.uncached - samples.position_tokens, 0)[other]
    cost = prompts + asked * (answers.sum(axis=1) / samples.recorded[other])[:, None]
    n = max(int((cost.mean(axis=0) <= choice.spent[mine].mean()).sum()), 1)
    (entry,) = entries(samples, ("self_consistency",))
    met = streams(samples, key, _ORDERS)
    found = outcome(samples, met, replay(entry.make, met, np.array([n])))
    accuracy = found.accuracy[0, other]
    return ParallelAlternative(
        samples=n,
        questions=len(pairs),
        accuracy=float(accuracy.mean()),
        tokens=float(found.computed[0, other].mean()),
        difference=paired_mean_difference(accuracy, choice.right[mine]),
    )


def _title(entry: Entry, setting: str) -> str:
    return f"{entry.name}: {setting}"
