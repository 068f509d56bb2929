"""An attribution index, opened to value outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from credit.errors import IntegrityError, MismatchError
from credit.records import Group, LoggedOutput
from credit.valuation.assemble import versioned
from credit.valuation.batching import plan_batches
from credit.valuation.build import DEFAULT_TOKENS_PER_BATCH, example_gradients
from credit.valuation.curvature import Curvature, DenseFisher, make_curvature
from credit.valuation.gradients import GradientTap
from credit.valuation.influence import GroupRows, Valuation, summarise
from credit.valuation.layers import choose_layers
from credit.valuation.manifest import PROJECTIONS_FILE, Manifest, check_presence, read_manifest, verify_file
from credit.valuation.model import LanguageModel
from credit.valuation.projection import projections_from_tensors
from credit.valuation.store import StoredTensors, read_rows
from credit.valuation.tokens import Encoder


class AttributionIndex:
    """The rows, projections and curvature of a model's training data.

    Opening reads the manifest and sees that every file is there. A file is compared with its checksum when it is
    first used, so that nothing unverified is ever used and nothing is read for its checksum alone: an hourly run
    reads neither the sums behind a factorised curvature nor the listing of examples.
    """

    def __init__(self, folder: Path, manifest: Manifest, damping: float | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        self.damping = manifest.settings.damping if damping is None else damping
        self._verified: set[str] = set()
        names = tuple(layer.name for layer in manifest.layers)
        self.projections = projections_from_tensors(names, load_file(self._file(PROJECTIONS_FILE)))
        counts = load_file(self.path("counts.safetensors"))["counts"]
        owner = torch.zeros(len(counts), dtype=torch.int64)
        for number, layout in enumerate(manifest.groups):
            owner[layout.start : layout.stop] = number
        self._rows = GroupRows(owner, counts, len(manifest.groups))
        self._curvature: Curvature | None = None

    @classmethod
    def open(cls, folder: Path, *, damping: float | None = None) -> AttributionIndex:
        """Open a finished index, with another damping of the curvature than it was built with if one is given.

        Raises:
            InputError: `folder` is no finished index.
            IntegrityError: a file is missing, or one that is read at once is not the one that was written.
        """
        manifest = read_manifest(folder)
        check_presence(folder, manifest)
        return cls(folder, manifest, damping)

    def path(self, name: str) -> Path:
        """Where a file of the index lies in its current version.

        Raises:
            IntegrityError: it is not the file that was written.
        """
        return self._file(versioned(name, len(self.manifest.history)))

    def _file(self, name: str) -> Path:
        """Path of a file that the manifest names, compared with its checksum the first time."""
        if name not in self._verified:
            verify_file(self.folder, self.manifest, name)
            self._verified.add(name)
        return self.folder / name

    @property
    def groups(self) -> tuple[Group, ...]:
        """Groups, in the order of the columns of every valuation."""
        return tuple(layout.group for layout in self.manifest.groups)

    def check_model(self, model: LanguageModel) -> None:
        """Refuse a model or tokenizer other than the one that the index was built with.

        Raises:
            MismatchError: naming what differs.
        """
        if model.model_sha256 != self.manifest.model_sha256:
            raise MismatchError(f"{model.path} is not the model that {self.folder} was built with")
        if model.tokenizer_sha256 != self.manifest.tokenizer_sha256:
            raise MismatchError(f"{model.path} has another tokenizer than the one {self.folder} was built with")

    def value(
        self,
        model: LanguageModel,
        outputs: Sequence[LoggedOutput],
        *,
        noise_floor: float = 1.0,
        tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
        progress: Callable[[int], None] | None = None,
    ) -> Valuation:
        """Value logged outputs: what each drew from every group, in nats. Rows follow `outputs`, columns `groups`.

        The cost grows with the outputs' tokens and the number of rows, not with the training data.

        Args:
            model: the model that the index was built with.
            outputs: logged generations of that model.
            noise_floor: threshold of support, in units of the output's pooled spread.
            tokens_per_batch: padded tokens in a batch, at most.
            progress: called with the number of examples done after every batch.

        Raises:
            MismatchError: another model or tokenizer.
            InputError: an output has no token to predict.
            IntegrityError: a file of the index is not the one that was written.
        """
        self.check_model(model)
        return summarise(
            self.row_influence(model, outputs, tokens_per_batch=tokens_per_batch, progress=progress),
            self._rows,
            noise_floor,
        )

    def row_influence(
        self,
        model: LanguageModel,
        outputs: Sequence[LoggedOutput],
        *,
        tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Influence of every row on every output, in nats: (Q, R), float32 or better."""
        ready = self.preconditioned(model, outputs, tokens_per_batch=tokens_per_batch, progress=progress)
        parts = []
        for shard in self.shards(model.device):
            total: Tensor | None = None
            for name, rows in shard:
                part = ready[name] @ rows.to(ready[name].dtype).mT
                total = part if total is None else total + part
            if total is None:
                raise IntegrityError(f"{self.folder} holds a shard without layers; build the index again")
            parts.append(total.cpu())
        return torch.cat(parts, dim=1) / self.manifest.examples

    def preconditioned(
        self,
        model: LanguageModel,
        outputs: Sequence[LoggedOutput],
        *,
        tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, Tensor]:
        """(M + λI)⁻¹ times each output's gradient: for each layer (Q, S·R)."""
        queries = self.output_gradients(model, outputs, tokens_per_batch=tokens_per_batch, progress=progress)
        curvature = self._open_curvature(model.device)
        return {name: curvature.precondition(name, rows) for name, rows in queries.items()}

    def tap(self, model: LanguageModel) -> GradientTap:
        """Return the context in which the model yields gradients of this index's layers and projections."""
        layers = choose_layers(model.module, lm_head=True)
        watched = {layer.name: layers.watched[layer.name] for layer in self.manifest.layers}
        return GradientTap(model.module, watched, self.projections)

    def output_gradients(
        self,
        model: LanguageModel,
        outputs: Sequence[LoggedOutput],
        *,
        tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, Tensor]:
        """Projected gradient of each output's loss: for each layer (Q, S·R)."""
        encoder = Encoder(model.tokenizer, self.manifest.max_length)
        examples, owners = [], []
        for number, output in enumerate(outputs):
            for example in encoder.output(output):
                examples.append(example)
                owners.append(number)
        sums: dict[str, Tensor] = {}
        done = 0
        with self.tap(model) as tap:
            for positions in plan_batches([len(e.tokens) for e in examples], tokens_per_batch):
                gradients = example_gradients(model, tap, [examples[p] for p in positions])
                target = torch.tensor([owners[p] for p in positions], device=model.device)
                for name, rows in gradients.items():
                    if name not in sums:
                        sums[name] = rows.new_zeros(len(outputs), rows.shape[1])
                    sums[name].index_add_(0, target, rows)
                done += len(positions)
                if progress:
                    progress(done)
        return sums

    def shards(self, device: torch.device) -> Iterator[Iterator[tuple[str, Tensor]]]:
        """Yield the row shards in order; each yields the layers' rows (rows, S·R), one layer at a time.

        Raises:
            IntegrityError: a shard is not the one that was written.
        """
        names = [layer.name for layer in self.manifest.layers]
        for shard in self.manifest.shards:
            yield read_rows(self._file(shard), names, device)

    def _open_curvature(self, device: torch.device) -> Curvature:
        if self._curvature is None:
            settings = self.manifest.settings
            if settings.curvature == "fisher" and self.damping == settings.damping:
                factors = load_file(self.path("factors.safetensors"), device=str(device))
                self._curvature = DenseFisher(factors)
            else:
                sums = StoredTensors(self._file(self.manifest.statistic), device)
                self._curvature = make_curvature(settings.curvature, sums, self.manifest.examples, self.damping)
        return self._curvature
