"""The packed kernel: its generator is Threefry, its coins have exactly the probability given."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from msjax.simulation import packed
from msjax.theory.chain import TwoStateChain
from msjax.verify.evidence import FALSE_ALARM


@pytest.mark.parametrize(
    ("rounds", "counter", "key", "drawn"),
    [
        (13, "00000000 " * 4, "00000000 " * 4, "531c7e4f 39491ee5 2c855a92 3d6abf9a"),
        (13, "ffffffff " * 4, "ffffffff " * 4, "c4189358 1c9cc83a d5881c67 6a0a89e0"),
        (
            13,
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0 082efa98 ec4e6c89",
            "4aa71d8f 734738c2 431fc6a8 ae6debf1",
        ),
        (20, "00000000 " * 4, "00000000 " * 4, "9c6ca96a e17eae66 fc10ecd4 5256a7d8"),
        (20, "ffffffff " * 4, "ffffffff " * 4, "2a881696 57012287 f6c7446e a16a6732"),
    ],
)
def test_the_generator_is_threefry(rounds, counter, key, drawn):
    """Known answers published with Random123."""
    counter, key, drawn = (
        jnp.array([int(word, 16) for word in words.split()], jnp.uint32)
        for words in (counter, key, drawn)
    )
    found = packed.threefry(key, tuple(word[None] for word in counter), rounds)
    np.testing.assert_array_equal(jnp.concatenate(found), drawn)


@pytest.mark.parametrize("x64", [False, True])
def test_digits_are_those_of_the_number(x64):
    with jax.enable_x64(x64):
        for p in (0.0, 1.0, 0.5, 0.3, 1e-9, 1 - 2**-20, 2**-40):
            chain = TwoStateChain(p, 0.1, 0.2)
            words = np.asarray(packed.coins_of(chain).repair[0])[:, 0].tolist()
            assert set(words) <= {0, 0xFFFFFFFF}
            digits = int("".join(str(word & 1) for word in words), 2)
            assert digits == (int(Fraction(float(chain.p0)) * 2**64) if p < 1 else 2**64 - 1)


def test_digits_of_one_chain_per_row_are_packed_by_row():
    p = np.linspace(0, 1, 64, dtype=np.float32)
    rows = np.asarray(packed.coins_of(TwoStateChain(p, 0.1 + 0 * p, 0.2 + 0 * p)).repair[0])
    for i, value in enumerate(p):
        bits = (rows[:, i // 32] >> (i % 32) & 1).astype(int).tolist()
        expected = int(Fraction(float(value)) * 2**64) if value < 1 else 2**64 - 1
        assert int("".join(map(str, bits)), 2) == expected


def test_the_two_parts_of_a_toss_keep_every_bit():
    """Also patterns that are infinities, NaNs of both kinds, and subnormal numbers."""
    rng = np.random.default_rng(0)
    special = [0, 1, 0x80000000, 0x807FFFFF, 0x7F800000, 0x7F800001, 0xFFC00001, 0xFFFFFFFF]
    words = np.append(rng.integers(0, 2**32, 10_000), special).astype(np.uint32)

    @jax.jit
    def carried(x, y):
        body = lambda _, toss: packed.Toss.of(toss.flips ^ 0, toss.undecided)  # noqa: E731
        return jax.lax.fori_loop(0, 3, body, packed.Toss.of(x, y))

    toss = carried(words, words[::-1])
    np.testing.assert_array_equal(toss.flips, words)
    np.testing.assert_array_equal(toss.undecided, words[::-1])


@pytest.mark.parametrize("p", [0.3, 2**-14, 1 - 1 / 3])
def test_coins_are_independent_over_chains_rounds_and_lanes(p):
    """Neighbouring lanes, words and rounds agree as often as chance has it."""
    words, rounds = 4096, 8
    seed = packed.seed_of(jax.random.key(3))
    # p_ic = p, p_ci = 1 - p: the next state is a fresh coin whatever the present one.
    coins = packed.coins_of(TwoStateChain(p, p, 1 - p))
    states = jnp.zeros(words, jnp.uint32)
    step, drawn = jax.jit(packed.next_states), []
    for k in range(rounds):
        states = step(seed, coins, jnp.uint32(0), jnp.uint32(k), states)
        drawn.append(np.asarray(packed.unpack(states)))
    table = np.array(drawn)
    pairs = {
        "lanes": (table[:, :-1], table[:, 1:]),
        "words": (table[:, :-32], table[:, 32:]),
        "rounds": (table[:-1], table[1:]),
        "words gathered in one": (table[:, : -2 * words], table[:, 2 * words :]),
    }
    assert stats.binomtest(int(table.sum()), table.size, p).pvalue > FALSE_ALARM / 15
    for name, (a, b) in pairs.items():
        n, both = a.size, int((a & b).sum())
        # Bernstein's bound for pairs that overlap in at most one coin.
        off = abs(both - n * p * p)
        variance = 3 * n * p * p * (1 - p * p)
        assert 2 * np.exp(-(off**2) / (2 * (variance + off))) > FALSE_ALARM / 15, name
