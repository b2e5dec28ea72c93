# SPDX-License-Identifier: Apache-2.0
"""Train the members, calibrate on the validation engines and leave build/turbofan.pt for export.py.

    pip install -r models/turbofan/requirements-train.in
    PYTHONPATH=models nice python models/turbofan/train.py --data DIR     (DIR laid out like data/cmapss)
    PYTHONPATH=models nice python models/turbofan/export.py --data DIR

Members and settings were chosen by the RMSE on val; the test split is never read here.
"""

import argparse
import csv
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from calibration import fit_calibration
from dataset import Windows, disturbed, read_windows, sampling_weights
from network import MEMBERS, Ensemble, Normaliser, ordered_rul
from torch import Tensor, nn

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one member is trained."""

    member: str
    seed: int
    shape: dict[str, float] = field(default_factory=dict)
    epochs: int = 12
    windows_per_epoch: int = 60_000
    batch: int = 256
    rate: float = 3e-3
    weight_decay: float = 0.02
    noise: float = 0.15  # standard deviations within the regime
    late_weight: float = 1.25  # a late answer costs this much more than an early one


RECIPES = (Recipe("trend", 1), Recipe("trend", 2), Recipe("conv", 3), Recipe("conv", 4))


def member_loss(heads: Tensor, data: Windows, rows: Tensor, late_weight: float) -> Tensor:
    """Return mid error + quantile + failure type + fails-soon losses, the first leading."""
    rul, true = ordered_rul(heads), data.rul[rows]
    # Above the cap nothing is known: an answer beyond 125 to a label of 125 is no error.
    beyond = (true >= 125.0) & (rul[:, 1] > 125.0)
    error = torch.where(beyond, 0.1 * (rul[:, 1] - true), rul[:, 1] - true) / 20.0
    mid = torch.where(error > 0, late_weight, 1.0) * nn.functional.huber_loss(
        error, torch.zeros_like(error), reduction="none", delta=2.0
    )
    low, high = (true - rul[:, 0]) / 20.0, (true - rul[:, 2]) / 20.0
    pinball = torch.maximum(0.1 * low, -0.9 * low) + torch.maximum(0.9 * high, -0.1 * high)
    mode = nn.functional.cross_entropy(heads[:, 3:6], data.mode[rows], reduction="none")
    soon = nn.functional.binary_cross_entropy_with_logits(heads[:, 6], data.soon[rows], reduction="none")
    return (2.0 * mid + 0.5 * pinball + 0.2 * mode + 0.3 * soon).mean()


def member_rmse(member: nn.Module, data: Windows) -> float:
    """Return the RMSE of the mid value over every record, labels capped at 125."""
    member.eval()
    with torch.no_grad():
        parts = torch.arange(len(data)).split(2048)
        mid = torch.cat([ordered_rul(member(data.window(rows)))[:, 1] for rows in parts]).clamp(0.0, 125.0)
    return float((mid - data.rul).square().mean().sqrt())


def train_member(recipe: Recipe, train: Windows, val: Windows, log: list[dict[str, object]]) -> nn.Module:
    """Train one member and return the running average of its weights."""
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    member = MEMBERS[recipe.member](**recipe.shape)
    average = torch.optim.swa_utils.AveragedModel(
        member, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
    )
    optimiser = torch.optim.AdamW(member.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * (recipe.windows_per_epoch // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=steps, pct_start=0.15)
    weights = sampling_weights(train)
    for epoch in range(recipe.epochs):
        started, total = time.monotonic(), 0.0
        drawn = torch.multinomial(weights, recipe.windows_per_epoch, replacement=False, generator=generator)
        member.train()
        batches = [rows for rows in drawn.split(recipe.batch) if len(rows) == recipe.batch]
        for rows in batches:
            loss = member_loss(
                member(disturbed(train, rows, recipe.noise, generator)), train, rows, recipe.late_weight
            )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(member.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            average.update_parameters(member)
            total += float(loss.detach())
        line = {
            "member": f"{recipe.member}-{recipe.seed}",
            "epoch": epoch + 1,
            "loss": round(total / len(batches), 4),
            "val_rmse": round(member_rmse(average.module, val), 3),
            "seconds": round(time.monotonic() - started, 1),
        }
        log.append(line)
        print(*(f"{key}={value}" for key, value in line.items()), flush=True)
    return average.module.eval()


def save(normaliser: Normaliser, ensemble: Ensemble, recipes: tuple[Recipe, ...], path: Path) -> None:
    """Keep the weights, the calibration and how they came about."""
    torch.save(
        {
            "normaliser": normaliser.state_dict(),
            "members": [
                (recipe.member, member.state_dict())
                for recipe, member in zip(recipes, ensemble.members, strict=True)
            ],
            "calibration": asdict(ensemble.calibration),
            "recipes": [asdict(recipe) for recipe in recipes],
        },
        path,
    )


def main() -> None:
    """Train all recipes, calibrate, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder laid out like data/cmapss")
    parser.add_argument("--out", type=Path, default=HERE / "build")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train, normaliser = read_windows(arguments.data, "train")
    val, _ = read_windows(arguments.data, "val", normaliser)
    log: list[dict[str, object]] = []
    members = [train_member(recipe, train, val, log) for recipe in RECIPES]
    calibration = fit_calibration(members, val)
    print(calibration)
    arguments.out.mkdir(parents=True, exist_ok=True)
    save(normaliser, Ensemble(normaliser, members, calibration), RECIPES, arguments.out / "turbofan.pt")
    with (HERE / "training_log.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(log[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(log)


if __name__ == "__main__":
    main()
