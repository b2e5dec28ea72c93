# SPDX-License-Identifier: Apache-2.0
"""Our recipes for a private ECR registry with long names, as tests want them."""

from typing import Any

from linewatch_fleet.config import Platform
from linewatch_fleet.images import RELEASED, VARIANTS
from linewatch_fleet.recipes import render

ECR = "123456789012.dkr.ecr.ap-northeast-3.amazonaws.com"
BOTH: tuple[Platform, ...] = ("linux/amd64", "linux/arm64")


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def references(
    registry: str = ECR, platforms: tuple[Platform, ...] = BOTH, *, jetson: bool = True
) -> dict[str, render.ImageReference]:
    names = [*RELEASED, *(VARIANTS if jetson else ())]
    images = {
        name: (f"linewatch/{name}", digest(number), ("linux/arm64",) if name in VARIANTS else platforms)
        for number, name in enumerate(names, 1)
    }
    return render.references(images, registry, "staging/")  # type: ignore[arg-type]


def components(
    images: dict[str, render.ImageReference] | None = None, **changed: Any
) -> list[render.Component]:
    return render.components_of(
        images or references(), "0.2.0", **{"bucket": "linewatch-artifacts-prod", **changed}
    )
