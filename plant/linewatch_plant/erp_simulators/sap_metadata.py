# SPDX-License-Identifier: Apache-2.0
"""What the metadata of API_MAINTNOTIFICATION says of the fields that a client may set when it creates a notification.

Source: the service's EDMX as it is published for import (checksum 7e9677592614581b97c22770f6a7e845 of its CDS form).
"""

import re
from collections.abc import Mapping
from typing import Any

# Of the fields that a client may set at creation: Edm.String with its MaxLength, other types.
STRINGS = {
    "NotificationText": 40, "MaintPriority": 1, "NotificationType": 2, "ReportedByUser": 12, "PersonResponsible": 12,
    "MalfunctionEffect": 1, "MaintNotificationCode": 4, "MaintNotificationCodeGroup": 8,
    "MaintNotifLongTextForEdit": 1333, "TechnicalObject": 40, "TechObjIsEquipOrFuncnlLoc": 20,
    "MaintenancePlanningPlant": 4, "MaintenancePlannerGroup": 3, "PlantSection": 3, "MainWorkCenterPlant": 4,
    "MainWorkCenter": 8, "MaintenancePlant": 4, "LocationDescription": 50, "AssetRoom": 8,
    "MaintNotifExtReferenceNumber": 20, "MaintNotifDetectionCode": 4, "MaintNotifDetectionCodeGroup": 8,
}  # fmt: skip
DATES = ("MalfunctionStartDate", "MalfunctionEndDate", "RequiredStartDate", "RequiredEndDate",
         "NotificationCreationDate")  # fmt: skip
TIMES = ("MalfunctionStartTime", "MalfunctionEndTime", "RequiredStartTime", "RequiredEndTime",
         "NotificationCreationTime")  # fmt: skip
BOOLEANS = ("MaintenanceObjectIsDown",)
# sap:display-format="UpperCase": the input is converted.
UPPER = {
    name
    for name in STRINGS
    if name not in {"NotificationText", "MaintNotifLongTextForEdit", "LocationDescription"}
}
# Edm types in JSON.
DATE, TIME = re.compile(r"/Date\(-?\d+\)/"), re.compile(r"PT\d\dH\d\dM\d\dS")
# An unknown technical object is refused; whatever begins so is unknown here.
UNKNOWN_OBJECT = "UNKNOWN"


def fault_of(body: Mapping[str, Any]) -> str:
    """What SAP has against a new notification, empty when nothing."""
    for name, value in body.items():
        if why := _wrong(name, value):
            return f"Property '{name}' {why}"
    for name, what in (("NotificationType", "a notification type"), ("NotificationText", "a short text")):
        if not body.get(name):
            return f"Enter {what}"
    if str(body.get("MaintPriority", "1")) not in {"1", "2", "3", "4"}:
        return f"Priority {body['MaintPriority']} is not defined for priority type PM"
    if str(body.get("TechnicalObject", "")).upper().startswith(UNKNOWN_OBJECT):
        return f"Technical object {body['TechnicalObject']} does not exist"
    return ""


def _wrong(name: str, value: Any) -> str:
    if name in STRINGS:
        if not isinstance(value, str):
            return "has an invalid value"
        return (
            f"has a value of length {len(value)}; max length is {STRINGS[name]}"
            if len(value) > STRINGS[name]
            else ""
        )
    if name in BOOLEANS:
        return "" if isinstance(value, bool) else "is no Edm.Boolean"
    if name in DATES:
        return "" if DATE.fullmatch(str(value)) else "is no Edm.DateTime"
    if name in TIMES:
        return "" if TIME.fullmatch(str(value)) else "is no Edm.Time"
    return "is invalid"
