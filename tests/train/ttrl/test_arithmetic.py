"""The tiny decoder's sums and tokenizer, and, slowly, its training."""

import jax.numpy as jnp
import numpy as np
import pytest

from msjax.errors import InputError
from msjax.llm.flax import Decoder, DecoderConfig
from msjax.llm.flax.engine import FlaxEngine
from msjax.tasks.registry import BENCHMARKS
from msjax.train.ttrl import arithmetic
from msjax.train.ttrl.arithmetic import RESERVED, tiny_benchmark, train_tiny, write_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """As `write_tiny` writes it, but for the training."""
    from flax import nnx

    config = DecoderConfig.from_dict(arithmetic.TINY_CONFIG)
    untrained = Decoder(config, rngs=nnx.Rngs(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arithmetic, "train_tiny", lambda **_: untrained)
        return write_tiny(tmp_path_factory.mktemp("untrained") / "tiny", seed=3)


def test_the_tokenizer_reads_sums_in_any_words(folder) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 35 + 13?"}], tokenize=False
    )
    ids = tokenizer.encode(asked, add_special_tokens=False)
    assert [arithmetic.VOCABULARY[i] for i in ids] == list("35+13=")
    answer = [arithmetic.TOKEN_IDS[character] for character in "-44"]
    assert tokenizer.decode([*answer, 0], skip_special_tokens=True) == "-44"


def test_the_folder_is_a_model_like_any_other(folder) -> None:
    engine = FlaxEngine.load(folder)
    assert engine.config.eos_token_ids == (0,)
    assert write_tiny(folder, seed=3) == folder  # it is there
    with pytest.raises(InputError, match="'seed': 3.*'seed': 4"):
        write_tiny(folder, seed=4)


def test_worked_sums_are_right_and_not_the_reserved_ones() -> None:
    sums = arithmetic.worked_sums()
    assert len(sums) == 2 * 90 * 90 - RESERVED
    text = ["".join(arithmetic.VOCABULARY[i] for i in row) for row in sums]
    worked = {}
    for line in text:
        question, _, answer = line.partition("=")
        worked[question] = answer.rstrip("<end>")
        assert line.endswith("<end>")
    assert all(eval(question) == int(answer) for question, answer in worked.items())
    for question in BENCHMARKS["arithmetic-hard"].questions(0, RESERVED):
        assert question.text.replace(" ", "") not in worked
    assert tiny_benchmark().conversation(question)[-1]["content"] == question.text


def test_answers_alone_count(folder) -> None:
    row = [arithmetic.TOKEN_IDS[character] for character in "35+13=48"] + [0, 0]
    (found,) = np.asarray(arithmetic.in_answer(jnp.array([row])))
    # predicted tokens: 5 + 1 3 = | 4 8 <end> | <end>
    assert found.tolist() == [False] * 5 + [True] * 3 + [False]


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_accuracies_outside_their_range_are_named(accuracy) -> None:
    with pytest.raises(InputError, match=f"accuracy is {accuracy}"):
        train_tiny(seed=0, accuracy=accuracy)


def test_a_folder_whose_description_is_damaged_is_named(tmp_path) -> None:
    (tmp_path / "training.json").write_text('{"trained":')
    with pytest.raises(InputError, match="training.json: not JSON"):
        write_tiny(tmp_path, seed=3)
