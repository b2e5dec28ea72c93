# SPDX-License-Identifier: Apache-2.0
"""Fit what the graph adds to the averaged members, on validation engines only."""

import torch
from dataset import Windows
from network import RUL_CAP, Calibration, ordered_rul
from torch import Tensor, nn

ALPHA = 0.1  # share of true values below p10, and above p90


def raw_heads(members: list[nn.Module], data: Windows) -> tuple[Tensor, Tensor, Tensor]:
    """Return the averaged rul [R, 3], mode logits [R, 3] and fails-soon logit [R], as the ensemble averages them."""
    with torch.no_grad():
        parts = torch.arange(len(data)).split(2048)
        heads = torch.stack([torch.cat([member(data.window(rows)) for rows in parts]) for member in members])
    return (
        torch.stack([ordered_rul(each) for each in heads]).mean(0),
        heads[:, :, 3:6].mean(0),
        heads[:, :, 6].mean(0),
    )


def engine_weights(data: Windows, chosen: Tensor) -> Tensor:
    """Give each engine the same weight, whatever its length."""
    counts = torch.bincount(data.engine[chosen], minlength=int(data.engine.max()) + 1).float()
    return 1.0 / counts[data.engine[chosen]]


def width_factors(excess: Tensor, width: Tensor, share: Tensor, weight: Tensor) -> tuple[float, float]:
    """Return the width factors at mid 0 and 125 that leave 10 % of the true values outside, near failure and far.

    `excess` is how far the truth lies beyond mid on this side; the factor a + (b - a) * share is fitted by the
    pinball loss, whose minimum has 10 % outside both overall and across the range of mid.
    """
    parameters = torch.ones(2, requires_grad=True)
    optimiser = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        factor = parameters[0] + (parameters[1] - parameters[0]) * share
        gap = excess - factor * width
        loss = (torch.maximum((1 - ALPHA) * gap, -ALPHA * gap) * weight).sum() / weight.sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    first, second = parameters.detach().tolist()
    return first, second


def platt(logit: Tensor, truth: Tensor, weight: Tensor) -> tuple[float, float]:
    """Return slope and offset of the logit that minimise the log loss."""
    parameters = torch.tensor([1.0, 0.0], requires_grad=True)
    optimiser = torch.optim.LBFGS([parameters], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(
            parameters[0] * logit + parameters[1], truth, weight
        )
        loss.backward()
        return loss

    optimiser.step(closure)
    first, second = parameters.detach().tolist()
    return first, second


def temperature(logits: Tensor, truth: Tensor) -> float:
    """Return the factor on the logits that minimises the log loss."""
    losses = [
        (float(nn.functional.cross_entropy(logits * slope, truth)), slope)
        for slope in torch.arange(0.5, 2.0, 0.05).tolist()
    ]
    return min(losses)[1]


def cautious_shift(mid: Tensor, val: Windows) -> float:
    """Return the shift of 0 to -3 cycles with the lowest NASA score whose RMSE is not above the unshifted one."""
    weight = engine_weights(val, torch.arange(len(val)))
    figures = []
    for shift in (-0.5 * step for step in range(7)):
        late = (mid + shift).clamp(0.0, RUL_CAP) - val.rul
        penalty = torch.where(late < 0, torch.exp(-late / 13), torch.exp(late / 10))
        figures.append((float((penalty * weight).sum()), float((late.square() * weight).sum()), shift))
    return min(figure for figure in figures if figure[1] <= figures[0][1])[2]


def fit_calibration(members: list[nn.Module], val: Windows) -> Calibration:
    """Fit interval widths, p_fail_30 and failure type on the val engines, each engine weighing the same."""
    rul, mode, fail = raw_heads(members, val)
    shift = cautious_shift(rul[:, 1], val)
    mid = (rul[:, 1] + shift).clamp(0.0, RUL_CAP)
    near = torch.nonzero(val.left <= RUL_CAP).squeeze(1)
    weight, share = engine_weights(val, near), mid[near] / RUL_CAP
    true = val.rul[near]
    everything = torch.arange(len(val))
    slope, offset = platt(
        fail, val.soon, engine_weights(val, everything) * len(val) / int(val.engine.max() + 1)
    )
    return Calibration(
        below=width_factors(mid[near] - true, (rul[:, 1] - rul[:, 0])[near], share, weight),
        above=width_factors(true - mid[near], (rul[:, 2] - rul[:, 1])[near], share, weight),
        shift=shift,
        fail_slope=slope,
        fail_offset=offset,
        mode_slope=temperature(mode, val.mode),
    )
