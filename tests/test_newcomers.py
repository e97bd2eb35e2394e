"""What a newcomer writes first: each program in at most 15 lines, run as it stands."""

import ast
import textwrap

import pytest

PROGRAMS = {
    "fit arrays": """
        import jax, msjax
        chain = msjax.TwoStateChain(p0=0.5, p_ic=0.3, p_ci=0.1)
        correct = msjax.simulate(jax.random.key(0), chain, n=200, rounds=3)
        post = msjax.fit(msjax.Runs.from_arrays(correct), model="pooled")
        assert abs(post.p_ic.mean - 0.3) < 0.1
        print(post.p_ic.interval(0.9), post.summary())
    """,
    "decide": """
        import msjax
        from importlib.resources import files
        runs = msjax.read(files("msjax") / "recorded/pilot.jsonl").groups[0]
        card = msjax.decide(runs, baseline="all")
        assert card.decisions[0].verdict in ("better", "no worse", "worse", "cannot tell")
        assert card.rule.init is not None
    """,
    "simulate": """
        import jax, msjax
        chain = msjax.TwoStateChain(p0=0.6, p_ic=0.3, p_ci=0.1)
        paths = msjax.simulate(jax.random.key(0), chain, n=10_000, rounds=8)
        assert paths.shape == (10_000, 9)
        exact = msjax.theory.chain.accuracy_curve(chain, 8)
        assert abs(paths.mean(0) - exact).max() < 0.03
    """,
    "arrays": """
        import msjax
        correct = [["I", "C", "C"], ["C", "C", "C"], ["I", "I", "C"]]
        answers = [["3", "4", "4"], ["7", "7", "7"], ["1", None, "2"]]
        runs = msjax.Runs.from_arrays(correct, answers=answers, tokens=[[90, 60, 60]] * 3)
        assert runs.rounds == 2 and runs.first_right == 1
        assert runs.transitions.sum(0).tolist() == [[1, 2], [0, 3]]
    """,
    "own task": """
        import msjax
        capitals = [{"q": "Capital of France?", "a": "Paris"}, {"q": "Of Peru?", "a": "Lima"}]
        task = msjax.Task(msjax.samples(capitals, question="q", target="a"),
                          scorer=msjax.scorers.exact())
        engine = msjax.testing.ScriptedEngine(lambda said, key: "The answer is Paris.")
        runs = msjax.run(task, engine, rounds=1)
        assert runs.correct.tolist() == [[1, 1], [0, 0]]
    """,
    "own scorer": """
        import msjax

        def within_one(answer, target):
            return abs(float(answer) - float(target)) <= 1

        task = msjax.Task(msjax.samples([{"question": "How far?", "answer": "10"}]),
                          scorer=msjax.scorers.own(within_one))
        engine = msjax.testing.ScriptedEngine(lambda said, key: "The answer is 9.5.")
        assert msjax.run(task, engine, rounds=0).correct.tolist() == [[1]]
    """,
    "own rule, live": """
        import msjax
        def update(best, seen):  # stop at the first number with a high score
            return best, msjax.Decision(seen.score > -0.3, seen.answer_id, seen.score)

        rule = msjax.StoppingRule(lambda: 0, update)
        engine = msjax.testing.ScriptedEngine(lambda said, key: "The answer is 6.")
        task = msjax.find_task("arithmetic-easy")
        live = msjax.run(task, engine, rule=rule, rounds=3, questions=5)
        assert live.recorded.tolist() == [1] * 5 and live.rule_stopped.all()
    """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_first_program_runs(name: str) -> None:
    program = textwrap.dedent(PROGRAMS[name]).strip()
    assert len(program.splitlines()) <= 15
    assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(program)))
    exec(compile(program, name, "exec"), {})
