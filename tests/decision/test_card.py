"""The decision card: its numbers by hand and by closed form, and that choosing is not rewarded.

Most pilots have 40 questions and 4 answers, so that rules are compiled once.
"""

import json
from html import escape
from importlib.resources import files

import jax
import numpy as np
import pytest
from scipy import stats

from msjax.cli import main
from msjax.data.runs import Runs
from msjax.data.trajectory import Trajectory
from msjax.data.usage import Usage
from msjax.decision.card import make_cards, statements
from msjax.decision.policies import choose_rule, parallel_alternative
from msjax.decision.verdict import changes_of, held_out_cells, pair_cells, questions_needed
from msjax.errors import InputError
from msjax.posterior.analysis import analyse, check_benchmark
from msjax.report import card as page

KEY = jax.random.key(3)


def trajectory(question: int, correct: str, **changes) -> Trajectory:
    """A run of 100 tokens a round whose right answers are "2" and whose wrong ones all differ."""
    rounds = len(correct)
    fields = {
        "model": "scripted",
        "benchmark": "sums",
        "question_id": f"q{question}",
        "protocol": "sequential",
        "question": "1 + 1",
        "gold": "2",
        "answers": tuple("2" if c == "1" else f"{3 + i}" for i, c in enumerate(correct)),
        "correct": tuple(c == "1" for c in correct),
        "scores": (None,) * rounds,
        "tokens": (Usage(prompt=60, cached=0, completion=40),) * rounds,
        "completions": ("",) * rounds,
        "stop_reason": "budget",
        "censored": False,
        "key": "0",
        "settings": {},
    }
    return Trajectory(**fields | changes)


def runs(patterns: list[str], **changes) -> list[Trajectory]:
    return [trajectory(i, pattern, **changes) for i, pattern in enumerate(patterns)]


def one_card(patterns: list[str], **changes):
    (card,) = make_cards(runs(patterns, **changes), KEY)
    return card


def test_cells_by_hand():
    right = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=bool)
    assert pair_cells(right).tolist() == [[1, 1, 1, 2], [1, 1, 2, 1]]


def test_rounds_are_chosen_by_other_folds():
    right = np.zeros((50, 3), dtype=bool)
    right[:30, 2] = True  # two rounds repair 30 questions, one round none
    cells, chosen = held_out_cells(right, np.zeros(2), np.random.default_rng(0))
    assert cells.tolist() == [0, 0, 30, 20] and chosen == (2,) * 5
    cells, chosen = held_out_cells(right, np.array([0.0, 0.9]), np.random.default_rng(0))
    assert cells.tolist() == [0, 0, 0, 50] and chosen == (1,) * 5


def test_change_has_the_law_of_a_difference_of_dirichlet_shares():
    counts = np.array([[20, 3, 9, 8]])
    (found,) = changes_of(counts, 0.0, np.random.default_rng(0))
    alpha = counts[0] + 0.5
    total = alpha.sum()
    mean = (alpha[2] - alpha[1]) / total
    second = (alpha[1] + alpha[2] + (alpha[2] - alpha[1]) ** 2) / (total * (total + 1))
    error = np.sqrt((second - mean**2) / 20_000)
    assert abs(found.change.mean - mean) < 4 * error
    # The share repaired among repaired and broken is Beta, whatever the other cells are.
    helps = stats.beta.sf(0.5, alpha[2], alpha[1])
    assert abs(found.helps - helps) < 4 * np.sqrt(helps * (1 - helps) / 20_000)
    assert found.helps + found.neutral + found.hurts == pytest.approx(1)


def simulated_verdicts(chain, seed, cells_of=held_out_cells):
    """Verdicts after the round of 1..3 that looks best, in 100 pilots of 50 questions."""
    p0, p_ic, p_ci = chain
    random = np.random.default_rng(seed)
    found = []
    for _ in range(100):
        right = [random.random(50) < p0]
        for _ in range(3):
            uniform = random.random(50)
            right.append(np.where(right[-1], uniform >= p_ci, uniform < p_ic))
        cells, _ = cells_of(np.stack(right, axis=1), np.zeros(3), random)
        (change,) = changes_of(cells[None], 0.02, random)
        found.append(change.verdict)
    return found


def best_in_sample(right, cost, random):
    """What `held_out_cells` must not do: judge the round that looks best where it looks best."""
    cells = pair_cells(right)
    return cells[np.argmax(cells[:, 2] - cells[:, 1])], ()


def test_verdicts_of_simulated_pilots():
    neutral = simulated_verdicts((0.6, 0.3, 0.2), 0)  # starts at its limit
    assert neutral.count("helps") <= 0.12 * 100
    tuned = simulated_verdicts((0.6, 0.3, 0.2), 0, best_in_sample)
    assert tuned.count("helps") > neutral.count("helps")
    better = simulated_verdicts((0.4, 0.5, 0.05), 1)
    assert better.count("helps") >= 0.9 * 100
    worse = simulated_verdicts((0.8, 0.1, 0.4), 2)
    assert worse.count("hurts") >= 0.9 * 100
    assert better.count("hurts") == worse.count("helps") == 0


def test_questions_needed():
    random = np.random.default_rng(0)
    clear = questions_needed(np.array([15, 2, 8, 15]), 0.02, 200.0, random)
    vague = questions_needed(np.array([20, 5, 6, 9]), 0.02, 200.0, random)
    assert clear.questions is not None and clear.tokens == 200 * clear.questions
    assert clear.chance >= 0.8
    assert vague.questions is None or vague.questions > clear.questions
    # A pilot so large that futures cannot move it, with the change at the margin itself.
    edge = questions_needed(
        np.array([5000, 1000, 1200, 2800]) * 100, 0.02, 1.0, random, sizes=(25,)
    )
    assert edge.questions is None and edge.chance < 0.5


def test_card_of_revising_that_helps():
    card = one_card(["0111"] * 16 + ["1111"] * 12 + ["0001"] * 4 + ["1011"] * 2 + ["0000"] * 6)
    decision, choice = card.decision, card.choice
    assert decision.verdict == "helps" and decision.by == "paired answers"
    assert decision.more is None
    # Round 1: 16 repaired, 2 broken of 40.
    assert decision.changes[0].change.mean == pytest.approx(14 / 42, abs=0.003)
    assert choice.rounds >= 1 and choice.gain.low > 0
    assert choice.all_tokens == 400
    assert choice.saved.estimate == pytest.approx(400 - choice.tokens)
    said = dict(statements(card))
    assert said["collect"] == "nothing more for this verdict"
    assert "not identified" in said["parallel samples"]


def test_card_of_revising_that_hurts_keeps_the_first_answer():
    card = one_card(["1000"] * 16 + ["1111"] * 12 + ["0000"] * 9 + ["0100"] * 3)
    assert card.decision.verdict == "hurts" and card.decision.rounds == 0
    assert card.choice.setting == "0 rounds" and card.choice.rounds == 0
    assert card.choice.accuracy.estimate == 28 / 40
    assert dict(statements(card))["use"] == "the first answer, unrevised"


def test_too_small_a_pilot_says_so():
    card = one_card(["0111"] * 4)
    assert card.decision.verdict == "too small" and card.choice is None
    assert card.decision.more is not None
    assert "too few questions (4); record at least 20" in dict(statements(card))["use"]
    card = one_card(["1011"])
    assert "1 question, up to 3 rounds" in card.title and len(card.decision.fold_rounds) == 1
    assert "folds" not in dict(statements(card))["verdict"]


def test_runs_stopped_by_the_label_identify_nothing():
    patterns = ["01", "1", "001", "000", "1", "01"] * 8
    card = one_card(patterns, censored=True, stop_reason="rule")
    assert card.decision.verdict == "not identified" and card.choice is None
    assert card.decision.chain.rates["p_ci"] is None
    assert card.decision.chain.rates["p_ic"] is not None
    said = dict(statements(card))
    assert "p_ci" in said["verdict"] and "without looking at labels" in said["collect"]


def test_runs_cut_by_a_rule_are_judged_by_the_chain():
    random = np.random.default_rng(1)
    patterns = []
    for _ in range(80):
        run = [random.random() < 0.5]
        for _ in range(random.integers(1, 4)):
            run.append(random.random() < (0.9 if run[-1] else 0.5))
        patterns.append("".join("01"[state] for state in run))
    card = one_card(patterns, stop_reason="rule")
    assert card.decision.by == "chain" and card.decision.verdict == "helps"
    assert card.choice is None and "by the chain" in dict(statements(card))["use"]


def test_no_revision_recorded():
    card = one_card(["1", "0"] * 15)
    assert card.decision.verdict == "not identified" and card.choice is None
    assert "no round" in dict(statements(card))["verdict"]


def test_choice_is_not_judged_where_it_was_made():
    # All answers are fair coins, so no rule is better than another. Judged on the questions that
    # chose it, the best of these rules looks better by about .08.
    random = np.random.default_rng(5)
    found = []
    for number in range(8):
        coins = random.integers(0, 2, (40, 4))
        patterns = ["".join(map(str, row)) for row in coins]
        # Answers of which none is repeated say nothing of whether they are right.
        pool = Runs.from_records(runs(patterns, answers=("1", "2", "3", "4")))
        choice = choose_rule(pool, jax.random.fold_in(KEY, number), value=1.0, price=0.0)
        found.append(choice.accuracy.estimate)
    assert abs(np.mean(found) - 0.5) < 3 * 0.5 / np.sqrt(8 * 40)


def test_parallel_alternative_by_hand():
    rounds = runs(["0111"] * 24 + ["1111"] * 16)
    # Three samples of 100 tokens: right by majority on questions 0 to 23, wrong on the others.
    samples = runs(["110"] * 24 + ["000"] * 16, protocol="parallel")
    (card,) = make_cards([*rounds, *samples], KEY)
    found = card.parallel
    assert card.choice.tokens == pytest.approx(200) and found.samples == 2
    # Of two samples of "110" the first decides a tie: right unless the wrong one comes first.
    assert found.accuracy == pytest.approx(24 / 40 * 2 / 3, abs=0.06)
    assert found.difference.estimate == pytest.approx(found.accuracy - 1, abs=1e-6)
    (pool,) = Runs.from_records(rounds).groups
    (other,) = Runs.from_records([trajectory(99, "11", protocol="parallel")]).groups
    assert parallel_alternative(pool, card.choice, other, KEY) is None


def test_samples_at_equal_tokens_pay_for_the_prompt_once():
    rounds = runs(["0111"] * 24 + ["1111"] * 16)
    first, later = (Usage(prompt=150, cached=cached, completion=20) for cached in (0, 149))
    samples = [
        run.model_copy(update={"tokens": (first, later, later)})
        for run in runs(["110"] * 40, protocol="parallel")
    ]
    (card,) = make_cards([*rounds, *samples], KEY)
    # 200 tokens: 170 for the first sample and 21 for the second.
    assert card.choice.tokens == pytest.approx(200)
    assert (card.parallel.samples, card.parallel.tokens) == (2, pytest.approx(191))


def test_every_command_finds_the_same_p_values():
    random = np.random.default_rng(2)
    rounds = runs(["".join(random.choice(["0", "1"], 4)) for _ in range(30)])
    (card,), (count,) = make_cards(rounds, KEY), Runs.from_records(rounds).groups
    key = jax.random.fold_in(KEY, 0)
    checks = check_benchmark(count, key)
    assert card.decision.checks == checks
    assert analyse(count, key, model="pooled", value=1.0, price=0.0).checks == checks


def test_answers_that_are_all_right_show_no_repairs():
    card = one_card(["1111"] * 40)
    assert card.choice.setting == "0 rounds" and card.decision.judged.helps < 0.2
    assert "do not show p_ic" in dict(statements(card))["more rounds"]


def test_refusals():
    with pytest.raises(InputError, match="prefixes"):
        make_cards(runs(["011"] * 6, protocol="prefix"), KEY)
    with pytest.raises(InputError, match="parallel answers only"):
        make_cards(runs(["11"], protocol="parallel"), KEY)
    with pytest.raises(InputError, match="margin"):
        make_cards(runs(["01"] * 6), KEY, margin=-0.1)
    with pytest.raises(InputError, match="none given"):
        make_cards([], KEY)


def test_page_needs_no_network_and_holds_every_statement(tmp_path):
    cards = [one_card(["0111"] * 20 + ["1011"] * 12 + ["0000"] * 8)]
    text = page.write(cards, "terms & conditions", tmp_path / "new" / "card.html").read_text()
    assert "http" not in text and "<script" not in text
    assert "terms &amp; conditions" in text and "data:image/png;base64," in text
    for _, sentence in statements(cards[0]):
        assert sentence[1:20] in text
    for check in cards[0].decision.failed:
        assert check.name in text and escape(check.sentence) in text


@pytest.fixture(scope="module")
def pilot(tmp_path_factory):
    """The first benchmark of the recorded pilot."""
    path = tmp_path_factory.mktemp("card") / "pilot.jsonl"
    lines = (files("msjax") / "recorded" / "pilot.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:40]))
    return path


def test_prints_and_writes_the_same(pilot, tmp_path, capsys):
    page, numbers = tmp_path / "card.html", tmp_path / "card.json"
    assert main(["card", str(pilot), "--html", str(page), "--json", str(numbers)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    found = json.loads(numbers.read_text())
    assert found["seed"] == 0 and "seed 0" in printed
    (easy,) = found["cards"]
    assert easy["benchmark"] == "arithmetic-easy"
    assert easy["verdict"] == "hurts" and "REVISING HURTS" in printed
    # 32 of 40 first answers are right, 21 after one round.
    assert easy["choice"]["accuracy"]["estimate"] == 0.8
    assert easy["judged"]["change"]["mean"] == pytest.approx((21 - 32) / 42, abs=0.003)
    for sentence in easy["statements"].values():
        assert " ".join(sentence.split()).replace("-", "") in printed.replace("- ", "").replace(
            "-", ""
        )
    assert "arithmetic-easy" in page.read_text()
    again = tmp_path / "again.json"
    assert main(["card", str(pilot), "--json", str(again)]) == 0
    assert again.read_bytes() == numbers.read_bytes()
