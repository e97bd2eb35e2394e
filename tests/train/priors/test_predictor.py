"""Predictors of priors: that they learn, do not leak, are calibrated, and are kept whole."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.llm.flax.checkpoint import load as load_decoder
from msjax.llm.flax.kv_cache import empty_cache
from msjax.train.priors.features import FeatureTable, pooled_states, read_features, write_features
from msjax.train.priors.predictor import PriorNetwork, Settings, load, save, split_questions, train
from msjax.train.priors.report import report
from msjax.train.priors.targets import TARGETS, ChainData

CHAIN, SCORES = TARGETS["chain"], TARGETS["scores"]
QUESTIONS = 400
QUICK = Settings(epochs=80, patience=20)


def simulated(seed=0, questions=QUESTIONS):
    """Rates that depend on two of five features; five revisions each."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(questions, 5)).astype(np.float32)
    p0, p_ic = (1 / (1 + np.exp(-1.5 * features[:, i])) for i in (0, 1))
    right = random.random(questions) < p0
    yes, no = np.zeros((2, questions, 3), int)
    yes[:, 0], no[:, 0] = right, ~right
    for _ in range(5):
        moves = random.random(questions) < np.where(right, 0.2, p_ic)
        yes[:, 1], no[:, 1] = yes[:, 1] + (~right & moves), no[:, 1] + (~right & ~moves)
        yes[:, 2], no[:, 2] = yes[:, 2] + (right & moves), no[:, 2] + (right & ~moves)
        right = right ^ moves
    names = tuple(f"made/{i}" for i in range(questions))
    return FeatureTable("made", names, features), ChainData(yes, no), p_ic


def part(data, chosen):
    return jax.tree.map(lambda x: x[chosen], data)


def judged(predictor, data, table, chosen):
    return report(predictor, part(data, chosen), tuple(table.names[i] for i in chosen), table)


@pytest.fixture(scope="module")
def learnt():
    table, data, p_ic = simulated()
    return table, data, p_ic, train(CHAIN, data, table.names, table, settings=QUICK)


@pytest.mark.slow
def test_it_learns_what_features_tell(learnt):
    table, data, p_ic, predictor = learnt
    split = split_questions(table.names, 0)
    prior = CHAIN.prior(predictor.outputs(table, table.names))
    assert np.corrcoef(prior.p_ic.mean[split.test], p_ic[split.test])[0, 1] > 0.8
    found = judged(predictor, data, table, split.test)
    assert found.questions == len(split.test)
    assert found.gain["all"].low > 0.1 and found.gain["p_ic"].low > 0
    # p_ci is the same for all questions, so there is nothing to learn.
    assert abs(found.gain["p_ci"].estimate) < 0.03
    p0, rate, _ = found.quantities
    assert p0.coverage is None and p0.correlation.low > 0.2
    assert rate.correlation.low > 0.3 and 0.8 < rate.coverage.estimate < 0.98
    low, middle, high = rate.reliability
    assert low.predicted < middle.predicted < high.predicted
    assert low.observed.estimate < middle.observed.estimate < high.observed.estimate


@pytest.mark.slow
def test_features_that_tell_nothing_cost_little(learnt):
    table, data, _, _ = learnt
    shuffled = replace(table, vectors=np.random.default_rng(1).permutation(table.vectors))
    predictor = train(CHAIN, data, table.names, shuffled, settings=QUICK)
    found = judged(predictor, data, shuffled, split_questions(table.names, 0).test)
    assert abs(found.gain["all"].estimate) < 0.03


def test_a_seed_gives_the_same_weights_and_test_questions_none_of_them(learnt):
    table, data, _, predictor = learnt
    test = split_questions(table.names, 0).test
    changed = jax.tree.map(np.copy, data)
    changed.yes[test], changed.no[test] = data.no[test], data.yes[test]
    again = train(CHAIN, changed, table.names, table, settings=QUICK)
    np.testing.assert_array_equal(
        predictor.outputs(table, table.names), again.outputs(table, table.names)
    )
    assert predictor.epochs == again.epochs
    # A power check: training questions do change them.
    learnt_from = split_questions(table.names, 0).train
    changed.yes[learnt_from], changed.no[learnt_from] = data.no[learnt_from], data.yes[learnt_from]
    other = train(CHAIN, changed, table.names, table, settings=QUICK)
    assert not np.allclose(predictor.baseline(1), other.baseline(1), atol=0.1)


def test_the_split_is_of_questions_and_ignores_their_order():
    names = [f"b/{i}" for i in range(100)]
    split = split_questions(names, 3)
    assert [len(x) for x in split] == [60, 20, 20]
    assert sorted(np.concatenate(split)) == list(range(100))
    backwards = split_questions(names[::-1], 3)
    for one, other in zip(split, backwards, strict=True):
        assert {names[i] for i in one} == {names[::-1][i] for i in other}
    assert set(split.test) != set(split_questions(names, 4).test)


def test_coverage_tells_a_right_spread_from_a_wrong_one(learnt):
    *_, predictor = learnt
    random = np.random.default_rng(5)
    questions = 400
    table = FeatureTable(
        "made", tuple(f"new/{i}" for i in range(questions)), np.zeros((questions, 5), np.float32)
    )
    # Beta(1.2, 2.8): mean .3, icc .2.
    rates = random.beta(1.2, 2.8, (questions, 3))
    yes = random.binomial(10, rates)
    data = ChainData(yes, 10 - yes)

    def coverage(icc):
        network = PriorNetwork(5, 6, 2, rngs=nnx.Rngs(0))
        logits = [np.log(x / (1 - x)) for x in (0.3, 0.3, 0.3, icc, icc, icc)]
        network.constant[...] = jnp.array(logits)
        told = replace(predictor, networks=(network,) * 3)
        return [q.coverage for q in report(told, data, table.names, table).quantities]

    assert all(x.low - 0.02 < 0.9 < x.high + 0.02 for x in coverage(0.2))
    assert all(x.high < 0.8 for x in coverage(0.01))


@pytest.mark.study
def test_scores_are_predicted():
    random = np.random.default_rng(0)
    questions, samples = 80, 3
    features = random.normal(size=(questions, 2)).astype(np.float32)
    mean = 1 / (1 + np.exp(-features[:, :1]))
    pool = made_pool(random.beta(8 * mean, 8 * (1 - mean), (questions, samples)))
    names, data = SCORES.read([pool])
    assert names[3] == "made/3"
    np.testing.assert_allclose(data.statistics.mean, pool.scores.mean(axis=1), rtol=1e-5)
    table = FeatureTable("made", names, features)
    predictor = train(SCORES, data, names, table, settings=replace(QUICK, epochs=20))
    found = judged(predictor, data, table, split_questions(names, 0).test)
    assert found.gain["all"].estimate > 0
    expected, deviation = found.quantities
    assert expected.correlation.low > 0.5 and 0.75 < expected.coverage.estimate <= 1
    assert deviation.name == "deviation" and deviation.coverage is None


def test_a_saved_predictor_is_the_same(learnt, tmp_path):
    table, _, _, predictor = learnt
    path = tmp_path / "folder" / "predictor.safetensors"
    save(path, predictor)
    again = load(path)
    np.testing.assert_array_equal(
        predictor.outputs(table, table.names), again.outputs(table, table.names)
    )
    for name in ("target", "source", "learnt_from", "p0_spread_known", "seed", "epochs"):
        assert getattr(again, name) == getattr(predictor, name)
    assert len(again.learnt_from) == 320 and not again.p0_spread_known
    with pytest.raises(InputError, match="is one the predictor learnt from"):
        judged(again, simulated()[1], table, np.arange(QUESTIONS))


def test_other_features_are_refused(learnt, tmp_path):
    table, data, _, predictor = learnt
    with pytest.raises(InputError, match="come from 'elsewhere'.* trained on 'made'"):
        predictor.outputs(replace(table, source="elsewhere"), table.names)
    with pytest.raises(InputError, match="have 3 numbers, the predictor was trained on 5"):
        predictor.outputs(replace(table, vectors=table.vectors[:, :3]), table.names)
    with pytest.raises(InputError, match=r"'made/400' has none \(1 of 2 questions"):
        predictor.outputs(table, ("made/0", "made/400"))
    with pytest.raises(InputError, match="45 leave 9 for validation"):
        few = part(data, slice(45))
        train(CHAIN, few, table.names[:45], table)
    save_file({"x": np.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("no tensors")
    for name in ("other.safetensors", "text"):
        with pytest.raises(InputError, match=f"{name}: .*is damaged or is something else"):
            load(tmp_path / name)
    with pytest.raises(InputError, match="absent: no such file"):
        load(tmp_path / "absent")
    save(tmp_path / "p.safetensors", predictor)
    whole = (tmp_path / "p.safetensors").read_bytes()
    (tmp_path / "p.safetensors").write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(InputError, match="content is not what was written"):
        load(tmp_path / "p.safetensors")


def test_feature_files(tmp_path):
    table = FeatureTable("made", ("a/0", "a/1"), np.arange(6, dtype=np.float32).reshape(2, 3))
    path = tmp_path / "features.npz"
    write_features(path, table)
    again = read_features(path)
    assert (again.source, again.names) == (table.source, table.names)
    np.testing.assert_array_equal(again.of(("a/1", "a/0")), table.vectors[::-1])
    with pytest.raises(InputError, match="number 1 of question 'a/1' is nan"):
        replace(table, vectors=np.array([[1, 2], [3, np.nan]]))
    with pytest.raises(InputError, match="question 'a/0' occurs twice"):
        replace(table, names=("a/0", "a/0"))
    with pytest.raises(InputError, match=r"shape \(2, 3\) for 1 names"):
        replace(table, names=("a/0",))
    np.savez(path, names=["a/0"], features=np.zeros((1, 2)))
    np.save(tmp_path / "array.npy", np.zeros(2))
    for name, content in (("text", b"{}\n"), ("empty", b""), ("torn", path.read_bytes()[:99])):
        (tmp_path / name).write_bytes(content)
    for name in ("features.npz", "array.npy", "text", "empty", "torn"):
        with pytest.raises(InputError, match=f"{name}: .*is damaged or is something else"):
            read_features(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read"):
        read_features(tmp_path)
    with pytest.raises(InputError, match="absent.npz: no such file"):
        read_features(tmp_path / "absent.npz")


def test_pooled_states_see_no_padding():
    decoder = load_decoder(Path(__file__).parents[2] / "fixtures" / "tiny_llama" / "tied")
    random = np.random.default_rng(0)
    example = random.integers(3, 60, 40).tolist()
    ends = [random.integers(3, 60, n).tolist() for n in (2, 30, 7)]
    prompts = [*(example + end for end in ends), *ends, [5]]
    told = []
    found = pooled_states(decoder, prompts, told.append)
    alone_at_once = jax.jit(lambda *x: decoder(*x)[0])
    for i in (1, 5):
        prompt, states = prompts[i], found[i]
        cache = empty_cache(decoder.config, 1, len(prompt), decoder.dtype)
        alone = alone_at_once(jnp.array([prompt]), jnp.array([len(prompt)]), cache)[:, 0]
        expected = np.concatenate([alone.mean(axis=1), alone[:, -1]])
        np.testing.assert_allclose(states, expected, atol=1e-5)
    assert sum(told) == len(prompts)
    with pytest.raises(InputError, match="prompt 1 has 0 tokens"):
        pooled_states(decoder, [[1], []])


def made_pool(scores, parallel=True, correct=None, recorded=None):
    correct = np.ones(scores.shape, int) if correct is None else np.array(correct)
    if recorded is not None:
        correct = np.where(np.arange(scores.shape[1]) < np.array(recorded)[:, None], correct, -1)
    return Runs.from_arrays(
        correct,
        answers=np.zeros(scores.shape, int),
        scores=scores,
        tokens={"completion": np.ones(scores.shape)},
        benchmark="made",
        protocol="parallel" if parallel else "sequential",
    )


def test_counts_by_hand():
    rounds = made_pool(
        np.full((2, 5), np.nan), False, [[0, 0, 1, 1, 0], [1, 1, 0, 0, 0]], recorded=[5, 3]
    )
    samples = made_pool(np.full((3, 2), np.nan), True, [[1, 0], [0, 0], [1, 1]])
    names, data = CHAIN.read([rounds, samples])
    assert names == ("made/0", "made/1", "made/2")
    # (p0, p_ic, p_ci): question 0 I I C C I, question 1 C C I and then nothing.
    assert data.yes.tolist() == [[1, 1, 1], [1, 0, 1], [2, 0, 0]]
    assert data.no.tolist() == [[2, 1, 1], [2, 0, 1], [0, 0, 0]]


def test_what_cannot_be_learnt_from_is_refused():
    once = made_pool(np.full((2, 2), np.nan), False, [[0, 1], [1, 1]])
    with pytest.raises(InputError, match="no question shows p_ic twice"):
        CHAIN.read([once])
    with pytest.raises(InputError, match="made is sequential"):
        SCORES.read([once])
    with pytest.raises(InputError, match="without a score in"):
        SCORES.read([made_pool(np.array([[0.5, 1.5]]))])
    with pytest.raises(InputError, match="no question has two scores"):
        SCORES.read([made_pool(np.array([[0.5]]))])
