# SPDX-License-Identifier: Apache-2.0
"""The cell network: EfficientNet-Lite0 to stride 16, a light decoder to stride 2, and image-level heads.

The graph takes raw grey levels, because a camera's gain is unknown on the line: normalisation per image is inside.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

DEFECTS = ("crack", "cross", "dark")
INPUT_SIZE = 288  # pixels; a cross crack of 10 px in a 400 px cell stays 7 px wide
HEATMAP_STRIDE = 2
#: Heat-map places (stride 4) averaged as evidence: a fresh cross covers about 4, a dark area hundreds.
TOP_K = (4, 16, 64, 256)

# EfficientNet-Lite0 up to stride 16: (expansion, kernel, stride, output channels), one row per block.
_BLOCKS = (
    (1, 3, 1, 16),
    (6, 3, 2, 24),
    (6, 3, 1, 24),
    (6, 5, 2, 40),
    (6, 5, 1, 40),
    (6, 3, 2, 80),
    (6, 3, 1, 80),
    (6, 3, 1, 80),
    (6, 5, 1, 112),
    (6, 5, 1, 112),
    (6, 5, 1, 112),
)
_TAPS = (0, 2, 4, 10)  # last block of strides 2, 4, 8 and 16


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.02)


class MobileBlock(nn.Module):
    """Inverted residual of EfficientNet-Lite; the names are those of the published weights."""

    def __init__(self, channels_in: int, expansion: int, kernel: int, stride: int, channels_out: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.has_expansion = expansion != 1
        if self.has_expansion:
            self._expand_conv = nn.Conv2d(channels_in, wide, 1, bias=False)
            self._bn0 = _batch_norm(wide)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False)
        self._bn1 = _batch_norm(wide)
        self._project_conv = nn.Conv2d(wide, channels_out, 1, bias=False)
        self._bn2 = _batch_norm(channels_out)
        self.has_skip = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] -> [N,C',H/stride,W/stride]."""
        y = nn.functional.relu6(self._bn0(self._expand_conv(x))) if self.has_expansion else x
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.has_skip else y


class Backbone(nn.Module):
    """EfficientNet-Lite0 cut after stride 16; returns the features of strides 2, 4, 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self._bn0 = _batch_norm(32)
        blocks: list[MobileBlock] = []
        channels = 32
        for expansion, kernel, stride, channels_out in _BLOCKS:
            blocks.append(MobileBlock(channels, expansion, kernel, stride, channels_out))
            channels = channels_out
        self._blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """[N,3,H,W] -> features of 16, 24, 40 and 112 channels."""
        x = nn.functional.relu6(self._bn0(self._conv_stem(x)))
        taps: list[Tensor] = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in _TAPS:
                taps.append(x)
        return taps

    def load_published(self, weights: Mapping[str, Tensor]) -> None:
        """Take the ImageNet weights; what lies behind stride 16 is left out."""
        own = self.state_dict()
        self.load_state_dict({name: weights[name] for name in own})


def standardise(grey: Tensor) -> Tensor:
    """[N,1,H,W] grey levels 0..255 -> three planes: by the image's own mean and spread, by the neighbourhood, by its mean.

    The second takes out vignetting and slow brightness changes, the third keeps how dark an area really is.
    """
    mean = grey.mean(dim=(2, 3), keepdim=True)
    spread = (grey - mean).square().mean(dim=(2, 3), keepdim=True).sqrt()
    # Small planes make the wide local average cheap: 8 px places, 5 x 5 of them.
    small = nn.functional.avg_pool2d(grey, 8)
    around = nn.functional.avg_pool2d(small, 5, 1, 2, count_include_pad=False)
    around = nn.functional.interpolate(around, scale_factor=8.0, mode="bilinear", align_corners=False)
    by_image = ((grey - mean) / (spread + 4.0)).clamp(-4.0, 4.0)
    by_place = ((grey - around) / (0.25 * around + 4.0)).clamp(-4.0, 4.0)
    by_mean = (2.0 * (grey / (mean + 4.0) - 1.0)).clamp(-2.0, 4.0)
    return torch.cat([by_image, by_place, by_mean], dim=1)


class _Fuse(nn.Module):
    """Upsample the coarser feature, add the finer one, mix over a 3 x 3 neighbourhood."""

    def __init__(self, fine_channels: int, channels: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(fine_channels, channels, 1)
        self.mix = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False),
            _batch_norm(channels),
            nn.Conv2d(channels, channels, 1, bias=False),
            _batch_norm(channels),
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        up = nn.functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        fused = nn.functional.relu6(up + self.lateral(fine))
        return nn.functional.relu6(self.mix(fused))


class CellNet(nn.Module):
    """Logits of one grey cell image: heat map (crack, cross, dark, busbar) and image level (any, crack, cross, dark).

    The image level sees the heat map only: pooled features told the training families apart and misled on new ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.top = nn.Conv2d(112, 48, 1)
        self.fuse8 = _Fuse(40, 48)
        self.narrow = nn.Conv2d(48, 32, 1)
        self.fuse4 = _Fuse(24, 32)
        self.narrower = nn.Conv2d(32, 12, 1)
        self.fuse2 = _Fuse(16, 12)
        self.heat = nn.Conv2d(12, len(DEFECTS) + 1, 1)
        nn.init.constant_(self.heat.bias, -3.0)  # type: ignore[arg-type]
        self.evidence = nn.Linear(len(DEFECTS) * len(TOP_K), len(DEFECTS) + 1)
        with torch.no_grad():
            self.evidence.weight.zero_()
            for k in range(len(DEFECTS)):
                span = slice(k * len(TOP_K), (k + 1) * len(TOP_K))
                self.evidence.weight[0, span] = 0.5 / len(TOP_K)
                self.evidence.weight[k + 1, span] = 1.0 / len(TOP_K)
            self.evidence.bias.fill_(0.0)

    def forward(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        """[N,1,H,W] grey levels -> heat [N,4,H/2,W/2], image [N,4] logits."""
        s2, s4, s8, s16 = self.backbone(standardise(grey))
        x = self.fuse8(nn.functional.relu6(self.top(s16)), s8)
        x = self.fuse4(self.narrow(x), s4)
        x = self.fuse2(self.narrower(x), s2)
        heat = self.heat(x)
        places = nn.functional.avg_pool2d(heat[:, : len(DEFECTS)].clamp(-8.0, 8.0), 2).flatten(2)
        ranked = places.topk(max(TOP_K), dim=2).values
        evidence = torch.cat([ranked[:, :, :k].mean(dim=2, keepdim=True) for k in TOP_K], dim=2).flatten(1)
        return heat, self.evidence(evidence)
