"""`msjax figures`: its exit status."""

from msjax.cli import main


def test_no_results_and_wrong_ones_are_status_2_and_a_missing_one_1(tmp_path, capsys):
    assert main(["figures"]) == 2
    assert "--results is missing; give the folder with fit.json" in capsys.readouterr().err
    out = ["--out", str(tmp_path / "out")]
    assert main(["figures", "auditor_table", *out, "--results", str(tmp_path)]) == 1
    assert "skipped: auditor_table" in capsys.readouterr().err
    (tmp_path / "audit.json").write_text("[{")
    assert main(["figures", "auditor_table", "rules", *out, "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.split("\n")[:2] == ["skipped: rules", "refused: auditor_table"]
    assert main(["figures", "auditor_tabel", *out]) == 2
    assert "auditor_table" in capsys.readouterr().err
    assert main(["figures", *out, "--results", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
