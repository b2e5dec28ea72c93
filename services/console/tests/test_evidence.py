# SPDX-License-Identifier: Apache-2.0
import socket
from pathlib import Path

import pytest
from console_process import DEADLINE_S, Console, Start

from linewatch_console.evidence import is_evidence_path, read_evidence

TRICKS = [
    "../secret.jpg",
    "line-1/../../secret.jpg",
    "/etc/passwd",
    "//etc/passwd.jpg",
    "..%2fsecret.jpg",
    "%2e%2e/secret.jpg",
    "..\\secret.jpg",
    "line-1/.hidden.jpg",
    "line-1//frame.jpg",
    "line-1/frame.jpg\x00.png",
    "line-1/frame.jpg/",
    "line-1/frame.html",
    "line-1/frame.svg",
    "line-1/frame.jpg.html",
    "line-1/frame",
    "",
    ".",
    "..",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "evidence"
    (root / "line-1").mkdir(parents=True)
    (root / "line-1" / "frame.jpg").write_bytes(b"\xff\xd8picture")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    return root


@pytest.mark.parametrize("path", TRICKS)
def test_no_path_leads_out_of_the_evidence_directory(root: Path, path: str) -> None:
    assert not is_evidence_path(path)
    assert read_evidence(root, path) is None


def test_evidence_is_read_with_its_type(root: Path) -> None:
    found = read_evidence(root, "line-1/frame.jpg")

    assert found is not None
    assert (found.content, found.media_type) == (b"\xff\xd8picture", "image/jpeg")


def test_link_out_of_the_directory_is_not_followed(root: Path, tmp_path: Path) -> None:
    (root / "line-1" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "outside").symlink_to(tmp_path)

    assert read_evidence(root, "line-1/link.jpg") is None
    assert read_evidence(root, "outside/secret.jpg") is None


def test_link_to_another_kind_of_file_is_not_followed(root: Path) -> None:
    (root / "line-1" / "page.html").write_text("<script>")
    (root / "line-1" / "link.jpg").symlink_to(root / "line-1" / "page.html")

    assert read_evidence(root, "line-1/link.jpg") is None


def test_directory_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert read_evidence(tmp_path / "nowhere", "line-1/frame.jpg") is None


def raw_get(console: Console, target: str) -> bytes:
    """A request line as it is: clients tidy dots away before they send."""
    with socket.create_connection(("127.0.0.1", console.port), DEADLINE_S) as connection:
        request = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode("latin-1"))
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def test_served_evidence_cannot_be_led_astray(start: Start) -> None:
    console = start()
    (console.evidence_dir.parent / "secret.jpg").write_bytes(b"secret")
    (console.evidence_dir / "frame.jpg").write_bytes(b"\xff\xd8picture")

    good = raw_get(console, "/evidence/frame.jpg")
    assert b"\xff\xd8picture" in good
    assert b"image/jpeg" in good
    assert b"nosniff" in good

    for path in ("../secret.jpg", "..%2fsecret.jpg", "%2e%2e%2fsecret.jpg", "%252e%252e/secret.jpg", "x/../../secret.jpg",
                 "/etc/passwd", "%2fetc%2fpasswd", "frame.jpg%00.png", "..%5csecret.jpg"):  # fmt: skip
        answer = raw_get(console, f"/evidence/{path}")
        assert b" 404 " in answer.split(b"\r\n")[0], path
        assert b"secret" not in answer.split(b"\r\n\r\n", 1)[1]
    for path in ("/static/../settings.py", "/static/%2e%2e/settings.py", "/static/..%2fsettings.py"):
        assert b" 404 " in raw_get(console, path).split(b"\r\n")[0], path


def test_unchanged_picture_is_not_sent_again(start: Start) -> None:
    console = start()
    picture = console.evidence_dir / "frame.jpg"
    picture.write_bytes(b"one")
    etag = console.http.get("/evidence/frame.jpg").headers["etag"]

    assert console.http.get("/evidence/frame.jpg", headers={"If-None-Match": etag}).status_code == 304

    fresh = picture.with_name("fresh.jpg")
    fresh.write_bytes(b"another")
    fresh.replace(picture)
    assert console.http.get("/evidence/frame.jpg", headers={"If-None-Match": etag}).content == b"another"
