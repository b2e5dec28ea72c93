# SPDX-License-Identifier: Apache-2.0
from forwarding import forwarder, worker

__all__ = ["forwarder", "worker"]
