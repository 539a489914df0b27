"""Makes everything under `gen/` from the contracts, with locked wheels alone.

`gen/khesht.binpb` is one descriptor image of the contracts and all they import:
Envoy transcodes by it, buf lints it, and the next version is compared with it.
`gen/python` holds the stubs. Of gen/, only openapi.json and routes.lua are made elsewhere, by `scripts/openapi`.
"""

import os
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import google.api
from google.protobuf import descriptor_pb2
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).parent.parent
PROTOS = ROOT / "protos"
GEN = ROOT / "gen"
VALIDATE = "buf/validate/validate.proto"
# The transcoder prints only those details of errors that the image holds.
DETAILS = ["google/rpc/error_details.proto", "google/rpc/status.proto"]


def main() -> None:
    """Makes `gen/` anew, whole or not at all. Exits with protoc's status when a contract is wrong."""
    ours = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    services = [name for name in ours if name.endswith("_service.proto")]
    GEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=GEN) as scratch:
        known, image, out = (Path(scratch) / name for name in ("known", "image", "python"))
        known.write_bytes(_validate_descriptor())
        out.mkdir()
        whole = ["--include_imports", "--include_source_info", f"-o{image}"]
        _protoc(known, *whole, *ours, *DETAILS)
        _protoc(known, f"--python_out={out}", f"--mypy_out=quiet:{out}", *ours, VALIDATE)
        _protoc(known, f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *services)
        for folder in [path for path in out.rglob("v1") if path.is_dir()]:
            (folder / "__init__.py").touch()
        _take_in(out)
        image.replace(GEN / "khesht.binpb")
        if (GEN / "python").exists():
            (GEN / "python").rename(Path(scratch) / "former")
        out.rename(GEN / "python")


def _take_in(out: Path) -> None:
    """Makes one package of all: the validation rules' stubs are imported from within it."""
    ours = out / "khesht"
    (out / "buf").rename(ours / "buf")
    for path in [*ours.rglob("*.py"), *ours.rglob("*.pyi")]:
        text = path.read_text()
        path.write_text(text.replace("from buf.validate import", "from khesht.buf.validate import"))
    (ours / "__init__.py").touch()
    (ours / "py.typed").touch()


def _validate_descriptor() -> bytes:
    """The validation rules' own descriptor: their wheel has it, but no source."""
    known = descriptor_pb2.FileDescriptorSet()
    for module in ("descriptor", "duration", "field_mask", "timestamp"):
        source = __import__(f"google.protobuf.{module}_pb2", fromlist=["DESCRIPTOR"])
        source.DESCRIPTOR.CopyToProto(known.file.add())
    known.file.add().ParseFromString(validate_pb._DESC.proto.to_binary())
    return known.SerializeToString()


def _protoc(known: Path, *arguments: str) -> None:
    well_known = resources.files("grpc_tools") / "_proto"
    installed = Path(next(iter(google.api.__path__))).parent.parent
    roots = [f"-I{root}" for root in (PROTOS, installed, well_known)]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--descriptor_set_in={known}"]
    # Its plugins lie beside this Python, wherever the shell looks for programs.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    env = {**os.environ, "PATH": path}
    done = subprocess.run([*protoc, *roots, *arguments], env=env, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
