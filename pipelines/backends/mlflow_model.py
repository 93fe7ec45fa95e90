"""The MLflow form of a sealed artifact: an ONNX flavor with a signature that anybody's `pyfunc` can load."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

_LIBRARIES = ("onnx", "onnxruntime", "numpy", "pandas")


def save(folder: Path, target: Path, *, run_id: str, model_id: str, location: str) -> None:
    """Writes an MLflow model folder for `model.onnx` of a verified artifact.

    The data frame has one column a feature; None and NaN are nulls. Binary and regression give the column `score`;
    multiclass one column a class, since pyfunc would flatten [n, classes].

    Args:
        target: made here.
        location: where the folder will lie, for the MLmodel file.
    """
    import mlflow.onnx
    import onnx
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    about = json.loads((folder / "model.json").read_text("utf-8"))
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    if len(model.graph.input) == 1:
        # pyfunc feeds a data frame of one column as [n, 1]; the graph takes that too.
        model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = 1
    outputs = _split_classes(model, about["classes"]) if about["classes"] else [about["output"]["name"]]
    inputs = [ColSpec("double", name, required=False) for name in about["numeric"]]
    inputs += [ColSpec("string", name, required=False) for name in about["categorical"]]
    signature = ModelSignature(inputs=Schema(inputs), outputs=Schema([ColSpec("float", name) for name in outputs]))
    mlflow.onnx.save_model(
        model,
        str(target),
        mlflow_model=Model(artifact_path=location, model_uuid=model_id, run_id=run_id, model_id=model_id),
        signature=signature,
        input_example=_example(about),
        # Given, not guessed: MLflow would start a subprocess to find out.
        pip_requirements=[f"{name}=={version(name)}" for name in _LIBRARIES],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )


def _example(about: dict[str, Any]) -> Any:
    """The artifact's typical row, as a data frame."""
    import pandas

    return pandas.DataFrame({name: [about["example"][name]] for name in [*about["numeric"], *about["categorical"]]})


def _split_classes(model: Any, classes: list[str]) -> list[str]:
    """Replaces the output [n, classes] by one [n] a class, named by it, in place."""
    from onnx import TensorProto, helper

    score = model.graph.output[0].name
    del model.graph.output[:]
    for i, name in enumerate(classes):
        output = f"score:{name}"
        index = helper.make_tensor(f"overnight:class{i}", TensorProto.INT64, [], [i])
        model.graph.initializer.append(index)
        model.graph.node.append(helper.make_node("Gather", [score, index.name], [output], axis=1))
        model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n"]))
    return [f"score:{name}" for name in classes]
