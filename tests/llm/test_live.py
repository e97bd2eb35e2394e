"""Rules that learn from a pilot, what one would have done, and rates that drift."""

import json

import jax
import numpy as np
import pytest
from conversations import plan
from scipy.stats import binom

from msjax.cli import main
from msjax.data.runs import Runs
from msjax.data.trajectory import Trajectory
from msjax.data.usage import Usage
from msjax.decision.monitor import audited
from msjax.errors import InputError
from msjax.evaluate.replay import replay
from msjax.evaluate.streams import streams
from msjax.llm.drift import RateMonitor
from msjax.llm.live import cut_by, rule_from_pilot, rule_from_posterior
from msjax.llm.record import record_run
from msjax.llm.scores import find_score
from msjax.llm.watch import Promise, Watch
from msjax.posterior import fit
from msjax.posterior.for_rules import PosteriorForRules
from msjax.posterior.store import load, save
from msjax.rules import find_rules
from msjax.rules.fixed import answer_by, fixed_rounds, until_repeated
from msjax.rules.spec import Training
from msjax.tasks.registry import BENCHMARKS
from msjax.testing import ScriptedEngine
from msjax.verify.evidence import FALSE_ALARM

NAME = "arithmetic-easy"
LEARNT = {"rounds": 2, "value": 1.0, "price": 1e-4}
POSTERIOR = PosteriorForRules(jax.random.fold_in(jax.random.key(0), 0))


def run_of(states, number=0, scores=None, answers=None):
    """A run with these states; right answers are "7"."""
    n = len(states)
    return Trajectory(
        model="m",
        benchmark=NAME,
        question_id=f"{number:05d}",
        protocol="sequential",
        question="?",
        gold="7",
        answers=tuple(
            answers or ("7" if right else f"{number}.{k}" for k, right in enumerate(states))
        ),
        correct=tuple(map(bool, states)),
        scores=tuple(scores or [None] * n),
        tokens=(Usage(prompt=10, cached=0, completion=5),) * n,
        completions=("",) * n,
        stop_reason="rule",
        censored=False,
        key="",
        settings={},
    )


def simulated(random, questions, p0, p_ic, p_ci, rounds=2):
    """Runs of one chain, or of one per question."""
    runs = []
    for i in range(questions):
        rates = [float(np.broadcast_to(p, questions)[i]) for p in (p0, p_ic, p_ci)]
        states = [random.random() < rates[0]]
        for _ in range(rounds):
            states.append(states[-1] ^ (random.random() < rates[2 if states[-1] else 1]))
        runs.append(run_of(states, i))
    return runs


@pytest.mark.slow
def test_every_rule_that_may_run_live_has_its_default_setting():
    """In front of a model and in replay, with each option of each rule."""
    random = np.random.default_rng(0)
    rounds = simulated(random, 40, 0.4, 0.4, 0.1)
    scored = [
        run.model_copy(update={"scores": tuple(random.beta(4 + 2 * x, 3) for x in run.correct)})
        for run in rounds
    ]
    samples = [run.model_copy(update={"protocol": "parallel"}) for run in scored]
    done = set()
    for pilot in (scored, samples):
        (pool,) = Runs.from_records(pilot).groups
        for entry in find_rules(pool, every=True):
            if entry.side_info is None and entry.name not in done:
                done.add(entry.name)
                live = rule_from_pilot(entry.name, pilot, model="pooled", **LEARNT)
                found = evaluate_default(entry, pool)
                met = [len(run.answers) for run in cut_by(live.rule, pilot)]
                assert met == found, entry.name


def evaluate_default(entry, pool):
    """Answers that the rule asks for of every question in replay, at its default setting."""
    known = Training(pool, np.ones(pool.questions, bool), 1.0, 1e-4, POSTERIOR)
    met = streams(pool, jax.random.key(0), 1)._replace(
        **{name: np.asarray(x)[None] for name, x in as_recorded(pool).items()}
    )
    return replay(entry.make, met, entry.parameters(known)).n_used[entry.default, 0].tolist()


def as_recorded(pool):
    return {
        "answers": pool.answers,
        "scores": pool.scores,
        "tokens": pool.uncached.astype(np.float32),
        "sample": np.broadcast_to(np.arange(pool.samples), pool.answers.shape),
    }


def test_a_run_goes_on_with_the_rule_that_it_began_with(tmp_path):
    """Rules of one name that learnt other numbers do not mix; nothing else of a pilot matters."""
    path, rules = tmp_path / "a.jsonl", {NAME: fixed_rounds(0)}
    begun = record_run(path, plan(count=2, learnt={NAME: "1"}), rules, ScriptedEngine)
    with pytest.raises(InputError, match="recorded with learnt='1', but this run has learnt='2'"):
        record_run(path, plan(count=3, learnt={NAME: "2"}), rules, ScriptedEngine)
    again = record_run(path, plan(count=3, learnt={NAME: "1"}), rules, ScriptedEngine)
    assert again[:2] == begun


@pytest.mark.parametrize("rule", [until_repeated(3), answer_by(fixed_rounds(2), "majority", 3)])
def test_a_cut_run_is_the_live_run(rule, tmp_path):
    """Keys belong to questions, so what the rule leaves out is all that differs."""
    live = record_run(tmp_path / "a.jsonl", plan(count=12), {NAME: rule}, ScriptedEngine)
    full = record_run(tmp_path / "b.jsonl", plan(count=12), {NAME: fixed_rounds(2)}, ScriptedEngine)
    assert cut_by(rule, full) == live
    assert {run.revisions for run in live} <= {1, 2} and len(full) == 12


def wrong_at_first(said, _):
    """A first answer that is wrong, and right ones when asked to revise it."""
    task = BENCHMARKS[NAME]
    asked = said[2 * len(task.examples) :]
    gold = next(q.gold for q in task.questions(0, 90) if q.text in asked[0])
    return f"It is {gold if len(asked) > 1 else int(gold) + 1}."


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_promise_is_watched_on_a_share_of_the_questions(share, tmp_path):
    """Those looked at are asked to the end; what the rule returned there is what it returns."""
    rules, path = {NAME: fixed_rounds(0)}, tmp_path / "a.jsonl"
    promise = Promise(0.9, share)
    live = record_run(
        path, plan(count=40), rules, ScriptedEngine, watch={NAME: Watch(promise=promise)}
    )
    full = record_run(tmp_path / "b.jsonl", plan(count=40), {NAME: fixed_rounds(2)}, ScriptedEngine)
    looked_at = [run for run in live if run.revisions == 2]
    assert {run.question_id for run in looked_at} == {
        run.question_id for run in live if audited(run.question_id, share)
    }
    assert promise.monitor.questions == len(looked_at) and not promise.monitor.broken
    lost = [run.correct[0] - run.correct[2] for run in full if audited(run.question_id, share)]
    assert promise.monitor.mean == pytest.approx(np.mean(lost))
    assert [run.right for run in live] == [run.correct[0] for run in full]
    again = Promise(0.9, share)
    record_run(path, plan(count=40), rules, ScriptedEngine, watch={NAME: Watch(promise=again)})
    assert again.monitor.evidence == promise.monitor.evidence


@pytest.mark.slow
def test_a_broken_promise_ends_the_rule(tmp_path):
    """The rule keeps first answers, and revisions repair so many that this loses too much."""
    learns = ScriptedEngine(wrong_at_first)
    promise = Promise(0.05, 1.0)
    live = record_run(
        tmp_path / "a.jsonl",
        plan(count=90),
        {NAME: fixed_rounds(0)},
        lambda: learns,
        watch={NAME: Watch(promise=promise)},
    )
    at = promise.monitor.broken_at
    assert at is not None and at < 60
    assert all(run.returned == 0 for run in live[:at])
    late = live[at + learns.batch_size :]
    assert late and all(run.returned == 2 for run in late)


def test_the_answer_returned_need_not_be_the_last():
    run = run_of([1, 1, 0])
    (voted,) = cut_by(answer_by(fixed_rounds(2), "majority", 3), [run])
    assert voted.returned == 1 and voted.right and not run.right
    (none,) = cut_by(fixed_rounds(1), [run_of([0, 0, 1], answers=[None, None, "7"])])
    assert none.returned == 1 and not none.right


def test_a_rule_learns_from_the_pilot():
    random = np.random.default_rng(0)
    helps = simulated(random, 60, 0.3, 0.6, 0.02)
    hurts = simulated(random, 60, 0.7, 0.02, 0.4)
    found = set()
    for pilot, rounds in ((helps, 2), (hurts, 0)):
        rule = rule_from_pilot("markovscale", pilot, model="pooled", **LEARNT)
        assert not rule.looks
        assert {run.revisions for run in cut_by(rule.rule, pilot)} == {rounds}
        assert (
            rule.identity
            == rule_from_pilot("markovscale", pilot, model="pooled", **LEARNT).identity
        )
        found.add(rule.identity)
    assert len(found) == 2
    assert rule_from_pilot("belief", helps, **LEARNT).looks
    with pytest.raises(InputError, match="2 rounds, rounds is 3; record a pilot"):
        rule_from_pilot("markovscale", helps, **LEARNT | {"rounds": 3})
    with pytest.raises(InputError, match="needs a score in"):
        rule_from_pilot("belief,scores=only", helps, **LEARNT)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["pooled", "auto"])
def test_a_pilot_and_the_posterior_saved_from_it_give_one_rule(model, tmp_path):
    """The same draws in another order, hence the same plan and the same answers asked for."""
    pilot = simulated(np.random.default_rng(3), 60, 0.4, 0.3, 0.1)
    (tmp_path / "pilot.jsonl").write_text("".join(f"{run.model_dump_json()}\n" for run in pilot))
    (runs,) = Runs.from_records(pilot).groups
    key = jax.random.fold_in(jax.random.key(0), 0)
    found = fit(runs, model=model, seed=key)
    save(tmp_path / "p.nc", [found], seed=0, sources=[tmp_path / "pilot.jsonl"])
    saved = load(tmp_path / "p.nc")
    for name in ("markovscale", "markovscale,risk=averse"):
        learnt = rule_from_pilot(name, pilot, model=model, **LEARNT)
        followed = rule_from_posterior(name, saved, NAME, **LEARNT)
        for one, other in zip(learnt.plan, followed.plan, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
        assert cut_by(learnt.rule, pilot) == cut_by(followed.rule, pilot)
    with pytest.raises(InputError, match="learns from answers, which a posterior does not hold"):
        rule_from_posterior("belief", saved, NAME, **LEARNT)
    with pytest.raises(InputError, match="has fewer rounds than rounds = 5"):
        rule_from_posterior("markovscale", saved, NAME, **LEARNT | {"rounds": 5})


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [1, 6])
def test_alarms_are_rare_however_many_rounds_live_runs_have(rounds):
    """Questions differ widely, so that later moves are those of other questions than the first."""
    random = np.random.default_rng(1)

    def batch(questions, rounds, p_ic=None):
        p0, wide = random.beta(0.5, 0.5, questions), random.beta(0.2, 0.3, questions)
        return simulated(random, questions, p0, wide if p_ic is None else p_ic, 0.1, rounds=rounds)

    alarms = 0
    for _ in range(60):
        monitor = RateMonitor(batch(60, 4), false_alarm=0.05)
        for run in batch(80, rounds):
            monitor.add(run)
        alarms += bool(monitor.alarms)
    assert binom.sf(alarms - 1, 60, 0.05) > FALSE_ALARM
    monitor = RateMonitor(batch(150, 4))
    for run in batch(200, rounds, p_ic=0.05):
        monitor.add(run)
    assert [drift.rate for drift in monitor.alarms] == ["p_ic"]
    assert monitor.alarms[0].live < monitor.alarms[0].pilot
    assert monitor.alarms[0].p_value <= 0.01 / 3


def test_revisions_that_were_chosen_are_not_compared():
    """The pilot revised few wrong answers; whoever chose them may have chosen the easy ones."""
    pilot = [run_of([0, 1], i) for i in range(40)] + [run_of([0], 40 + i) for i in range(20)]
    all_wrong = [run_of([0, 0], i) for i in range(60)]
    for runs, alarms in ((pilot, []), (pilot[:40], ["p_ic"])):
        monitor = RateMonitor(runs)
        for run in all_wrong:
            monitor.add(run)
        assert [drift.rate for drift in monitor.alarms] == alarms


def test_estimates_are_by_score_and_count_every_move():
    pilot = [run_of([1, 0], i, scores=[-1.0 * i, None]) for i in range(9)]
    monitor = RateMonitor(pilot)
    monitor.add(run_of([0, 1, 0], 0, scores=[-8.0, None, None]))
    monitor.add(run_of([1, 1, 1], 1, scores=[0.0, None, None]))
    low, high = monitor.estimates()["low score"], monitor.estimates()["high score"]
    assert low["p_ic"].estimate == pytest.approx(2 / 3)
    assert low["p_ci"].estimate == pytest.approx(2 / 3)
    assert high["p_ci"].estimate == pytest.approx(1 / 4)
    assert high["p_ic"].low < 0.1 and high["p_ic"].high > 0.9


def test_after_an_alarm_the_rest_is_asked_for_all_rounds(tmp_path, caplog):
    """The pilot said every first answer is right, so the rule never revises."""
    pilot = [run_of([1, 1, 1], i) for i in range(50)]
    rule = rule_from_pilot("markovscale", pilot, model="pooled", **LEARNT)
    monitor = RateMonitor(pilot)
    runs = record_run(
        tmp_path / "a.jsonl",
        plan(count=12),
        {NAME: rule.rule},
        ScriptedEngine,
        {NAME: Watch(monitor)},
    )
    assert monitor.alarms[0].rate == "p0"
    revisions = [run.revisions for run in runs]
    at = monitor.alarms[0].questions
    # Questions advance two by two.
    assert set(revisions[:at]) == {0} and set(revisions[at + 1 :]) == {2}
    assert "p0 was 1.00 in the pilot and is" in caplog.text
    again = RateMonitor(pilot)
    assert runs == record_run(
        tmp_path / "a.jsonl",
        plan(count=12),
        {NAME: rule.rule},
        ScriptedEngine,
        {NAME: Watch(again)},
    )
    assert again.alarms == monitor.alarms


def test_confidence_is_a_share_that_rules_may_look_at(tmp_path):
    """The same answers, scored otherwise; a rule that needs scores in [0, 1] can learn."""
    rules = {NAME: fixed_rounds(2)}
    plain = record_run(tmp_path / "a.jsonl", plan(count=20), rules, ScriptedEngine)
    scored = record_run(
        tmp_path / "b.jsonl", plan(count=20), rules, ScriptedEngine, score=find_score("confidence")
    )
    assert [run.answers for run in plain] == [run.answers for run in scored]
    assert scored[0].scores == pytest.approx(np.exp(plain[0].scores))
    assert rule_from_pilot("belief,scores=only", scored, **LEARNT).looks
    with pytest.raises(InputError, match="needs a score in"):
        rule_from_pilot("belief,scores=only", plain, **LEARNT)
    sure = find_score("certainty")
    scored = record_run(tmp_path / "c.jsonl", plan(), rules, ScriptedEngine, score=sure)
    assert set(scored[0].scores) == {-0.5}
    with pytest.raises(InputError, match="score is 'entropy'; choose from token_logprob, conf"):
        find_score("entropy")


def test_bad_input(tmp_path, capsys):
    with pytest.raises(InputError, match="pilot holds no runs"):
        RateMonitor([])
    with pytest.raises(InputError, match="false_alarm is 1"):
        RateMonitor([run_of([1])], false_alarm=1.0)
    out = str(tmp_path / "x.jsonl")
    assert main(["run", out, "--rule", "markovscale", "--shadow", "fixed+majority"]) == 2
    assert "--shadow watches runs of --rule fixed" in capsys.readouterr().err
    assert main(["run", out, "--shadow", "belief"]) == 2
    assert "--pilot FILE of labelled runs" in capsys.readouterr().err


def test_shadow_of_a_recorded_run(tmp_path, monkeypatch, capsys):
    """The whole command, with a scripted model in place of the decoder."""
    import msjax.llm.flax.engine as flax_engine

    monkeypatch.setattr(
        flax_engine.FlaxEngine, "load", classmethod(lambda *_, **__: ScriptedEngine())
    )
    common = ["--benchmarks", NAME, "--rounds", "2", "--model", str(tmp_path / "scripted")]
    pilot, out, report = (str(tmp_path / x) for x in ("p.jsonl", "s.jsonl", "s.json"))
    assert main(["run", pilot, "--questions", "20", *common]) == 0
    shadow = ["--pilot", pilot, "--shadow", "until_repeated", "--json", report]
    options = ["--questions", "10", "--start", "20"]
    assert main(["run", out, *common, *options, *shadow]) == 0
    found = json.loads((tmp_path / "s.json").read_text())
    lines = (tmp_path / "s.shadow-until_repeated.jsonl").read_text().splitlines()
    assert len(lines) == 10
    (compared,) = found["shadow"]["comparison"]
    assert compared["tokens"] == pytest.approx(np.mean([json.loads(x)["tokens"] for x in lines]))
    assert found["drift"][NAME]["alarms"] == []
    assert "until_repeated would have done this" in capsys.readouterr().out
