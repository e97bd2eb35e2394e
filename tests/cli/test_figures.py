"""`msjax figures`: what it lists, and its exit status."""

import json

from msjax.cli import main


def test_lists_every_artefact(tmp_path, capsys):
    listed = tmp_path / "figures.json"
    names = ["optscale_summary", "auditor_table"]
    assert main(["figures", *names, "--out", str(tmp_path / "out"), "--json", str(listed)]) == 0
    found = json.loads(listed.read_text())
    assert [x["name"] for x in found["artefacts"]] == names
    for artefact in found["artefacts"]:
        assert artefact["status"] == "drawn"
        for name in artefact["files"]:
            assert (tmp_path / "out" / name).stat().st_size > 0
    assert list(found["artefacts"][1]["sources"]) == ["audit.json"]
    assert any("MarkovScale" in what for what in found["not_reproducible"])
    assert "2 drawn" in capsys.readouterr().out
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_a_missing_source_is_status_1_and_a_wrong_name_or_source_2(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert main(["figures", "auditor_table", *out, "--results", str(tmp_path)]) == 1
    assert "skipped: auditor_table" in capsys.readouterr().err
    (tmp_path / "audit.json").write_text("[{")
    both = ["auditor_table", "regret_map", *out, "--results", str(tmp_path)]
    assert main(["figures", *both]) == 2
    assert capsys.readouterr().err.split("\n")[:2] == [
        "skipped: regret_map",
        "refused: auditor_table",
    ]
    assert main(["figures", "auditor_tabel", *out]) == 2
    assert "auditor_table" in capsys.readouterr().err
    assert main(["figures", *out, "--results", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
