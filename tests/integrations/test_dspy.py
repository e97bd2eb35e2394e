"""The module in DSPy itself, with DSPy's own model for tests."""

import asyncio

import pytest

dspy = pytest.importorskip("dspy")

from dspy.utils import DummyLM  # noqa: E402

from msjax.errors import InputError  # noqa: E402
from msjax.integrations.dspy import Revise  # noqa: E402
from msjax.rules.fixed import fixed_rounds  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Recording(DummyLM):
    """Keeps what it was asked, over all its copies."""

    def __init__(self, answers):
        super().__init__(answers)
        self.prompts, self.rollouts = [], []

    def copy(self, **kwargs):
        self.rollouts.append(kwargs.get("rollout_id"))
        return self

    def forward(self, prompt=None, messages=None, **kwargs):
        self.prompts.append(messages)
        return super().forward(prompt, messages, **kwargs)


def run(answers, *, asynchronous=False, module=None, **settings):
    lm = Recording([{"answer": answer} for answer in answers])
    with dspy.context(lm=lm, track_usage=True):
        qa = Revise(dspy.Predict("question -> answer"), **settings)
        if asynchronous:
            return asyncio.run(qa.acall(question="2 + 3?")), lm
        return qa(question="2 + 3?"), lm


@pytest.mark.parametrize("asynchronous", [False, True])
def test_it_revises_until_the_rule_stops(asynchronous):
    found, lm = run(["4", "5", "5", "6"], rule="until_repeated", asynchronous=asynchronous)
    assert found.answer == "5" and found.revised["answers"] == ["4", "5", "5"]
    assert (found.revised["returned"], found.revised["stop_reason"]) == (2, "rule")
    texts = [" ".join(str(message["content"]) for message in one) for one in lm.prompts]
    assert "earlier attempt" not in texts[0]
    assert "An earlier attempt answered: 4" in texts[1]
    assert "An earlier attempt answered: 5" in texts[2]
    assert lm.rollouts == [0, 1, 2]


def test_with_a_reward_it_is_refine_and_best_of_n():
    """The first that reaches the threshold, else the highest reward."""

    def reward(inputs, prediction):
        assert inputs == {"question": "2 + 3?"}
        return {"4": 0.1, "5": 0.9, "6": 0.4}[prediction.answer]

    refined, _ = run(["4", "5", "6"], samples=3, reward_fn=reward, threshold=0.8)
    assert refined.answer == "5" and refined.revised["verdicts"] == [False, True]
    best, _ = run(["4", "6", "4"], samples=3, reward_fn=reward, threshold=0.8)
    assert best.answer == "6" and best.revised["scores"] == [0.1, 0.4, 0.1]


def test_any_rule_and_any_field():
    lm = Recording([{"reasoning": "because", "answer": str(i)} for i in range(3)])
    with dspy.context(lm=lm):
        qa = Revise(dspy.ChainOfThought("question -> answer"), fixed_rounds(2), rounds=2)
        assert qa(question="?").answer == "2"
        assert [name for name, _ in qa.named_predictors()] == ["module.predict"]
    with pytest.raises(InputError, match="field is 'x'; the prediction has answer"):
        run(["4"], field="x")


def test_bad_input():
    module = dspy.Predict("question -> answer")
    for settings, match in (
        ({"rounds": -1}, "at least once"),
        ({"rule": "markovscale"}, "learns from labelled runs"),
        ({"rule": "until_accepted"}, "no judge"),
        ({"threshold": 0.5}, "without reward_fn"),
    ):
        with pytest.raises(InputError, match=match):
            Revise(module, **settings)
