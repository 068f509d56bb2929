"""Valuation engine: LoGra influence of tagged training data on a model's outputs.

It works without commands, ledger or money:

    from pathlib import Path
    from credit.valuation import AttributionIndex, IndexSettings, build_index, load_model

    model = load_model(Path("my-model"))
    build_index(model, records, Path("my-index"), IndexSettings(rank=64), name="my-model")
    index = AttributionIndex.open(Path("my-index"))
    valuation = index.value(model, outputs)
    valuation.effect()      # (outputs, groups), nats; columns are index.groups

`records` are `credit.records.TrainingRecord`, `outputs` are `credit.records.LoggedOutput`. Any other model is a
`ModuleTask` of its module and loss, with `TensorSample`s for records and outputs.

Reading order:

1. `influence`: the whole method as functions on tensors. `projection`, `curvature`, `gradients`: its parts in detail.
2. `task`, `language_model`, `module_task`: the model and its loss. `model_folder`, `eligibility`: refusals of models.
   `placement`: models larger than a device. `tokens`, `logged_tokens`, `chats`, `losses`: windows, tokens in logs, chat
   templates and losses of text.
3. `layers`, `experts`, `hooks`, `batches`, `moments`: which layers are watched, and the passes that take their
   gradients.
4. `examples`, `example_store`, `rows`, `shards`, `manifest`: the data, in files, and an index on disk.
5. `build`, `change`, `writer`, `passes`: one writer builds and changes an index, in passes over the data. `units`,
   `unit_files`: their work, cut into pure functions, and the results on disk. `completion`: the last files.
   `requirements`, `probe`: time, memory and disk, before it starts. `revise`: updates and withdrawals.
6. `index`, `valuing_cost`, `explain`: an index is opened to value outputs, at a known cost, and to name the examples
   behind one.
7. `trainer_callback`: an index at the end of a `transformers` training.
"""

from credit.valuation.build import BuildPlan, BuildResult, Checkpoint, add_checkpoint, build_index, plan_index
from credit.valuation.index import AttributionIndex
from credit.valuation.influence import GroupRows, Valuation, summarise
from credit.valuation.language_model import LanguageModel, load_model
from credit.valuation.manifest import IndexManifest, IndexSettings, read_manifest
from credit.valuation.module_task import ModuleTask, TensorSample
from credit.valuation.task import Task

__all__ = [
    "AttributionIndex",
    "BuildPlan",
    "BuildResult",
    "Checkpoint",
    "GroupRows",
    "IndexManifest",
    "IndexSettings",
    "LanguageModel",
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
