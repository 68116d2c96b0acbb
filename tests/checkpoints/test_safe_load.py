"""Files from outside: nothing in them runs, and whatever is wrong with them is one clear line."""

import argparse
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixpro.checkpoints.safe_load import load_untrusted
from pixpro.errors import UserError

WEIGHTS = {"epoch": 3, "state_dict": {"conv1.weight": torch.arange(12.0).view(3, 4), "bn1.bias": torch.ones(3)}}


class Evil:
    """An object whose pickle runs a command when it is read by an ordinary unpickler."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def saved(contents, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(contents, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def in_safetensors() -> bytes:
    return safetensors.torch.save(WEIGHTS["state_dict"], {"epoch": "3"})


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_untrusted(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and text.isprintable()
    return text


def evil_files(marker: Path) -> dict[str, bytes]:
    evil = Evil(marker)
    namespace = argparse.Namespace(arch="resnet50", other=evil)
    return {
        "zip": saved({"model": WEIGHTS["state_dict"], "opt": evil}),
        "legacy": saved({"model": WEIGHTS["state_dict"], "opt": evil}, zipped=False),
        "namespace": saved({"model": WEIGHTS["state_dict"], "opt": namespace}),
        "namespace legacy": saved({"model": WEIGHTS["state_dict"], "opt": namespace}, zipped=False),
        "bare pickle": pickle.dumps(evil),
        "old pickle": b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.",
        "eval": saved({"a": Reduced(eval, (f"open({str(marker)!r}, 'w')",))}),
        "namespace state": saved({"a": StateOf(argparse.Namespace, evil)}),
    }


class Reduced:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class StateOf:
    """Pickles as an instance of `kind` whose state is something else than a dict."""

    def __init__(self, kind, state) -> None:
        self.parts = kind, (), state

    def __reduce__(self):
        return self.parts


def test_the_evil_files_of_these_tests_do_run_elsewhere(tmp_path):
    for name, content in evil_files(tmp_path / "marker").items():
        if name in ("zip", "legacy", "namespace", "namespace legacy", "eval"):
            torch.load(io.BytesIO(content), weights_only=False)
        elif name != "namespace state":
            pickle.loads(content)
        else:
            with pytest.raises(Exception, match="iterable|mapping|dictionary|update"):
                torch.load(io.BytesIO(content), weights_only=False)
        assert (tmp_path / "marker").exists(), name
        (tmp_path / "marker").unlink()


def test_a_malicious_pickle_is_refused_without_running_it(tmp_path):
    for name, content in evil_files(tmp_path / "marker").items():
        (tmp_path / "evil.pth").write_bytes(content)
        refusal(tmp_path / "evil.pth")
        assert not (tmp_path / "marker").exists(), name


def test_the_refusal_names_what_the_file_wanted_to_run(tmp_path):
    (tmp_path / "evil.pth").write_bytes(evil_files(tmp_path / "marker")["zip"])
    assert "system while it is read" in refusal(tmp_path / "evil.pth")


@pytest.mark.parametrize("state", [{"__class__": 1, "__dict__": {}, "keys": None}, {"_get_kwargs": 5}])
def test_a_namespace_with_odd_attributes_is_harmless(tmp_path, state):
    namespace = argparse.Namespace()
    vars(namespace).update(state)
    torch.save({"opt": namespace, **WEIGHTS}, tmp_path / "odd.pth")
    loaded = load_untrusted(tmp_path / "odd.pth")
    assert type(loaded["opt"]) is argparse.Namespace and vars(loaded["opt"]) == state


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path, form, data):
    path, marker = tmp_path / "mutated.pth", tmp_path / "marker"
    evil = evil_files(marker)
    if form == "safetensors":
        bases = [in_safetensors()]
    elif form == "zip":
        bases = [saved(WEIGHTS), evil["zip"], evil["namespace"]]
    else:
        bases = [saved(WEIGHTS, zipped=False), evil["legacy"], evil["bare pickle"]]
    content = bytearray(data.draw(st.sampled_from(bases)))
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "repeat"]))
        position = data.draw(st.integers(0, max(0, len(content) - 1)))
        if kind == "flip" and content:
            content[position] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del content[position : position + data.draw(st.integers(1, len(content) + 1))]
        elif kind == "insert":
            content[position:position] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            content[position:position] = content[: data.draw(st.integers(0, 64))]
    path.write_bytes(content)
    try:
        load_untrusted(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ") and str(error).isprintable()
    assert not marker.exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path, form):
    whole = in_safetensors() if form == "safetensors" else saved(WEIGHTS, zipped=form == "zip")
    for length in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        refusal(tmp_path / "cut.pth")


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is a text", b"\x89PNG\r\n\x1a\n" + bytes(50), bytes(4096), b"<!DOCTYPE html>"]
)
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "foreign.pth").write_bytes(content)
    assert "not a checkpoint" in refusal(tmp_path / "foreign.pth")


def test_missing_files_folders_and_devices_are_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.pth")
    assert "no such file" in refusal(tmp_path)
    assert "no such file" in refusal(Path("/dev/zero"))


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    with zipfile.ZipFile(io.BytesIO(saved(WEIGHTS))) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, content in entries.items():
            bomb.writestr(name, content)
        bomb.writestr("archive/data/bomb", bytes(10_000_000))
    assert (tmp_path / "bomb.pth").stat().st_size < 100_000
    assert "compressed" in refusal(tmp_path / "bomb.pth")


def test_a_tensor_larger_than_the_file_is_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1).expand(10**12)}, tmp_path / "wide.pth")
    assert "not a plain array" in refusal(tmp_path / "wide.pth")


@pytest.mark.parametrize(
    "tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")], ids=["sparse", "without data"]
)
def test_tensors_that_are_no_plain_arrays_are_refused(tmp_path, tensor):
    torch.save({"conv1.weight": tensor}, tmp_path / "odd.pth")
    assert "not a plain array" in refusal(tmp_path / "odd.pth")


def test_containers_that_refer_to_themselves_many_times_over_are_read_quickly(tmp_path):
    nested = [torch.ones(2)]
    for _ in range(60):
        nested = [nested, nested]  # 2^60 paths to one tensor
    torch.save({"model": {"conv1.weight": torch.ones(2)}, "other": nested}, tmp_path / "nested.pth")
    assert load_untrusted(tmp_path / "nested.pth")["model"]["conv1.weight"].sum() == 2


def test_a_safetensors_header_that_claims_to_be_huge_is_refused(tmp_path):
    (tmp_path / "huge.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{" + bytes(100))
    refusal(tmp_path / "huge.safetensors")


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_good_files_are_read(tmp_path, form):
    (tmp_path / "good").write_bytes(in_safetensors() if form == "safetensors" else saved(WEIGHTS, form == "zip"))
    loaded = load_untrusted(tmp_path / "good")["state_dict"]
    assert all(torch.equal(loaded[name], tensor) for name, tensor in WEIGHTS["state_dict"].items())
