"""The plan: memory is predicted before it is taken, suggestions keep the batch, nothing is written."""

import json
from types import SimpleNamespace

import pytest
import torch
import torchvision

import train
from pixpro import PixPro
from pixpro.errors import UserError
from pixpro.images import open_images
from pixpro.monitor.usage import memory_limit
from pixpro.plan import bursts
from pixpro.plan.bursts import Burst, Bursts, explore, largest_fit, measure
from pixpro.plan.check import expected_pairs
from pixpro.plan.rows import accumulation_for, image_sizes, pairs_line, plan_rows
from pixpro.training.sync_batchnorm import BatchNorm
from tests.helpers.pictures import folder
from tests.helpers.runs import TinyTrunk, arguments
from tests.helpers.small_runs import Pictures, shrink, small_trainer

GB = 1e9


def machine(
    monkeypatch, *, limit: float, fixed: float = 1 * GB, each: float = 0.1 * GB, speed: float = 1e6
) -> list[int]:
    """A machine whose memory is known; returns the list in which the measured sizes will be."""
    measured = []

    def measure(trainer, loader, images: int) -> Burst:
        measured.append(images)
        if fixed + each * images > limit:
            raise torch.OutOfMemoryError("no memory")
        return Burst(images, speed, 0.0, fixed + each * images)

    monkeypatch.setattr(bursts, "measure", measure)
    monkeypatch.setattr(bursts, "memory_limit", lambda device: limit)
    return measured


def on(device: str) -> SimpleNamespace:
    return SimpleNamespace(device=torch.device(device))


def look(device: str, share: int, processes: int = 1, world_size: int = 1) -> Bursts:
    return explore(on(device), lambda images: None, share, processes, world_size)


def test_sizes_grow_to_the_share_and_the_memory_of_an_image_is_found(monkeypatch):
    measured = machine(monkeypatch, limit=100 * GB)
    found = look("cpu", 48)
    assert measured == [8, 16, 32, 48]
    assert found.per_image == pytest.approx(0.1 * GB) and found.largest == int((0.9 * 100 - 1) / 0.1)


@pytest.mark.parametrize("limit", [2.2, 3, 5.01, 9.7])
def test_no_size_is_tried_that_would_end_a_cpu_run(monkeypatch, limit):
    measured = machine(monkeypatch, limit=limit * GB)
    found = look("cpu", 1024)
    assert 1 * GB + 0.1 * GB * max(measured) <= limit * GB
    assert max(measured) <= found.largest and 1 + 0.1 * found.largest <= limit


def test_processes_of_one_machine_share_its_memory(monkeypatch):
    machine(monkeypatch, limit=40 * GB)
    assert look("cpu", 64, processes=4).largest == int((0.9 * 10 - 1) / 0.1)


def test_a_gpu_that_runs_out_of_memory_keeps_the_size_that_fitted(monkeypatch):
    # Memory that grows faster than the first bursts said.
    machine(monkeypatch, limit=10 * GB, each=0.09 * GB)
    monkeypatch.setattr(bursts, "memory_limit", lambda device: 1000 * GB)
    found = look("cuda", 1024)
    assert found.largest == 64 and [burst.images for burst in found.bursts] == [32, 64]


def test_memory_that_ends_on_one_of_several_gpus_ends_the_search_on_all(monkeypatch):
    measured = machine(monkeypatch, limit=1000 * GB)
    monkeypatch.setattr(bursts, "fits_everywhere", lambda trainer, images, loader: images <= 64)
    found = look("cuda", 1024, world_size=2)
    assert measured == [32, 64] and found.largest == 64


def test_trying_passes_changes_nothing_and_talks_to_nobody():
    torch.manual_seed(0)
    model = BatchNorm.convert(shrink(PixPro("resnet18", hidden_dim=16, dim=64)), processes=2)  # and there is no group
    trainer = small_trainer(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    bursts.try_alone(trainer, 4, 64)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is not None for p in model.encoder.parameters())
    assert all(norm.processes == 2 for norm in model.modules() if isinstance(norm, BatchNorm))


def test_what_other_programs_hold_of_a_gpu_is_not_counted_as_memory_for_training(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * 10**9)
    assert memory_limit(torch.device("cuda")) == 32e9


def test_where_not_even_the_first_size_fits_it_is_said(monkeypatch):
    machine(monkeypatch, limit=1 * GB)
    with pytest.raises(UserError, match="do not fit"):
        look("cuda", 64)


def test_patience_ends_the_search(monkeypatch):
    measured = machine(monkeypatch, limit=1000 * GB, speed=1.0)
    look("cpu", 1024)
    assert measured == [8, 16]  # 4 steps of 8 and of 16 images at one image a second


def test_one_size_alone_is_judged_on_the_safe_side():
    assert largest_fit([Burst(8, 1.0, 0.0, 4 * GB)], 10 * GB) == 20
    assert largest_fit([Burst(8, 1.0, 0.0, 20 * GB)], 10 * GB) == 8


@pytest.mark.parametrize(
    ("share", "largest", "parts"), [(128, 128, 1), (128, 127, 2), (96, 40, 3), (7, 3, 7), (4, 1, 4)]
)
def test_accumulation_cuts_the_share_into_equal_parts_that_fit(share, largest, parts):
    assert accumulation_for(share, largest) == parts


def rows(found: Bursts, **changes) -> list[tuple[str, str]]:
    settings = {"images": 1000, "epochs": 10, "batch_size": 256, "world_size": 2, "workers": 4, "limit": 16 * GB}
    settings |= {"peak_lr": lambda batch, rule: batch / 256 if rule == "linear" else batch**0.5, "lr_rule": "linear"}
    settings |= {"recipe": "small"}
    return plan_rows(found, **(settings | changes))


def test_the_rows_tell_memory_speed_time_and_settings():
    told = rows(Bursts([Burst(64, 50.0, 0.02, 8 * GB)], 0.1 * GB, 140))
    assert "8.00 GB with 64 images per process, 0.1 GB for each image more; there are 16.0 GB" in told[0][1]
    assert "50 images/s, 2% of the time waiting for data (4 worker(s) per process)" in told[1][1]
    # 3 whole steps an epoch; 30 steps of 256 images at 50 a second are 153.6 s.
    assert "10 epochs of 1000 images, 30 steps: 2 min 34 s" in told[2][1]
    assert "--batch_size 256 --accumulation 1 (128 images at once per process), peak learning rate 1" in told[3][1]
    assert len(told) == 4


def test_a_batch_that_does_not_fit_is_accumulated_or_made_smaller():
    told = rows(Bursts([Burst(32, 50.0, 0.3, 8 * GB)], None, 40))
    assert "--batch_size 256 --accumulation 4 (32 images at once per process), peak learning rate 1" in told[3][1]
    assert "--batch_size 64 --lr_rule sqrt, peak learning rate 8:" in told[4][1]
    assert "waits for its images" in told[5][1]


@pytest.mark.parametrize(
    ("images", "recipe", "told"), [(51199, "published", True), (51200, "published", False), (1000, "small", False)]
)
def test_a_run_of_few_steps_by_the_published_recipe_is_advised(images, recipe, told):
    found = rows(Bursts([Burst(64, 50.0, 0.02, 8 * GB)], None, 140), images=images, epochs=10, recipe=recipe)
    advice = [figure for what, figure in found if what == "recipe"]
    assert bool(advice) == told  # 200 steps of 256 images an epoch make 2000 steps
    assert not told or ("1990 steps are few" in advice[0] and "--recipe small" in advice[0])


def test_a_burst_measures_real_steps():
    torch.manual_seed(0)
    trainer = small_trainer(shrink(PixPro("resnet18", hidden_dim=16, dim=64)))
    before = trainer.core.encoder.conv1.weight.clone()
    burst = measure(trainer, Pictures(batch=4), 4)
    assert trainer.good_step == 4 and not torch.equal(before, trainer.core.encoder.conv1.weight)
    assert burst.images == 4 and burst.images_per_second > 0 and 0 <= burst.data_wait < 1 and burst.memory > 1e7


def test_positives_are_those_of_the_sizes_of_the_images(tmp_path):
    source = open_images([str(folder(tmp_path / "data", 5))])
    (tmp_path / "data" / "000.jpg").write_bytes(b"no picture")
    heights, widths = image_sizes(source)
    assert sorted(zip(heights.tolist(), widths.tolist(), strict=True)) == sorted(
        (48 + i % 5, 56 - i % 3) for i in range(1, 5)
    )
    settings = {"distance": "image", "threshold": 0.7, "crop_min": 0.2}
    positives, apart = expected_pairs(heights, widths, "image", 3, 0.7, 0.2)
    line = pairs_line(source, cells=3, **settings)
    assert f"{positives * 81:.1f} of the 81 cell pairs" in line and f"none in {apart:.1%}" in line


def test_images_of_which_none_can_be_read_are_refused(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of 1 images"):
        image_sizes(open_images([str(data)]))


def test_the_command_prints_the_plan_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torchvision.models, "get_model", lambda *args, **options: TinyTrunk())
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))
    data = folder(tmp_path / "data", 16)
    (data / "notes.txt").touch()
    assert train.main([*arguments(data, tmp_path / "out", "--plan", "--log_every", "1")]) == 0
    told = capsys.readouterr().out
    for word in ("left out", "memory ", "images/s", "12 steps:", "--batch_size 4 --accumulation 1", "positives "):
        assert word in told, json.dumps(told)
    assert not (tmp_path / "out").exists()


def test_the_plan_counts_the_cells_of_the_maps(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torchvision.models, "get_model", lambda *args, **options: TinyTrunk())
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))
    data = folder(tmp_path / "data", 16)
    assert train.main([*arguments(data, tmp_path / "out", "--plan", "--image_size", "84")]) == 0
    assert f"of the {(10 * 10) ** 2} cell pairs of an image" in capsys.readouterr().out
