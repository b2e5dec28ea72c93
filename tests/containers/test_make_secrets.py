# SPDX-License-Identifier: Apache-2.0
"""What `make-secrets` of the broker's image does when it runs again, and on a full disk. Of the checkout, in the image."""

import subprocess
from collections.abc import Callable

import pytest
from containers.conftest import ROOT

pytestmark = pytest.mark.containers

Said = Callable[[str], subprocess.CompletedProcess[str]]
MAKE = "sh /make-secrets inference line-1"
FILL = "(head -c 2M /dev/zero >/secrets/fill) 2>/dev/null"
KEPT = "sha256sum -c /tmp/sums"
SUMS = "sha256sum /secrets/*/* >/tmp/sums"


@pytest.fixture
def said(images: dict[str, str]) -> Said:
    """Runs a shell in the image, as the component does, with a disk of 1 MiB: 16 pages of the largest size there is."""
    image = images["LINEWATCH_BROKER_IMAGE"]
    return lambda script: subprocess.run(
        [
            "docker", "run", "--rm", "--read-only", "--network", "none", "--user", "10001:10001", "--cap-drop", "ALL",
            "--tmpfs", "/tmp:size=1m", "--tmpfs", "/secrets:size=1m,uid=10001,mode=0700",
            "-v", f"{ROOT}/services/broker/make-secrets:/make-secrets:ro", image, "sh", "-c", script,
        ],
        check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_where_nothing_changed_nothing_is_written(said: Said) -> None:
    done = said(f"{MAKE} && {SUMS} && {FILL}; {MAKE} && {KEPT}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_client_that_does_not_fit_on_the_disk_leaves_the_others_as_they_were(said: Said) -> None:
    done = said(f"{MAKE} && {SUMS} && {FILL}; {MAKE} line-2 && exit 9; {KEPT} && ! ls /secrets/broker/*.new")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is the disk full?" in done.stderr


@pytest.mark.parametrize("damage", [": >", "echo health:x >"])
def test_a_list_that_was_cut_off_or_changed_is_made_anew(said: Said, damage: str) -> None:
    done = said(
        f"{MAKE} && {damage}/secrets/broker/passwords; {MAKE} && cut -d: -f1 /secrets/broker/passwords"
    )
    assert done.stdout.split() == ["health", "inference", "line-1"], done.stderr
