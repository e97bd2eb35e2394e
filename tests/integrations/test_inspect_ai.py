"""The solver, the scorer and the early stopping in real evaluations, of a model without a model."""

import numpy as np
import pytest

pytest.importorskip("inspect_ai")

from inspect_ai import Task, eval  # noqa: E402
from inspect_ai.dataset import MemoryDataset, Sample  # noqa: E402
from inspect_ai.model import ModelOutput, ModelUsage, get_model  # noqa: E402
from inspect_ai.scorer import match  # noqa: E402

import msjax  # noqa: E402
from msjax.integrations.inspect_ai import SettledStopping, each_answer, revise  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def says(*answers):
    """A model that gives these answers in the rounds of every conversation."""

    def output(input, tools, tool_choice, config):
        rounds = sum(message.role == "assistant" for message in input)
        found = ModelOutput.from_content("mockllm/model", f"It is {answers[rounds]}")
        found.usage = ModelUsage(
            input_tokens=12, input_tokens_cache_read=8, output_tokens=5, total_tokens=25
        )
        return found

    return get_model("mockllm/model", custom_outputs=output)


def evaluated(tmp_path, questions, answers, **more):
    dataset = MemoryDataset(
        [Sample(input=f"2 + {i}?", target="5", id=f"q{i}") for i in range(questions)]
    )
    task = Task(dataset=dataset, scorer=each_answer(match(numeric=True)), **more)
    model = says(*answers)
    (log,) = eval(task, model=model, log_dir=str(tmp_path), display="none", log_samples=True)
    assert log.status == "success"
    return log


def test_the_solver_revises_and_every_answer_is_scored(tmp_path):
    log = evaluated(tmp_path, 3, ("4", "5", "5", "6"), solver=revise("until_repeated"))
    for sample in log.samples:
        known = sample.store["msjax"]
        assert known["answers"] == ["4", "5", "5"] and known["stop_reason"] == "rule"
        assert known["tokens"][0]["prompt"] == 20 and known["tokens"][0]["cached"] == 8
        assert sample.output.completion == "It is 5"
        assert [message.role for message in sample.messages] == ["user", "assistant"]
        (score,) = sample.scores.values()
        assert score.value == "C" and score.metadata["msjax"]["scores"] == ["I", "C", "C"]
    assert log.results.scores[0].metrics["accuracy"].value == 1


def test_the_log_is_read_as_rounds(tmp_path):
    log = evaluated(tmp_path, 3, ("4", "5", "5", "6"), solver=revise("until_repeated"))
    runs = msjax.read(log.location)
    assert (runs.protocol, runs.questions) == ("sequential", 3)
    assert runs.right[:, :3].tolist() == [[False, True, True]] * 3
    assert runs.uncached[:, :3].tolist() == [[17.0] * 3] * 3


def test_an_evaluation_ends_when_it_is_settled(tmp_path):
    """Revising repairs every answer; with a difference of 1 few questions settle it."""
    stopping = SettledStopping(margin=0.05)
    log = evaluated(
        tmp_path,
        120,
        ("4", "5", "5"),
        solver=revise("fixed", rounds=1),
        early_stopping=stopping,
    )
    found = log.results.early_stopping.metadata
    assert stopping.verdict == found["verdict"] == "better"
    assert found["mean_difference"] == 1 and found["left_out"] > 20
    assert found["questions"] + found["left_out"] <= 120


@pytest.mark.parametrize(("mean", "verdict"), [(0.5, "better"), (-0.5, "worse"), (0.0, None)])
def test_only_what_is_so_is_settled(mean, verdict):
    import asyncio

    from inspect_ai.scorer import SampleScore, Score

    random = np.random.default_rng(0)
    stopping = SettledStopping(margin=0.02)
    block, fifty = np.arange(6)[:, None], np.tile(np.arange(50), (6, 1))
    values = random.random(300) < abs(mean)

    async def go():
        await stopping.start_task(None, [Sample(input="", id=i) for i in range(300)], 1)
        for i in (50 * block + random.permuted(fifty, axis=1)).ravel().tolist():
            repaired, broken = values[i] and mean > 0, values[i] and mean < 0
            pair = ["C" if broken else "I", "C" if repaired else "I"]
            score = Score(value=pair[1], metadata={"msjax": {"scores": pair, "returned": 1}})
            if i != 7:  # which fails, and is never completed
                await stopping.complete_sample(i, 1, {"s": SampleScore(score=score)})
        return await stopping.complete_task()

    found = asyncio.run(go())
    assert found["verdict"] == stopping.verdict == verdict
    assert found["skipped"] == 1
