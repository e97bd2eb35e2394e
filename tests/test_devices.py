"""Devices that lack what a computation needs, named before it is computed."""

import jax
import pytest

from msjax import devices
from msjax.cli import main
from msjax.errors import InputError
from msjax.simulation.ensemble import simulate_ensemble
from msjax.simulation.loops import simulate_loops
from msjax.theory.chain import TwoStateChain
from msjax.theory.judge import Judge

CHAIN = TwoStateChain(0.5, 0.3, 0.1)


def test_what_a_cpu_has() -> None:
    cpu = jax.devices("cpu")[0]
    assert devices.has_float64(cpu)
    total, free = devices.memory(cpu), devices.free_memory(cpu)
    assert total is not None and free is not None and 0 < free < total


@pytest.mark.parametrize(
    "call",
    [
        lambda key: simulate_ensemble(key, CHAIN, 10, 2),
        lambda key: simulate_loops(key, CHAIN, Judge(0.9, 0.2), 10, 2),
    ],
)
def test_a_device_without_float64_is_named(call, monkeypatch) -> None:
    monkeypatch.setattr(devices, "has_float64", lambda device: False)
    with pytest.raises(InputError, match=r"needs float64, which the device cpu:0 .* JAX_PLATFORMS"):
        call(jax.random.key(0))


def test_a_kind_of_device_that_is_not_there_is_one_sentence(monkeypatch, capsys) -> None:
    def none(*_: object) -> None:
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", none)
    assert main(["doctor"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("msjax: error: JAX_PLATFORMS is 'cuda', and JAX finds no device of that")
    assert "pip install 'msjax[cuda]'" in said and said.count("\n") == 1
