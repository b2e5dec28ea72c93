# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from pathlib import Path

PROTOS = Path(__file__).parents[2] / "protos"


def stubs(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for pattern in ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")
        for path in folder.rglob(pattern)
    }


def test_committed_stubs_are_what_the_protos_generate(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}

    subprocess.run([PROTOS / "generate", tmp_path], env=environment, check=True)

    generated, committed = stubs(tmp_path), stubs(PROTOS)
    assert generated
    assert sorted(generated) == sorted(committed)
    different = [name for name in committed if generated[name] != committed[name]]
    assert not different, f"run `make protos`: {different}"
