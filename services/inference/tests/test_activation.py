# SPDX-License-Identifier: Apache-2.0
"""Which version is served: the active file's. Real packages, a real server; a model component's part is played here."""

import contextlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from inspector_calls import image_request
from running_server import Running, wait_until
from tiny_models import described, encoded, make_package, picture, spots_graph

from linewatch.v1 import inspector_pb2_grpc
from linewatch_inference import repository
from linewatch_inference.active_file import ACTIVE
from linewatch_inference.errors import PackageRefused
from linewatch_inference.repository import IndexEntry
from linewatch_inference.verdict import Reference
from open_inference.v2 import open_inference_pb2

TIMEOUT_S = 60.0


@pytest.fixture
def two_versions(own_copy: Path) -> Path:
    """The released directory with spots 1.1.0 beside 1.0.0."""
    make_package(own_copy, described("segmentation", "1.1.0"), spots_graph(), own_copy / "key.pem")
    return own_copy


def activate(root: Path, content: str | bytes, name: str = "spots") -> None:
    """What a model component's `run` does."""
    data = content if isinstance(content, bytes) else f"{content}\n".encode()
    new = root / "models" / name / ".active.new"
    new.write_bytes(data)
    new.replace(new.with_name(ACTIVE))


def outcome(tmp_path: Path, name: str = "spots") -> str:
    """What inference said, and takes it away."""
    path = tmp_path / "serving" / name
    text = path.read_text()
    path.unlink()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text.rstrip("\n")


def outcome_lines(tmp_path: Path, name: str = "spots") -> list[str]:
    return (tmp_path / "serving" / name).read_text().splitlines()


def served(running: Running, name: str = "spots") -> str:
    """The version that judges a part now."""
    answer = running.inspector.Inspect(image_request(encoded(picture()), name), timeout=TIMEOUT_S)
    return answer.verdict.model.version


def is_refused(running: Running) -> bool:
    """The metric that an alert watches."""
    return running.registry.get_sample_value("linewatch_inference_model_refused", {"model": "spots"}) == 1.0


def digest(running: Running) -> str:
    return running.repository.digest_of("spots")


def loads(running: Running) -> int:
    return [event[:2] for event in running.events.heard].count(("ModelLoadSuccess", "spots"))


# --- several at once -------------------------------------------------------------------------------------------------


def test_refusal_in_the_middle_of_a_look_at_the_index_ends_no_look(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status looks each second, and whoever asks for a made-up name is refused in another thread."""
    running.repository.refuse("ghost", "1.0.0", "there is none")
    running.repository.refuse("ghost", "2.0.0", "there is none")
    refusals = [
        threading.Thread(target=running.repository.refuse, args=("ghost", f"3.0.{number}", "there is none"))
        for number in range(2)
    ]

    def entry(*values: object, **named: object) -> IndexEntry:
        if refusals and "UNAVAILABLE" in values:
            refusing = refusals.pop()
            refusing.start()
            refusing.join(0.5)  # it has happened, or it waits until this look is over
        return IndexEntry(*values, **named)

    monkeypatch.setattr(repository, "IndexEntry", entry)
    running.repository.index()

    assert not refusals
    wait_until(lambda: "3.0.0" in {one.version for one in running.repository.index()})


def test_last_word_on_health_is_of_the_last_change(running: Running) -> None:
    told: list[bool] = []
    looked = threading.Event()

    def tell() -> None:
        is_serving = running.repository.is_serving
        if not is_serving:
            looked.set()
            with contextlib.suppress(AssertionError):  # that it overtakes us is what must not happen
                wait_until(lambda: True in told, 1.0)
        told.append(is_serving)

    for name in ("colours", "wear"):
        running.repository.unload(name)
    running.repository.on_change = tell
    unloading = threading.Thread(target=running.repository.unload, args=("spots",))
    unloading.start()
    assert looked.wait(TIMEOUT_S)
    running.repository.load("spots")
    unloading.join(TIMEOUT_S)

    assert told == [False, True]


def test_version_that_comes_back_while_it_goes_is_counted_as_in_service(
    serve: Callable[..., Running], two_versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve(two_versions, models="spots:1.0.0")
    metrics = running.repository._metrics
    take_out = metrics.model_out_of_service
    coming_back = threading.Thread(target=running.repository.load, args=("spots", "1.0.0"))

    def in_service() -> set[str]:
        families = [one for one in running.registry.collect() if one.name == "linewatch_inference_model_info"]
        return {sample.labels["version"] for one in families for sample in one.samples}

    def slowly(reference: Reference) -> None:
        if reference.version == "1.0.0" and coming_back.ident is None:
            coming_back.start()
            coming_back.join(1.0)  # it is back, or it waits until this one is counted
        take_out(reference)

    monkeypatch.setattr(metrics, "model_out_of_service", slowly)
    running.repository.load("spots", "1.1.0")
    coming_back.join(TIMEOUT_S)

    assert running.repository.version_of("spots") == "1.0.0"
    assert in_service() == {"1.0.0"}


# --- at the start ----------------------------------------------------------------------------------------------------


def test_at_the_start_the_active_file_decides_and_without_one_the_newest_is_served(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    assert served(serve(two_versions)) == "1.1.0"
    assert not (tmp_path / "serving").exists(), "nobody waits for an outcome"

    activate(two_versions, "1.0.0")
    running = serve(two_versions)

    assert served(running) == "1.0.0"
    assert outcome(tmp_path) == f"1.0.0 serving {digest(running)}"
    assert digest(running).startswith("sha256:")
    assert running.repository.is_complete


def test_a_pinned_version_is_served_whatever_the_active_file_says(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    activate(two_versions, "1.0.0")

    running = serve(two_versions, models="spots:1.1.0,wear")
    running.activation.look()

    assert served(running) == "1.1.0"
    assert outcome(tmp_path) == "1.0.0 set-aside INFERENCE_MODELS pins spots to 1.1.0"
    assert not is_refused(running)
    running.activation.look()
    assert not (tmp_path / "serving/spots").exists(), "told once"
    activate(two_versions, "1.0.0\nasked-anew")
    running.activation.look()
    assert outcome_lines(tmp_path) == ["1.0.0 set-aside INFERENCE_MODELS pins spots to 1.1.0", "asked-anew"]
    assert {entry.name for entry in running.repository.index() if entry.model} == {"spots", "wear"}


def test_the_active_file_of_a_pinned_version_is_answered_with_what_came_of_that_version(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    activate(two_versions, "1.0.0")
    running = serve(two_versions, models="spots:1.0.0,spots:1.1.0")
    assert served(running) == "1.1.0"
    assert outcome(tmp_path) == f"1.0.0 serving {running.repository.digest_of('spots', '1.0.0')}"

    activate(two_versions, "latest")
    running.activation.look()
    assert outcome(tmp_path).startswith("- refused ")


def test_pinned_versions_are_told_for_whoever_clears_old_ones_away(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    serve(two_versions, models="spots:1.0.0,spots:1.1.0,wear:1.0.0,wear")
    assert (tmp_path / "serving/spots.pinned").read_text() == "1.0.0\n1.1.0\n"
    assert (tmp_path / "serving/wear.pinned").read_text() == "1.0.0\n"

    serve(two_versions, models="wear:1.0.0")
    assert sorted(path.name for path in (tmp_path / "serving").iterdir()) == ["wear.pinned"]


def test_a_pinned_version_that_comes_after_the_start_goes_into_service_beside_or_is_refused(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    later = tmp_path / "later"
    (two_versions / "models/spots/1.1.0").rename(later)
    running = serve(two_versions, models="spots:1.0.0,spots:1.1.0")
    shutil.copytree(later, two_versions / "models/spots/1.1.0")
    (two_versions / "models/spots/1.1.0/card.md").write_text("changed")

    activate(two_versions, "1.1.0")
    running.activation.look()
    assert outcome(tmp_path).startswith("1.1.0 refused card.md: ")

    shutil.copy(later / "card.md", two_versions / "models/spots/1.1.0/card.md")
    activate(two_versions, "1.1.0")
    running.activation.look()
    assert outcome(tmp_path) == f"1.1.0 serving {running.repository.digest_of('spots', '1.1.0')}"
    assert served(running) == "1.0.0", "who names no version gets what he got"


def test_after_a_refused_activation_a_restart_serves_what_served_before(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    activate(two_versions, "1.0.0")
    serve(two_versions)
    (two_versions / "models/spots/1.1.0/card.md").write_text("changed")
    activate(two_versions, "1.1.0")

    running = serve(two_versions)

    assert served(running) == "1.0.0"
    assert outcome(tmp_path).startswith("1.1.0 refused card.md: ")
    assert is_refused(running), "what was asked for is not served"


def test_a_refused_version_is_not_replaced_by_one_that_never_served_here(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    (two_versions / "models/spots/1.0.0/card.md").write_text("changed")
    activate(two_versions, "1.0.0")

    running = serve(two_versions)

    with pytest.raises(grpc.RpcError) as caught:
        served(running)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "was refused" in caught.value.details()
    assert not running.repository.is_complete
    assert outcome(tmp_path).startswith("1.0.0 refused card.md")


def test_who_waits_for_an_outcome_finds_his_own_word_in_it_also_after_a_restart(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    activate(two_versions, "1.0.0\nfirst-0001")
    running = serve(two_versions)
    assert outcome_lines(tmp_path) == [f"1.0.0 serving {digest(running)}", "first-0001"]

    (two_versions / "models/spots/1.1.0/card.md").write_text("changed" * 2000)
    activate(two_versions, "1.1.0\nsecond")
    running.activation.look()
    assert outcome_lines(tmp_path)[0].startswith("1.1.0 refused card.md: ")
    assert outcome_lines(tmp_path)[1:] == ["second"]

    serve(two_versions)
    assert outcome_lines(tmp_path)[1:] == ["second"]


def test_an_active_file_with_the_same_times_and_size_but_another_word_asks_anew(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    path = two_versions / "models/spots/active"
    path.write_text("1.0.0\nword-1\n")
    os.utime(path, ns=(0, 0))
    running = serve(two_versions)

    path.write_text("1.0.0\nword-2\n")  # the same inode
    os.utime(path, ns=(0, 0))
    running.activation.look()

    assert outcome_lines(tmp_path)[1:] == ["word-2"]


def test_an_outcome_is_never_longer_than_its_reader_reads(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    running = serve(two_versions)
    activate(two_versions, f"9.9.9\n{'w' * 64}")
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_: object, **__: object) -> None:
            raise PackageRefused("ü€" * 2000)

        patch.setattr(running.repository, "load", refuse)
        running.activation.look()

    data = (tmp_path / "serving/spots").read_bytes()
    assert 1000 < len(data) <= 1100
    assert data.decode().endswith(f"\n{'w' * 64}\n")


# --- at work ---------------------------------------------------------------------------------------------------------


def test_a_changed_active_file_swaps_the_model_there_and_back(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    activate(two_versions, "1.0.0")
    running = serve(two_versions)
    first = digest(running)

    for version in ("1.1.0", "1.0.0"):
        activate(two_versions, version)
        running.activation.look()

        assert served(running) == version
        assert outcome(tmp_path) == f"{version} serving {digest(running)}"
        assert [entry.version for entry in running.repository.index() if entry.name == "spots" and entry.model] == [
            version
        ]  # fmt: skip
    assert digest(running) == first


def test_a_refused_version_leaves_the_old_one_in_service_and_says_why_in_one_line(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    activate(two_versions, "1.0.0")
    running = serve(two_versions)
    (two_versions / "models/spots/1.1.0/card.md").write_text("changed")

    activate(two_versions, "1.1.0")
    running.activation.look()

    assert served(running) == "1.0.0"
    assert outcome(tmp_path) == (
        "1.1.0 refused card.md: its sha256 is not the one in metadata.json; copy the package again"
    )
    assert running.repository.is_complete, "the model is served, if not by the version that was asked for"
    assert is_refused(running)

    activate(two_versions, "1.0.0")
    running.activation.look()
    assert outcome(tmp_path) == f"1.0.0 serving {digest(running)}"
    assert loads(running) == 1, "it was never out of service"
    assert not is_refused(running)


def test_a_version_that_is_not_there_is_refused(
    serve: Callable[..., Running], own_copy: Path, tmp_path: Path
) -> None:
    running = serve(own_copy)
    activate(own_copy, "9.9.9")

    running.activation.look()

    assert outcome(tmp_path) == "9.9.9 refused spots: no version 9.9.9; there are 1.0.0"
    assert served(running) == "1.0.0"


@pytest.mark.parametrize(
    "content",
    [b"", b"latest\n", b"1.1\n", b"1.0.0\n1.1.0\n", b"1.0.0\nword\nword\n", b"1.0.0\n" + b"w" * 65, b"\xff\xfe\x00", b"1.1.0" + b" " * 1000, b"../1.1.0\n",
     "١.١.٠\n".encode()],
    ids=["empty", "word", "two numbers", "two versions", "three lines", "a long word", "no text", "long", "path", "other digits"],
)  # fmt: skip
def test_an_active_file_without_a_version_is_told_and_changes_nothing(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path, content: bytes
) -> None:
    activate(two_versions, "1.0.0")
    running = serve(two_versions)
    activate(two_versions, content)

    running.activation.look()
    running.activation.look()

    assert served(running) == "1.0.0"
    assert outcome(tmp_path).startswith(f"- refused {two_versions}/models/spots/active: must hold one line")
    refusals = [event for event in running.events.heard if event[:2] == ("ModelLoadError", "spots")]
    assert len(refusals) == 1, "told once"
    assert is_refused(running)

    activate(two_versions, "1.1.0")
    running.activation.look()
    assert served(running) == "1.1.0"
    assert ("spots", "") not in {(entry.name, entry.version) for entry in running.repository.index()}


@pytest.mark.parametrize("kind", ["directory", "link", "pipe"])
def test_an_active_file_that_is_no_plain_file_is_told_and_changes_nothing(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path, kind: str
) -> None:
    running = serve(two_versions)
    path = two_versions / "models/spots/active"
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(two_versions / "key.pem")
    else:
        os.mkfifo(path)

    running.activation.look()

    assert outcome(tmp_path).startswith(f"- refused {path}: ")
    assert served(running) == "1.1.0"


def test_the_same_version_written_anew_is_answered_anew_and_loaded_only_if_its_package_changed(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    activate(two_versions, "1.1.0")
    running = serve(two_versions)
    outcome(tmp_path)
    assert loads(running) == 1

    running.activation.look()
    assert not (tmp_path / "serving/spots").exists(), "nobody asked"
    activate(two_versions, "1.1.0")
    running.activation.look()
    assert outcome(tmp_path).startswith("1.1.0 serving sha256:")
    assert loads(running) == 1

    before = digest(running)
    shutil.rmtree(two_versions / "models/spots/1.1.0")
    changed = described("segmentation", "1.1.0", attribution="made anew")
    make_package(two_versions, changed, spots_graph(), two_versions / "key.pem")
    running.activation.look()
    assert loads(running) == 1, "nobody asked"
    activate(two_versions, "1.1.0")
    running.activation.look()
    assert loads(running) == 2
    assert outcome(tmp_path) == f"1.1.0 serving {digest(running)}"
    assert digest(running) != before


def test_a_refused_version_is_tried_again_when_asked_and_when_its_mended_package_rests(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    running = serve(two_versions, models="spots")
    package, whole = two_versions / "models/spots/1.0.0", tmp_path / "whole"
    shutil.copytree(package, whole)
    (package / "card.md").write_text("changed")
    activate(two_versions, "1.0.0")
    running.activation.look()
    assert "refused" in outcome(tmp_path)
    running.activation.look()
    assert not (tmp_path / "serving/spots").exists()
    activate(two_versions, "1.0.0")
    running.activation.look()
    assert "refused" in outcome(tmp_path), "asked again, answered again"

    shutil.copy(whole / "card.md", package / "card.md")
    running.activation.look()
    assert not (tmp_path / "serving/spots").exists(), "it may still be copied"
    running.activation.look()

    assert outcome(tmp_path).startswith("1.0.0 serving ")
    assert served(running) == "1.0.0"


def test_what_is_served_stays_when_the_file_or_the_folder_vanishes(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    activate(two_versions, "1.0.0")
    running = serve(two_versions)
    (two_versions / "models/spots/active").unlink()
    running.activation.look()
    assert served(running) == "1.0.0", "and not the newest"

    shutil.rmtree(two_versions / "models/spots")
    running.activation.look()
    assert served(running) == "1.0.0"

    shutil.rmtree(two_versions / "models")
    running.activation.look()
    assert served(running) == "1.0.0"


def test_a_new_model_is_served_once_its_files_rest_or_at_once_by_its_active_file(
    serve: Callable[..., Running], released: Path, tmp_path: Path
) -> None:
    root = tmp_path / "device"
    (root / "models").mkdir(parents=True)
    shutil.copytree(released / "trusted-key", root / "models/trusted-keys")
    (root / "models/lost+found").mkdir(mode=0)
    running = serve(root, trusted_keys_dir=root / "models/trusted-keys")
    assert not running.repository.is_serving

    shutil.copytree(released / "models/wear", root / "models/wear")
    running.activation.look()
    assert not running.repository.is_serving, "it may still be copied"
    running.activation.look()
    assert running.repository.version_of("wear") == "1.0.0"

    shutil.copytree(released / "models/spots", root / "models/spots")
    activate(root, "1.0.0")
    running.activation.look()
    assert served(running) == "1.0.0"
    assert outcome(tmp_path) == f"1.0.0 serving {digest(running)}"
    assert [entry.name for entry in running.repository.index()] == ["spots", "wear"]
    assert running.repository.is_complete


def test_a_version_loaded_by_hand_stays_until_the_active_file_is_written_anew(
    serve: Callable[..., Running], two_versions: Path
) -> None:
    activate(two_versions, "1.0.0")
    running = serve(two_versions)
    running.open_inference.RepositoryModelLoad(
        open_inference_pb2.RepositoryModelLoadRequest(model_name="spots"), timeout=TIMEOUT_S
    )

    running.activation.look()
    assert served(running) == "1.1.0"

    activate(two_versions, "1.0.0")
    running.activation.look()
    assert served(running) == "1.0.0"


def test_models_that_the_settings_do_not_name_are_left_alone(
    serve: Callable[..., Running], own_copy: Path, tmp_path: Path
) -> None:
    running = serve(own_copy, models="wear")

    activate(own_copy, "1.0.0")
    running.activation.look()

    assert running.repository.version_of("spots") == ""
    assert outcome(tmp_path) == "1.0.0 set-aside INFERENCE_MODELS does not name spots"


def test_a_key_that_comes_later_lets_its_packages_in_without_a_restart(
    serve: Callable[..., Running], own_copy: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    activate(own_copy, "1.0.0")
    running = serve(own_copy, trusted_keys_dir=keys)
    assert not running.repository.is_serving
    assert outcome(tmp_path).startswith(
        f"1.0.0 refused INFERENCE_TRUSTED_KEYS_DIR: {keys} holds no *.pem file"
    )

    shutil.copytree(own_copy / "trusted-key", keys)
    activate(own_copy, "1.0.0")
    running.activation.look()

    assert served(running) == "1.0.0"
    assert outcome(tmp_path).startswith("1.0.0 serving ")


def test_a_key_that_is_none_refuses_the_next_package_and_is_named(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path
) -> None:
    activate(two_versions, "1.0.0")
    running = serve(two_versions)
    (two_versions / "trusted-key/other.pem").write_text("no key")

    activate(two_versions, "1.1.0")
    running.activation.look()

    assert outcome(tmp_path) == (
        "1.1.0 refused INFERENCE_TRUSTED_KEYS_DIR: other.pem is no public key in PEM form"
    )
    assert served(running) == "1.0.0"


def test_outcome_that_can_not_be_written_is_told_and_written_later(
    serve: Callable[..., Running], two_versions: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "serving").write_text("in the way")
    activate(two_versions, "1.0.0")
    running = serve(two_versions)
    running.activation.look()
    assert served(running) == "1.0.0"
    told = [record for record in caplog.records if record.message == "outcome_not_written"]
    assert len(told) == 1
    assert "INFERENCE_STATE_DIR" in told[0].reason

    (tmp_path / "serving").unlink()
    running.activation.look()

    assert outcome(tmp_path).startswith("1.0.0 serving ")


def test_no_call_fails_while_versions_are_swapped_many_times(
    serve: Callable[..., Running], two_versions: Path
) -> None:
    activate(two_versions, "1.0.0")
    running = serve(two_versions, workers=2, queue_limit=64)
    done, seen, failed = threading.Event(), [], []
    part = image_request(encoded(picture()))

    def call() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{running.settings.port}") as channel:
            stub = inspector_pb2_grpc.InspectorStub(channel)
            while not done.is_set():
                try:
                    seen.append(stub.Inspect(part, timeout=TIMEOUT_S).verdict.model.version)
                except grpc.RpcError as error:
                    failed.append((error.code(), error.details()))
                    return

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        for turn in range(30):
            before, version = len(seen), ("1.1.0", "1.0.0")[turn % 2]
            activate(two_versions, version)
            running.activation.look()
            with running.repository.model("spots") as model:
                assert model.reference.version == version
            # Calls go on between two swaps, and the new version answers one.
            wait_until(lambda before=before, version=version: version in seen[before:] or failed)
    finally:
        done.set()
        for caller in callers:
            caller.join()

    assert failed == []
    assert set(seen) == {"1.0.0", "1.1.0"}
    assert loads(running) == 31
