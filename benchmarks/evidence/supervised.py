"""The ceiling: the same trunk trained on the labels of the same images, with the same crops, for as many images."""

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.evidence.data import Photographs
from benchmarks.evidence.trunk import maps_until, trunk_model
from downstream.common.pictures import read_picture
from downstream.probes.mask_scores import cell_labels, class_map, count_classes
from pixpro.checkpoints.checkpoint import save
from pixpro.data.augment import augment, draw_colour
from pixpro.data.views import crop_pixels, draw_crop
from pixpro.errors import UserError
from pixpro.training.schedules import warmup_cosine_lr

LR, DECAY = 0.1, 1e-4  # SGD at 32 images, as ResNets are trained on small photographs


def train_supervised(
    arch: str, data: Photographs, path: Path, *, size: int, batch: int, images: int, seed: int
) -> None:
    """Train trunk and classifier, of images or of cells, and write what `trunk_model` reads."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    files = data.classes.train if data.classes else data.masks.train if data.masks else None
    if files is None:
        raise UserError(f"{data.name} has boxes alone; a supervised trunk needs classes or masks")
    classes = len(data.classes.names) if data.classes else count_classes(data.masks.train)
    trunk = maps_until(trunk_model(arch, None, seed)).requires_grad_(True).train().to(device)
    torch.manual_seed(seed)
    channels = trunk(torch.zeros(2, 3, size, size, device=device)).shape[1]
    classifier = nn.Conv2d(channels, classes, 1).to(device)
    parameters = [*trunk.parameters(), *classifier.parameters()]
    peak = LR * batch / 32
    optimizer = torch.optim.SGD(parameters, peak, 0.9, weight_decay=DECAY, nesterov=True)
    steps = images // batch
    for step in range(steps):
        chosen = [(files[i], f"supervised {seed} {step} {i}") for i in picked(len(files), batch, step, seed)]
        views, targets = zip(*(example(file, key, size, classes) for file, key in chosen), strict=True)
        colours = torch.tensor([draw_colour(random.Random(key), 1) for _, key in chosen], dtype=torch.float32)
        logits = classifier(trunk(augment(torch.stack(views).to(device), colours)))
        loss = loss_of(logits, list(targets))
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine_lr(step, base_lr=peak, total_steps=steps, warmup_steps=steps // 20)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"supervised: step {step}/{steps}  loss {loss.item():.3f}", flush=True)
    state = {f"encoder.{name}": tensor.cpu() for name, tensor in trunk.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, {"model": state, "optimizer": {}, "step": steps, "config": {"arch": arch}})


def picked(count: int, batch: int, step: int, seed: int) -> list[int]:
    """Indices of a step's images, each once per pass over them."""
    per_pass = count // batch
    order = random.Random(f"order {seed} {step // per_pass}").sample(range(count), count)
    return order[step % per_pass * batch :][:batch]


def example(file: tuple[Path, int | Path], key: str, size: int, classes: int) -> tuple[Tensor, Tensor | int]:
    """A random crop (3, size, size) uint8 as in pre-training, and its class, or its cells' classes' shares."""
    rng = random.Random(key)
    image = read_picture(file[0])
    height, width = image.shape[1:]
    crop, flip = draw_crop(rng, height, width), rng.random() < 0.5
    pixels = crop_pixels(image, crop, flip, size).permute(2, 0, 1)
    if isinstance(file[1], int):
        return pixels, file[1]
    top, left, h, w = crop
    mask = class_map(file[1])[top : top + h, left : left + w]
    shares, counts = cell_labels(mask.flip(1) if flip else mask, size // 8, size // 8, classes)
    return pixels, shares * counts[:, None]


def loss_of(logits: Tensor, targets: list) -> Tensor:
    """Cross-entropy of pooled cells with the images' classes, or of cells (B, K, h, w) with their shares."""
    if isinstance(targets[0], int):
        return F.cross_entropy(logits.mean(dim=(2, 3)), torch.tensor(targets, device=logits.device))
    shares = torch.stack(targets).to(logits.device)  # (B, cells, K), zero where a cell is void
    side = round(shares.shape[1] ** 0.5)
    logits = F.interpolate(logits, size=(side, side), mode="nearest").flatten(2).transpose(1, 2)
    return -(shares * logits.log_softmax(dim=2)).sum() / shares.sum().clamp(min=1)
