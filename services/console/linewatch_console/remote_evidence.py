# SPDX-License-Identifier: Apache-2.0
"""Evidence that is not on this device: from the cloud, where a work order names it, checked against its digest.

So a supervisor's console elsewhere shows the frames. Only files that an order names can be asked for, and only what has
the digest that the order has is shown; it is kept in a small cache, because what has a digest never changes.
"""

import asyncio
import hashlib
from collections import OrderedDict
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from prometheus_client import Counter

from linewatch_console.cloud_api import CloudAway
from linewatch_console.cloud_shapes import OrderEvidence
from linewatch_console.evidence import LARGEST_FILE_BYTES, MEDIA_TYPES, EvidenceFile, is_evidence_path
from linewatch_console.orders import Orders

FETCH_TIMEOUT_S = 20.0
MOST_CACHED_BYTES = 32 * 1024 * 1024
MOST_AT_ONCE = 4

fetched = Counter("linewatch_console_evidence_fetched", "Evidence asked of the cloud", ["outcome"])


class NotThatFile(Exception):
    """What came is not what the order was made from."""


class RemoteEvidence:
    """Fetches through `orders`, which knows what orders name."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._client = httpx.AsyncClient(timeout=FETCH_TIMEOUT_S, trust_env=False, follow_redirects=False)
        self._cache: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._at_once = asyncio.Semaphore(MOST_AT_ONCE)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def get(self, path: str) -> EvidenceFile | None:
        """The file; None when no order names it. Raises CloudAway, CloudRefused, NotThatFile."""
        named = self._orders.evidence(path)
        if not is_evidence_path(path) or named is None or not named.digest:
            return None
        content = self._cache.get((path, named.digest))
        if content is None:
            async with self._at_once:
                content = await self._fetched(path, named)
            self._keep((path, named.digest), content)
        return EvidenceFile(content, MEDIA_TYPES[Path(path).suffix], f'"{named.digest}"')

    async def _fetched(self, path: str, named: OrderEvidence) -> bytes:
        thing = str((named.model_extra or {}).get("thing", ""))
        address = await self._orders.api.evidence({"path": path, **({"thing": thing} if thing else {})})
        if not _may_be_asked(address.url, self._orders.api.url):
            raise CloudAway("the cloud API names an address for evidence that is not https")
        content = b""
        try:
            async with self._client.stream("GET", address.url) as answer:
                if answer.status_code != 200:
                    fetched.labels(f"{answer.status_code // 100}xx").inc()
                    raise CloudAway(f"the evidence store answered with HTTP {answer.status_code}")
                async for chunk in answer.aiter_bytes():
                    content += chunk
                    if len(content) > LARGEST_FILE_BYTES:
                        raise NotThatFile("it is larger than any evidence")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            fetched.labels("unreachable").inc()
            raise CloudAway("the evidence store does not answer") from error
        if "sha256:" + hashlib.sha256(content).hexdigest() != named.digest:
            fetched.labels("wrong_digest").inc()
            raise NotThatFile(
                "this file is not the one that the work order was made from: its digest differs"
            )
        fetched.labels("right").inc()
        return content

    def _keep(self, key: tuple[str, str], content: bytes) -> None:
        self._cache[key] = content
        while sum(len(one) for one in self._cache.values()) > MOST_CACHED_BYTES:
            self._cache.popitem(last=False)


def _may_be_asked(address: str, api_url: str) -> bool:
    """https; or http where the API itself is asked so, as on a machine for trying."""
    scheme = urlsplit(address).scheme
    return scheme == "https" or (scheme == "http" and api_url.startswith("http://"))
