# SPDX-License-Identifier: Apache-2.0
"""Greengrass recipes: rendering ours from the templates in recipes/, and linting anybody's."""

from pathlib import Path

TEMPLATES = Path(__file__).resolve().parents[3] / "recipes"
MODELS = Path(__file__).resolve().parents[3] / "models"
