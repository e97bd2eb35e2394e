"""Benchmarks that inform each other, and models on the same questions."""

import numpy as np
import pytest

from msjax.data.runs import Runs
from msjax.data.trajectory import Trajectory
from msjax.decision.card import decide
from msjax.decision.several import partially_pooled


def test_pooling_shrinks_towards_each_other_and_lets_precise_ones_be():
    estimate = np.array([0.0, 0.2, 0.1, 0.12])
    found = partially_pooled(estimate, np.array([0.1, 0.1, 0.1, 0.001]))
    assert 0.0 < found[0].estimate < found[2].estimate < found[1].estimate < 0.2
    assert found[3].estimate == pytest.approx(0.12, abs=1e-3)
    # With a spread that is far wider than all errors nothing is shared.
    apart = partially_pooled(np.array([-50.0, 0.0, 50.0]), np.full(3, 0.01))
    for one, alone in zip(apart, (-50.0, 0.0, 50.0), strict=True):
        assert one.estimate == pytest.approx(alone, abs=1e-4)
        assert (one.high - one.low) / 2 == pytest.approx(1.6449 * 0.01, rel=1e-2)


def test_pooled_intervals_cover():
    # 1,600 intervals in 400 groups of four; a coverage of .9 shows as .86 with probability 1e-4
    # at most, also if the four of a group are fully dependent.
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        truth = random.normal(0.05, 0.08, 4)
        error = random.uniform(0.03, 0.1, 4)
        found = partially_pooled(truth + error * random.normal(size=4), error)
        held += sum(x.low <= t <= x.high for x, t in zip(found, truth, strict=True))
    assert 0.84 * 1600 < held < 0.96 * 1600


def of_model(model: str, benchmark: str, patterns: list[str]) -> list[Trajectory]:
    return [
        Trajectory(
            model=model,
            benchmark=benchmark,
            question_id=f"{i:03}",
            correct=tuple(x == "1" for x in row),
            answers=tuple("2" if x == "1" else f"{3 + k}" for k, x in enumerate(row)),
        )
        for i, row in enumerate(patterns)
    ]


def test_models_are_compared_on_the_questions_both_answered():
    strong = ["11"] * 40 + ["00"] * 10
    weak = ["01"] * 20 + ["11"] * 10 + ["00"] * 20
    runs = [*of_model("strong", "sums", strong), *of_model("weak", "sums", weak[:45])]
    card = decide(Runs.from_records(runs))
    (pair,) = card.models
    assert pair.models == ("strong", "weak") and pair.questions == 45
    assert pair.first.estimate == pytest.approx((40 - 10) / 45) and pair.first.low > 0
    # The weak model is to revise once, which makes up for most of it.
    assert pair.used.estimate == pytest.approx((40 - 30) / 45)
    assert len(card.pooled) == 2
    assert "strong less weak on 45 questions" in " ".join(str(card).split())
    assert len(card.to_dict()["models"]) == 1
    assert decide(Runs.from_records(of_model("strong", "sums", strong))).models == ()
