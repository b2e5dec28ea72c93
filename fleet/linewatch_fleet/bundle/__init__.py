# SPDX-License-Identifier: Apache-2.0
"""Everything for an air-gapped device in one verified archive: images, recipes, models, doctor, installer."""
