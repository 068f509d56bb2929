"""Manifest of an attribution index: inputs, settings, contents, and the checksum of every file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from credit.errors import InputError, IntegrityError, MismatchError
from credit.records import MANIFEST, PPM, Group, Share
from credit.storage import canonical_json, parse_object, sha256_file
from credit.valuation.layers import LayerShape, SkippedLayer
from credit.valuation.rows import GroupLayout
from credit.valuation.task import ExampleEncoder, Task
from credit.valuation.tokens import TEMPLATE_DATE

FORMAT_VERSION = 7
PROJECTIONS_FILE = "projections.safetensors"
_INDEX_FILE = re.compile(
    r"(projections|counts|factors|curvature|(rows|curvature)-\d+)(\.v\d+)?\.safetensors"
    r"|examples(\.v\d+)?\.jsonl|manifest\.v\d+\.json"
)


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Everything but model and data that decides an index's numbers.

    Attributes:
        rank: rank of the projection of each side of a layer. A side no wider keeps its full width. A head's output side
            has its own, `projection.VOCABULARY_BUCKETS`.
        ranks: rules for other ranks, `[PATTERN:]RANK` with RANK as `64` or `in=64,out=32`; see
            `projection.resolve_ranks`.
        projection: `random` or `pca`.
        curvature: `none`, `fisher` or `ekfac`.
        damping: λ of the curvature, relative to the mean eigenvalue of each layer.
        rows_per_group: most rows of a group, F; None keeps every example in a row of its own.
        rows_dtype: format of stored rows: `fp32`, `bf16` or `int8`.
        weighting: divisor of an example's gradient: `none`, `unit` (its norm) or `relatif` (the root of its
            self-influence).
        layers: patterns for names of linear layers to watch, as in a shell; `!pattern` leaves layers out. Empty means
            the output head alone, or all layers of a model without one.
        max_length: most tokens of a window, which is read in one pass; None for the model's own maximum, at most 2048.
        example_length: most predicted tokens of an example; longer windows are cut into several. None cuts none.
        sample: number of examples behind second moments, if projections are fitted to them.
        seed: seed of the random projections.
        template_date: date that chat templates take for today in training data, `YYYY-MM-DD`.
    """

    rank: int = 32
    ranks: tuple[str, ...] = ()
    projection: str = "pca"
    curvature: str = "ekfac"
    damping: float = 3.0
    rows_per_group: int | None = 32
    rows_dtype: str = "fp32"
    weighting: str = "none"
    layers: tuple[str, ...] = ()
    max_length: int | None = None
    example_length: int | None = 256
    sample: int = 2048
    seed: int = 0
    template_date: str = TEMPLATE_DATE

    @property
    def fits_projections(self) -> bool:
        """True if projections are fitted to second moments, which takes a pass over a sample of the data."""
        return self.projection != "random" or self.curvature == "ekfac"

    @property
    def weighs_by_curvature(self) -> bool:
        """True if an example's size depends on the curvature of all data, which takes a pass of its own."""
        return self.weighting == "relatif" and self.curvature != "none"


@dataclass(frozen=True, slots=True)
class IndexInputs:
    """Inputs and settings of an index: everything that decides its numbers and is known before the build.

    Attributes:
        model_sha256: SHA-256 of the weights.
        tokenizer_sha256: SHA-256 of the tokenizer.
        data_sha256: SHA-256 of the training data.
        fitted_sha256: SHA-256 of the data behind the fitted projections, those of the first build.
        dtype: dtype of the weights.
        settings: all settings.
        max_length: most tokens of a window.
    """

    model_sha256: str
    tokenizer_sha256: str
    data_sha256: str
    fitted_sha256: str
    dtype: str
    settings: IndexSettings
    max_length: int

    @property
    def sha256(self) -> str:
        """Identity of the inputs: equal for every build of the same index, finished or not."""
        settings = self.settings
        # Random projections are fitted to nothing: an updated index then has the inputs of one built anew.
        fitted = self.fitted_sha256 if settings.fits_projections else ""
        hashes = [self.model_sha256, self.tokenizer_sha256, self.data_sha256, fitted]
        parts = [FORMAT_VERSION, *hashes, self.dtype, _settings_content(settings), self.max_length]
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()

    def differences(self, asked: IndexInputs) -> str:
        """Return in words how an index of these inputs differs from an index of the inputs asked for."""
        found = []
        if self.model_sha256 != asked.model_sha256:
            found.append("another model")
        if self.tokenizer_sha256 != asked.tokenizer_sha256:
            found.append("another tokenizer")
        if self.data_sha256 != asked.data_sha256:
            found.append("other data")
        elif self.fitted_sha256 != asked.fitted_sha256:
            found.append("projections that were fitted to other data")
        if self.dtype != asked.dtype:
            found.append(f"a model in {self.dtype}, not {asked.dtype}")
        ours, theirs = (asdict(inputs.settings) | {"max_length": inputs.max_length} for inputs in (self, asked))
        other = [f"{name} {ours[name]}, not {theirs[name]}" for name in ours if ours[name] != theirs[name]]
        if other:
            found.append(f"other settings ({'; '.join(other)})")
        return " and ".join(found) or "other checkpoints or excluded examples"


@dataclass(frozen=True, slots=True)
class Revision:
    """Change of a finished index: `update` or `withdraw`, its providers, and the number of examples."""

    action: str
    providers: tuple[str, ...]
    examples: int
    data_sha256: str


@dataclass(frozen=True, slots=True)
class ExcludedExample:
    """Excluded example: in the data but in no row, because its gradient is not finite."""

    id: str
    shares: tuple[Share, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class MemberIndex:
    """Index of a further checkpoint of the model, or of another seed, in its own folder inside the index.

    Attributes:
        folder: its folder.
        manifest: name of its manifest in that folder.
        fingerprint: its fingerprint.
        weight: weight of its influence; the index's own model weighs 1.
    """

    folder: str
    manifest: str
    fingerprint: str
    weight: float


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """Content of manifest.json.

    `files` maps every file to its SHA-256. Among them, `shards` hold the rows and `statistic` the curvature's sums.
    `fitted_sha256` is the data behind the fitted projections, those of the first build. `sizes` is the sum of the
    examples' sizes (`curvature.Weighting`), 0 without a weighting.
    """

    name: str
    model_path: str
    model_sha256: str
    tokenizer_sha256: str
    data_sha256: str
    fitted_sha256: str
    dtype: str
    settings: IndexSettings
    max_length: int
    layers: tuple[LayerShape, ...]
    skipped: tuple[SkippedLayer, ...]
    groups: tuple[GroupLayout, ...]
    shards: tuple[str, ...]
    statistic: str
    sizes: float
    excluded: tuple[ExcludedExample, ...]
    checkpoints: tuple[MemberIndex, ...]
    history: tuple[Revision, ...]
    files: Mapping[str, str]

    @property
    def examples(self) -> int:
        """Number of training examples N. A shared example counts once."""
        return sum(layout.examples_ppm for layout in self.groups) // PPM

    @property
    def tokens(self) -> int:
        """Number of predicted tokens of all training examples."""
        return sum(layout.tokens_ppm for layout in self.groups) // PPM

    @property
    def scale(self) -> float:
        """Factor from products with rows to nats: 1/N, times the mean size of weighted examples."""
        # 1/N, because the curvature of the summed loss is N times the mean M.
        weighted = self.settings.weighting != "none"
        return (self.sizes / self.examples if weighted else 1.0) / self.examples

    @property
    def inputs(self) -> IndexInputs:
        """Inputs and settings of the index."""
        return IndexInputs(
            self.model_sha256,
            self.tokenizer_sha256,
            self.data_sha256,
            self.fitted_sha256,
            self.dtype,
            self.settings,
            self.max_length,
        )

    @property
    def fingerprint(self) -> str:
        """Identity of the index: SHA-256 over everything that decides a credit.

        It covers inputs, settings, the layout of all groups and the digest of every file. Money follows these: no name,
        row or factor can change under the same fingerprint. Only the model's folder is left out, because models move.
        """
        content = self._content()
        del content["model_path"]
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the manifest as JSON with sorted keys."""
        body = self._content() | {"fingerprint": self.fingerprint}
        return json.dumps(body, indent=1, sort_keys=True) + "\n"

    def _content(self) -> dict[str, Any]:
        return asdict(self) | {
            "format_version": FORMAT_VERSION,
            "settings": _settings_content(self.settings),
            "layers": [_layer_content(layer) for layer in self.layers],
        }

    def encoder(self, model: Task) -> ExampleEncoder:
        """Return the encoder that the index's training data was read with."""
        return model.encoder(self.max_length, self.settings.template_date)


def _settings_content(settings: IndexSettings) -> dict[str, Any]:
    """Return settings by name. A later one is left out at its default, so indexes from before keep their names."""
    content = asdict(settings)
    if settings.template_date == TEMPLATE_DATE:
        del content["template_date"]
    return content


def _layer_content(layer: LayerShape) -> dict[str, Any]:
    """Return a layer by field, as `_settings_content` does: `is_expert` came later."""
    content = asdict(layer)
    if not layer.is_expert:
        del content["is_expert"]
    return content


def versioned(name: str, version: int) -> str:
    """Return the name of a file after `version` changes of the index: no change overwrites a file that still counts."""
    stem, _, suffix = name.partition(".")
    return name if version == 0 else f"{stem}.v{version}.{suffix}"


def is_index_file(name: str) -> bool:
    """Return True if a build or a change of an index writes a file of this name, with or without a version."""
    return _INDEX_FILE.fullmatch(name) is not None


def read_manifest(folder: Path, name: str = MANIFEST) -> IndexManifest:
    """Read and check the manifest of an index, in the file `name`.

    Raises:
        InputError: `folder` is no finished index.
        MismatchError: the index has another version of the format.
        IntegrityError: the manifest is damaged.
    """
    path = folder / name
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; build an index with: credit index MODEL DATA --out {folder}")
    if not path.is_file():
        raise InputError(f"{folder} is not a finished index (it has no {name}); run credit index again")
    try:
        body = parse_object(path.read_bytes())
        version, fingerprint = body.pop("format_version"), body.pop("fingerprint")
        if version != FORMAT_VERSION:
            raise MismatchError(
                f"{folder} has index format {version}, this version of credit reads {FORMAT_VERSION}; build it again"
            )
        manifest = parse_manifest(body)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} is damaged ({error}); build the index again") from error
    if manifest.fingerprint != fingerprint:
        raise IntegrityError(f"{path} was altered: its fingerprint does not match its content; build the index again")
    return manifest


def check_presence(folder: Path, manifest: IndexManifest) -> None:
    """Refuse an index with a missing file, without reading any.

    Raises:
        IntegrityError: a file is missing; the message names the first.
    """
    for name in manifest.files:
        if not (folder / name).is_file():
            raise IntegrityError(f"{folder / name} is missing; build the index again")


def verify_file(folder: Path, manifest: IndexManifest, name: str) -> None:
    """Compare a file of an index with the checksum in its manifest.

    Raises:
        IntegrityError: the file is missing or differs.
    """
    path = folder / name
    if not path.is_file():
        raise IntegrityError(f"{path} is missing; build the index again")
    if sha256_file(path) != manifest.files[name]:
        raise IntegrityError(f"{path} is not the file that was written; build the index again")


def verify_files(folder: Path, manifest: IndexManifest) -> None:
    """Compare every file of an index and of its checkpoints with its checksum in the manifest.

    Raises:
        IntegrityError: a file is missing or differs; the message names the first.
    """
    for name in manifest.files:
        verify_file(folder, manifest, name)
    for member in manifest.checkpoints:
        inside = folder / member.folder
        verify_files(inside, read_manifest(inside, member.manifest))


def _parse_settings(body: dict[str, Any]) -> IndexSettings:
    return IndexSettings(**(body | {name: tuple(body[name]) for name in ("layers", "ranks")}))


def _parse_share(body: dict[str, Any]) -> Share:
    return Share(Group(**body["group"]), body["ppm"])


def parse_manifest(body: dict[str, Any]) -> IndexManifest:
    """Return the manifest with the fields of a `manifest.json`, without its format version and fingerprint."""
    return IndexManifest(
        **(
            body
            | {
                "settings": _parse_settings(body["settings"]),
                "layers": tuple(LayerShape(**layer) for layer in body["layers"]),
                "skipped": tuple(SkippedLayer(**layer) for layer in body["skipped"]),
                "groups": tuple(
                    GroupLayout(**(layout | {"group": Group(**layout["group"])})) for layout in body["groups"]
                ),
                "excluded": tuple(
                    ExcludedExample(**(example | {"shares": tuple(map(_parse_share, example["shares"]))}))
                    for example in body["excluded"]
                ),
                "checkpoints": tuple(MemberIndex(**member) for member in body["checkpoints"]),
                "shards": tuple(body["shards"]),
                "history": tuple(
                    Revision(**(step | {"providers": tuple(step["providers"])})) for step in body["history"]
                ),
            }
        )
    )
