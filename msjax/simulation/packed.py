"""Thirty-two chains to a word: exact coins for many chains at the price of a few random bits each.

A uniform number falls below p as soon as one of its binary digits is 0 where that of p is 1, and
stays above as soon as it is 1 where that of p is 0. Two digits decide a coin on average, so the
digits of 32 chains are drawn as the bits of one word, and drawing goes on only while some chain of
a block is undecided. No probability is rounded short of 2^-64.

The first digits are drawn for every chain. By then few coins are open, so those of several words
are gathered in one word, each in a bit of its own, before more are drawn.

The digits are Threefry-4x32 in 13 rounds, addressed by (word of chains, round, digit). Paths
therefore depend on the key and on how chains are cut into blocks, not on where or in which order
blocks run. With 12 rounds the generator passes BigCrush; `jax.random` uses the narrower 2x32 with
20 rounds, where 13 pass, at twice the price of a digit.

Reference: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex64, Float, Int, Key, UInt32

from msjax.theory.chain import TwoStateChain

__all__ = ["CHAINS_PER_WORD", "Coins", "Seed", "coins_of", "next_states", "seed_of", "unpack"]

CHAINS_PER_WORD = 32

_DIGITS = 64
_DIGITS_AT_ONCE = 4  # what one call of the generator yields
_DENSE_DIGITS = 12  # leave one coin in 4096 undecided
_FOLD = 16
_ALL = 0xFFFFFFFF
_ROUNDS = 13
_ROTATIONS = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))
_PARITY = 0x1BD11BDA


Seed = UInt32[Array, "4"]
"""The four key words of Threefry-4x32."""

Four = tuple[
    UInt32[Array, "*words"],
    UInt32[Array, "*words"],
    UInt32[Array, "*words"],
    UInt32[Array, "*words"],
]


class Coins(NamedTuple):
    """Binary digits of the probabilities to change state, most significant first.

    Bit j of word [d, w] is digit d for chain 32 w + j; a single word serves chains that are alike.

    Attributes:
        repair: of a wrong chain, first p0 (for round 0), then p_ic (for all others): stacked, so
            that a round reads what it needs and nothing is selected.
        break_: of a correct chain, p_ci.
    """

    repair: UInt32[Array, "2 digits words"]
    break_: UInt32[Array, "digits words"]


def seed_of(key: Key[Array, ""]) -> Seed:
    """Key words of the generator from a typed key of any implementation."""
    return jax.random.bits(key, (4,), jnp.uint32)


@jax.jit
def coins_of(chain: TwoStateChain) -> Coins:
    """Digits of one chain for all, or of one chain per row (shape a multiple of 32)."""
    return Coins(jnp.stack([_digits(chain.p0), _digits(chain.p_ic)]), _digits(chain.p_ci))


def next_states(
    seed: Seed,
    coins: Coins,
    first_word: Int[Array, ""] | UInt32[Array, ""],
    k: UInt32[Array, ""],
    states: UInt32[Array, "words"],
) -> UInt32[Array, "words"]:
    """States after round k from those before it; the first answer is round 0, from all wrong.

    Args:
        seed: key words of the run.
        coins: digits of the probabilities of these chains.
        first_word: number of the first of these words in the run.
        k: the round.
        states: bit j of word w says whether that chain is correct.

    Returns: states, packed alike.
    """
    words = first_word.astype(jnp.uint32) + jax.lax.iota(jnp.uint32, states.size)
    draw = _Draw(seed, coins, k)
    none = jnp.zeros_like(states)
    toss = draw.first_digits(words, states, Toss.of(none, none | jnp.uint32(_ALL)))
    if states.size % _FOLD == 0:
        flips = _finish_folded(draw, words, states, toss)
    else:
        flips = draw.the_rest(words, toss, partial(draw.limit, states))
    return states ^ flips


class Toss(NamedTuple):
    """Coins half way: bits of those decided to flip, and of those undecided.

    XLA computes each array in a loop of its own, so that two would draw all the digits twice.
    They are kept as the two parts of one complex array, which only ever carries their bits.
    """

    parts: Complex64[Array, "words"]

    @classmethod
    def of(cls, flips: UInt32[Array, "words"], undecided: UInt32[Array, "words"]) -> "Toss":
        as_floats = (jax.lax.bitcast_convert_type(x, jnp.float32) for x in (flips, undecided))
        return cls(jax.lax.complex(*as_floats))

    @property
    def flips(self) -> UInt32[Array, "words"]:
        return jax.lax.bitcast_convert_type(jax.lax.real(self.parts), jnp.uint32)

    @property
    def undecided(self) -> UInt32[Array, "words"]:
        return jax.lax.bitcast_convert_type(jax.lax.imag(self.parts), jnp.uint32)


Limit = Callable[[UInt32[Array, ""]], UInt32[Array, "words"]]
"""One digit of the flipping probability of every chain, by the number of the digit."""


class _Draw(NamedTuple):
    """Digits of the uniform numbers of round k against those of the probability of each chain."""

    seed: Seed
    coins: Coins
    k: UInt32[Array, ""]

    def next_digits(
        self, words: UInt32[Array, "words"], digit: UInt32[Array, ""], toss: Toss, limit: Limit
    ) -> Toss:
        """`_DIGITS_AT_ONCE` digits from `digit` on."""
        flips, undecided = toss.flips, toss.undecided
        call = jnp.broadcast_to(digit // _DIGITS_AT_ONCE, words.shape)
        counter = (words, jnp.broadcast_to(self.k, words.shape), call, jnp.zeros_like(words))
        for offset, uniform in enumerate(threefry(self.seed, counter)):
            own = limit(digit + jnp.uint32(offset))
            differ = uniform ^ own
            flips = flips | (undecided & differ & own)
            undecided = undecided & ~differ
        return Toss.of(flips, undecided)

    def first_digits(
        self, words: UInt32[Array, "words"], states: UInt32[Array, "words"], toss: Toss
    ) -> Toss:
        """The digits that every coin gets."""
        limit = partial(self.limit, states)
        for digit in range(0, _DENSE_DIGITS, _DIGITS_AT_ONCE):
            toss = self.next_digits(words, jnp.uint32(digit), toss, limit)
        # What comes next reads parts of this several times, and would draw it anew for each.
        return Toss(jax.lax.optimization_barrier(toss.parts))

    def limit(
        self, states: UInt32[Array, "words"], digit: UInt32[Array, ""]
    ) -> UInt32[Array, "words"]:
        """One digit of the flipping probability of each chain in its present state."""
        wrong = self.coins.repair[jnp.minimum(self.k, 1), digit]
        right = self.coins.break_[digit]
        return wrong ^ (states & (wrong ^ right))

    def the_rest(
        self, words: UInt32[Array, "words"], toss: Toss, limit: Limit
    ) -> UInt32[Array, "words"]:
        """Which coins flip, after as many further digits as it takes."""

        def more(carry: tuple[UInt32[Array, ""], Toss]) -> tuple[UInt32[Array, ""], Toss]:
            digit, toss = carry
            toss = self.next_digits(words, digit, toss, limit)
            return digit + jnp.uint32(_DIGITS_AT_ONCE), toss

        def wanted(carry: tuple[UInt32[Array, ""], Toss]) -> Bool[Array, ""]:
            return (carry[0] < _DIGITS) & jnp.any(carry[1].undecided != 0)

        _, toss = jax.lax.while_loop(wanted, more, (jnp.uint32(_DENSE_DIGITS), toss))
        # The digits of 1 are all ones, those of 0 all zeros: what is still open goes with the last.
        return toss.flips | (toss.undecided & limit(jnp.uint32(_DIGITS - 1)))


def _finish_folded(
    draw: _Draw, words: UInt32[Array, "words"], states: UInt32[Array, "words"], toss: Toss
) -> UInt32[Array, "words"]:
    """`the_rest`, with the few undecided coins of `_FOLD` words gathered in one.

    Where two of them would meet in one bit, which is rare, nothing is gathered.
    """
    size = words.size // _FOLD
    parts = [slice(part * size, (part + 1) * size) for part in range(_FOLD)]
    undecided, gathered_states, met = (jnp.zeros(size, jnp.uint32) for _ in range(3))
    for part in parts:
        met = met | (undecided & toss.undecided[part])
        undecided = undecided | toss.undecided[part]
        gathered_states = gathered_states | (toss.undecided[part] & states[part])

    def limit_of_each(digit: UInt32[Array, ""]) -> UInt32[Array, "words"]:
        own = toss.undecided & draw.limit(states, digit)
        return reduce(jnp.bitwise_or, [own[part] for part in parts])

    alike = draw.coins.break_.shape[1] == 1
    limit = partial(draw.limit, gathered_states) if alike else limit_of_each

    def gathered() -> UInt32[Array, "words"]:
        few = Toss.of(jnp.zeros_like(undecided), undecided)
        flips = draw.the_rest(words[:size], few, limit)
        return toss.flips | (toss.undecided & jnp.tile(flips, _FOLD))

    def apart() -> UInt32[Array, "words"]:
        return draw.the_rest(words, toss, partial(draw.limit, states))

    return jax.lax.cond(jnp.any(met != 0), apart, gathered)


def unpack(states: UInt32[Array, "words"]) -> Bool[Array, "chains"]:
    """One boolean per chain."""
    bits = (states[:, None] >> jax.lax.iota(jnp.uint32, CHAINS_PER_WORD)[None]) & 1
    return bits.reshape(-1).astype(bool)


def _digits(p: Float[Array, "*chains"]) -> UInt32[Array, "digits words"]:
    """The first binary digits of p, packed: scaling by a power of 2 and taking floors are exact."""
    scale = 2.0**CHAINS_PER_WORD
    first = jnp.floor(p * scale)
    halves = [
        jnp.where(p >= 1, jnp.uint32(_ALL), half.astype(jnp.uint32))
        for half in (first, (p * scale - first) * scale)
    ]
    if p.ndim == 0:
        places = jnp.arange(CHAINS_PER_WORD - 1, -1, -1, dtype=jnp.uint32)
        bits = jnp.concatenate([half >> places for half in halves]) & 1
        return (bits * jnp.uint32(_ALL))[:, None]
    by_lane = [half.reshape(-1, CHAINS_PER_WORD).T for half in halves]
    return jnp.concatenate([_transposed(rows)[::-1] for rows in by_lane])


def _transposed(rows: UInt32[Array, "32 words"]) -> UInt32[Array, "32 words"]:
    """Bit j of row i becomes bit i of row j: halves, quarters, ... single bits change places."""
    masks = jnp.array([0x0000FFFF, 0x00FF00FF, 0x0F0F0F0F, 0x33333333, 0x55555555], jnp.uint32)

    def exchange(
        step: Int[Array, ""], rows: UInt32[Array, "32 words"]
    ) -> UInt32[Array, "32 words"]:
        distance = jnp.uint32(16) >> step.astype(jnp.uint32)
        low, high = jnp.split(rows, 2)
        swapped = ((low >> distance) ^ high) & masks[step]
        # The numbers of the rows are turned by one bit, so that pairs always lie 16 rows apart.
        return jnp.stack([low ^ (swapped << distance), high ^ swapped], 1).reshape(rows.shape)

    return jax.lax.fori_loop(0, len(masks), exchange, rows)


def threefry(seed: Seed, counter: Four, rounds: int = _ROUNDS) -> Four:
    """Threefry-4x32 of the counters, elementwise.

    Written out because jax.random keeps its rounds in a loop on CPUs, which nothing fuses with, and
    has no 4x32.
    """
    schedule = [*seed, seed[0] ^ seed[1] ^ seed[2] ^ seed[3] ^ jnp.uint32(_PARITY)]
    x = [word + key for word, key in zip(counter, schedule, strict=False)]
    for number in range(rounds):
        # The words 0 and 2 are mixed with 1 and 3, and in every second round with 3 and 1.
        partners = (1, 3) if number % 2 == 0 else (3, 1)
        for one, other, distance in zip((0, 2), partners, _ROTATIONS[number % 8], strict=True):
            x[one] = x[one] + x[other]
            turned = (x[other] << distance) | (x[other] >> (32 - distance))
            x[other] = turned ^ x[one]
        if number % 4 == 3:
            group = number // 4 + 1
            x = [word + schedule[(group + i) % 5] for i, word in enumerate(x)]
            x[3] = x[3] + jnp.uint32(group)
    return x[0], x[1], x[2], x[3]
