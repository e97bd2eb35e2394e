"""`msjax sensitivity`: the table, the figures and the numbers behind them."""

import csv
import dataclasses
import json

import pytest
import tyro

from msjax.cli.sensitivity import Sensitivity
from msjax.errors import InputError

COMMAND = Sensitivity(p0=0.5, p_ic=0.3, p_ci=0.1, draws=200)
NAME = "p0 0.5, p_ic 0.3, p_ci 0.1"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A command that has been run."""
    folder = tmp_path_factory.mktemp("sensitivity")
    command = dataclasses.replace(COMMAND, out=folder / "new", json=folder / "table.json")
    assert command.run() == 0
    return command


@pytest.mark.slow
def test_the_table_holds_what_theory_says(run):
    table = json.loads(run.json.read_text())
    assert table["seed"] == 0
    assert table["chain"] == {"p0": 0.5, "p_ic": 0.3, "p_ci": 0.1}
    assert table["optimal_rounds"] == 5
    slopes = table["gradients"]
    assert list(slopes) == ["pi", "r", "p_0", "p_1", "p_2", "p_3", "best worth"]
    assert slopes["pi"] == pytest.approx([0, 0.625, -1.875])
    assert slopes["p_1"] == pytest.approx([0.6, 0.5, -0.5])
    errors = table["standard_errors"]
    assert errors["p0"] == pytest.approx((0.25 / 50) ** 0.5)
    assert list(errors) == ["p0", "p_ic", "p_ci", "pi", "p_1", "p_2", "p_3"]
    lost = table["regret_of_errors"]
    # With p_ci = .15 four rounds are best; the fifth gains .01296 and costs .01.
    assert lost["p_ci"] == pytest.approx({"-0.05": 0.0022240, "+0.05": 0.0029600}, abs=1e-6)
    assert lost["p0"] == {"-0.05": 0, "+0.05": 0}
    assert table["pilot_size"] in (20, 50, 100)


def test_figures_come_with_their_data(run):
    table = json.loads(run.json.read_text())
    for stem, path in zip(("regret", "heterogeneity"), table["figures"], strict=True):
        assert path == str(run.out / f"{stem}.png")
        for suffix in (".png", ".pdf", ".csv", ".json"):
            assert (run.out / f"{stem}{suffix}").stat().st_size > 1000
    found = json.loads((run.out / "regret.json").read_text())[NAME]
    with (run.out / "regret.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found["errors_ic"]) ** 2 + len(found["questions"])
    pilots = [row for row in rows if row["questions"]]
    assert [float(row["regret"]) for row in pilots] == found["mean"]
    middle = len(found["errors_ic"]) // 2
    assert found["regret"][middle][middle] == 0


def test_the_example_of_the_theory_is_in_the_figure(run):
    benchmarks = json.loads((run.out / "heterogeneity.json").read_text())
    example, around = benchmarks.values()
    assert example["limit"] == pytest.approx(0.695, abs=5e-4)
    assert example["pooled_limit"] == pytest.approx(0.75)
    assert around["pooled_limit"] == pytest.approx(0.75)
    assert around["mixture"][:2] == pytest.approx(around["pooled"][:2])
    assert around["both"][0] == pytest.approx(0)


def test_the_table_is_printed(tmp_path, capsys):
    command = dataclasses.replace(COMMAND, p0=1.0, p_ic=0.0, p_ci=0.0, cost=0.0, out=tmp_path)
    assert command.run() == 0
    printed = capsys.readouterr().out
    assert "p0 1, p_ic 0, p_ci 0; a right answer is worth 1, a round costs 0: N* = 0" in printed
    assert "standard errors from 50 questions, 3 rounds each" in printed
    assert "p_ic inf" in printed
    assert "pi: not identified" in printed and "nan" not in printed
    assert "from a pilot of 10 questions on (seed 0)" in printed
    # Rates that are 0 cannot vary, so only the example is drawn.
    assert len(json.loads((tmp_path / "heterogeneity.json").read_text())) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p_ic": -0.1}, "p_ic is -0.1"),
        ({"correlation": 0.0}, "correlation is 0.0"),
        ({"draws": 1}, "draws is 1"),
        ({"cost": -1.0}, "cost is -1.0"),
        ({"rounds": -1}, "rounds is -1"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(change, message, tmp_path):
    command = dataclasses.replace(COMMAND, out=tmp_path / "new", **change)
    with pytest.raises(InputError, match=message):
        command.run()
    assert not command.out.exists()


def test_command_line():
    arguments = ["--p0", ".5", "--p-ic", ".3", "--p-ci", ".1", "--draws", "200"]
    assert tyro.cli(Sensitivity, args=arguments) == COMMAND
