"""Rules by name: one spelling of when to stop, what to return, and options; rules of one's own."""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from msjax.cli import main
from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.rules import (
    Observation,
    find_rule,
    find_rules,
    register_rule,
    registry,
    rule_names,
    run_rule,
)
from msjax.rules.fixed import fixed_rounds, until_accepted
from msjax.rules.spec import RuleSpec, constant

ROOT = Path(__file__).parents[2]
OWN = re.search(
    r"```python\n(import jax.numpy.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL
)


def runs(protocol="sequential", **more):
    random = np.random.default_rng(0)
    answers = random.integers(0, 3, (12, 4))
    return Runs.from_arrays(answers == 0, answers=answers, protocol=protocol, **more)


JUDGED = runs(verdicts=np.ones((12, 4), int), scores=np.ones((12, 4)))


@pytest.fixture
def own_rules(tmp_path, monkeypatch):
    """The module that the documentation shows, in the folder one works in."""
    (tmp_path / "my_rules.py").write_text(OWN.group(1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "my_rules", raising=False)


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("fixed", "fixed", 4),
        ("fixed+last", "fixed", 4),
        ("fixed+majority,rounds=2", "fixed+majority,rounds=2", 1),
        ("markovscale,estimate=posterior", "markovscale", 1),
        ("markovscale+majority,risk=averse", "markovscale+majority,risk=averse", 4),
        ("until_repeated,times=3", "until_repeated,times=3", 1),
        ("belief+most_probable", "belief+most_probable", 1),
        ("belief+best_score,verdicts=only", "belief+best_score,verdicts=only", 1),
    ],
)
def test_a_name_is_read_and_written_in_one_way(text, name, settings):
    rule = find_rule(text, JUDGED)
    assert rule.name == name and len(rule.settings) == settings
    assert find_rule(rule.name, JUDGED) == rule


def test_options_are_listed_only_where_asked_for():
    usual, every = find_rules(runs()), find_rules(runs(), every=True)
    assert [rule.name for rule in usual] == [
        "fixed",
        "fixed+majority",
        "fixed+most_probable",
        "until_repeated",
        "markovscale",
        "belief",
        "belief+most_probable",
    ]
    names = [rule.name for rule in every]
    assert "markovscale,without=gate" in names and len(set(names)) == len(names) > len(usual)
    scored = find_rules(runs("parallel", scores=np.full((12, 4), 0.5)), every=True)
    assert {"fixed+majority", "asc", "optscale,peek=once"} <= {rule.name for rule in scored}
    assert len(rule_names()) == 14


@pytest.mark.parametrize(
    ("text", "protocol", "message"),
    [
        ("belif", "sequential", "'belif' is unknown; known are fixed, until_repeated"),
        ("fixed+best", "sequential", "'best' is no return; choose from last, majority"),
        ("belief,scores=most", "sequential", "scores is 'most'; choose from no, yes, only"),
        ("until_repeated,times=9", "sequential", "no setting or option 'times=9'; settings are"),
        ("asc", "sequential", "is for samples, and benchmark has rounds"),
        ("belief", "parallel", "is for rounds, and benchmark has samples"),
        ("fixed", "parallel", "write fixed\\+majority"),
        ("esc+most_probable", "parallel", "write esc\\+majority"),
        ("until_accepted", "sequential", "needs a judge's verdict on every answer"),
        ("until_accepted,otherwise=best", "sequential", "otherwise is 'best'; choose from last"),
        ("belief,scores=only,verdicts=only", "sequential", "or both with yes"),
        ("belief,verdicts=yes", "sequential", "needs a judge's verdict on every answer"),
        ("belief+most_probable,verdicts=yes", "sequential", "not at scores or verdicts"),
        ("belief,scores=only", "sequential", r"needs a score in \[0, 1\]"),
        ("no_module:rule", "sequential", "no module 'no_module'"),
        ("json:no_rule", "sequential", "has no 'no_rule'"),
        ("json:dumps", "sequential", "returned str; return a StoppingRule"),
    ],
)
def test_what_cannot_be_found_is_said(text, protocol, message):
    with pytest.raises(InputError, match=message):
        find_rule(text, runs(protocol))


def test_the_first_accepted_answer_is_returned():
    ids = jnp.array([0, 1, 1, 2])
    cases = ([0, 0, 1, 1], 3, 1), ([0, -1, 0, -1], 4, 2), ([1] * 4, 1, 0)
    for verdicts, n_used, answer in cases:
        ran = run_rule(until_accepted(4), Observation(ids, verdict=jnp.array(verdicts)))
        assert (int(ran.n_used), int(ran.answer_id), bool(ran.hit_budget)) == (
            n_used,
            answer,
            False,
        )
    given = jnp.array([0, 2, 2, 1])
    for otherwise, expected in (("last", 1), ("first", 0), ("majority", 2)):
        rule = until_accepted(4, otherwise)
        never = run_rule(rule, Observation(given, verdict=jnp.zeros(4, int)))
        assert (int(never.n_used), int(never.answer_id)) == (4, expected)
        ends = run_rule(rule, Observation(given, verdict=jnp.array([0, 1, 0, 0])))
        assert (int(ends.n_used), int(ends.answer_id)) == (2, 2)
    unjudged = run_rule(until_accepted(9), Observation(ids))
    assert int(unjudged.n_used) == 4 and bool(unjudged.hit_budget)


def test_answers_that_were_not_recorded_are_not_seen():
    ran = run_rule(fixed_rounds(2), Observation(jnp.array([3, 1, 2, 0])), recorded=2)
    assert (int(ran.n_used), int(ran.answer_id), bool(ran.hit_budget)) == (2, 1, True)
    assert np.isnan(ran.belief)


def test_a_rule_of_ones_own_is_named_wherever_rules_are(own_rules, tmp_path, capsys):
    rule = find_rule("my_rules:confident", runs())
    assert rule.says == "Until an answer scores .9, which is then returned."
    ran = run_rule(rule.make(None, None), Observation(jnp.arange(4), jnp.array([0.1, 0.95, 1, 1])))
    assert int(ran.n_used) == 2
    recorded = ROOT / "msjax/recorded/pilot.jsonl"
    options = ["--rules", "my_rules:confident", "my_rules:confident+majority", "--json", "out.json"]
    few = tmp_path / "few.jsonl"
    few.write_text("".join(recorded.read_text().splitlines(keepends=True)[:10]))
    assert main(["replay", str(few), *options]) == 0
    (pool,) = json.loads((tmp_path / "out.json").read_text())["pools"].values()
    assert list(pool["rules"]) == options[1:3]
    assert pool["rules"]["my_rules:confident"]["n_used"] == 4  # log-probabilities are below 0


def test_a_rule_is_registered_by_a_decorator(monkeypatch):
    assert rule_names()  # ours are registered by now
    monkeypatch.setattr(registry, "REGISTERED", dict(registry.REGISTERED))

    @register_rule("after_two", returns="last")
    def build(budget: int) -> RuleSpec:
        return RuleSpec("always twice", lambda *_: fixed_rounds(1), ("",), constant([0]))

    assert find_rule("after_two+majority", runs()).says.startswith("always twice; returns")
    with pytest.raises(InputError, match="rule 'after_two': give a new name"):
        register_rule("after_two")(build)
