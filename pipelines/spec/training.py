"""How a model is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from pipelines.spec.base import SpecModel


class Teacher(SpecModel):
    """TabM: an ensemble of k MLPs that share most of their weights."""

    k: Annotated[int, Field(ge=1, le=64)] = 8
    width: Annotated[int, Field(ge=8, le=2048)] = 128
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    embeddings: Literal["piecewise", "periodic", "none"] = "piecewise"
    """How a numeric value enters: piecewise-linear on quantile bins, learned sines and cosines, or as it stands."""
    bins: Annotated[int, Field(ge=2, le=128)] = 16
    """Bins of the piecewise-linear embeddings."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    patience: Annotated[int, Field(ge=1)] = 2
    """Epochs without a better validation loss before training stops."""
    batch_rows: Annotated[int, Field(ge=8)] | Literal["auto"] = 2048
    """Rows of a mini-batch over all processes; auto on a GPU: the largest power of two that its memory holds."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 1e-4


class Student(SpecModel):
    """The small MLP that is served: it learns the teacher's soft output mixed with the labels."""

    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=6)] = (128, 64)
    epochs: Annotated[int, Field(ge=1, le=1000)] = 6
    batch_rows: Annotated[int, Field(ge=8)] = 2048
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-3
    soft_share: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Weight of the teacher's output in the loss; the rest is the label's."""
    trees: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """LightGBM's share of the output that is taught, the rest is the teacher's: two that err differently are together
    better than either, and one student holds both. Rows that are streamed hear the teacher alone."""
    temperature: Annotated[float, Field(ge=1, le=20)] = 1.0
    """The teacher's logits are divided by it before they are taught (Hinton et al., arXiv 1503.02531)."""
    unlabelled: bool = True
    """Whether rows without a label are learned from as well, by the teacher's output alone."""
    prune: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each hidden layer's units that is removed after training."""
    prune_epochs: Annotated[int, Field(ge=1, le=100)] = 2
    """Epochs of fine-tuning after pruning."""

    @model_validator(mode="after")
    def _one_temperature(self) -> Student:
        if self.trees and self.temperature != 1.0:
            raise ValueError(f"trees {self.trees} asks for temperature 1, not {self.temperature}: trees have no logits")
        return self


class FloatRange(SpecModel):
    """A range of a searched number, both ends included."""

    low: float
    high: float
    log: bool = False
    """Whether it is searched by its logarithm."""

    @model_validator(mode="after")
    def _ordered(self) -> FloatRange:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError(f"low {self.low} must not be above high {self.high}, and above 0 where log is true")
        return self


class Search(SpecModel):
    """A search for the teacher's hyperparameters, judged by the validation loss, within a budget."""

    enabled: bool = False
    """Whether every training searches first; the training DAG's form can ask for one search."""
    trials: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Trials in all, over restarts as well."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Wall-clock minutes after which no further trial is begun."""
    parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """Trials at once, each in a process of its own, with its share of the processor threads."""
    space: dict[
        Literal["k", "width", "depth", "dropout", "bins", "embeddings", "learning_rate", "weight_decay"],
        FloatRange | tuple[int | float | str, ...],
    ] = {
        "learning_rate": FloatRange(low=5e-4, high=1e-2, log=True),
        "weight_decay": FloatRange(low=1e-5, high=1e-1, log=True),
        "dropout": FloatRange(low=0.0, high=0.3),
        "width": (64, 128, 256),
        "depth": (1, 2, 3),
    }
    """By field of `teacher`: a range, or the values to choose from."""

    @model_validator(mode="after")
    def _settable(self) -> Search:
        if not self.space:
            raise ValueError("space: name at least one field of teacher")
        for name, values in self.space.items():
            ends = (values.low, values.high) if isinstance(values, FloatRange) else values
            if not ends or (not isinstance(values, FloatRange) and len(set(values)) < len(values)):
                raise ValueError(f"space.{name}: name values, each once")
            for value in ends:
                try:
                    Teacher.model_validate({name: value})
                except ValidationError as error:
                    raise ValueError(f"space.{name}: {value!r}: {error.errors()[0]['msg']}") from None
        return self


class SageMakerJob(SpecModel):
    """What a training job on SageMaker runs on. Roles, buckets, networks and keys are the installation's: settings."""

    instance_type: Annotated[str, StringConstraints(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")] = "ml.g5.xlarge"
    instance_count: Annotated[int, Field(ge=1, le=64)] = 1
    image: str | None = None
    """URI of the training image; the setting `sagemaker_image` when absent."""
    volume_gib: Annotated[int, Field(ge=1, le=16_384)] = 50
    max_minutes: Annotated[int, Field(ge=1, le=28 * 24 * 60)] = 120
    """Minutes of training after which SageMaker stops the job."""
    spot: bool = True
    """Whether interruptible capacity is used; a reclaimed job goes on from its last checkpoint."""
    max_wait_minutes: Annotated[int, Field(ge=1, le=28 * 24 * 60)] | None = None
    """Spot only: minutes for waiting and training together; twice `max_minutes` when absent."""
    tags: dict[str, str] = {}

    @property
    def wait_minutes(self) -> int:
        """Minutes after which the job is over, whatever happened."""
        return (self.max_wait_minutes or 2 * self.max_minutes) if self.spot else self.max_minutes

    @model_validator(mode="after")
    def _waits(self) -> SageMakerJob:
        if self.max_wait_minutes is not None and self.max_wait_minutes < self.max_minutes:
            raise ValueError(f"max_wait_minutes {self.max_wait_minutes} is below max_minutes {self.max_minutes}")
        return self


class Training(SpecModel):
    """How a model is trained. Partitions are split by time: train, then validation, then holdout."""

    trainer: Literal["local", "sagemaker"] = "local"
    sagemaker: SageMakerJob = SageMakerJob()
    model: Literal["tabm", "lightgbm"] = "tabm"
    """What is served: the student of a TabM teacher, or LightGBM's trees as ONNX."""
    teacher: Teacher = Teacher()
    student: Student = Student()
    compression: Literal["int8", "fp16", "none"] = "int8"
    """Of the student. Trees are served as they are."""
    sensitive_layers: Literal["auto", "int8", "fp32"] = "auto"
    """The student's first and last layer: int8 as the others, fp32, or int8 unless that loses more than
    `gates.max_loss_to_fp32` on the validation rows."""
    calibration_rows: Annotated[int, Field(ge=64)] = 4096
    """Rows on which the int8 ranges are calibrated."""
    probabilities: Literal["auto", "temperature", "isotonic", "none"] = "auto"
    """How scores are made probabilities on the validation rows; auto: whichever is better there."""
    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["f1", "prior"] = 0.5
    """Binary: the score from which a row is decided positive, kept with the model. f1: where F1 is highest on the
    validation rows; prior: where as many are decided positive there as are."""
    class_weight: Literal["none", "balanced"] = "none"
    """balanced: each class weighs the same in the loss; probabilities are calibrated to the real shares afterwards."""
    sample_weight: str | None = None
    """A column of `rows` or of the label's table, not negative, by which a row weighs in the loss."""
    validation: Annotated[int, Field(ge=1)] = 14
    """Partitions for early stopping and probability calibration."""
    holdout: Annotated[int, Field(ge=1)] = 14
    """The newest partitions, never trained on, on which champion and challenger meet."""
    history: Annotated[int, Field(ge=2)] | None = None
    """Train on the newest so many partitions only; all of them when absent."""
    min_rows: Annotated[int, Field(ge=2)] = 100
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 7
    processes: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = "auto"
    """Training processes on a machine (DistributedDataParallel); auto: one a GPU, one without a GPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the forward and backward pass; auto: bf16 on a GPU that has it, else fp32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: on a GPU."""
    memory: Literal["auto", "resident", "stream"] = "auto"
    """Where the training rows lie: on the device, or in files, streamed; auto: on the device when they fit."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0
    """Minutes between checkpoints; one is also written when the training is told to stop."""
    search: Search = Search()

    @model_validator(mode="after")
    def _same_shares(self) -> Training:
        if self.student.trees and self.class_weight != "none":
            raise ValueError("student.trees asks for class_weight none: LightGBM's output is at the real shares")
        return self
