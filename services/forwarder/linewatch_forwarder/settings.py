# SPDX-License-Identifier: Apache-2.0
"""Every environment variable of the forwarder, from the parts that read them."""

from linewatch_forwarder.evidence.settings import EvidenceSettings
from linewatch_forwarder.streams.settings import StreamSettings
from linewatch_runtime.settings import service_settings


class Settings(EvidenceSettings, StreamSettings):
    """The forwarder's settings; prefix FORWARDER_."""

    model_config = service_settings("FORWARDER_")
