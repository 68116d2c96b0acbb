"""What people keep beside their weights is read as plain values, and nothing of it runs."""

import argparse
import collections
import datetime
import os
import pathlib
import pickle
import random
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from pixpro.checkpoints.plain_values import Array, Dtype
from pixpro.checkpoints.safe_load import load_untrusted
from pixpro.errors import UserError

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
PLAIN = {  # what is saved, and what is read
    "float64": (np.float64(0.5), 0.5),
    "float32": (np.float32(0.25), 0.25),
    "float16": (np.float16(-2), -2.0),
    "int64": (np.int64(-(2**40)), -(2**40)),
    "uint8": (np.uint8(255), 255),
    "bool": (np.bool_(True), True),
    "complex": (np.complex64(1 + 2j), 1 + 2j),
    "big-endian": (np.frombuffer(b"\x01\x02", ">u2")[0], 0x0102),
    "text": (np.str_("resnet50"), "resnet50"),
    "dtype": (np.dtype("float32"), "float32"),
    "type": (np.int16, "int16"),
    "path": (pathlib.PurePosixPath("/data/run 1/last.pth"), "/data/run 1/last.pth"),
    "relative path": (Path("a/b"), "a/b"),
    "datetime": (NOW, NOW),
    "date": (NOW.date(), NOW.date()),
    "timedelta": (datetime.timedelta(3, 4), datetime.timedelta(3, 4)),
    "defaultdict": (collections.defaultdict(list, {"loss": [1.0]}), {"loss": [1.0]}),
    "ordered": (collections.OrderedDict(b=1, a=np.int32(2)), collections.OrderedDict(b=1, a=2)),
    "counter": (collections.Counter("aab"), collections.Counter("aab")),
    "namespace": (argparse.Namespace(lr=np.float64(0.1)), argparse.Namespace(lr=0.1)),
    "simple namespace": (types.SimpleNamespace(lr=0.1), argparse.Namespace(lr=0.1)),
    "python's generator": (random.Random(0).getstate(), random.Random(0).getstate()),
    "frozenset": (frozenset({1, 2}), frozenset({1, 2})),
    "range": (range(1, 9, 2), range(1, 9, 2)),
    "no bytes": (b"", b""),
    "size": (torch.Size([2, 3]), torch.Size([2, 3])),
    "nested": ({"a": [{"best": np.float64(1)}, (np.int8(1), [np.int8(2)])]}, {"a": [{"best": 1.0}, (1, [2])]}),
}
ARRAYS = {
    "rows": np.arange(6.0).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
    "big-endian": np.arange(3, dtype=">f4"),
    "a part": np.arange(24, dtype=np.float16).reshape(4, 6)[::2, 1:3],
    "no dimensions": np.array(2.5),
    "nothing": np.zeros((0, 3), dtype=np.uint8),
    "truths": np.array([True, False]),
}


def reread(path: Path, value: object, zipped: bool = True) -> object:
    """The value, kept beside weights under best_acc, as it is read again."""
    torch.save({"conv1.weight": torch.ones(2), "best_acc": value}, path, _use_new_zipfile_serialization=zipped)
    return load_untrusted(path)["best_acc"]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", PLAIN)
def test_plain_values_beside_the_weights_are_read(tmp_path, name, zipped):
    saved, expected = PLAIN[name]
    value = reread(tmp_path / "x.pth", saved, zipped)
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_numpy_are_read_as_tensors(tmp_path, name):
    saved = ARRAYS[name]
    value = reread(tmp_path / "x.pth", {"here": [saved], "there": (saved, 1)})
    for tensor in (value["here"][0], value["there"][0]):
        assert isinstance(tensor, torch.Tensor) and tensor.shape == saved.shape
        assert tensor.numpy().dtype == saved.dtype.newbyteorder("=") and np.array_equal(tensor.numpy(), saved)


def test_weights_that_are_arrays_of_numpy_are_weights(tmp_path):
    torch.save({"state_dict": {"conv1.weight": np.ones((2, 3), np.float32)}}, tmp_path / "x.pth")
    weights = load_untrusted(tmp_path / "x.pth")["state_dict"]["conv1.weight"]
    assert torch.equal(weights, torch.ones(2, 3)) and weights.dtype == torch.float32
    weights += 1  # the memory is its own


class Calls:
    """Pickles as a call of `function` with `arguments`, followed by `state` if there is any."""

    def __init__(self, function: object, *arguments: object, state: object = None) -> None:
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


def hostile(marker: Path) -> dict[str, object]:
    code = f"open({str(marker)!r}, 'w')"
    run = Calls(os.system, f"touch {marker}")
    return {
        "a call in a scalar": np.array([run], dtype=object)[0],
        "objects in an array": np.array([run], dtype=object),
        "a function of numpy": Calls(np.fromfile, str(marker)),
        "a factory": Calls(collections.defaultdict, run),
        "a factory that is called": collections.defaultdict(list, {"a": Calls(eval, code)}),
        "a path": Calls(pathlib.PurePosixPath, run),
        "an enum": signal_number(),
        "a program": Calls(subprocess.Popen, ["touch", str(marker)]),
        "writing by numpy": Calls(np.save, str(marker), np.ones(1)),
        "a subclass of arrays": np.ma.masked_array([1.0]),
        "fields": np.zeros(2, dtype=[("a", "i4")]),
        "a date of numpy's": np.datetime64("2026-01-01"),
        "a type by its text": Calls(np.dtype, "O"),
        "an array that claims more than it has": Calls(
            np._core.multiarray._reconstruct,
            np.ndarray,
            (0,),
            b"b",
            state=(1, (10**12,), np.dtype("f8"), False, b"12345678"),
        ),
        "a state that is none": Calls(np._core.multiarray._reconstruct, np.ndarray, (0,), b"b", state=(1, 2)),
    }


def signal_number() -> object:
    import signal

    return signal.SIGTERM


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", hostile(Path("marker")))
def test_what_would_run_code_or_is_no_plain_value_is_refused(tmp_path, name, zipped):
    marker = tmp_path / "marker"
    with pytest.raises(UserError) as caught:
        reread(tmp_path / "x.pth", hostile(marker)[name], zipped)
    assert str(caught.value).isprintable() and not marker.exists()


@pytest.mark.parametrize("state", [(3, "<"), None, (3, "|", None, None, None, 10**9, 1, 63), (3, b">", None)])
def test_a_kind_of_numbers_takes_no_more_than_the_byte_order_from_its_state(state):
    dtype = Dtype("i4", False, True)
    if state is None:
        with pytest.raises(TypeError):
            dtype.__setstate__(state)
    else:
        dtype.__setstate__(state)
        assert dtype.dtype.itemsize == 4 and dtype.dtype.kind == "i"


@pytest.mark.parametrize("code", ["O", "V8", "M8[ns]", "f8,f8", "(10,)f8", "U9999999999", 5, None, "f8 "])
def test_kinds_that_are_no_numbers_are_refused(code):
    with pytest.raises(ValueError, match="neither number nor text"):
        Dtype(code)


def test_nothing_of_the_stand_ins_is_left_in_what_is_read(tmp_path):
    """A tuple of tuples is where one could hide; walk everything."""
    value = {"state": np.random.RandomState(0).get_state(), "ns": argparse.Namespace(a=np.ones(2), d=np.dtype("i4"))}
    read = reread(tmp_path / "x.pth", value)
    assert torch.is_tensor(read["state"][1]) and torch.is_tensor(read["ns"].a) and read["ns"].d == "int32"
    assert not any(isinstance(part, Array | Dtype) for part in (*read["state"], *vars(read["ns"]).values()))


def test_reading_needs_no_pathlib_of_the_writer_s_python(tmp_path):
    """Python 3.13 names the module pathlib._local."""
    data = pickle.dumps({"conv1.weight": 1, "path": pathlib.PurePosixPath("/a/b")}, protocol=2)
    moved = data.replace(b"cpathlib\n", b"cpathlib._local\n")
    assert moved != data
    legacy = tmp_path / "x.pth"
    torch.save({"a": 1}, legacy, _use_new_zipfile_serialization=False)
    head = legacy.read_bytes()
    start = head.index(pickle.dumps({"a": 1}, protocol=2))
    legacy.write_bytes(head[:start] + moved + head[start + len(pickle.dumps({"a": 1}, protocol=2)) :])
    assert load_untrusted(legacy)["path"] == "/a/b"


def test_no_module_is_imported_for_a_name_in_a_file(tmp_path):
    torch.save({"x": Calls(signal_number().__class__, 15)}, tmp_path / "x.pth")
    (tmp_path / "y.pth").write_bytes((tmp_path / "x.pth").read_bytes().replace(b"signal", b"antigr"))
    before = set(sys.modules)
    with pytest.raises(UserError):
        load_untrusted(tmp_path / "y.pth")
    assert "antigr" not in set(sys.modules) - before
