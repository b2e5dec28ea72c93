# SPDX-License-Identifier: Apache-2.0
"""The recipes' scripts, really run: with a `docker` that only writes down how it was called, and with a shell's checker.

tests/conformance runs the same recipes on a real engine, as both nuclei would.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from scripts_device import OURS, Device

from linewatch_fleet.recipes import TEMPLATES, render
from linewatch_forwarder.settings import Settings as Forwarder

# Of every wait; the machine may be busy.
DEADLINE_S = 60.0

HOSTILE = [
    "two words", "a;touch PWNED", "$(touch PWNED)", "`touch PWNED`", '"; touch PWNED; "', "'; touch PWNED; '",
    "a|touch PWNED", "&touch PWNED", "*", "-v /:/host", "line\ntouch PWNED", "\\", "${HOME}", "~", "ü",
]  # fmt: skip
"""Values that somebody may write into a configuration, by mistake or not."""

SERVICES = [name for name in OURS if not name.startswith("model.")]
CLIENTS = [name for name in SERVICES if name != "Broker"]


def step_of(name: str) -> str:
    return "run" if name == "Broker" else "startup"


def scripts() -> list[Any]:
    return [
        pytest.param(step["Script"], id=f"{name}-{key}")
        for name, one in OURS.items() for key, step in one.recipe["Lifecycle"]["all"].items() if key != "Setenv"
    ]  # fmt: skip


@pytest.mark.parametrize("script", scripts())
def test_the_script_is_plain_posix_shell_and_has_no_comment_left(script: str, tmp_path: Path) -> None:
    path = tmp_path / "script.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")

    assert not re.search(r"^\s*#", script, re.MULTILINE)
    if not shutil.which("dash"):
        pytest.skip("dash is not installed (Debian: apt-get install dash)")
    assert subprocess.run(["dash", "-n", path], check=False, capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize("script", scripts())
def test_shellcheck_has_nothing_to_say(script: str, tmp_path: Path) -> None:
    checker = shutil.which("shellcheck", path=f"{Path(os.sys.executable).parent}:{os.environ['PATH']}")  # type: ignore[attr-defined]
    if not checker:
        pytest.skip("shellcheck is not installed (requirements-dev.txt has it)")
    path = tmp_path / "script.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")

    # Variables come by Setenv (SC2154); the list of clients is split on purpose (SC2046).
    said = subprocess.run(
        [checker, "-s", "dash", "-e", "SC2154,SC2046", path], check=False, capture_output=True, text=True
    )
    assert said.stdout == ""


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_hardened_from_its_own_image(device: Device, name: str) -> None:
    device.run(name, step_of(name))

    arguments = device.service["arguments"]
    joined = " ".join(arguments)
    for flag in (
        "--read-only", "--user 10001:10001", "--cap-drop ALL", "--security-opt no-new-privileges", "--init", "--rm",
        "--pids-limit 128", "--network linewatch", "--stop-timeout 12", "--log-driver local", "--cpus 1",
    ):  # fmt: skip
        assert flag in joined
    assert joined.count("--memory ") == joined.count("--memory-swap ") == 1
    assert arguments[-1] == OURS[name].recipe["Lifecycle"]["all"]["Setenv"]["LW_IMAGE"]
    assert "host" not in arguments


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_its_name_in_the_network(device: Device, name: str) -> None:
    device.run(name, step_of(name))

    arguments = device.service["arguments"]
    part = OURS[name].recipe["Lifecycle"]["all"]["Setenv"]["LW_PART"]
    assert [arguments[i + 1] for i, one in enumerate(arguments) if one == "--network-alias"] == [part]


def test_a_forwarder_on_stream_manager_is_on_the_hosts_network_and_finds_the_broker_there(
    device: Device,
) -> None:
    device.run("Forwarder", "startup", {"Streams": "stream_manager"})

    arguments = device.service["arguments"]
    assert arguments[arguments.index("--network") + 1] == "host"
    assert "--network-alias" not in arguments, "Docker refuses one on the host's network"
    hosts = [one for one in arguments if one.startswith("FORWARDER_MQTT_HOST=")]
    assert hosts[-1] == "FORWARDER_MQTT_HOST=127.0.0.1", "of two Docker takes the last"
    assert {"FORWARDER_STREAMS", "AWS_CONTAINER_AUTHORIZATION_TOKEN"} <= set(arguments)


def test_the_broker_is_on_the_hosts_loopback_only_where_it_is_asked_for(device: Device) -> None:
    device.run("Broker", "run", {"Port": "1883"})
    arguments = device.service["arguments"]

    assert arguments[arguments.index("-p") + 1] == "127.0.0.1:1883:1883"


@pytest.mark.parametrize("name", SERVICES)
def test_the_old_container_goes_before_the_new_one_comes(device: Device, name: str) -> None:
    container = "linewatch-capture-2" if name == "Capture2" else f"linewatch-{name.lower()}"
    device.run(name, step_of(name), DOCKER_OLD=container)

    verbs = [one["arguments"][:3] for one in device.calls]
    assert verbs.index(["rm", "-f", container]) < max(i for i, one in enumerate(verbs) if one[0] == "run")


@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize("name", SERVICES)
def test_hostile_values_everywhere_are_only_values(device: Device, name: str, turn: int) -> None:
    recipe = OURS[name].recipe
    # The directory is where the test looks; a line's name and the clients have tests of their own.
    defaults = recipe["ComponentConfiguration"]["DefaultConfiguration"]
    keys = [key for key in defaults if key not in {"Directory", "Line", "Clients"}]
    configured = {key: HOSTILE[(5 * turn + i) % len(HOSTILE)] for i, key in enumerate(keys)}
    device.run(name, step_of(name), configured)

    assert not list(device.folder.rglob("PWNED"))
    ran = device.service
    passed = [ran["arguments"][i + 1] for i, one in enumerate(ran["arguments"]) if one == "-e"]
    for variable, value in recipe["Lifecycle"]["all"]["Setenv"].items():
        key = value.removeprefix("{configuration:/").removesuffix("}")
        if key in configured and not variable.startswith("LW_"):
            assert ran["environment"][variable] == configured[key]
            assert variable in passed
    for flag, key in (
        ("--name", "Name"),
        ("--memory", "Memory"),
        ("--network", "Network"),
        ("--cpus", "Cpus"),
    ):
        assert ran["arguments"][ran["arguments"].index(flag) + 1] == configured[key]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_clients_reach_make_secrets_as_names_only(device: Device, value: str) -> None:
    device.run("Broker", "run", {"Clients": value})

    assert not list(device.folder.rglob("PWNED"))
    made = next(one["arguments"] for one in device.calls if "make-secrets" in one["arguments"])
    assert made[made.index("make-secrets") + 1 :] == value.replace(",", " ").split()


@pytest.mark.parametrize("value", ["../../etc", "", "Line 1", "a/b", "$(touch PWNED)", "ü"])
def test_a_line_that_is_no_name_is_refused_before_anything_is_touched(device: Device, value: str) -> None:
    said = device.run("Capture", configured={"Line": value})

    assert said.returncode == 1
    assert "Line: " in said.stderr
    assert not [one for one in device.calls if one["arguments"][0] == "run"]


@pytest.mark.parametrize("value", ["", "relative", "$(touch PWNED)"])
def test_a_directory_that_is_not_absolute_is_refused(device: Device, value: str) -> None:
    said = device.run("Broker", "run", {"Directory": value})

    assert said.returncode == 1
    assert "Directory must be an absolute path" in said.stderr


@pytest.mark.parametrize("code", ["0", "1", "137"])
def test_a_container_that_ends_by_itself_is_an_error_whatever_its_code(device: Device, code: str) -> None:
    said = device.run("Console", DOCKER_ENDS_WITH=code)

    assert said.returncode == (int(code) or 1)
    assert f"container linewatch-console ended with {code}" in said.stderr


def test_a_stop_is_no_error(device: Device) -> None:
    started = device.folder / "started"
    command, variables = device.command(OURS["Console"], "startup", {}, {"DOCKER_STAYS": str(started)})
    with subprocess.Popen(
        command, env=variables, cwd=device.folder, start_new_session=True, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + DEADLINE_S
        while not started.exists():
            assert time.monotonic() < deadline, "docker run was not called"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=DEADLINE_S) == 0


def test_the_devices_name_is_made_of_the_things_name(device: Device) -> None:
    device.run("Inference")

    assert "INFERENCE_DEVICE=press-line_1" in device.service["arguments"]


def test_the_forwarder_speaks_as_its_own_thing_unless_told_otherwise(device: Device) -> None:
    device.run("Forwarder", configured={"UplinkHost": "abc-ats.iot.eu-central-1.amazonaws.com"})
    assert device.service["environment"]["FORWARDER_UPLINK_CLIENT_ID"] == "Press:Line_1-forwarder"
    device.run("Forwarder", configured={"UplinkHost": "abc", "UplinkClientId": "own"})
    assert device.service["environment"]["FORWARDER_UPLINK_CLIENT_ID"] == "own"


def test_the_forwarder_knows_the_nucleuss_own_client_id_in_its_container_too(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.run("Forwarder", configured={"UplinkHost": "abc", "UplinkClientId": "Press:Line_1"})
    called = device.service
    arguments = called["arguments"]
    given = [arguments[i + 1] for i, one in enumerate(arguments) if one == "-e"]
    for one in given:
        name, assigned, value = one.partition("=")
        monkeypatch.setenv(name, value if assigned else called["environment"].get(name, ""))
    for name in ("CA", "CERTIFICATE", "KEY"):
        monkeypatch.setenv(
            f"FORWARDER_UPLINK_{name}_FILE", str(device.directory / "uplink" / f"{name.lower()}.pem")
        )
    monkeypatch.setattr(
        "linewatch_forwarder.uplinks.files.check", lambda *_: None
    )  # no certificates, and no matter

    with pytest.raises(ValueError, match="Press:Line_1 is the Greengrass nucleus's own client id"):
        Forwarder()


def test_the_forwarder_takes_any_further_setting(device: Device) -> None:
    device.run(
        "Forwarder", configured={"Settings": "UPLINK=greengrass_ipc,RESEND_WINDOW_S=60,EVENT_BUS_KINDS=all"}
    )

    arguments = device.service["arguments"]
    for setting in ("UPLINK=greengrass_ipc", "RESEND_WINDOW_S=60", "EVENT_BUS_KINDS=all"):
        assert arguments[arguments.index(f"FORWARDER_{setting}") - 1] == "-e"
    assert "/run/uplink" not in " ".join(arguments), "the nucleus has a certificate of its own"
    assert "FORWARDER_UPLINK=none" not in arguments


def test_the_forwarder_has_its_certificate_for_credentials_too(device: Device) -> None:
    configured = {
        "Settings": "UPLINK=greengrass_ipc",
        "CredentialsHost": "abc.credentials.iot",
        "RoleAlias": "one",
    }
    device.run("Forwarder", configured=configured)

    assert f"{device.directory}/uplink:/run/uplink:ro" in device.service["arguments"]


def test_without_a_host_and_a_choice_the_forwarder_has_no_uplink(device: Device) -> None:
    device.run("Forwarder")

    assert "FORWARDER_UPLINK=none" in device.service["arguments"]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_further_setting_runs_nothing(device: Device, value: str) -> None:
    device.run("Forwarder", configured={"Settings": f"{value},EVENT_BUS={value}"})

    assert not list(device.folder.rglob("PWNED"))
    if value != "*":
        assert f"FORWARDER_EVENT_BUS={value}" in device.service["arguments"]


def test_a_forwarder_without_its_certificate_says_where_to_put_it(device: Device) -> None:
    (device.directory / "uplink" / "key.pem").unlink()
    said = device.run("Forwarder", configured={"UplinkHost": "abc"})

    assert said.returncode == 1
    assert "uplink/key.pem: missing or empty; put ca.pem, certificate.pem and key.pem" in said.stderr


def test_only_what_writes_evidence_may_write_it_and_the_console_only_reads(device: Device) -> None:
    mounts = {}
    for name in CLIENTS:
        device.run(name)
        arguments = device.service["arguments"]
        mounts[name] = [arguments[i + 1] for i, one in enumerate(arguments) if one == "-v"]

    evidence = {name: [one for one in found if "/evidence" in one] for name, found in mounts.items()}
    place = f"{device.directory}/evidence:/var/lib/linewatch/evidence"
    notes = f"{device.directory}/evidence-state:/var/lib/linewatch/evidence-state"
    assert evidence == {
        "Capture": [place, f"{notes}:ro"], "Capture2": [place, f"{notes}:ro"], "Console": [f"{place}:ro"],
        "Forwarder": [f"{place}:ro", notes], "Inference": [],
    }  # fmt: skip
    for name, found in mounts.items():
        user = {"Capture": "line-1", "Capture2": "line-2"}.get(name, name.lower())
        assert [one for one in found if "/secrets" in one] == [
            f"{device.directory}/secrets/{user}:/run/linewatch:ro"
        ]


@pytest.mark.parametrize("first", ["Forwarder", "Capture", "Console"])
def test_whoever_starts_first_makes_the_evidences_folders_for_the_others(device: Device, first: str) -> None:
    places = [device.directory / name for name in ("evidence", "evidence-state")]
    assert not any(place.exists() for place in places)
    for name in (first, "Forwarder", "Capture", "Console"):
        device.run(name)

    assert all(place.stat().st_mode & 0o777 == 0o755 for place in places)
    if os.getuid() == 0:
        assert [place.stat().st_uid for place in places] == [10001, 10001]


def test_the_nucleuss_socket_goes_along_where_there_is_one(device: Device) -> None:
    import socket

    device.run("Console")
    assert "SVCUID" not in device.service["arguments"]
    path = device.folder / "ipc.socket"
    with socket.socket(socket.AF_UNIX) as one:
        with contextlib.chdir(device.folder):  # a socket's path has at most 107 characters
            one.bind("ipc.socket")
        device.run("Console")
    arguments = device.service["arguments"]
    assert f"{path}:{path}" in arguments
    assert "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT" in arguments


def test_a_jetsons_image_is_run_with_its_runtime_and_only_where_it_was_fetched(device: Device) -> None:
    machine = device.folder / "bin" / "uname"
    for architecture, lacks, is_jetson in (
        ("aarch64", "nothing", True), ("aarch64", "inference-jetson@", False), ("x86_64", "nothing", False),
    ):  # fmt: skip
        machine.write_text(f"#!/bin/sh\necho {architecture}\n")
        machine.chmod(0o755)
        device.run("Inference", DOCKER_LACKS=lacks)

        assert ("--runtime=nvidia" in device.service["arguments"]) is is_jetson
        assert ("inference-jetson@" in device.service["arguments"][-1]) is is_jetson


def test_trusted_keys_are_the_releases_and_the_configurations_and_no_others(device: Device) -> None:
    keys = device.directory / "models" / "trusted-keys"
    keys.mkdir(parents=True)
    (keys / "old.pem").write_text("of another release")
    device.run("Inference", configured={"TrustedKeys": "AAAA,BBBB"})

    bodies = sorted(path.read_text().splitlines()[1] for path in keys.iterdir())
    assert bodies == sorted(["AAAA", "BBBB", *render.key_bodies(render.MODELS / "trusted-keys").split(",")])


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(device: Device) -> Device:
    """A device that has the turbofan model's file."""
    (artifact,) = OURS["model.turbofan"].artifacts
    (device.folder / "artifacts").mkdir()
    (device.folder / "artifacts" / artifact.name).write_bytes(artifact.content())
    return device


def outcome(device: Device) -> Path:
    return device.directory / "state" / "inference" / "serving" / "turbofan"


def active_file(device: Device) -> Path:
    return device.directory / "models" / "turbofan" / "active"


def activated(device: Device) -> str:
    return active_file(device).read_text().splitlines()[0]


def with_quick_sleep(device: Device) -> None:
    """The scripts' seconds last a hundredth."""
    sleep = device.folder / "bin" / "sleep"
    sleep.write_text("#!/bin/sh\nexec /bin/sleep 0.01\n")
    sleep.chmod(0o755)


def answered(
    device: Device,
    said: str,
    before: str = "",
    ps: str = "abc",
    old: str = "1.0.0 serving sha256:of-another-asking",
) -> subprocess.CompletedProcess[str]:
    """Runs the model's startup while an inference is there that answers the new active file with `said`."""
    active_file(device).parent.mkdir(parents=True, exist_ok=True)
    asked_before = f"{before}\nanother-asking\n"
    if before:
        active_file(device).write_text(asked_before)
    outcome(device).parent.mkdir(parents=True)
    outcome(device).write_text(f"{old}\nanother-asking\n")
    command, variables = device.command(OURS["model.turbofan"], "startup", {}, {"DOCKER_PS": ps})
    with subprocess.Popen(
        command, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + DEADLINE_S
        while not active_file(device).exists() or active_file(device).read_text() == asked_before:
            assert time.monotonic() < deadline, "nobody asked"
            time.sleep(0.02)
        asking = active_file(device).read_text().splitlines()[1]
        assert process.poll() is None, "the old outcome was taken for an answer"
        outcome(device).write_text(f"{said}\n{asking}\n")
        out, error = process.communicate(timeout=DEADLINE_S)
        return subprocess.CompletedProcess(command, process.returncode, out, error)


def test_a_package_is_put_beside_the_others_and_once_more_changes_nothing(model: Device) -> None:
    assert model.run("model.turbofan", "install").returncode == 0
    place = model.directory / "models" / "turbofan" / "1.0.0"
    before = {path: path.stat().st_ino for path in place.rglob("*")}

    assert model.run("model.turbofan", "install").returncode == 0
    assert {path: path.stat().st_ino for path in place.rglob("*")} == before
    assert sorted(path.name for path in place.parent.iterdir()) == [".1.0.0.sum", "1.0.0"]


def test_a_package_that_is_there_unharmed_needs_no_room_on_the_disk(model: Device) -> None:
    """Also without tar and diff, which a small image may lack: they are not asked."""
    assert model.run("model.turbofan", "install").returncode == 0
    for program in ("tar", "mkdir", "mv", "chmod", "diff"):
        (model.folder / "bin" / program).write_text("#!/bin/sh\necho 'no space left on device' >&2\nexit 1\n")
        (model.folder / "bin" / program).chmod(0o755)

    assert model.run("model.turbofan", "install").returncode == 0
    (model.directory / "models/turbofan/1.0.0/model.onnx").write_bytes(b"")
    assert model.run("model.turbofan", "install").returncode != 0


def test_of_old_versions_the_one_that_serves_the_one_before_and_the_pinned_stay(model: Device) -> None:
    folder = model.directory / "models" / "turbofan"
    for version in ("0.7.0", "0.8.0", "0.9.0", "0.9.1", "notes"):
        (folder / version).mkdir(parents=True)
        (folder / f".{version}.sum").write_text("sums")
    active_file(model).write_text("0.9.0\nword\n")
    (folder / ".before").write_text("0.8.0\n")
    (folder / "0.6.0").mkdir()
    outcome(model).parent.mkdir(parents=True)
    outcome(model).with_name("turbofan.pinned").write_text("0.6.0\n0.8.0\n")

    assert model.run("model.turbofan", "install").returncode == 0

    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        "0.6.0",
        "0.8.0",
        "0.9.0",
        "1.0.0",
        "notes",
    ]
    assert not (folder / ".0.7.0.sum").exists()
    assert (folder / ".0.9.0.sum").exists()


def test_versions_do_not_pile_up_however_many_are_deployed(model: Device) -> None:
    folder = model.directory / "models" / "turbofan"
    with_quick_sleep(model)
    for number in range(5):
        version = f"2.{number}.0"
        assert model.run("model.turbofan", "install", LW_VERSION=version).returncode == 0
        assert model.run("model.turbofan", "startup", LW_VERSION=version).returncode == 0

    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["2.2.0", "2.3.0", "2.4.0"]
    assert (folder / ".before").read_text() == "2.3.0\n"


def test_a_package_that_was_damaged_on_the_disk_is_put_right(model: Device) -> None:
    model.run("model.turbofan", "install")
    damaged = model.directory / "models" / "turbofan" / "1.0.0" / "model.onnx"
    damaged.write_bytes(b"")

    assert model.run("model.turbofan", "install").returncode == 0
    assert damaged.stat().st_size > 1000


def test_a_cut_off_file_leaves_what_was_there(model: Device) -> None:
    model.run("model.turbofan", "install")
    (file,) = (model.folder / "artifacts").iterdir()
    file.write_bytes(file.read_bytes()[:2000])

    assert model.run("model.turbofan", "install").returncode != 0
    assert (model.directory / "models" / "turbofan" / "1.0.0" / "metadata.json").is_file()


def test_a_model_that_serves_is_a_success(model: Device) -> None:
    assert answered(model, "1.0.0 serving sha256:abc", before="0.9.0").returncode == 0
    assert activated(model) == "1.0.0"


def test_a_model_that_is_refused_fails_with_the_reason_and_the_one_before_stays(model: Device) -> None:
    said = answered(model, "1.0.0 refused golden sample 3 differs", before="0.9.0")

    assert said.returncode == 1
    assert "golden sample 3 differs" in said.stderr
    assert activated(model) == "0.9.0"


def test_a_model_that_the_configuration_of_inference_sets_aside_is_a_success_and_the_log_says_so(
    model: Device,
) -> None:
    said = answered(model, "1.0.0 set-aside INFERENCE_MODELS pins turbofan to 0.9.0", before="0.9.0")

    assert said.returncode == 0
    assert "set-aside INFERENCE_MODELS pins turbofan to 0.9.0" in said.stdout
    assert activated(model) == "1.0.0"


@pytest.mark.parametrize("before", ["", "0.9.0", "1.0.0"])
def test_a_refusal_counts_also_where_no_container_is_seen(model: Device, before: str) -> None:
    """Inference, changed in the same deployment, is between two containers."""
    assert answered(model, "1.0.0 refused why", before=before, ps="").returncode == 1


@pytest.mark.parametrize("old", ["1.0.0 refused long ago", "1.0.0 serving sha256:long-ago"])
def test_an_outcome_of_another_asking_is_none(model: Device, old: str) -> None:
    with_quick_sleep(model)
    outcome(model).parent.mkdir(parents=True)
    outcome(model).write_text(f"{old}\nanother\n")
    active_file(model).parent.mkdir(parents=True)
    active_file(model).write_text("0.9.0\n")

    said = model.run("model.turbofan", "startup", DOCKER_PS="abc")

    assert said.returncode == 1
    assert "does not serve turbofan 1.0.0: no answer in time" in said.stderr
    assert activated(model) == "0.9.0"


def test_a_start_of_the_nucleus_without_an_answer_does_not_break_what_was_active_before(
    model: Device,
) -> None:
    with_quick_sleep(model)
    outcome(model).parent.mkdir(parents=True)
    active_file(model).parent.mkdir(parents=True)
    active_file(model).write_text("1.0.0\n")

    said = model.run("model.turbofan", "startup", DOCKER_PS="abc")

    assert said.returncode == 0
    assert "no answer in time; it was active before" in said.stdout


def test_a_device_without_inference_gets_the_model_put_ready_and_the_log_says_unproven(model: Device) -> None:
    with_quick_sleep(model)
    active_file(model).parent.mkdir(parents=True)

    said = model.run("model.turbofan", "startup")

    assert said.returncode == 0
    assert "not proven: there was never an inference here" in said.stdout
    assert activated(model) == "1.0.0"


def test_while_inference_is_stopped_a_model_waits_for_it_and_is_then_put_ready_unproven(
    model: Device,
) -> None:
    with_quick_sleep(model)
    outcome(model).parent.mkdir(parents=True)
    active_file(model).parent.mkdir(parents=True)

    said = model.run("model.turbofan", "startup")

    assert said.returncode == 0
    assert "not proven: linewatch-inference does not run" in said.stdout
    assert len([one for one in model.calls if one["arguments"][0] == "ps"]) == 150


def test_a_docker_that_does_not_answer_proves_nothing(model: Device) -> None:
    with_quick_sleep(model)
    outcome(model).parent.mkdir(parents=True)
    active_file(model).parent.mkdir(parents=True)
    (model.folder / "bin" / "docker").write_text("#!/bin/sh\nexit 1\n")

    said = model.run("model.turbofan", "startup")

    assert said.returncode == 1
    assert "no answer in time" in said.stderr


@pytest.mark.parametrize("trick", ["link", "linked folder", "pipe", "folder"])
def test_what_is_no_plain_file_in_inferences_folder_is_refused_unread(model: Device, trick: str) -> None:
    """The script is root, and that folder is inference's."""
    secret = model.folder / "secret" / "turbofan"
    secret.parent.mkdir()
    secret.write_text("1.0.0 serving root's secret\n")
    outcome(model).parent.parent.mkdir(parents=True)
    if trick == "linked folder":
        outcome(model).parent.symlink_to(secret.parent)
    else:
        outcome(model).parent.mkdir()
        if trick == "link":
            outcome(model).symlink_to(secret)
        elif trick == "pipe":
            os.mkfifo(outcome(model))
        else:
            outcome(model).mkdir()
    active_file(model).parent.mkdir(parents=True)

    said = model.run("model.turbofan", "startup", DOCKER_PS="abc")

    assert said.returncode == 1
    assert "is no plain file in a plain folder" in said.stderr
    assert "secret" not in (said.stdout + said.stderr).replace(str(model.folder), "")
    assert secret.exists(), "root removed nothing by way of the container's folder"


def test_of_a_long_or_odd_outcome_only_a_plain_line_reaches_the_log(model: Device) -> None:
    said = answered(model, "1.0.0 refused \x1b[2Jwhy\x00", before="0.9.0")

    assert said.returncode == 1
    assert "1.0.0 refused [2Jwhy\n" in said.stderr


def test_the_parts_of_scripts_are_all_used() -> None:
    used = {
        name for path in TEMPLATES.glob("*.json") for step in json.loads(path.read_text())["Lifecycle"]["all"].values()
        for name in step.get("Script", [])
    }  # fmt: skip

    assert {path.name for path in TEMPLATES.glob("*.sh")} == used
