# SPDX-License-Identifier: Apache-2.0
"""Evidence on its way to the cloud: what is uploaded, when, and what open work orders hold on this device."""
