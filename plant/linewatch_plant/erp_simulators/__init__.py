# SPDX-License-Identifier: Apache-2.0
"""Simulators of the ERPs and CMMSs that there is an adapter for: each answers as its product's documented API does.

One module per product, written from that product's documentation or source, which its docstring names; none imports
the adapter that is tried against it. None dedupes by the reference, so that doubles are visible. What goes wrong is
common to all: `faults.py` says what, `creating.py` where. `python -m linewatch_plant.erp_simulator --product sap`
serves one of them.
"""
