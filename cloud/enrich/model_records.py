# SPDX-License-Identifier: Apache-2.0
"""The chain `model/<digest>` of the records: which model this is and what it was trained on, from when it was first loaded.

An order tells the digest of the model that judged its parts; this is what that digest means.
"""

import json
import re
from typing import Any

from linewatch.records import Entry
from linewatch.v1 import event_pb2
from work_orders.records import Records

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def record_model(records: Records, event: Any, at: str) -> Entry | None:
    """Records a model that is loaded for the first time, or whose training data was not known until now; else None.

    `event`: a ModelLoadSuccess as `enrichment.Event`. A device of a release before 0.3.0 does not tell the training data.
    """
    engine: event_pb2.Engine = event.message
    model = engine.model
    if not _DIGEST.fullmatch(model.digest):
        return None
    chain = f"model/{model.digest}"
    known = records.of(chain)
    if known and (not model.training_data_digest or any(_training_data(entry) for entry in known)):
        return None
    told = {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "training_data_digest": model.training_data_digest,
        "device": event.document["source"],
    }
    # Two devices that load it at the same moment: the other's entry may come first, and then says the same.
    return records.append(chain, at, "training_data_known" if known else "model_loaded", "enrich", told)


def _training_data(entry: Entry) -> str:
    return str(json.loads(entry.detail).get("training_data_digest", ""))
