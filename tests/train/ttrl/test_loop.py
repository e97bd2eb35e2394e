"""Test-time training of a one-layer decoder: rollouts, votes, updates, early_stopping, resuming."""

import json
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx

import msjax.llm.flax.decoder
from msjax.errors import InputError
from msjax.llm.flax import Decoder, DecoderConfig, empty_cache
from msjax.llm.flax.chat import Chat, load_tokenizer
from msjax.rules.fixed import self_consistency
from msjax.rules.optpo import optpo
from msjax.train.ttrl import arithmetic, updates
from msjax.train.ttrl import loop as test_time
from msjax.train.ttrl.checkpoints import Checkpoints
from msjax.train.ttrl.early_stopping import EarlyStopping, Step, stop_reason, trouble
from msjax.train.ttrl.loop import FINISHED, Schedule, TestTimeTraining
from msjax.train.ttrl.pseudo_labels import ChatTask, Vote, Voting, vote_on
from msjax.train.ttrl.rollouts import Rollouts, Sampler, completion_logprobs, pad_prompt
from msjax.train.ttrl.updates import Learner, Measured, Rewarded, Update

MAX_NEW = 3
PROMPT = pad_prompt([4, 6, 11, 2, 4, 13])


def small_decoder(dtype=jnp.float32) -> Decoder:
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    config = DecoderConfig.from_dict({**arithmetic.TINY_CONFIG, **shape, **heads})
    return Decoder(config, dtype=dtype, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return small_decoder()


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> ChatTask:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "config.json").write_text(json.dumps(arithmetic.TINY_CONFIG))
    arithmetic.write_tokenizer(folder)
    return ChatTask(arithmetic.tiny_benchmark(), Chat(load_tokenizer(folder), "tiny", (0,)))


def sampler(decoder: Decoder, max_new: int = MAX_NEW) -> Sampler:
    graphdef, weights = nnx.split(decoder)
    return Sampler(graphdef, weights, decoder.config, PROMPT, temperature=1.0, max_new=max_new)


def rollouts(decoder: Decoder, count: int = 8) -> Rollouts:
    return sampler(decoder).sample(jax.random.split(jax.random.key(1), count))


# Rollouts


@pytest.mark.slow
def test_log_probabilities_are_those_of_a_whole_run(decoder) -> None:
    """One forward pass over prompt and completion, without any sharing; at two temperatures."""
    graphdef, weights = nnx.split(decoder)
    completions, length = rollouts(decoder).tokens, int(PROMPT.length)
    prompts = np.tile(PROMPT.tokens[:length], (len(completions), 1))
    whole = jnp.asarray(np.concatenate([prompts, completions], axis=1))

    @nnx.jit
    def all_logits(decoder, tokens):
        rows, time = tokens.shape
        cache = empty_cache(decoder.config, rows, time, decoder.dtype)
        hidden, _ = decoder(tokens, jnp.full(rows, time, jnp.int32), cache)
        logits = decoder.logits(hidden.reshape(hidden.shape[0], -1))
        return logits.T.reshape(rows, time, -1)[:, length - 1 : -1]

    logits = all_logits(decoder, whole)
    for temperature in (1.0, 0.5):
        ours, _ = jax.jit(completion_logprobs, static_argnums=0)(
            graphdef, weights, PROMPT, completions, temperature
        )
        every = jax.nn.log_softmax(logits / temperature)
        expected = np.take_along_axis(np.asarray(every), completions[:, :, None], axis=2)
        np.testing.assert_allclose(ours, expected[:, :, 0], atol=1e-5)


def test_rollouts_depend_on_their_key_alone(decoder) -> None:
    keys = jax.random.split(jax.random.key(1), 8)
    together, alone = rollouts(decoder), sampler(decoder).sample(keys[5:6])
    np.testing.assert_array_equal(
        together.tokens[5, : together.counts[5]], alone.tokens[0, : alone.counts[0]]
    )
    assert len({tuple(row) for row in together.tokens}) > 1


def test_prompts_that_leave_no_room_are_named(decoder) -> None:
    with pytest.raises(InputError, match="exceed the context"):
        sampler(decoder, max_new=1000)
    with pytest.raises(InputError, match="prompt is empty"):
        pad_prompt([])


# Votes


def test_votes_are_looked_at_between_blocks() -> None:
    voting = Voting(optpo(10, 0.6, 0.2, 9.0, 4), budget=10, n_train_rollouts=4, block=4)  # margin 2
    assert voting.sizes() == [4, 4, 2]
    assert voting.decide(["1", "2", "1", "2"]) == (False, "1")
    assert voting.decide(["1", "2", "1", "1"]) == (True, "1")
    assert voting.decide(["1", "2", "3", None]) == (False, None)
    assert voting.decide([None] * 10) == (True, None)


def test_one_distinct_answer_is_a_consensus_with_nothing_to_learn() -> None:
    voting = Voting(self_consistency(4), budget=4, n_train_rollouts=3, block=1)
    stop, label = voting.decide(["7"] * 4)
    rewards = Vote(None, ["7"] * 4, label).rewards(3)
    assert stop and label == "7" and rewards.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "settings", [{"n_train_rollouts": 9}, {"n_train_rollouts": 1}, {"block": 0}]
)
def test_settings_of_votes_outside_their_range(settings) -> None:
    with pytest.raises(InputError, match=f"{next(iter(settings))} is"):
        Voting(self_consistency(8), **{"budget": 8, "n_train_rollouts": 4, "block": 2, **settings})


def test_a_rule_does_not_change_the_rollouts_it_is_shown(decoder, task) -> None:
    key = jax.random.key(3)
    rules = self_consistency(12), optpo(12, 0.6, 0.2, 2.0, 4)
    fixed, adaptive = (
        vote_on(task, sampler(decoder), Voting(rule, budget=12, n_train_rollouts=4, block=4), key)
        for rule in rules
    )
    assert len(fixed.answers) == 12
    assert len(adaptive.answers) in (4, 8, 12)
    assert fixed.answers[: len(adaptive.answers)] == adaptive.answers


def test_without_consensus_there_are_no_rewards() -> None:
    with pytest.raises(InputError, match="label is None"):
        Vote(None, ["1", "2"], None).rewards(2)


# Updates


def learner(decoder: Decoder, **update) -> Learner:
    graphdef, base = nnx.split(decoder)
    settings = Update(**{"learning_rate": 0.01, **update})
    return Learner(graphdef, base, settings, temperature=1.0, max_new=MAX_NEW)


def rewarded(decoder: Decoder) -> Rewarded:
    """Completions whose first token is below the median one are right."""
    found = rollouts(decoder)
    first = found.tokens[:, 0]
    return Rewarded(PROMPT, found, (first < np.median(first)).astype(np.float32))


@pytest.mark.parametrize(
    "update",
    [
        {"method": "grpo"},
        pytest.param({"method": "grpo", "rank": 2, "epochs_per_step": 2}, marks=pytest.mark.study),
        pytest.param({"method": "ppo", "aggregation": "token"}, marks=pytest.mark.study),
        {"method": "sft", "aggregation": "constant"},
    ],
    ids=lambda update: f"{update['method']}-{update.get('rank', 0)}",
)
def test_updates_make_rewarded_completions_likelier(decoder, update) -> None:
    train, group = learner(decoder, **update), rewarded(decoder)
    state = train.initial(jax.random.key(0))

    def likelihood(state) -> tuple[float, float]:
        logprobs = train.measure(state, PROMPT, group.rollouts).logprobs
        each = np.sum(np.where(group.rollouts.mask, logprobs, 0), axis=1)
        return each[group.rewards > 0].mean(), each[group.rewards == 0].mean()

    right, wrong = likelihood(state)
    for _ in range(3):
        measured = train.measure(state, PROMPT, group.rollouts)
        state, _, norm = train.learn(state, [group], [measured])
        assert norm > 0
    right_after, wrong_after = likelihood(state)
    assert right_after - wrong_after > right - wrong
    assert right_after > right


@pytest.mark.slow
def test_a_gradient_in_parts_is_the_whole_one(decoder, monkeypatch) -> None:
    """Eight rollouts of 19 slots at once, or two at a time."""
    train, group = learner(decoder), rewarded(decoder)
    state = train.initial(jax.random.key(0))
    measured = train.measure(state, PROMPT, group.rollouts)
    whole = train.learn(state, [group], [measured])
    monkeypatch.setattr(updates, "SLOTS", 40)
    parts = train.learn(state, [group], [measured])
    assert parts.gradient == pytest.approx(whole.gradient, rel=1e-5)
    assert parts.loss == pytest.approx(whole.loss, abs=1e-6)


def test_rewards_that_teach_nothing_are_named(decoder) -> None:
    train, group = learner(decoder), rewarded(decoder)
    state = train.initial(jax.random.key(0))
    measured = train.measure(state, PROMPT, group.rollouts)
    for groups in ([], [group._replace(rewards=np.ones(8, np.float32))]):
        with pytest.raises(InputError, match="retained set is empty"):
            train.learn(state, groups, [measured] * len(groups))
    assert not learner(decoder, method="sft").useful(np.zeros(8, np.float32))
    assert learner(decoder, method="sft").useful(np.ones(8, np.float32))


@pytest.mark.parametrize(
    "settings",
    [
        {"rank": -1},
        {"learning_rate": 0.0},
        {"epochs_per_step": 0},
        {"method": "dpo"},
        {"aggregation": "mean"},
    ],
)
def test_settings_of_updates_outside_their_range(settings, monkeypatch) -> None:
    # Checked types, which users do not have, refuse an unknown name before its check does.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match=f"{next(iter(settings))} is"):
        Update(**settings)


class _Wide:
    """jax.numpy, but for the type the decoder takes norms, softmax and logits in."""

    float32 = jnp.float64

    def __getattr__(self, name):
        return getattr(jnp, name)


@pytest.mark.study
@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_gradients_are_those_of_a_float64_reference(decoder, method, monkeypatch) -> None:
    """Ours in float32 within 1e-4 of differences of the whole loss in float64."""
    update = Update(method=method, kl_weight=0.1, clip_high=0.3)
    group = rewarded(decoder)
    random = np.random.default_rng(0)
    old, reference, values = random.normal(-2, 0.5, (3, *group.rollouts.tokens.shape))
    directions = random.normal(size=(3, sum(leaf.size for leaf in _leaves(decoder))))

    def gradient_and_loss(dtype):
        graphdef, base = nnx.split(small_decoder())
        base = jax.tree.map(lambda leaf: leaf.astype(dtype), base)
        train = Learner(graphdef, base, update, temperature=1.0, max_new=MAX_NEW)
        critic = {"weight": jnp.full(16, 0.1, dtype), "bias": jnp.asarray(0.2, dtype)}
        measured = Measured(*(jnp.asarray(x, dtype) for x in (old, reference, values)))
        (target,) = train.targets([group], [measured])
        arguments = (base, graphdef, update, PROMPT, group.rollouts.tokens, target, 1.0)
        critic = critic if method == "ppo" else None

        def at(weights):
            return updates.update_gradient((weights, critic), *arguments)

        return base, at

    base, at = gradient_and_loss(jnp.float32)
    ours = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(at(base)[1][0])])
    with jax.enable_x64(True):
        monkeypatch.setattr(msjax.llm.flax.decoder, "jnp", _Wide())
        base, at = gradient_and_loss(jnp.float64)
        leaves, structure = jax.tree.flatten(base)
        cuts = np.cumsum([leaf.size for leaf in leaves])[:-1]
        for direction in directions:
            along = [
                piece.reshape(leaf.shape)
                for piece, leaf in zip(np.split(direction, cuts), leaves, strict=True)
            ]
            ahead, behind = (
                float(
                    at(
                        structure.unflatten([x + h * d for x, d in zip(leaves, along, strict=True)])
                    )[0]
                )
                for h in (1e-6, -1e-6)
            )
            slope = (ahead - behind) / 2e-6
            size = np.linalg.norm(ours) * np.linalg.norm(direction)
            assert abs(ours @ direction - slope) < 1e-4 * max(abs(slope), size / 100)


def _leaves(decoder: Decoder) -> list:
    return jax.tree.leaves(nnx.split(decoder)[1])


# EarlyStopping

GOOD = Step(
    step=0,
    epoch=0,
    questions=("0", "1"),
    rollouts=(8, 8),
    labels=("1", None),
    label_right=(True, False),
    reward=0.8,
    uniform=0,
    learnt=1,
    kl=0.01,
    loss=0.0,
    gradient=1.0,
)
SILENT = replace(
    GOOD, labels=(None, None), reward=None, learnt=0, kl=None, loss=None, gradient=None
)
COLLAPSED = replace(GOOD, reward=0.39)
IDLE = replace(GOOD, reward=1.0, uniform=1, learnt=0, loss=None, gradient=None)
EARLY_STOPPING = EarlyStopping(max_kl=0.5, collapse=0.5, patience=2)


@pytest.mark.parametrize(
    ("last", "found"),
    [
        (GOOD, None),
        (IDLE, None),
        (SILENT, "no consensus"),
        (COLLAPSED, "reward collapse"),
        (replace(GOOD, kl=0.6), "diverged"),
        (replace(GOOD, loss=None), "diverged"),
        (replace(GOOD, kl=None), "diverged"),
    ],
)
def test_trouble_is_named(last, found) -> None:
    history = [GOOD, GOOD, last]
    assert trouble(history, EARLY_STOPPING) == found
    assert stop_reason(history, EARLY_STOPPING) == (found if found == "diverged" else None)
    assert stop_reason([GOOD, GOOD, last, last], EARLY_STOPPING) == {
        **dict.fromkeys(("no consensus", "reward collapse", "diverged")),
        found: found or ("nothing left to learn" if last is IDLE else None),
    }.get(found)


def test_trouble_of_different_kinds_is_waited_out() -> None:
    assert stop_reason([GOOD, GOOD, SILENT, COLLAPSED], EARLY_STOPPING) is None
    assert stop_reason([GOOD, GOOD, COLLAPSED, GOOD], EARLY_STOPPING) is None


# The whole


def training(decoder, task, *, early_stopping=EARLY_STOPPING) -> TestTimeTraining:
    schedule = Schedule(
        epochs=2,
        questions_per_step=2,
        samples=4,
        max_new_tokens=MAX_NEW,
        checkpoint_every=2,
    )
    voting = Voting(optpo(12, 0.6, 0.2, 20.0, 8), budget=12, n_train_rollouts=8, block=4)
    settings = Update(learning_rate=0.01)
    return TestTimeTraining(decoder, task, voting, settings, early_stopping, schedule)


def run(one: TestTimeTraining, out, task, settings=None):
    asked = task.benchmark.questions(0, 9)
    return one.run(out, asked[:6], asked[6:], {"settings": 0} if settings is None else settings)


def same_weights(one, other) -> bool:
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, other))


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["interrupted", "killed"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    decoder, task, tmp_path, monkeypatch, killed
) -> None:
    """Ctrl-C in the fourth step, which saves the third; and a kill, which leaves the second."""
    whole = run(training(decoder, task), tmp_path / "whole", task)
    held = SimpleNamespace(count=0)

    def stopping(*arguments):
        held.count += 1
        if held.count == 8:
            raise KeyboardInterrupt
        return vote_on(*arguments)

    monkeypatch.setattr(test_time, "vote_on", stopping)
    if killed:
        save = Checkpoints.save
        monkeypatch.setattr(
            Checkpoints, "save", lambda self, *a, force=False: None if force else save(self, *a)
        )
    with pytest.raises(KeyboardInterrupt):
        run(training(decoder, task), tmp_path / "parts", task)
    monkeypatch.undo()
    assert Checkpoints(tmp_path / "parts" / "checkpoints", 2).latest() == (2 if killed else 3)

    again = run(training(decoder, task), tmp_path / "parts", task)
    logs = [(tmp_path / name / "log.jsonl").read_bytes() for name in ("whole", "parts")]
    assert logs[0] == logs[1]
    assert same_weights(whole.weights, again.weights)
    assert len(whole.steps) == 6 and whole.reason == FINISHED and not whole.troubled
    assert any(step.learnt for step in whole.steps)
    start = nnx.split(decoder)[1]
    assert not same_weights(start, whole.weights)

    repeated = run(training(decoder, task), tmp_path / "whole", task)
    assert same_weights(whole.weights, repeated.weights) and repeated.steps == whole.steps
    assert (tmp_path / "whole" / "log.jsonl").read_bytes() == logs[0]


def test_divergence_leaves_the_last_good_weights(decoder, task, tmp_path) -> None:
    strict = training(decoder, task, early_stopping=EarlyStopping(max_kl=1e-9))
    outcome = run(strict, tmp_path / "strict", task)
    assert outcome.reason == "diverged" and outcome.troubled
    assert outcome.steps[-1].kl > 1e-9
    assert len(outcome.steps) == 2  # the first step was taken from the start and is good
    assert same_weights(outcome.weights, nnx.split(decoder)[1])
    # and also when the run is looked at again
    assert same_weights(run(strict, tmp_path / "strict", task).weights, outcome.weights)


def test_logs_of_other_settings_and_other_files_are_refused(decoder, task, tmp_path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"settings": {"seed": 1}}) + "\n")
    with pytest.raises(InputError, match=r"recorded with seed=1, but this run has seed=2"):
        run(training(decoder, task), tmp_path, task, {"seed": 2})
    log.write_text("no JSON\n")
    with pytest.raises(InputError, match="is no file of steps"):
        run(training(decoder, task), tmp_path, task)
    log.write_text(json.dumps({"settings": {}}) + "\n" + '{"step":' * 100_000 + "\n")
    with pytest.raises(InputError, match="line 2: no line of such a run"):
        run(training(decoder, task), tmp_path, task)
    questions = task.benchmark.questions(0, 3)
    with pytest.raises(InputError, match="share 1"):
        training(decoder, task).run(tmp_path, questions[:2], questions[1:], {})
