"""The card: what it makes of pilots of every kind, in words, numbers, commands and JSON."""

import json
from pathlib import Path

import numpy as np
import pytest

from msjax.data.importers.reading import read
from msjax.data.runs import Runs
from msjax.data.trajectory import Trajectory
from msjax.data.usage import Usage
from msjax.decision.card import decide
from msjax.decision.words import commands, headline, statements
from msjax.errors import InputError

PILOTS = Path(__file__).parents[1] / "data" / "pilots"


def runs(patterns: list[str], **changes) -> Runs:
    """Runs of 100 tokens a round whose right answers are "2" and whose wrong ones all differ."""
    answers = [["2" if c == "1" else f"{3 + i}" for i, c in enumerate(row)] for row in patterns]
    tokens = [[100.0] * len(row) for row in patterns]
    correct = [[int(c) for c in row] for row in patterns]
    return Runs.from_arrays(correct, **({"answers": answers, "tokens": tokens} | changes))


def records(patterns: list[str], **changes) -> Runs:
    """The same as records, which can say how they were stopped."""
    return Runs.from_records(
        Trajectory(
            **{
                "question_id": f"q{i:03}",
                "correct": tuple(c == "1" for c in row),
                "answers": tuple("2" if c == "1" else f"{3 + j}" for j, c in enumerate(row)),
            }
            | changes
        )
        for i, row in enumerate(patterns)
    )


def pilot(*names: str, **options):
    return decide(read(*(PILOTS / f"{name}.jsonl" for name in names)), **options)


def row(card, name):
    return next(one for one in card.policies if one.policy.name == name)


def test_everything_stands_beside_the_policy_to_use():
    card = pilot("full60")
    one = card.single
    assert card.verdict == "better" and one.reference.name == "first"
    assert headline(one).startswith("Revise") and headline(one).endswith("first answer.")
    used, said = one.chosen, dict(card.statements)
    assert f"32 of 60 right -> {used.right} of 60" in said["verdict"]
    assert f"{used.gain.estimate:+.2f}" in said["verdict"]
    assert f"{used.uncached.estimate:,.0f}" in said["tokens"]
    assert used.gain.estimate == pytest.approx((used.right - 32) / 60)
    assert used.saving.estimate == pytest.approx(520 - used.uncached.estimate)
    assert one.difference == used.gain
    # Plain revision is a row and a sentence, not the headline.
    assert row(card, "3 rounds").right == 51 and "3 rounds" in said["plain revision"]


def test_known_exactly_is_said_so():
    card = pilot("full60")
    first, everything = row(card, "first"), row(card, "3 rounds")
    assert first.gain.low == first.gain.high == 0
    assert everything.saving.estimate == everything.saving.low == everything.saving.high == 0
    kept = pilot("full60", baseline="first")
    assert row(kept, "first").saving.high == 0


def test_ragged_runs_are_judged_where_they_were_recorded():
    full, ragged = pilot("full60"), pilot("ragged60")
    assert row(ragged, "first").questions == 60 and row(ragged, "3 rounds").questions == 18
    right = read(PILOTS / "full60.jsonl")
    cut = read(PILOTS / "ragged60.jsonl")
    revised = cut.recorded == 4
    change = right.right[revised, 3].mean() - right.right[revised, 0].mean()
    assert row(ragged, "3 rounds").gain.estimate == pytest.approx(change)
    assert row(ragged, "3 rounds").uncached.estimate == row(full, "3 rounds").uncached.estimate
    assert not row(ragged, "3 rounds").eligible and ragged.verdict == "cannot tell"
    assert ragged.single.more.questions is not None


def test_stopping_rules_are_judged_on_complete_runs_only():
    # Of cut runs only those that repeat their answer at once would tell.
    card = decide(runs(["0111"] * 15 + ["0000"] * 10 + ["11"] * 30))
    assert row(card, "until repeated once").questions == 25


def test_price_decides_only_if_given():
    silent = pilot("tokens6000")
    said = dict(silent.statements)
    assert silent.verdict == "better" and "no price was given" in said["price"]
    used = silent.single.chosen
    assert used.break_even.estimate == pytest.approx(used.gain.estimate / used.extra_tokens)
    dear = pilot("tokens6000", worth=1.0, price=1e-4)
    assert dear.single.use.name == "first" and dear.single.reference.name == "3 rounds"
    assert dear.verdict == "better" and headline(dear.single).startswith("Keep the first answer")
    cheap = pilot("tokens6000", worth=1.0, price=used.break_even.low / 100)
    assert cheap.single.use.name != "first" and cheap.verdict == "better"


def test_censored_runs_are_left_out_and_said():
    one, many = pilot("onecens").single, pilot("mixcens").single
    assert len(one.outcomes.right) == 59 and "1 run ended by looking" in one.pilot.notes[0]
    assert len(many.outcomes.right) == 33 and "27 runs" in many.pilot.notes[0]
    assert many.status == "judged"


@pytest.mark.parametrize(
    "found",
    [
        records(["01", "1", "001", "000"] * 12, censored=True),
        records(["01", "1", "001", "1"] * 12),  # written as if nothing had stopped them
        Runs.from_arrays([[0, 1, 1, 1]] * 10 + [[1, 1, 1, 1]] * 30 + [[0, 0, 0, 0]] * 10),
    ],
    ids=["marked", "unmarked", "cumulative labels"],
)
def test_labels_that_stopped_runs_leave_revising_unidentified(found):
    card = decide(found)
    (one,) = card.decisions
    assert one.status == "not identified" and card.verdict == "cannot tell"
    said = dict(card.statements)
    assert "not identified" in said["verdict"] and "revisions of a wrong answer" in said["verdict"]
    assert "record 50 questions" in said["collect"] and [x.policy.name for x in card.policies] == [
        "first"
    ]


def test_rule_that_looks_at_answers_hides_what_came_later():
    patterns = ["11"] * 20 + ["0011"] * 10 + ["0000"] * 10 + ["1011"] * 5
    found = records(patterns, stop_reason="rule", settings={"rule": "until_repeated: 2"})
    card = decide(found)
    one = card.single
    names = [x.policy.name for x in card.policies]
    assert names == ["first", "1 round", "as recorded"] and one.baseline.name == "as recorded"
    assert row(card, "as recorded").right == 35
    assert "between 15 and 35 of 45" in dict(card.statements)["assumptions"]
    with pytest.raises(InputError, match="as recorded"):
        _ = one.outcomes.policies[2].rule


def test_runs_ended_by_a_fixed_rule_are_not_hidden():
    found = records(["01"] * 30, stop_reason="rule", settings={"rule": "fixed: 1"})
    more = records(["0111"] * 30, stop_reason="rule", settings={"rule": "fixed: 3"})
    both = Runs.from_records(
        [
            *found.records,
            *(r.model_copy(update={"question_id": "x" + r.question_id}) for r in more.records),
        ]
    )
    card = decide(both)
    assert row(card, "1 round").questions == 60 and row(card, "3 rounds").questions == 30


def test_following_the_advice_decides():
    # Four of ten answers are broken or repaired; one more in forty is repaired than broken.
    forty = ["01"] * 8 + ["10"] * 7 + ["11"] * 15 + ["00"] * 10
    before = decide(runs(forty))
    assert before.verdict == "cannot tell"
    more = before.single.more.questions
    assert dict(before.statements)["collect"].startswith(f"{more:,} more questions")
    like_them = (forty * (1 + more // 40))[:more]
    names = [str(i) for i in range(40 + more)]
    after = decide(runs(forty + like_them, question_ids=names))
    assert after.single.chosen.gain.high - after.single.chosen.gain.low < 0.2
    assert after.single.difference.high - after.single.difference.low < 0.1


def test_repeated_questions_are_one_cluster():
    card = pilot("dups")
    assert card.single.judgement.clusters[0] == 10 and card.single.status == "too few"
    assert "10 different texts" in dict(card.statements)["assumptions"]
    assert headline(card.single).startswith("Keep what you do (3 rounds): 10 clusters are too few")
    assert str(card).startswith("b (m): 50 questions in 10 clusters, up to 3 rounds")


def test_without_a_command_one_line_is_blank_before_the_table():
    card = decide(runs(["01", "11", "10"]))
    assert "  apply it:" not in str(card) and "\n\n\n" not in str(card)


def test_a_cluster_field():
    found = Runs.from_records(
        Trajectory(question_id=str(i), correct=(i % 3 == 0, True), metadata={"source": i // 2})
        for i in range(60)
    )
    assert decide(found, cluster="source").single.judgement.clusters[0] == 30
    with pytest.raises(InputError, match="cluster.*'topic'"):
        decide(found, cluster="topic")


def test_equal_answers_with_unequal_labels_are_refused():
    with pytest.raises(InputError, match=r"line 2 .*rounds 0 and 1 give the same answer"):
        pilot("inconsistent")


def test_names_that_differ_in_case_are_said():
    card = pilot("case")
    assert "'GSM8K', 'gsm8k' differ only in capital letters" in card.warnings[0]
    assert [one.name for one in card.decisions] == ["GSM8K", "gsm8k"]
    with pytest.raises(InputError, match="several benchmarks"):
        _ = card.rule


def test_a_family_of_benchmarks_has_wider_intervals():
    one = pilot("full60")
    two = pilot("twomodels_same_q")
    assert (
        two.terms.family == 2
        and "all 2 benchmarks" in dict(statements(two.decisions[0]))["assumptions"]
    )
    narrow, wide = (c.policies[1].gain for c in (one, two.decisions[0]))
    assert wide.high - wide.low > narrow.high - narrow.low


def test_no_tokens_no_saving():
    card = pilot("zerotok")
    assert "not identified" in dict(card.statements)["tokens"]
    assert card.single.chosen.saving is None and card.single.chosen.uncached is None
    with pytest.raises(InputError, match="reports no tokens"):
        pilot("zerotok", worth=1.0, price=1.0)


def test_no_interval_of_width_0_where_nothing_differs():
    card = pilot("allright")
    one = row(card, "1 round")
    assert one.gain.low < 0 < one.gain.high and card.single.use.name == "first"
    assert one.accuracy.low < 1
    assert "the same for every question" in dict(card.statements)["tokens"]


def test_nothing_depends_on_the_order_of_lines():
    found = read(PILOTS / "full60.jsonl").records
    one = decide(Runs.from_records(found)).to_dict()
    other = decide(Runs.from_records(found[::-1])).to_dict()
    assert json.dumps(one) == json.dumps(other)


def test_bounds_are_sets():
    card = decide(runs(["01"] * 10 + ["10"] * 6 + ["11"] * 20 + ["00"] * 4))
    bounds = card.to_dict()["benchmarks"][0]["bounds"]
    assert bounds["upper_low"] == pytest.approx(30 / 40)
    assert bounds["upper_high"] == pytest.approx(36 / 40)
    assert bounds["lower_low"] == pytest.approx(20 / 40)
    assert bounds["lower_high"] == pytest.approx(26 / 40)
    assert "between 0.75 and 0.90" in dict(card.statements)["bounds"]


def test_independent_samples_of_the_same_questions():
    rounds = records(["0111"] * 24 + ["1111"] * 16)
    # Of three samples two are right on questions 0 to 23, none on the others.
    samples = records(["110"] * 24 + ["000"] * 16, protocol="parallel")
    card = decide(Runs.from_records([*rounds.records, *samples.records]))
    assert row(card, "majority of 3 samples").right == 24
    assert row(card, "majority of 3 samples").gain.estimate == pytest.approx((24 - 16) / 40)
    alone = decide(
        Runs.from_records([*rounds.records, records(["11"], protocol="parallel").records[0]])
    )
    assert row(alone, "majority of 2 samples").questions == 1


def test_samples_alone_are_judged_too():
    random = np.random.default_rng(1)
    correct = random.random((60, 5)) < 0.7
    answers = np.where(correct, 0, random.integers(1, 9, correct.shape))
    card = decide(Runs.from_arrays(correct, answers=answers, protocol="parallel"))
    names = [x.policy.name for x in card.policies]
    assert names[0] == "first" and "majority of 5 samples" in names
    assert card.single.baseline.name == "majority of 5 samples"
    assert row(card, "first").accuracy.estimate == pytest.approx(correct.mean())
    votes = np.array([np.bincount(x, minlength=9) for x in answers])
    sure = votes[:, 0] > votes[:, 1:].max(axis=1)
    assert row(card, "majority of 5 samples").accuracy.estimate >= sure.mean()


def test_every_statement_is_in_the_text_and_the_json():
    card = pilot("full60")
    text = " ".join(str(card).split())
    found = card.to_dict()
    assert found["schema"] == 1 and json.loads(json.dumps(found)) == found
    (one,) = found["benchmarks"]
    assert one["headline"] in text and one["verdict"] == card.verdict
    for sentence in one["statements"].values():
        assert sentence in text
    for command in one["commands"]:
        assert " ".join(command["command"].split()) in text
    assert len(one["policies"]) == len(card.policies)
    assert [x["repaired"] - x["broken"] for x in one["rounds_changed"]] == [8, 7, 4]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"margin": -0.1}, "margin"),
        ({"margin": 1.0}, "margin"),
        ({"margin": float("nan")}, "margin"),
        ({"worth": 0.0}, "worth"),
        ({"worth": 1.0, "price": -1.0}, "price"),
        ({"price": 0.1}, "worth is missing"),
        ({"baseline": "9 rounds"}, "baseline is '9 rounds'.*first, 1 round"),
    ],
)
def test_refuses_what_is_out_of_range(options, says):
    with pytest.raises(InputError, match=says):
        decide(runs(["01"] * 30), **options)


def test_refuses_prefixes_of_a_trace():
    with pytest.raises(InputError, match="prefixes"):
        decide(runs(["011"] * 6, protocol="prefix"))


def test_no_round_recorded():
    card = decide(runs(["1", "0"] * 15))
    assert card.single.status == "not identified"
    assert "no round of revision" in dict(card.statements)["verdict"]


def test_the_rule_is_the_policy():
    card = decide(runs(["0111"] * 20 + ["1111"] * 20))
    assert card.single.use.name == "1 round"
    rule = card.rule
    state = rule.init()
    from msjax.rules.protocol import Observation

    seen = [Observation(np.int32(k), np.float32(np.nan), np.float32(100)) for k in range(2)]
    state, first = rule.update(state, seen[0])
    _, second = rule.update(state, seen[1])
    assert not first.stop and second.stop and second.answer_id == 1


def changed(change, questions=60):
    """A pilot with run number i changed by `change(i)`."""
    records = read(PILOTS / "full60.jsonl").records[:questions]
    found = [x.model_copy(update=change(i)) for i, x in enumerate(records)]
    return decide(Runs.from_records(found)).single


def test_more_of_the_same_is_not_advised_where_answers_were_cut():
    def advice(cut):
        ends = [{"finish": (why,) * 4, "completions": ("x",) * 4} for why in ("length", "stop")]
        found = changed(lambda i: ends[i >= cut], questions=15)
        return dict(statements(found))["collect"], "record more" in dict(commands(found))

    collect, recorded = advice(cut=0)
    assert "cut" not in collect and recorded
    collect, recorded = advice(cut=5)
    assert collect.startswith("20 of 60 answers (33%) were cut at the limit") and not recorded
    assert "raise max_new_tokens" in collect


def test_settings_that_differ_are_said():
    def settings(i):
        return {"settings": {"temperature": 0.7 if i < 40 else 1.0, "rule": str(i), "seed": i}}

    notes = changed(settings).pilot.notes
    (note,) = [note for note in notes if "give runs of different settings apart" in note]
    assert note.startswith("b: temperature is 0.7 in 40 and 1.0 in 20 of its runs")


def test_costs_that_rest_on_a_missing_count_are_not_identified():
    lost = Usage(prompt=30, cached=0, completion=None)
    found = changed(lambda i: {"tokens": (lost,) * 4} if i == 3 else {})
    said = dict(statements(found))
    assert said["tokens"].startswith("not identified")
    assert "token counts of 4 of 240 answers are missing" in said["assumptions"]
    assert all(row.saving is None and row.uncached is None for row in found.policies)


def test_lists_are_taken_and_the_name_of_a_file_is_not():
    card = decide([[0, 1]] * 30)
    assert card.verdict == "better" and repr(card) == str(card)
    assert repr(card.decisions) == "(Decision('benchmark': use 1 round, better),)"
    with pytest.raises(InputError, match=r"give msjax.read\('runs.jsonl'\)"):
        decide("runs.jsonl")


@pytest.mark.parametrize(
    ("verdicts", "says"),
    [
        (lambda right: right, "accepted 40 of 40 right and 0 of 40 wrong answers; discrimination"),
        (lambda right: 0 * right + 1, "the judge accepts every answer: its verdicts tell nothing"),
        (lambda right: 0 * right, "the judge rejects every answer: its verdicts tell nothing"),
        (lambda right: right ^ (np.indices(right.shape)[0] // 2 % 2), "not distinguishable from"),
        (lambda right: 1 - right, "accepts wrong answers more often than right ones"),
    ],
    ids=["right", "accepts all", "rejects all", "coin", "reversed"],
)
def test_a_card_says_what_the_verdicts_of_a_judge_are_worth(verdicts, says) -> None:
    right = np.tile([[0, 1], [1, 0]], (20, 1))
    card = decide(Runs.from_arrays(right, verdicts=verdicts(right)))
    assert says in dict(card.statements)["judge"]
    judge = card.to_dict()["benchmarks"][0]["judge"]
    assert judge["judged_right"] == 40 and len(judge["discrimination"]) == 3
