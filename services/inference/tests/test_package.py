# SPDX-License-Identifier: Apache-2.0
"""Packages that do not hold are refused, naming the file; the others go on being served."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from running_server import Running
from tiny_models import described, make_key, make_package, spots_graph

from linewatch_inference.errors import ModelNotFound, PackageRefused
from linewatch_inference.model import open_model
from linewatch_inference.onnx_safety import refuse_external_data
from linewatch_inference.package import METADATA, SIGNATURE, find, locate, read_package, read_trusted_keys
from linewatch_inference.session import ProviderPolicy, SessionOptions
from linewatch_models import signing

SPOTS = Path("models/spots/1.0.0")
FILES = [
    METADATA,
    SIGNATURE,
    "model.onnx",
    "card.md",
    "ATTRIBUTION.md",
    "golden/expected.json",
    "golden/spot.png",
]


def resigned(root: Path, change: Callable[[dict[str, object]], None]) -> Path:
    """Changes metadata.json and signs it again with the trusted key."""
    package = root / SPOTS
    told = json.loads((package / METADATA).read_text())
    change(told)
    text = json.dumps(told).encode()
    (package / METADATA).write_bytes(text)
    (package / SIGNATURE).write_bytes(signing.sign(text, signing.read_key(root / "key.pem")))
    return package


def read(root: Path) -> object:
    return read_package(root / SPOTS, read_trusted_keys(root / "trusted-key"))


def with_digest(told: dict[str, object], name: str, data: bytes) -> None:
    told["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("at", [0, -1], ids=["first byte", "last byte"])
def test_one_changed_byte_is_refused_by_name(own_copy: Path, name: str, at: int) -> None:
    path = own_copy / SPOTS / name
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)

    with pytest.raises(PackageRefused) as caught:
        read(own_copy)

    # A changed metadata.json is seen by its signature.
    assert (SIGNATURE if name == METADATA else name) in str(caught.value)


def test_every_file_of_a_package_is_in_the_list_above(released: Path) -> None:
    package = released / SPOTS

    assert sorted(str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()) == sorted(
        FILES
    )


@pytest.mark.parametrize("name", FILES)
def test_missing_or_longer_file_is_refused_by_name(own_copy: Path, name: str) -> None:
    path = own_copy / SPOTS / name
    path.write_bytes(path.read_bytes() + b" " * 2048)
    with pytest.raises(PackageRefused, match=SIGNATURE if name == METADATA else name):
        read(own_copy)

    path.unlink()
    with pytest.raises(PackageRefused, match=name):
        read(own_copy)


def test_symbolic_link_is_refused(own_copy: Path) -> None:
    card = own_copy / SPOTS / "card.md"
    card.rename(own_copy / "card.md")
    card.symlink_to(own_copy / "card.md")

    with pytest.raises(PackageRefused, match=r"card\.md"):
        read(own_copy)


def test_signature_of_another_key_is_refused(own_copy: Path, tmp_path: Path) -> None:
    _, others = make_key(tmp_path, "other")

    with pytest.raises(PackageRefused, match="none of the trusted keys"):
        read_package(own_copy / SPOTS, read_trusted_keys(others))


@pytest.mark.parametrize(
    "name", ["../../key.pem", "/etc/passwd", "golden/../card.md", "golden/deep/er.png", ".hidden", ""]
)
def test_path_out_of_the_package_is_refused(own_copy: Path, name: str) -> None:
    resigned(own_copy, lambda told: with_digest(told, name, b"x"))

    with pytest.raises(PackageRefused, match="no plain file name"):
        read(own_copy)


def test_unknown_key_is_named_with_its_remedy(own_copy: Path) -> None:
    resigned(own_copy, lambda told: told["thresholds"].update(reveiw=0.2))

    with pytest.raises(
        PackageRefused, match=r"thresholds\.reveiw: there is no such key; did you mean 'review'\?"
    ):
        read(own_copy)


def test_package_in_another_models_place_is_refused(own_copy: Path) -> None:
    moved = own_copy / "models/other/1.0.0"
    shutil.copytree(own_copy / SPOTS, moved)

    with pytest.raises(PackageRefused, match=r"is spots 1\.0\.0 but lies in"):
        read_package(moved)


def test_files_that_sum_up_to_too_much_are_refused_unread(own_copy: Path) -> None:
    resigned(own_copy, lambda told: told["files"]["model.onnx"].update(size=2**40))

    with pytest.raises(PackageRefused, match="sum up to more"):
        read(own_copy)


def test_graph_that_answers_otherwise_than_when_packaged_is_refused(own_copy: Path) -> None:
    other = spots_graph(gain=0.9)
    (own_copy / SPOTS / "model.onnx").write_bytes(other)
    resigned(own_copy, lambda told: with_digest(told, "model.onnx", other))

    with pytest.raises(PackageRefused, match=r"golden/spot\.png: golden output class_scores is off by"):
        open_model(read(own_copy), "fp32", SessionOptions())


def external(name: str) -> bytes:
    """A graph whose weight lies in another file: at the top, or hidden in the branch of an If."""
    weight = numpy_helper.from_array(np.ones(4, np.float32), "weight")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../key.pem")
    told = helper.make_tensor_value_info("told", TensorProto.FLOAT, [4])
    if name == "top":
        graph = helper.make_graph(
            [helper.make_node("Identity", ["weight"], ["told"])], "g", [], [told], [weight]
        )
    elif name == "branch":
        branch = helper.make_graph(
            [helper.make_node("Identity", ["weight"], ["told"])], "b", [], [told], [weight]
        )
        condition = helper.make_tensor_value_info("yes", TensorProto.BOOL, [])
        node = helper.make_node("If", ["yes"], ["told"], then_branch=branch, else_branch=branch)
        graph = helper.make_graph([node], "g", [condition], [told])
    else:
        graph = helper.make_graph([helper.make_node("Constant", [], ["told"], value=weight)], "g", [], [told])
    return helper.make_model(graph).SerializeToString()


@pytest.mark.parametrize("name", ["top", "branch", "constant"])
def test_graph_with_data_in_another_file_is_refused(name: str) -> None:
    with pytest.raises(PackageRefused, match="keeps tensors in another file"):
        refuse_external_data(external(name), "model.onnx")


@pytest.mark.parametrize("data", [b"no model", b"\xff" * 64, spots_graph()[:-7]])
def test_damaged_graph_is_refused(data: bytes) -> None:
    with pytest.raises(PackageRefused, match="is no ONNX model"):
        refuse_external_data(data, "model.onnx")


def test_graph_other_than_described_is_refused(own_copy: Path) -> None:
    model = onnx.load_from_string(spots_graph())
    model.graph.input[0].name = "picture"
    model.graph.node[0].input[0] = "picture"
    (own_copy / SPOTS / "model.onnx").write_bytes(model.SerializeToString())
    resigned(own_copy, lambda told: with_digest(told, "model.onnx", model.SerializeToString()))

    with pytest.raises(PackageRefused, match=r"input\.name: the graph's inputs are picture, not image"):
        open_model(read(own_copy), "fp32", SessionOptions())


def test_provider_that_is_not_there_is_refused_or_degraded(released: Path) -> None:
    package = read(released)
    asked = ("CUDAExecutionProvider", "CPUExecutionProvider")

    with pytest.raises(PackageRefused, match="CUDAExecutionProvider is not in this ONNX Runtime"):
        open_model(package, "fp32", SessionOptions(asked, ProviderPolicy.STRICT))
    model = open_model(package, "fp32", SessionOptions(asked, ProviderPolicy.DEGRADE))

    assert model.reference.execution_provider == "CPUExecutionProvider"


def test_packages_are_found_in_both_layouts_and_sorted_by_number(own_copy: Path) -> None:
    for version in ("1.9.0", "1.10.0"):
        (own_copy / "models/spots/releases" / version).mkdir(parents=True)
    (own_copy / "models/spots/notes").mkdir()

    assert list(find(own_copy / "models")["spots"]) == ["1.0.0", "1.9.0", "1.10.0"]
    assert locate(own_copy / "models", "spots").name == "1.10.0"
    with pytest.raises(ModelNotFound, match=r"there are 1\.0\.0, 1\.9\.0, 1\.10\.0"):
        locate(own_copy / "models", "spots", "2.0.0")


def test_bad_package_does_not_stop_the_others(serve: Callable[..., Running], own_copy: Path) -> None:
    (own_copy / SPOTS / "model.onnx").write_bytes(b"spoilt")

    running = serve(own_copy)

    states = {entry.name: entry.state for entry in running.repository.index()}
    assert states["wear"] == states["colours"] == "READY"
    assert [event[:2] for event in running.events.heard if event[0] == "ModelLoadError"] == [
        ("ModelLoadError", "spots")
    ]
    assert running.repository.is_serving
    assert not running.repository.is_complete


def test_refused_update_leaves_the_old_model_in_service(
    serve: Callable[..., Running], own_copy: Path
) -> None:
    running = serve(own_copy)
    made = make_package(own_copy, described("segmentation", "2.0.0"), spots_graph(), own_copy / "key.pem")
    (made / "card.md").write_text("changed")

    with pytest.raises(PackageRefused, match=r"card\.md"):
        running.repository.load("spots")

    with running.repository.model("spots") as model:
        assert model.reference.version == "1.0.0"
    reasons = {
        (entry.name, entry.version): entry.reason for entry in running.repository.index() if entry.reason
    }
    assert "card.md" in " ".join(reasons.values())
    assert refused_metric(running, "spots") == 1

    with pytest.raises(ModelNotFound):
        running.repository.load("made-up")
    assert refused_metric(running, "made-up") is None

    running.repository.load("spots", "1.0.0")
    assert refused_metric(running, "spots") == 0


def refused_metric(running: Running, model: str) -> float | None:
    return running.registry.get_sample_value("linewatch_inference_model_refused", {"model": model})


def test_int8_runs_where_the_package_has_it(serve: Callable[..., Running], own_copy: Path) -> None:
    description = described("segmentation", "1.1.0")
    make_package(own_copy, description, spots_graph(), own_copy / "key.pem", int8=spots_graph(gain=1.001))

    running = serve(own_copy, variant="int8")

    variants = {one.name: one.model.reference.variant for one in running.repository.index() if one.model}
    assert variants == {"spots": "int8", "wear": "fp32", "colours": "fp32"}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (METADATA, b"[" * 100_000),
        (METADATA, b"\xff\xfe"),
        (METADATA, b"[]"),
        (
            "golden/expected.json",
            b'{"samples": [{"file": "golden/spot.png", "variants": {"fp32": {"outputs": {"score": 3}}}}]}',
        ),
        ("golden/expected.json", b'{"samples": []}'),
        ("golden/expected.json", b"null"),
        ("golden/spot.png", b"no picture"),
    ],
)
def test_package_of_nonsense_is_refused_and_the_others_are_served(
    serve: Callable[..., Running], own_copy: Path, name: str, data: bytes
) -> None:
    (own_copy / SPOTS / name).write_bytes(data)
    if name != METADATA:
        resigned(own_copy, lambda told: with_digest(told, name, data))

    running = serve(own_copy, trusted_keys_dir=None)

    assert {entry.name: entry.state for entry in running.repository.index() if entry.name != "spots"} == {
        "wear": "READY", "colours": "READY",
    }  # fmt: skip
    with pytest.raises(PackageRefused):
        running.repository.load("spots")
