"""The valuation engine: LoGra influence of tagged training data on a model's outputs.

Usable on its own, without commands, ledger or money:

    from pathlib import Path
    from credit.valuation import AttributionIndex, IndexSettings, build_index, load_model

    model = load_model(Path("my-model"))
    build_index(model, records, Path("my-index"), IndexSettings(rank=64), name="my-model")
    index = AttributionIndex.open(Path("my-index"))
    valuation = index.value(model, outputs)
    valuation.effect()      # (outputs, groups), nats; columns are index.groups

`records` are `credit.records.TrainingRecord`, `outputs` are `credit.records.LoggedOutput`. A model that is no language
model is a `ModuleTask` of its module and loss, and its records and outputs are `TensorSample`s of tensors.
"""

from credit.valuation.build import BuildPlan, BuildResult, Checkpoint, add_checkpoint, build_index, plan_index
from credit.valuation.index import AttributionIndex
from credit.valuation.influence import GroupRows, Valuation, summarise
from credit.valuation.language_model import LanguageModel, load_model
from credit.valuation.manifest import IndexSettings, Manifest, read_manifest
from credit.valuation.module_task import ModuleTask, TensorSample
from credit.valuation.task import Task

__all__ = [
    "AttributionIndex",
    "BuildPlan",
    "BuildResult",
    "Checkpoint",
    "GroupRows",
    "IndexSettings",
    "LanguageModel",
    "Manifest",
    "ModuleTask",
    "Task",
    "TensorSample",
    "Valuation",
    "add_checkpoint",
    "build_index",
    "load_model",
    "plan_index",
    "read_manifest",
    "summarise",
]
