# SPDX-License-Identifier: Apache-2.0
"""The gRPC server: both services, health, reflection, TLS, and its limits."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from linewatch.v1 import inspector_pb2, inspector_pb2_grpc
from linewatch_inference.inspection import Inspection
from linewatch_inference.open_inference import OpenInferenceServicer
from linewatch_inference.servicer import InspectorServicer
from linewatch_inference.settings import Settings
from open_inference.v2 import open_inference_pb2, open_inference_pb2_grpc

INSPECTOR = inspector_pb2.DESCRIPTOR.services_by_name["Inspector"].full_name
OPEN_INFERENCE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
HEALTH_NAMES = ("", INSPECTOR, OPEN_INFERENCE)

RESERVED_CALLS = 8
"""Calls beyond workers, queue and streams that are let in, so that health and the repository answer under load."""


class CannotListen(Exception):
    """The address is taken or not ours."""


@dataclass(frozen=True, slots=True)
class _TlsFiles:
    certificate: Path
    key: Path
    client_ca: Path | None

    def read(self) -> tuple[bytes, ...]:
        return tuple(path.read_bytes() for path in (self.key, self.certificate, self.client_ca) if path)


def _configuration(read: tuple[bytes, ...]) -> grpc.ServerCertificateConfiguration:
    key, certificate, *client_ca = read
    return grpc.ssl_server_certificate_configuration(
        [(key, certificate)], root_certificates=client_ca[0] if client_ca else None
    )


class Server:
    """Listens from `start` on; says SERVING once `set_serving(True)` was called."""

    def __init__(self, settings: Settings, inspection: Inspection) -> None:
        limit = settings.workers + settings.queue_limit + settings.stream_limit + RESERVED_CALLS
        self._server = grpc.server(
            ThreadPoolExecutor(limit, thread_name_prefix="grpc"),
            maximum_concurrent_rpcs=limit,
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not share it
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            ],
        )
        self.inspector = InspectorServicer(inspection, settings.shared_memory_dir, settings.stream_limit)
        self._health = health.HealthServicer(experimental_non_blocking=True)
        inspector_pb2_grpc.add_InspectorServicer_to_server(self.inspector, self._server)  # type: ignore[no-untyped-call]
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(  # type: ignore[no-untyped-call]
            OpenInferenceServicer(inspection), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (INSPECTOR, OPEN_INFERENCE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        self.set_serving(is_serving=False)
        self.port = self._bind(settings)

    def start(self) -> None:
        """Accepts calls."""
        self._server.start()

    def set_serving(self, *, is_serving: bool) -> None:
        """What health says, of the server and of both services."""
        status = health_pb2.HealthCheckResponse
        for name in HEALTH_NAMES:
            self._health.set(name, status.SERVING if is_serving else status.NOT_SERVING)

    def stop(self, drain_s: float) -> None:
        """Outside in: health says NOT_SERVING, no new call, streams end, running calls get `drain_s` to end."""
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(drain_s)
        self.inspector.stop_streams()
        stopped.wait()

    def _bind(self, settings: Settings) -> int:
        address = f"{settings.host}:{settings.port}"
        credentials = _credentials(settings)
        try:
            if credentials:
                return int(self._server.add_secure_port(address, credentials))
            return int(self._server.add_insecure_port(address))
        except RuntimeError as error:
            raise CannotListen(f"can't listen on {address}: {error}; choose a free port") from error


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """TLS by the settings. A renewed certificate is used from the next connection on, without a restart."""
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return None
    files = _TlsFiles(settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file)
    seen = [files.read()]

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        # By what is in them: a half-written file may have the time of the whole one, and would count as seen.
        read = files.read()
        if read == seen[0]:
            return None
        seen[0] = read
        return _configuration(read)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(seen[0]), renewed, require_client_authentication=files.client_ca is not None
    )
