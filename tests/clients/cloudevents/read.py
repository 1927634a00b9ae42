#!/usr/bin/env python3
"""Reads CloudEvents with the official SDK, compares them with what was sent, and prints their number.

Each line of standard input is one Kafka message and what it must be: "headers", "valueBase64", "attributes",
and "json", "bytesBase64" or neither.
"""

import base64
import json
import sys

from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka
from cloudevents.core.formats.json import JSONFormat


def compare(what, found, sent):
    if found != sent:
        sys.exit(f"{what}: read {found!r}, sent {sent!r}")


count = 0
for line in sys.stdin:
    sent = json.loads(line)
    headers = {name: value.encode() for name, value in sent["headers"].items()}
    # Without its key, which the SDK would put over the message's own partitionkey.
    message = KafkaMessage(headers, None, base64.b64decode(sent["valueBase64"]))
    event = from_kafka(message, JSONFormat())
    attributes = dict(event.get_attributes())
    attributes["time"] = attributes["time"].isoformat().replace("+00:00", "Z")
    compare("attributes", attributes, sent["attributes"])
    if "json" in sent:
        compare("data", event.get_data(), json.loads(sent["json"]))
    elif "bytesBase64" in sent:
        # In binary mode it takes no bytes for no data.
        compare("data", event.get_data() or b"", base64.b64decode(sent["bytesBase64"]))
    else:
        compare("data", event.get_data(), None)
    count += 1
print(count)
