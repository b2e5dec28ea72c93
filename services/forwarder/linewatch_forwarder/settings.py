# SPDX-License-Identifier: Apache-2.0
"""Every environment variable of the forwarder, from the parts that read them."""

from linewatch_forwarder.streams.settings import StreamSettings
from linewatch_forwarder.uplinks.settings import UplinkSettings
from linewatch_runtime.settings import service_settings


class Settings(UplinkSettings, StreamSettings):
    """The forwarder's settings; prefix FORWARDER_."""

    model_config = service_settings("FORWARDER_")
