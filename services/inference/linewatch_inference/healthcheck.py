# SPDX-License-Identifier: Apache-2.0
"""`python -m linewatch_inference.healthcheck [HOST:PORT [SERVICE]]`: exit 0 when the server says SERVING, for HEALTHCHECK.

Without an address it asks where INFERENCE_HOST and INFERENCE_PORT say, with INFERENCE_TLS_* when they are set.
"""

import os
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 3.0


def main(arguments: list[str]) -> int:
    """0 SERVING, 1 anything else."""
    host = os.environ.get("INFERENCE_HOST", "127.0.0.1")
    reached = "127.0.0.1" if host in {"0.0.0.0", ""} else "[::1]" if host in {"::", "[::]"} else host
    address = arguments[0] if arguments else f"{reached}:{os.environ.get('INFERENCE_PORT', '8001')}"
    service = arguments[1] if len(arguments) > 1 else ""
    with _channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S
            )
        except grpc.RpcError as error:
            print(f"{address}: {error.code().name}: {error.details()}")
            return 1
    print(f"{address}: {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}")
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


def _channel(address: str) -> grpc.Channel:
    """With TLS the server's own certificate is the root we trust: it asks itself. Mutual TLS shows it too."""
    certificate = os.environ.get("INFERENCE_TLS_CERTIFICATE_FILE")
    if not certificate:
        return grpc.insecure_channel(address)
    chain = Path(certificate).read_bytes()
    is_mutual = bool(os.environ.get("INFERENCE_TLS_CLIENT_CA_FILE"))
    key = Path(os.environ["INFERENCE_TLS_KEY_FILE"]).read_bytes() if is_mutual else None
    root = Path(os.environ["INFERENCE_TLS_CLIENT_CA_FILE"]).read_bytes() if is_mutual else chain
    return grpc.secure_channel(
        address,
        grpc.ssl_channel_credentials(root, key, chain if is_mutual else None),
        options=[("grpc.ssl_target_name_override", os.environ.get("INFERENCE_TLS_NAME", "localhost"))],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
