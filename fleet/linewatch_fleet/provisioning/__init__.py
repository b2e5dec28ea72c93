# SPDX-License-Identifier: Apache-2.0
"""What `linewatch provision` makes in an account and for a device, and `linewatch teardown` removes."""
