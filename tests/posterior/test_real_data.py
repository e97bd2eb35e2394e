"""What msjax says of trajectories that others recorded; skipped where these are not at hand."""

import numpy as np
import pytest

from inference.atlas import predict_later_rounds, read_recordings
from msjax.posterior import fit

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def recordings(real_data):
    return {recording.name: recording for recording in read_recordings(real_data)}


def find_name(recordings, *words):
    (name,) = [name for name in recordings if all(word in name for word in words)]
    return name


def find(recordings, *words):
    return recordings[find_name(recordings, *words)]


def test_recordings_are_read_as_their_authors_count_them(recordings):
    assert len(recordings) == 59
    gpqa = find(recordings, "textgrad", "GPQA").count
    assert gpqa.transitions.sum(axis=0).tolist() == [[266, 15], [12, 301]]
    haiku = find(recordings, "oracle_stop", "haiku", "GSM8K-1000").count
    assert haiku.transitions[:, 0].tolist() == [[371, 148], [343, 38]]
    opus = find(recordings, "self_reflection", "claude-3-opus").count
    assert opus.transitions.sum(axis=0)[0].tolist() == [151, 57]
    handicap = find(recordings, "intercode", "gpt-3.5", "handicap").count
    assert handicap.transitions[:4, 0, 1].tolist() == [32, 12, 1, 4]
    debated = find(recordings, "debate", "Llama-3.2-1B").count
    assert debated.questions == 583 and len(set(debated.cluster)) == 20
    episodes = [r.count.questions for r in recordings.values() if r.source == "intercode_turns"]
    assert sum(episodes) == 5406


@pytest.fixture(scope="module")
def later(recordings):
    """Later rounds predicted from the first half, as docs/results.md has them."""
    sources = ("textgrad_gpt4o", "incremental_gsm8k", "cot_prefix_mmlupro")
    return {
        name: predict_later_rounds(recording, seed=0)
        for name, recording in recordings.items()
        if recording.source in sources and recording.count.rounds > 1
    }


@pytest.mark.study
def test_the_chosen_model_predicts_later_rounds_no_worse_than_the_pooled_chain(later):
    assert len(later) == 7
    assert min(found["gain"] for found in later.values()) >= 0
    gsm8k = later[find_name(later, "GSM8K, temperature 0.1")]
    assert gsm8k["gain"] > 2 * gsm8k["gain_error"]


@pytest.mark.study
def test_later_rounds_lie_in_the_predicted_bands_where_rounds_are_revisions(later, recordings):
    """Rounds of one recording share their errors, so all recordings are judged together."""
    inside = [found["inside"] for name, found in later.items() if recordings[name].count.revises]
    assert np.concatenate(inside).mean() >= 0.8


@pytest.mark.study
def test_rounds_that_are_no_revisions_are_announced_as_such(later, recordings):
    prefixes = [name for name in later if not recordings[name].count.revises]
    assert len(prefixes) == 2
    for name in prefixes:
        assert any(w.startswith("NOT REVISIONS") for w in later[name]["announced"])


def test_a_run_stopped_by_an_oracle_has_no_bounds(recordings):
    count = find(recordings, "self_reflection", "gpt-4,").count
    found = fit(count)
    assert found.leading.model.name == "pooled"
    assert found.warnings[0].startswith("CENSORED: 827 of 1000 runs")
    assert not (found.p_ci.identified or found.limit.identified or found.known)
    assert abs(found.p_ic.mean - 42 / 216) < 1e-2
