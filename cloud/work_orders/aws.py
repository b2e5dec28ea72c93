# SPDX-License-Identifier: Apache-2.0
"""How every function of ours calls AWS."""

from botocore.config import Config

# A Lambda has seconds, not the minutes that botocore would wait.
SHORT = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "max_attempts": 4})
