"""DSPy: a module that runs another one until a rule stops.

qa = Revise(dspy.ChainOfThought("question -> answer"), rule="until_repeated", rounds=3)
best = Revise(qa, samples=5, reward_fn=one_word, threshold=1.0)     # as dspy.Refine and BestOfN
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from msjax.data.messages import Completion, Score
from msjax.data.usage import Usage, total
from msjax.errors import InputError, require_extra
from msjax.llm.answers import Answers, jitted
from msjax.llm.live_rule import rule_without_pilot
from msjax.llm.replies import read_usage
from msjax.rules.protocol import StoppingRule
from msjax.tasks.scorers import Scorer, find_scorer

require_extra("dspy", "dspy")

import dspy  # noqa: E402

__all__ = ["Revise"]

AGAIN = (
    "An earlier attempt answered: {answer}\nReconsider it: keep it if it holds, replace it if it "
    "does not."
)
"""What is added to the instructions of a revision."""


class Revise(dspy.Module):
    """Runs a module until the rule stops, and gives the prediction that the rule returns.

    A revision is a run whose instructions show the answer before it; a sample is a run of its own.
    Every run has its own rollout_id, so that none comes from DSPy's cache of another. With
    `reward_fn` it does what `dspy.Refine` and `dspy.BestOfN` do, the first prediction that reaches
    `threshold`, else the one of the highest reward, without asking for advice, and asynchronously
    too.

    Args:
        module: what is run.
        rule: the name of a rule that learns nothing from labels, or any `StoppingRule`, such as
            `msjax.decide(runs).rule`. Default: until_repeated, or with a reward
            until_accepted+best_score.
        rounds: most revisions after the first run.
        samples: run at most this often, independently, instead.
        field: the output field that holds the answer; the last one if None.
        scorer: which answers are equal; see `msjax.tasks.scorers.find_scorer`.
        reward_fn: scores a prediction, given the inputs and it.
        threshold: reward from which on a prediction is accepted, for rules that look at verdicts.
        temperature: of every run.

    The prediction has `revised`: answers, verdicts, scores, which one it is, why it stopped, and
    the account of all runs (if `dspy.configure(track_usage=True)`).

    Raises:
        InputError: an unknown rule, one that needs labelled runs or a threshold that is not there.
    """

    def __init__(
        self,
        module: dspy.Module,
        rule: str | StoppingRule | None = None,
        rounds: int = 3,
        *,
        samples: int | None = None,
        field: str | None = None,
        scorer: str | Scorer = "exact",
        reward_fn: Callable[[dict[str, Any], dspy.Prediction], float] | None = None,
        threshold: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self._budget = rounds + 1 if samples is None else samples
        if self._budget < 1:
            raise InputError("rounds or samples: run the module at least once")
        if rule is None:
            rule = "until_repeated" if threshold is None else "until_accepted+best_score"
        if isinstance(rule, str):
            kind = "rounds" if samples is None else "samples"
            judged = threshold is not None
            rule = rule_without_pilot(rule, self._budget, kind, judged=judged).rule
        if threshold is not None and reward_fn is None:
            raise InputError("threshold is given without reward_fn; say what it is a threshold of")
        self.module = module
        self._rule = jitted(rule)
        self._parallel, self._field = samples is not None, field
        self._scorer = find_scorer(scorer)
        # In a tuple, or else DSPy would look for parameters in it.
        self._reward = (reward_fn,)
        self._threshold, self._temperature = threshold, temperature

    def forward(self, **kwargs: Any) -> dspy.Prediction:
        """The prediction that the rule returns."""
        so_far, predictions = Answers(self._rule, self._budget), list[dspy.Prediction]()
        while not so_far.over:
            self._add(so_far, predictions, kwargs, self._next(so_far)(**kwargs))
        return self._chosen(so_far, predictions)

    async def aforward(self, **kwargs: Any) -> dspy.Prediction:
        """The same, while others run."""
        so_far, predictions = Answers(self._rule, self._budget), list[dspy.Prediction]()
        while not so_far.over:
            self._add(so_far, predictions, kwargs, await self._next(so_far).acall(**kwargs))
        return self._chosen(so_far, predictions)

    def _next(self, so_far: Answers) -> dspy.Module:
        """The module for the next run."""
        number = len(so_far.answers)
        lm = self.module.get_lm() or dspy.settings.lm
        start = lm.kwargs.get("rollout_id") or 0
        module = self.module.deepcopy()
        module.set_lm(lm.copy(rollout_id=start + number, temperature=self._temperature))
        if number and not self._parallel:
            shown = AGAIN.format(answer=so_far.completions[-1].text or "(none)")
            for predictor in module.predictors():
                signature = predictor.signature
                predictor.signature = signature.with_instructions(
                    f"{signature.instructions}\n\n{shown}"
                )
        return module

    def _add(
        self,
        so_far: Answers,
        predictions: list[dspy.Prediction],
        inputs: dict[str, Any],
        prediction: dspy.Prediction,
    ) -> None:
        names = list(prediction.keys())
        field = self._field or names[-1]
        if field not in names:
            raise InputError(f"field is {field!r}; the prediction has {', '.join(names)}")
        value = prediction[field]
        text = "" if value is None else str(value)
        answer = self._scorer.read(f"Answer: {text}").answer if text.strip() else None
        (reward,) = self._reward
        score = math.nan if reward is None else float(reward(inputs, prediction))
        completion = Completion(text, math.nan, math.nan, True, _usage(prediction), Score(score))
        verdict = None if self._threshold is None else score >= self._threshold
        predictions.append(prediction)
        so_far.add(completion, self._scorer.spelled_as(answer, so_far.answers), verdict)

    def _chosen(self, so_far: Answers, predictions: list[dspy.Prediction]) -> dspy.Prediction:
        chosen = predictions[so_far.returned]
        usage = total(so_far.usages)
        chosen.revised = {
            "answers": list(so_far.answers),
            "verdicts": list(so_far.verdicts),
            "scores": list(so_far.scores),
            "returned": so_far.returned,
            "stop_reason": "rule" if so_far.stopped else "budget",
            "usage": usage,
        }
        return chosen


def _usage(prediction: dspy.Prediction) -> Usage:
    """What a run cost, over all its models; not reported unless DSPy tracks usage."""
    found = prediction.get_lm_usage()
    if not isinstance(found, Mapping) or not found:
        return Usage()
    return total(read_usage(one, said=True)[0] for one in found.values())
