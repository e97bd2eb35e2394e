"""Policies: when to stop asking and which answer to return, and what each did on recorded runs.

What a policy returned is read off the recorded answers, without running its rule; `Policy.rule`
makes the rule that does the same in front of a model. What a policy learns from labels it learns on
other questions than those its answers are judged on: questions are divided into folds by a hash of
their names, many times, and labels are averaged over the divisions. What it asks for and spends is
that of the rule learnt from all questions, the one that is made: tokens hardly flatter the
questions a rule was learnt from, while rules learnt from fewer questions often spend otherwise.

Reference: docs/decisions.md, docs/stopping.md.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from msjax.data.runs import OF_THE_POSITION, Runs
from msjax.decision.learnt_answers import belief_policy, learn
from msjax.errors import InputError
from msjax.evaluate.folds import FOLDS, divisions

if TYPE_CHECKING:
    from msjax.rules.protocol import StoppingRule

__all__ = [
    "AS_RECORDED",
    "FIRST",
    "FOLDINGS",
    "Policy",
    "PolicyOutcomes",
    "policies_of",
]

FIRST = "first"
"""Name of the policy that keeps the first answer."""
AS_RECORDED = "as recorded"
"""Name of the policy that ended the runs, where a rule did."""
FOLDINGS = 10
"""Divisions into folds that what is learnt is averaged over."""
_ENOUGH = 100_000
"""Questions from which one division is enough: another would move a mean by less than its error."""
_ORDERS = 32
_SIZES = (3, 5, 8, 16, 32, 64)
_REPEATS = (2, 3)

Returns = Literal["last", "majority", "best_score", "most_probable"]


@dataclass(frozen=True)
class Policy:
    """When to stop asking and which answer to return.

    Attributes:
        name: what it is called, in tables and as a baseline.
        says: the policy in one sentence, as an imperative.
        stop: name of the rule that says when to stop.
        setting: its number: rounds, samples, or repeats; None where it has none.
        returns: which answer is returned.
        asks: the most answers it asks for.
        make: makes the rule; None where only its answers are known.
        learnt: whether it has learnt from labels.
        parallel: whether it asks for independent answers, not for revisions.
        longest: limit of tokens of an answer, where it is not the usual one; 0 if that is not said.
    """

    name: str
    says: str
    stop: str
    setting: int | None
    returns: Returns
    asks: int
    make: Callable[[], "StoppingRule"] | None
    learnt: bool = False
    parallel: bool = False
    longest: int | None = None

    @property
    def rule(self) -> "StoppingRule":
        """The rule that does this in front of a model.

        Raises InputError for the rule that runs were recorded with, which only they know.
        """
        if self.make is None:
            raise InputError(
                f"policy {self.name!r}: the runs show what it did, but do not hold its rule"
            )
        return self.make()


@dataclass(frozen=True)
class PolicyOutcomes:
    """What policies did on the questions of one benchmark; NaN where that was not recorded.

    Attributes:
        policies: the first one keeps the first answer.
        right: whether the answer returned is right, or how often over foldings and orders.
        tokens: by category, of the rule that the policy makes.
        asked: answers asked for.
    """

    policies: tuple[Policy, ...]
    right: Float[np.ndarray, "question policy"]
    tokens: dict[str, Float[np.ndarray, "question policy"]]
    asked: Float[np.ndarray, "question policy"]

    @property
    def uncached(self) -> Float[np.ndarray, "question policy"]:
        """Tokens that had to be processed."""
        found = [x for name, x in self.tokens.items() if name != "cached"]
        return sum(found, start=np.zeros(self.right.shape)) if found else self.right * np.nan


@dataclass(frozen=True)
class _Column:
    policy: Policy
    right: Float[np.ndarray, " question"]
    tokens: dict[str, Float[np.ndarray, " question"]]
    asked: Float[np.ndarray, " question"]


def policies_of(
    rounds: Runs | None,
    samples: Runs | None,
    *,
    longer: Runs | None = None,
    token_price: float = 0.0,
    groups: Sequence[str] | None = None,
    learnt: bool = True,
    recorded: tuple[Runs, Int[np.ndarray, " question"], Bool[np.ndarray, " question"]]
    | None = None,
) -> PolicyOutcomes:
    """Every policy that the runs of one benchmark and model can judge.

    Args:
        rounds: rounds of revision; None if there are only samples.
        samples: independent answers of the same questions, if any; where there are rounds, of the
            questions of these.
        longer: answers with a larger limit of tokens, of the same questions, if any.
        token_price: price of a token in right answers, which learnt rules weigh.
        groups: what is kept together in folds; names of the questions if None.
        learnt: whether rules that learn from labels are compared too.
        recorded: where a rule ended the runs, these runs, their last positions and whether the
            answers returned are right.

    Rows are the questions of `rounds`, or of `samples` where there are none.
    """
    found: list[_Column] = []
    if rounds is not None:
        names = groups or rounds.question_ids
        found += [*_rounds(rounds), *_by_answers(rounds), *_by_others(rounds)]
        if learnt:
            found += _learnt(rounds, names, token_price)
        if recorded is not None:
            found.append(_as_recorded(*recorded))
    if longer is not None:
        judged = rounds if rounds is not None else samples
        assert judged is not None
        of_longer = _rows_of(longer, judged)
        if (of_longer >= 0).any():
            found.append(_longer(longer, of_longer))
    if samples is not None:
        rows = None if rounds is None else _rows_of(samples, rounds)
        if rows is None or (rows >= 0).any():
            found += _samples(samples, rows, first=rounds is None)
    categories = list(dict.fromkeys(name for one in found for name in one.tokens))
    nothing = np.full(len(found[0].right), np.nan)
    return PolicyOutcomes(
        tuple(one.policy for one in found),
        np.stack([one.right for one in found], axis=1),
        {
            name: np.stack([one.tokens.get(name, nothing) for one in found], axis=1)
            for name in categories
        },
        np.stack([one.asked for one in found], axis=1),
    )


def _rows_of(runs: Runs, judged: Runs) -> Int[np.ndarray, " question"]:
    """The row of every question that is judged; -1 where it is not there."""
    position = {name: i for i, name in enumerate(runs.question_ids)}
    return np.array([position.get(name, -1) for name in judged.question_ids])


def _longer(runs: Runs, rows: Int[np.ndarray, " question"]) -> _Column:
    """One answer each, with a larger limit of tokens."""
    settings = [] if runs.details is None else runs.details.settings_there
    limits = {one.get("max_new_tokens") for one, _ in settings}
    limit = int(limits.pop() or 0) if len(limits) == 1 else 0
    policy = Policy(
        "think longer",
        f"ask once, for an answer of {f'up to {limit:,}' if limit else 'more'} tokens",
        "fixed",
        None,
        "last",
        1,
        lambda: _fixed().fixed_rounds(0),
        longest=limit,
    )
    there = rows >= 0

    def of(values: np.ndarray) -> np.ndarray:
        return np.where(there, values[rows, 0], np.nan)

    tokens = {name: of(values) for name, values in runs.tokens.items()}
    known = {name: values for name, values in tokens.items() if not np.isnan(values[there]).all()}
    return _Column(policy, of(runs.right), known, np.where(there, 1.0, np.nan))


# Rounds of revision


def _stopped(
    runs: Runs,
    policy: Policy,
    last: Int[np.ndarray, " question"],
    right: Bool[np.ndarray, " question"],
    known: Bool[np.ndarray, " question"],
) -> _Column:
    """A policy that asks for the answers 0, ..., `last`."""
    rows = np.arange(len(last))
    last = np.where(known, last, 0)

    def upto(values: np.ndarray) -> np.ndarray:
        return np.where(known, np.cumsum(values, axis=1, dtype=float)[rows, last], np.nan)

    tokens = {name: upto(values) for name, values in runs.tokens.items()}
    return _Column(
        policy,
        np.where(known, right.astype(float), np.nan),
        {name: values for name, values in tokens.items() if not np.isnan(values[known]).all()},
        np.where(known, last + 1.0, np.nan),
    )


def _rounds(runs: Runs) -> Iterator[_Column]:
    """The first answer, and every number of rounds with the last answer."""
    for k in range(runs.rounds + 1):
        policy = Policy(
            FIRST if k == 0 else _counted(k, "round"),
            "keep the first answer" if k == 0 else f"revise {_times(k)} and take the last answer",
            "fixed",
            k,
            "last",
            k + 1,
            lambda k=k: _fixed().fixed_rounds(k),  # type: ignore[misc]
        )
        last = np.full(runs.questions, k)
        yield _stopped(runs, policy, last, runs.right[:, k], runs.recorded > k)


def _by_answers(runs: Runs) -> Iterator[_Column]:
    """Majorities, and stopping once an answer is repeated; nothing where answers are unknown."""
    if not runs.answered:
        return
    label = _labels(runs)
    for k in range(2, runs.rounds + 1):
        leader = _leaders(runs.answers[:, : k + 1])
        policy = Policy(
            f"majority after {_counted(k, 'round')}",
            f"revise {_times(k)} and take the answer given most often",
            "fixed",
            k,
            "majority",
            k + 1,
            lambda k=k: _fixed().self_consistency(k + 1),  # type: ignore[misc]
        )
        last = np.full(runs.questions, k)
        yield _stopped(runs, policy, last, _label_of(label, leader), runs.recorded > k)
    for times in _REPEATS:
        if times <= runs.rounds:
            yield _repeated(runs, label, times)


def _repeated(runs: Runs, label: Bool[np.ndarray, "question id"], times: int) -> _Column:
    """Until the same answer has come `times` times in a row."""
    # Of runs that ended early only those that repeat an answer would tell, which is no fair sample.
    complete = runs.recorded > runs.rounds
    streak, answer = np.zeros(runs.questions, int), np.full(runs.questions, -1)
    last, returned = np.full(runs.questions, -1), np.full(runs.questions, -1)
    for k in range(runs.rounds + 1):
        now = runs.answers[:, k]
        streak = np.where((now >= 0) & (now == answer), streak + 1, (now >= 0).astype(int))
        answer = np.where(now >= 0, now, answer)
        stops = (last < 0) & ((streak >= times) | (k == runs.rounds))
        last, returned = np.where(stops, k, last), np.where(stops, answer, returned)
    policy = Policy(
        f"until repeated {_times(times - 1)}",
        f"revise until an answer is repeated {_times(times - 1)}, at most {_times(runs.rounds)}, "
        "and take it",
        "until_repeated",
        times,
        "last",
        runs.rounds + 1,
        lambda: _fixed().until_repeated(runs.rounds + 1, times),
    )
    return _stopped(runs, policy, last, _label_of(label, returned), complete)


def _by_others(runs: Runs) -> Iterator[_Column]:
    """Best scores, and loops that end once a judge accepts."""
    if runs.scored:
        for k in range(1, runs.rounds + 1):
            scores = np.where(np.isnan(runs.scores), -np.inf, runs.scores)[:, : k + 1]
            if runs.answered:
                scores = np.where(runs.answers[:, : k + 1] >= 0, scores, -np.inf)
            best = scores.argmax(axis=1)
            chosen = runs.right[np.arange(runs.questions), best]
            chosen = chosen & np.isfinite(scores.max(axis=1))
            policy = Policy(
                f"best score after {_counted(k, 'round')}",
                f"revise {_times(k)} and take the answer with the highest score",
                "fixed",
                k,
                "best_score",
                k + 1,
                lambda k=k: _fixed().best_score(k + 1),  # type: ignore[misc]
            )
            yield _stopped(runs, policy, np.full(runs.questions, k), chosen, runs.recorded > k)
    accepted = runs.verdicts == 1
    if accepted.any() and runs.rounds:
        ever = accepted.any(axis=1)
        last = np.where(ever, accepted.argmax(axis=1), runs.rounds)
        policy = Policy(
            "until accepted",
            f"revise until the judge accepts, at most {_times(runs.rounds)}, and take that answer",
            "until_accepted",
            None,
            "last",
            runs.rounds + 1,
            lambda: _fixed().until_accepted(runs.rounds + 1),
        )
        right = runs.right[np.arange(runs.questions), last]
        yield _stopped(runs, policy, last, right, _until_known(runs, ever, last))


def _until_known(
    runs: Runs, ever: Bool[np.ndarray, " question"], last: Int[np.ndarray, " question"]
) -> Bool[np.ndarray, " question"]:
    """Whether it is known what a loop with the judge would have done.

    Runs that ended when it accepted tell, but not where others ended early without: those that
    remain would be no fair sample.
    """
    full = runs.recorded > runs.rounds
    complete = (ever | full).all() | full
    return np.asarray(complete & (runs.recorded > last) & _asked(runs, ever, last))


def _asked(
    runs: Runs, ever: Bool[np.ndarray, " question"], last: Int[np.ndarray, " question"]
) -> Bool[np.ndarray, " question"]:
    """Runs from which it can be told, without choosing among them, when the judge first accepts.

    Where verdicts are missing that a loop would have asked for, runs with such a gap are left out,
    and so are those that would have one had they not been accepted before it: else the quick ones
    would be too many. If the judge was never asked after it had accepted, these cannot be told
    apart, and nothing is known.
    """
    position = np.arange(runs.rounds + 1)
    needed = position < np.minimum(runs.recorded, runs.rounds)[:, None]
    missing = needed & (runs.verdicts < 0)
    if not (missing & (position < last[:, None])).any():
        return np.ones(runs.questions, dtype=bool)
    whole = ~missing.any(axis=1)
    early = ever & (last + 1 < needed.sum(axis=1))
    if (early & ~whole).any() and not (early & whole).any():
        return np.zeros(runs.questions, dtype=bool)
    return np.asarray(whole)


def _as_recorded(
    runs: Runs, last: Int[np.ndarray, " question"], right: Bool[np.ndarray, " question"]
) -> _Column:
    """The rule that ended the runs."""
    policy = Policy(
        AS_RECORDED,
        "keep the rule that the runs were recorded with",
        AS_RECORDED,
        None,
        "last",
        int(last.max()) + 1,
        None,
    )
    return _stopped(runs, policy, last, right, np.ones(len(last), dtype=bool))


def _learnt(runs: Runs, names: Sequence[str], token_price: float) -> Iterator[_Column]:
    """The rule that believes in answers by the order of all.

    Labels are those of rules learnt on other folds, tokens those of the rule learnt on all.
    """
    complete = np.flatnonzero(runs.recorded > runs.rounds)
    names = [names[int(i)] for i in complete]
    if not runs.answered or runs.rounds < 2 or len(set(names)) < 2 * FOLDS:
        return
    whole = runs.take(complete)
    label = _labels(whole)
    right = np.zeros(len(complete))
    foldings = max(1, min(FOLDINGS, _ENOUGH // len(complete)))
    for others, judged in divisions(names, foldings):
        distribution = learn(whole, others)
        _, returned = belief_policy(distribution, whole.answers[judged], token_price)
        right[judged] += _label_of(label[judged], returned)
    everyone = np.ones(len(complete), dtype=bool)
    last, _ = belief_policy(learn(whole, everyone), whole.answers, token_price)

    def everywhere(values: Shaped[np.ndarray, " complete"]) -> Float[np.ndarray, " question"]:
        found = np.full(runs.questions, np.nan)
        found[complete] = values
        return found

    policy = Policy(
        "by belief",
        f"revise while that is expected to help, at most {_times(runs.rounds)}, and take the "
        "answer most probably right",
        "belief",
        None,
        "most_probable",
        runs.rounds + 1,
        lambda: learn(whole, everyone).rule(token_price),
        learnt=True,
    )
    spent = {
        name: np.cumsum(x, axis=1, dtype=float)[np.arange(len(last)), last]
        for name, x in whole.tokens.items()
    }
    known = {name: everywhere(x) for name, x in spent.items() if not np.isnan(x).all()}
    yield _Column(policy, everywhere(right / foldings), known, everywhere(last + 1))


# Independent samples


def _samples(
    runs: Runs, rows: Int[np.ndarray, " question"] | None, *, first: bool
) -> Iterator[_Column]:
    """Majority and best score of so many samples, averaged over orders of them."""
    if rows is None:
        rows = np.arange(runs.questions)
    there = rows >= 0
    if not first:
        there = there & (runs.recorded[rows] > 0)
    sizes = [n for n in (1, *_SIZES) if n < runs.samples] + [runs.samples]
    order = _orders(runs)
    for n in dict.fromkeys(sizes):
        enough = there & (runs.recorded[rows] >= n)
        if n == 1:
            if first:
                share = runs.right.sum(axis=1) / runs.recorded
                yield _sampled(runs, rows, enough, 1, "last", share)
            continue
        if runs.answered:
            yield _sampled(runs, rows, enough, n, "majority", _majority(runs, order[:, :, :n]))
        if runs.scored:
            yield _sampled(runs, rows, enough, n, "best_score", _best(runs, order[:, :, :n]))
    if (runs.verdicts == 1).any() and runs.samples > 1:
        yield _sampled_until_accepted(runs, rows, there, order)


def _sampled_until_accepted(
    runs: Runs,
    rows: Int[np.ndarray, " question"],
    there: Bool[np.ndarray, " question"],
    order: Int[np.ndarray, "order row sample"],
) -> _Column:
    """Independent answers until the judge accepts one.

    Averaged over orders where all samples were recorded and judged; otherwise they ended when it
    accepted, so that only the order in which they came is known.
    """
    accepted, n = runs.verdicts == 1, runs.samples
    if (runs.recorded < n).any() or (runs.real & (runs.verdicts < 0)).any():
        order = np.broadcast_to(np.arange(n), (1, runs.questions, n))
    row, ever = np.arange(runs.questions), accepted.any(axis=1)
    right, asked = np.zeros(runs.questions), np.zeros(runs.questions)
    tokens = {name: np.zeros(runs.questions) for name in runs.tokens}
    for one in order:
        last = np.where(ever, accepted[row[:, None], one].argmax(axis=1), n - 1)
        right += runs.right[row, one[row, last]] / len(order)
        asked += (last + 1) / len(order)
        for name, values in runs.tokens.items():
            met = values if name in OF_THE_POSITION else values[row[:, None], one]
            tokens[name] += np.cumsum(met, axis=1, dtype=float)[row, last] / len(order)
    policy = Policy(
        "samples until accepted",
        f"ask independently until the judge accepts, at most {_times(n)}, and take that answer",
        "until_accepted",
        None,
        "last",
        n,
        lambda: _fixed().until_accepted(n),
        parallel=True,
    )
    known = (there & _until_known(runs, ever, last)[rows]) if len(order) == 1 else there
    return _Column(
        policy,
        np.where(known, right[rows], np.nan),
        {
            name: np.where(known, values[rows], np.nan)
            for name, values in tokens.items()
            if not np.isnan(values).all()
        },
        np.where(known, asked[rows], np.nan),
    )


def _sampled(
    runs: Runs,
    rows: Int[np.ndarray, " question"],
    enough: Bool[np.ndarray, " question"],
    n: int,
    returns: Returns,
    right: Float[np.ndarray, " row"],
) -> _Column:
    what = {"last": "", "majority": "majority of ", "best_score": "best score of "}[returns]
    named = {
        "last": "keep the first answer",
        "majority": f"ask {_times(n)} independently and take the answer given most often",
        "best_score": f"ask {_times(n)} independently and take the answer with the highest score",
    }[returns]

    def make() -> "StoppingRule":
        fixed = _fixed()
        return fixed.best_score(n) if returns == "best_score" else fixed.self_consistency(n)

    name = FIRST if n == 1 else f"{what}{n} samples"
    policy = Policy(name, named, "fixed", n, returns, n, make, parallel=True)
    several = np.maximum(runs.recorded, 1)
    tokens = {}
    for category, values in runs.tokens.items():
        used = np.where(runs.real, values, 0.0)
        if category in OF_THE_POSITION:
            # The first sample of a question computes the prompt, whichever it is.
            spent = used[:, :n].sum(axis=1)
        else:
            spent = n * used.sum(axis=1) / several
        if not np.isnan(spent).all():
            tokens[category] = np.where(enough, spent[rows], np.nan)
    return _Column(
        policy,
        np.where(enough, right[rows], np.nan),
        tokens,
        np.where(enough, float(n), np.nan),
    )


def _orders(runs: Runs) -> Int[np.ndarray, "order row sample"]:
    """Orders of the samples, what was not recorded last; the same ones for every set of runs."""
    drawn = np.random.default_rng(0).random((_ORDERS, 1, runs.samples))
    drawn = np.broadcast_to(drawn, (_ORDERS, runs.questions, runs.samples))
    return np.argsort(np.where(runs.real, drawn, 2.0), axis=2, kind="stable")


def _majority(runs: Runs, order: np.ndarray) -> Float[np.ndarray, " row"]:
    """How often the answer given most often, of equals the earliest, is right."""
    label, row = _labels(runs), np.arange(runs.questions)[:, None]
    leaders = [_leaders(runs.answers[row, one]) for one in order]
    return np.mean([_label_of(label, leader) for leader in leaders], axis=0)


def _best(runs: Runs, order: np.ndarray) -> Float[np.ndarray, " row"]:
    scores, row = np.where(np.isnan(runs.scores), -np.inf, runs.scores), np.arange(runs.questions)
    right = np.zeros(runs.questions)
    for one in order:
        met = scores[row[:, None], one]
        right += runs.right[row, one[row, met.argmax(axis=1)]] / len(order)
    return right


# Answers


def _labels(runs: Runs) -> Bool[np.ndarray, "question id"]:
    """Whether answer number i of a question is right."""
    label = np.zeros((runs.questions, runs.answers.shape[1]), dtype=bool)
    for k in range(runs.answers.shape[1]):
        given = runs.answers[:, k] >= 0
        label[given, runs.answers[given, k]] |= runs.right[given, k]
    return label


def _label_of(
    label: Bool[np.ndarray, "question id"], answer: Int[np.ndarray, " question"]
) -> Bool[np.ndarray, " question"]:
    return label[np.arange(len(answer)), np.maximum(answer, 0)] & (answer >= 0)


def _leaders(answers: Int[np.ndarray, "question answer"]) -> Int[np.ndarray, " question"]:
    """The answer given most often, of equals the one seen first; -1 where none was given."""
    votes = (answers[:, :, None] == answers[:, None, :]).sum(axis=2)
    leader = np.where(answers >= 0, votes, 0).argmax(axis=1)
    return answers[np.arange(len(answers)), leader]


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _fixed() -> ModuleType:
    """The module of rules that learn nothing, imported when a rule is made, as it needs JAX."""
    from msjax.rules import fixed

    return fixed
