# SPDX-License-Identifier: Apache-2.0
"""AWS's service models, parsed once in a process instead of once in a session.

`linewatch` makes a boto3 session for each command, as it should; a test runs it in its own process dozens of times, and
two fifths of that work was parsing the same files again. botocore shares what it parsed among a session's clients, so it
may be shared among sessions too: nothing else of botocore is changed.
"""

from collections.abc import Iterator
from functools import cache

import pytest
from botocore.loaders import JSONFileLoader


@pytest.fixture(scope="session", autouse=True)
def _service_models() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(JSONFileLoader, "load_file", staticmethod(cache(JSONFileLoader().load_file)))
        yield
