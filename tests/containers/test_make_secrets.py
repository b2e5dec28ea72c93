# SPDX-License-Identifier: Apache-2.0
"""What `make-secrets` of the broker's image does when it runs again, and on a full disk. Of the checkout, in the image."""

import os
import subprocess

import pytest
from containers.conftest import ROOT

pytestmark = pytest.mark.containers

IMAGE = os.environ.get("LINEWATCH_BROKER_IMAGE", "linewatch/broker:0.2.0")
MAKE = "sh /make-secrets inference line-1"
FILL = "(head -c 1M /dev/zero >/secrets/fill) 2>/dev/null"
KEPT = "sha256sum -c /tmp/sums"
SUMS = "sha256sum /secrets/*/* >/tmp/sums"


def said(script: str) -> subprocess.CompletedProcess[str]:
    """A shell in the image, as the component runs it, with a disk of 128 KiB."""
    if subprocess.run(["docker", "image", "inspect", IMAGE], check=False, capture_output=True).returncode:
        pytest.skip(f"not run: image {IMAGE} is not here; make images")
    return subprocess.run(
        [
            "docker", "run", "--rm", "--read-only", "--network", "none", "--user", "10001:10001", "--cap-drop", "ALL",
            "--tmpfs", "/tmp:size=1m", "--tmpfs", "/secrets:size=128k,uid=10001,mode=0700",
            "-v", f"{ROOT}/services/broker/make-secrets:/make-secrets:ro", IMAGE, "sh", "-c", script,
        ],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_where_nothing_changed_nothing_is_written() -> None:
    done = said(f"{MAKE} && {SUMS} && {FILL}; {MAKE} && {KEPT}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_client_that_does_not_fit_on_the_disk_leaves_the_others_as_they_were() -> None:
    done = said(f"{MAKE} && {SUMS} && {FILL}; {MAKE} line-2 && exit 9; {KEPT} && ! ls /secrets/broker/*.new")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is the disk full?" in done.stderr


@pytest.mark.parametrize("damage", [": >", "echo health:x >"])
def test_a_list_that_was_cut_off_or_changed_is_made_anew(damage: str) -> None:
    done = said(
        f"{MAKE} && {damage}/secrets/broker/passwords; {MAKE} && cut -d: -f1 /secrets/broker/passwords"
    )
    assert done.stdout.split() == ["health", "inference", "line-1"], done.stderr
