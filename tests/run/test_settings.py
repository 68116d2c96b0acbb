"""Every setting does what it says on resume and between processes: a walk over all of them."""

import dataclasses
import shutil
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import train
from pixpro import config
from pixpro.command_line import shared_settings
from pixpro.config import Config, parse_args
from pixpro.errors import UserError
from pixpro.training.processes import Process
from tests.helpers.other_settings import CONTRAST, METHOD, OTHER, names, other
from tests.helpers.runs import Run, arguments, pictures, weights


def test_the_walk_leaves_no_setting_out_and_changes_each():
    assert list(OTHER) == [field.name for field in dataclasses.fields(Config)]
    usual = parse_args(arguments(Path("data"), Path("run")))
    for name in OTHER:
        changed = parse_args(arguments(Path("data"), Path("run"), *other(name, Path("place"))))
        assert getattr(changed, name) != getattr(usual, name), name


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with images, and the same images elsewhere."""
    place = tmp_path_factory.mktemp("settings")
    shutil.copytree(pictures(place / "data"), place / "elsewhere")
    return place


@pytest.fixture(scope="module")
def whole(place):
    """The output of a run to its end with these arguments; the state after its second epoch is in 0002.pth.tar."""
    done: dict[tuple[str, ...], Path] = {}

    def run(*more: str) -> Path:
        if more not in done:
            output = place / f"whole{len(done)}"
            trained = Run(arguments(place / "data", output, *more))
            assert trained.wait() == [0], trained.text()
            done[more] = output
        return done[more]

    return run


def small_parts(place: Path) -> None:
    """Let the demo's scenes be the images of the test, and leave the compiler out."""
    for name in ("train", "held_out"):
        (place / name).is_symlink() or (place / name).symlink_to("data")
    config.sample_scenes = lambda: place
    torch.compiler.set_stance("force_eager")


def resumed(place: Path, state: Path, output: Path, more: list[str]) -> Run:
    """A run that goes on from a state, in a folder that holds it, with more arguments."""
    output.mkdir(parents=True)
    shutil.copy(state, output / "last.pth.tar")
    argv = arguments(place / "data", output, "--resume", "auto", *more)
    return Run(argv, partial(small_parts, place))


@pytest.mark.parametrize("name", names("trains"))
def test_a_setting_that_is_said_to_take_effect_on_resume_changes_the_weights(place, whole, tmp_path, name):
    if name == "decode" and not torch.cuda.is_available():
        pytest.skip("GPUs decode JPEG files, CPUs do not")
    if name == "drop_path":
        pytest.importorskip("timm")
    method = METHOD.get(name, [])
    undisturbed = whole(*method)
    run = resumed(place, undisturbed / "0002.pth.tar", tmp_path / "run", [*method, *other(name, place)])
    assert run.wait() == [0], run.text()
    assert f"settings changed since {tmp_path / 'run' / 'last.pth.tar'}: {name} " in run.text()
    assert weights(tmp_path / "run") != weights(undisturbed)


def test_without_a_change_the_weights_are_the_same_and_nothing_is_said(place, whole, tmp_path):
    run = resumed(place, whole() / "0002.pth.tar", tmp_path / "run", [])
    assert run.wait() == [0], run.text()
    assert weights(tmp_path / "run") == weights(whole()) and "settings changed" not in run.text()


def test_settings_that_are_said_to_change_no_number_change_none(place, whole, tmp_path):
    shutil.copy(whole() / "0002.pth.tar", place / "epoch2.pth.tar")
    # A plan trains nothing at all; compiled code gives the same numbers to rounding.
    changed = [name for name in names("runs") if name not in ("plan", "compile")]
    more = [argument for name in changed for argument in other(name, place)]
    run = resumed(place, whole() / "0002.pth.tar", tmp_path / "run", more)
    assert run.wait() == [0], run.text()
    assert weights(place / "output") == weights(whole()) and "settings changed" not in run.text()


@pytest.mark.parametrize("name", names("unused"))
def test_what_made_the_first_weights_is_said_to_be_of_no_use_on_resume(place, whole, tmp_path, name):
    run = resumed(place, whole() / "0002.pth.tar", tmp_path / "run", other(name, place))
    assert run.wait() == [0], run.text()
    assert weights(tmp_path / "run") == weights(whole())
    assert f"--{name} {place}/no-such-weights is not used" in run.text()


@pytest.mark.parametrize("name", names("refused"))
def test_a_setting_that_may_not_change_on_resume_is_refused(place, whole, tmp_path, name):
    state = whole() / "0002.pth.tar"
    run = resumed(place, state, tmp_path / "run", other(name, place))
    assert run.wait() == [2], run.text()
    assert run.text().count("\n") == 1 and f"was trained with --{name} " in run.text()


def differ_in_each(place: Path) -> None:
    """In place of training, start it with another value of each shared setting in rank 1; print what comes of it."""
    small_parts(place)
    work = train.work

    def each(usual: Config, process: Process) -> None:
        for name in shared_settings(usual):
            method = METHOD["drop_path"] if name == "drop_path" and find_spec("timm") else []
            argv = arguments(place / "data", place / "run", *method, *(other(name, place) if process.rank else []))
            try:
                work(parse_args(argv), process)
                print(f"{name}: accepted", flush=True)
            except UserError as error:
                print(f"{name}: {error}", flush=True)

    train.work = each


@pytest.fixture(scope="module")
def refusals(place) -> list[dict[str, str]]:
    """What each of two processes raises, by the setting in which they differ."""
    run = Run(arguments(place / "data", place / "run"), partial(differ_in_each, place), ranks=2)
    assert run.wait() == [0, 0], run.text(0) + run.text(1)
    assert not (place / "run").exists()
    return [dict(line.split(": ", 1) for line in run.text(rank).splitlines() if ": " in line) for rank in range(2)]


@pytest.mark.parametrize("name", list(shared_settings(parse_args([]))))
def test_a_setting_that_may_not_differ_between_processes_is_refused(refusals, name):
    if name == "drop_path":
        pytest.importorskip("timm")
    assert refusals[0][name] == refusals[1][name]
    assert f"process 1 has {name} = " in refusals[0][name]


def own_settings_on_the_second(place: Path) -> None:
    """Give the process of rank 1 another value of each setting that may differ."""
    import os

    if os.environ["RANK"] == "1":
        read = train.parse_args
        own = [name for name in OTHER if name not in shared_settings(parse_args([]))]
        more = [argument for name in own for argument in other(name, place)]
        train.parse_args = lambda argv: read([*argv, *more])


def test_settings_that_may_differ_between_processes_train_one_model(place, whole, tmp_path):
    init = ["--init", str(whole(*CONTRAST) / "last.pth.tar")]
    for output, prepare in (("equal", None), ("different", partial(own_settings_on_the_second, place))):
        run = Run(arguments(place / "data", tmp_path / output, *init), prepare, ranks=2)
        assert run.wait() == [0, 0], run.text(0) + run.text(1)
    assert weights(tmp_path / "different") == weights(tmp_path / "equal")


def bf16_on_the_first() -> None:
    """Let only the process of rank 0 compute bf16 natively."""
    import os

    torch.cpu._is_avx512_bf16_supported = lambda: os.environ.get("RANK", "1") == "0"


def test_processes_of_unequal_machines_agree_on_a_precision(place, tmp_path):
    argv = arguments(place / "data", tmp_path / "run", "--epochs", "1", "--amp", "auto")
    run = Run(argv, bf16_on_the_first, ranks=2)
    assert run.wait() == [0, 0], run.text(0) + run.text(1)
    assert "2 process(es) on cpu, float32" in run.text(0)


def test_a_precision_that_is_emulated_is_named_before_the_first_step(place, tmp_path):
    argv = arguments(place / "data", tmp_path / "run", "--epochs", "1", "--amp", "bf16")
    run = Run(argv, bf16_on_the_first)
    assert run.wait() == [0], run.text()
    assert "emulates it" in run.text().partition("step 1/4")[0]
