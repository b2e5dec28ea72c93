# SPDX-License-Identifier: Apache-2.0
"""A Lambda function as a process that can be killed: polls its queue, calls the real handler, deletes what it took.

As AWS does it: what the handler names in batchItemFailures stays in the queue, and so does everything when it dies. The
stand-in's own workers can't be killed without losing what it acknowledged.

Before the handler sees a message, its id and body are in the ledger, a file of JSON lines: so the test knows what the
cloud accepted, how often, and a kill forgets none of it (what a process has written is the kernel's).
"""

import argparse
import importlib
import json
import os
from pathlib import Path

import boto3


def main() -> None:
    """Runs until it is killed. The function's variables and AWS_ENDPOINT_URL come by environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--handler", required=True, help="module with a function `handler`")
    parser.add_argument("--queue-url", required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--visibility-s", type=int, required=True)
    parser.add_argument("--batch", type=int, default=10)
    options = parser.parse_args()
    handler = importlib.import_module(options.handler).handler
    sqs = boto3.client("sqs")
    ledger = os.open(options.ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    handler({"Records": []}, None)
    print("ready", flush=True)
    while True:
        answer = sqs.receive_message(
            QueueUrl=options.queue_url, MaxNumberOfMessages=options.batch, WaitTimeSeconds=1,
            VisibilityTimeout=options.visibility_s, AttributeNames=["All"],
        )  # fmt: skip
        messages = answer.get("Messages", [])
        if not messages:
            continue
        lines = [json.dumps([one["MessageId"], one["Body"]]) + "\n" for one in messages]
        os.write(ledger, "".join(lines).encode())
        records = [
            {
                "messageId": one["MessageId"],
                "receiptHandle": one["ReceiptHandle"],
                "body": one["Body"],
                "attributes": one["Attributes"],
                "messageAttributes": {},
                "eventSource": "aws:sqs",
            }
            for one in messages
        ]
        failed = {one["itemIdentifier"] for one in handler({"Records": records}, None)["batchItemFailures"]}
        done = [
            {"Id": str(number), "ReceiptHandle": one["ReceiptHandle"]}
            for number, one in enumerate(messages)
            if one["MessageId"] not in failed
        ]
        if done:
            sqs.delete_message_batch(QueueUrl=options.queue_url, Entries=done)


if __name__ == "__main__":
    main()
