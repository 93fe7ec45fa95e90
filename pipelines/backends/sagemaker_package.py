"""What a training job gets besides its data: the training code as a zip, and what its image must hold.

The same source gives the same bytes, on any machine, on any day: its digest names it in S3, and it is uploaded once.
Only modules that the training reaches are in it: no adapter, no setting, no DAG.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pipelines

ARCHIVE, START, PACKAGES = "overnight.zip", "start.py", "packages.json"
_ROOT = Path(pipelines.__file__).parent
#: Distribution by the module that the training imports.
_IMPORTS = {
    "numpy": "numpy",
    "torch": "torch",
    "pydantic": "pydantic",
    "yaml": "pyyaml",
    "pyarrow": "pyarrow",
    "sklearn": "scikit-learn",
    "safetensors": "safetensors",
    "tabm": "tabm",
    "rtdl_num_embeddings": "rtdl-num-embeddings",
    "lightgbm": "lightgbm",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
}
#: The time of every entry: the earliest that a zip can say.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def code_files() -> dict[str, bytes]:
    """The files of the channel `code`, by name."""
    return {
        ARCHIVE: _archive({f"pipelines/{name}": (_ROOT / name).read_bytes() for name in training_modules()}),
        START: (_ROOT / "training" / "start.py").read_bytes(),
        PACKAGES: (json.dumps(_packages(), indent=1) + "\n").encode(),
    }


def digest_of(files: dict[str, bytes]) -> str:
    """SHA-256 over names and contents."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def training_modules(root: Path = _ROOT) -> list[str]:
    """Files of the package `pipelines` that `pipelines.training` reaches by any import, relative to it and sorted."""
    pending = {path.relative_to(root).as_posix() for path in (root / "training").rglob("*.py")}
    found: set[str] = set()
    while pending:
        name = pending.pop()
        found.add(name)
        parents = [parent / "__init__.py" for parent in Path(name).parents]
        reached = {*_imports(root / name), *(parent.as_posix() for parent in parents)}
        pending |= {other for other in reached if (root / other).is_file()} - found
    return sorted(found)


def _imports(path: Path) -> set[str]:
    """The files that the imports of a module may mean."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = {
        module.removeprefix("pipelines.").replace(".", "/") for module in modules if module.startswith("pipelines.")
    }
    return {f"{module}{end}" for module in ours for end in (".py", "/__init__.py")}


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _NO_TIME)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            # Stored: how well zlib compresses differs between machines.
            archive.writestr(entry, content, zipfile.ZIP_STORED)
    return buffer.getvalue()


def _packages() -> dict[str, str]:
    """Requirement by module, at the versions of this machine; what is not installed here is not asked for there."""
    found = {}
    for module, distribution in _IMPORTS.items():
        try:
            # A local version, such as 2.13.0+cpu, is on no index.
            found[module] = f"{distribution}=={version(distribution).partition('+')[0]}"
        except PackageNotFoundError:
            continue
    return found
