# SPDX-License-Identifier: Apache-2.0
"""Checks one device, with Python's own library only: the bundle carries this folder as doctor.pyz to machines without pip."""
