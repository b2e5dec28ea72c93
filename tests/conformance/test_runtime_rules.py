# SPDX-License-Identifier: Apache-2.0
"""The stand-ins keep the runtimes' rules: each pitfall of the two shows with recipes of plain shell. No engine needed."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from brokers import wait_for
from conformance.classic import Classic
from conformance.device import BROKEN, FAILED, FINISHED, RUNNING, SUCCEEDED, Device
from conformance.lite import NEW_SYSTEMD, OLD_SYSTEMD, Lite
from conformance.recipe import ARCHITECTURE, configured
from conformance.sample import shell

ROOT = Path(__file__).resolve().parents[2]
FOREVER = "sleep 600 & wait"


def lives(pid_file: Path) -> bool:
    """Whether the process whose id the file holds is there and no zombie."""
    try:
        return psutil.Process(int(pid_file.read_text())).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_values_come_in_by_setenv_and_by_variable(shell_device: Device) -> None:
    recipe = shell(
        configuration={"Line": "line-1", "Deep": {"Rate": 2}},
        run={
            "Script": 'echo "$LINE {configuration:/Deep/Rate} {iot:thingName} $AWS_IOT_THING_NAME"; '
            + FOREVER,
            "Setenv": {"LINE": "{configuration:/Line}"},
        },
    )
    assert shell_device.deploy(recipe, merge={recipe.name: {"Line": "line-7"}}).status == SUCCEEDED
    wait_for(lambda: "line-7 2 device-1 device-1" in shell_device.log(recipe), "the values are told")


def test_what_is_configured_outlives_new_defaults_unless_reset() -> None:
    assert configured({"a": "mine"}, {"a": "new", "b": "new"}, {}, []) == {"a": "mine", "b": "new"}
    assert configured({"a": "mine"}, {"a": "new", "b": "new"}, {"b": "merged"}, [""]) == {
        "a": "new",
        "b": "merged",
    }
    assert configured({"a": {"b": 1, "c": 2}}, {}, {}, ["/a/b"]) == {"a": {"c": 2}}


def test_classic_leaves_an_unknown_variable_as_it_is_written(classic: Classic) -> None:
    recipe = shell(run="echo '{configuration:/Nothing} {nothing:here}'; " + FOREVER)
    assert classic.deploy(recipe).status == SUCCEEDED
    wait_for(lambda: "{configuration:/Nothing} {nothing:here}" in classic.log(recipe), "it is told")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo {configuration:/Nothing}", "Failed to get config value for substitution: /Nothing"),
        ('echo "${HOME}"', "No : found in recipe escape sequence: HOME"),
        ("awk '{ print }'", "No : found in recipe escape sequence"),
        ("docker inspect -f '{{.State}}'", "No : found in recipe escape sequence"),
        ("echo {artifacts:paht}", "Unhandled variable substitution: artifacts:paht"),
    ],
    ids=["missing pointer", "shell braces", "awk", "docker format", "unknown variable"],
)
def test_on_lite_a_brace_that_is_no_variable_breaks_the_component(lite: Lite, script: str, says: str) -> None:
    outcome = lite.deploy(shell(run=script))

    assert (outcome.status, outcome.detail) == (FAILED, "FAILED_ROLLBACK_NOT_REQUESTED")
    assert says in outcome.reason
    assert "BROKEN" in outcome.reason


def test_lite_takes_strings_only_in_setenv(lite: Lite) -> None:
    outcome = lite.deploy(shell(run={"Script": FOREVER, "Setenv": {"PORT": 8080}}))
    assert "Key values must be String (PORT)" in outcome.reason


def test_step_names_may_be_capitalised_on_classic_only(root: Path) -> None:
    recipe = shell(Run={"script": FOREVER})
    for device, status in ((Classic(root / "classic"), RUNNING), (Lite(root / "lite"), FINISHED)):
        device.deploy(recipe)
        assert device.state(recipe) == status, device.flavour
        device.close()


def test_a_manifest_for_a_special_device_is_for_classic_only(root: Path) -> None:
    """Lite ignores keys that it does not know: a manifest that says `runtime` would be taken everywhere."""
    general = shell(run="echo general; " + FOREVER).document["Manifests"][0]
    special = shell(run="echo special; " + FOREVER).document["Manifests"][0]
    of = {"os": "linux", "architecture": ARCHITECTURE, "io.linewatch.accelerator": "jetson"}

    def told(device: Device, platform: dict[str, str]) -> str:
        base = shell()
        recipe = type(base)({**base.document, "Manifests": [{**special, "Platform": platform}, general]})
        device.deploy(recipe)
        wait_for(lambda: device.log(recipe), "it says which it is")
        device.close()
        return device.log(recipe).split()[0]

    jetson = {"io.linewatch.accelerator": "jetson"}
    assert told(Classic(root / "1", platform=jetson), of) == "special"
    assert told(Classic(root / "2"), of) == "general"
    assert told(Lite(root / "3"), of) == "general"
    assert told(Lite(root / "4"), {**of, "runtime": "*"}) == "special"


def test_no_manifest_for_the_device_changes_nothing(shell_device: Device) -> None:
    outcome = shell_device.deploy(shell(run=FOREVER, platform={"architecture": "riscv64"}))
    assert outcome.status == FAILED
    assert shell_device.components == {}


def test_three_errors_break_a_component_and_say_why(shell_device: Device) -> None:
    outcome = shell_device.deploy(shell(startup="echo now >>starts; exit 3"))

    assert outcome.status == FAILED
    assert "3" in outcome.reason
    assert (shell_device.root / "work/io.linewatch.test.Shell/starts").read_text().split() == ["now"] * 3


def test_running_again_in_between_does_not_reset_the_count_of_crashes(shell_device: Device) -> None:
    """RUNNING, crash, RUNNING, crash, RUNNING, crash: BROKEN on both, although each start succeeded."""
    # The first one lives until it is told: a deployment that looks late must not find it broken already.
    recipe = shell(run="until [ -e go ]; do sleep 0.1; done; exit 5")
    assert shell_device.deploy(recipe).status == SUCCEEDED
    (shell_device.root / "work" / recipe.name / "go").touch()
    shell_device.wait(recipe, BROKEN)
    assert shell_device.components[recipe.name].entered(RUNNING) == 3


def test_a_startup_that_ends_well_by_itself_leaves_it_running_on_both(shell_device: Device) -> None:
    script = '[ -z "$NOTIFY_SOCKET" ] || systemd-notify --ready; exit 0'
    recipe = shell(startup={"Script": script, "RequiresPrivilege": True})
    assert shell_device.deploy(recipe).status == SUCCEEDED
    assert shell_device.state(recipe) == RUNNING


@pytest.mark.parametrize(("systemd", "state"), [(OLD_SYSTEMD, BROKEN), (NEW_SYSTEMD, FINISHED)])
def test_a_startup_that_runs_into_the_lines_that_lite_appends(root: Path, systemd: int, state: str) -> None:
    """`systemd-notify --stopping` is an error before systemd 253: the script ends with it, three times."""
    device = Lite(root, systemd=systemd)
    recipe = shell(startup={"Script": "true", "RequiresPrivilege": True})
    device.deploy(recipe)
    device.wait(recipe, state)
    device.close()


def test_lite_gets_every_file_from_the_cloud_and_classic_takes_what_a_local_deployment_brought(
    root: Path,
) -> None:
    recipe = shell(run=FOREVER)
    recipe.document["Manifests"][0]["Artifacts"].append({"Uri": "s3://bucket/model.tar.gz"})
    given = root / "artifacts" / recipe.name / recipe.version
    given.mkdir(parents=True)
    (given / "model.tar.gz").write_text("a model")
    for flavour, status in ((Classic, SUCCEEDED), (Lite, FAILED)):
        device = flavour(root / flavour.flavour, root / "artifacts")
        assert device.deploy(recipe).status == status
        device.close()


def test_a_run_that_ends_well_is_finished(shell_device: Device) -> None:
    recipe = shell(run="true")
    assert shell_device.deploy(recipe).status == SUCCEEDED
    shell_device.wait(recipe, FINISHED)


def test_a_startup_in_the_foreground_is_up_when_it_says_so(shell_device: Device) -> None:
    recipe = shell(
        startup={
            "Script": '[ -z "$NOTIFY_SOCKET" ] || systemd-notify --ready; echo up; ' + FOREVER,
            "RequiresPrivilege": True,
        }
    )

    def service() -> None:
        """In place of the service, which tells the nucleus itself that it is up."""
        wait_for(lambda: "up" in shell_device.log(recipe), "the script runs")
        shell_device.reported(shell_device.components[recipe.name], RUNNING)

    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(service) if shell_device.flavour == "classic" else None
        assert shell_device.deploy(recipe).status == SUCCEEDED
        assert said is None or said.result(60) is None


def test_a_startup_that_never_is_up_is_an_error_at_its_timeout(shell_device: Device) -> None:
    outcome = shell_device.deploy(shell(startup={"Script": FOREVER, "Timeout": 1}))
    assert outcome.status == FAILED
    assert "time" in outcome.reason


def test_a_failed_deployment_is_taken_back_on_classic(classic: Classic) -> None:
    good = shell(run="echo good; " + FOREVER)
    assert classic.deploy(good).status == SUCCEEDED

    outcome = classic.deploy(shell(version="2.0.0", startup="exit 3"))

    assert (outcome.status, outcome.detail) == (FAILED, "FAILED_ROLLBACK_COMPLETE")
    assert classic.components[good.name].recipe == good
    assert classic.state(good) == RUNNING


def test_a_failed_deployment_stays_as_it_is_on_lite(lite: Lite) -> None:
    good = shell(run="echo good; " + FOREVER)
    assert lite.deploy(good).status == SUCCEEDED

    outcome = lite.deploy(shell(version="2.0.0", startup="exit 3"))

    assert (outcome.status, outcome.detail) == (FAILED, "FAILED_ROLLBACK_NOT_REQUESTED")
    assert lite.state(good) == BROKEN
    # The same deployment again tries again.
    assert lite.deploy(good).status == SUCCEEDED


def test_a_component_that_is_no_longer_named_is_stopped(shell_device: Device) -> None:
    recipe = shell(run="echo $$ >pid; " + FOREVER)
    shell_device.deploy(recipe)
    pid_file = shell_device.root / "work" / recipe.name / "pid"
    wait_for(lambda: pid_file.exists() and pid_file.read_text().strip(), "it runs")

    assert shell_device.deploy().status == SUCCEEDED

    wait_for(lambda: not lives(pid_file), "it is gone", 60)
    assert shell_device.components == {}


def test_what_did_not_change_is_not_restarted(shell_device: Device) -> None:
    recipe = shell(run="echo start; " + FOREVER)
    shell_device.deploy(recipe)
    wait_for(lambda: "start" in shell_device.log(recipe), "it runs", 60)
    shell_device.deploy(recipe)
    assert shell_device.components[recipe.name].entered(RUNNING) == 1
    assert shell_device.log(recipe).count("start") == 1


def test_a_changed_value_that_a_step_uses_restarts_the_component(shell_device: Device) -> None:
    recipe = shell(configuration={"Line": "line-1"}, run="echo on {configuration:/Line}; " + FOREVER)
    shell_device.deploy(recipe)
    assert shell_device.deploy(recipe, merge={recipe.name: {"Line": "line-2"}}).status == SUCCEEDED
    wait_for(lambda: "on line-2" in shell_device.log(recipe), "the new value is told")


def test_stopping_reaches_children_first_and_kills_what_stays(classic: Classic) -> None:
    """Classic signals the shell's children, not the shell; after 5 s all that is left is killed."""
    recipe = shell(
        run="""trap 'echo shell was told' TERM; (trap 'echo child was told; exit 0' TERM; >listens; while :; do sleep 0.05; done) &
        sh -c "trap '' TERM; echo \\$\\$ >stubborn; while :; do sleep 0.05; done" & wait; wait; wait"""
    )
    classic.deploy(recipe)
    stubborn = classic.root / "work" / recipe.name / "stubborn"
    listens = stubborn.with_name("listens")
    wait_for(lambda: listens.exists() and stubborn.exists() and stubborn.read_text().strip(), "all run", 60)
    classic.deploy()
    log = classic._log(recipe.name).read_text()
    assert "child was told" in log
    assert "shell was told" not in log
    wait_for(lambda: not lives(stubborn), "what ignores SIGTERM is killed", 60)


def test_stopping_on_lite_reaches_every_process_at_once(lite: Lite) -> None:
    recipe = shell(
        run="trap 'echo shell was told; exit 0' TERM; echo listens; " + FOREVER, shutdown="echo never"
    )
    lite.deploy(recipe)
    # RUNNING is what a script is before its first line was read.
    wait_for(lambda: lite.state(recipe) == RUNNING and "listens" in lite.log(recipe), "it runs", 60)
    lite.deploy()
    log = lite._log(recipe.name).read_text()
    assert "shell was told" in log
    assert "never" not in log


def test_a_step_without_privilege_runs_as_another_user(shell_device: Device) -> None:
    recipe = shell(
        install={"Script": "id -u >as-root", "RequiresPrivilege": True}, run="id -u >as-user; " + FOREVER
    )
    shell_device.deploy(recipe)
    work = shell_device.root / "work" / recipe.name
    wait_for(lambda: (work / "as-user").exists() and (work / "as-user").read_text(), "it runs")
    assert (work / "as-user").read_text() != "0\n"


def test_install_runs_at_each_start_of_classic_and_once_on_lite(shell_device: Device) -> None:
    recipe = shell(install="echo install", run="echo run; " + FOREVER)
    shell_device.deploy(recipe)
    wait_for(lambda: "run" in shell_device.log(recipe), "it runs")

    shell_device.power_cut()
    shell_device.boot()
    wait_for(lambda: shell_device.log(recipe).count("run") == 2, "it runs again")

    installs = shell_device.log(recipe).count("install")
    assert installs == (2 if shell_device.flavour == "classic" else 1)


def test_the_page_names_every_case_and_no_test_that_is_not_there() -> None:
    page = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "lifecycle.md").read_text()))
    files = ("test_lifecycle.py", "test_pitfalls.py", "test_engine_restart.py")
    here = Path(__file__).parent
    cases = {
        name
        for file in files
        for name in re.findall(r"^def (test_\w+)", (here / file).read_text(), re.MULTILINE)
    }
    assert page == cases
