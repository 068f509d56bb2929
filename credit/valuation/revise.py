"""Changes of a finished index: an update adds data, a withdrawal takes a provider out exactly.

Rows and curvature are sums over examples, so a change is an addition or a subtraction. An update costs the
gradients of the new examples, a withdrawal those of the withdrawn ones. New files lie beside the old ones until the
manifest is replaced; an interrupted change leaves the index as it was.

A withdrawal takes out whole records, also those that the provider shares with others. The provider takes back the
permission for all of a text, and no model can be trained on seven tenths of it. If the others may go on with the text,
they add it again under another id, with shares that sum to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from credit.engines import Engine
from credit.errors import InputError, MismatchError, ValuationError
from credit.records import MANIFEST, Group, Share
from credit.storage import is_left_over, only_one
from credit.valuation.batches import Progress
from credit.valuation.build import LOCK_FILE, BuildPlan
from credit.valuation.change import Change
from credit.valuation.examples import (
    EXAMPLES_FILE,
    IndexedExample,
    Member,
    Unusable,
    changed_hash,
    encode_training,
    hash_of,
    match_members,
    read_listing,
)
from credit.valuation.index import AttributionIndex
from credit.valuation.manifest import (
    IndexManifest,
    Revision,
    is_index_file,
    read_manifest,
    verify_files,
    versioned,
)
from credit.valuation.passes import RunOptions
from credit.valuation.projection import gradient_widths
from credit.valuation.requirements import Needs, check_needs, room_on_disk
from credit.valuation.task import Tagged, Task, device_of
from credit.valuation.unit_files import delete_work
from credit.valuation.writer import IndexWriter

Loader = Callable[[Task], Callable[[], Task]]
"""Makes, of a model, what loads the same model in another process."""


def update_index(
    folder: Path,
    model: Task,
    records: Iterable[Tagged],
    *,
    checkpoints: Sequence[Task] = (),
    tokens_per_batch: int | None = None,
    exclude_non_finite: bool = False,
    unusable: Unusable | None = None,
    progress: Progress | None = None,
    announce: Callable[[Needs], None] | None = None,
    engine: Engine | None = None,
    loader: Loader | None = None,
) -> IndexManifest:
    """Add training data to an index, and pass over records that the index has.

    The result equals an index built of all the data, except that fitted projections stay those of the first data.

    Args:
        folder: a finished index.
        model: the index's model.
        records: new data, or all data.
        checkpoints: the models of the index's further checkpoints.
        tokens_per_batch: padded tokens in a batch, at most; None for 4096, on a GPU 16384.
        exclude_non_finite: exclude new examples with non-finite gradients; otherwise the first is an error.
        unusable: takes the errors of records without examples; see `examples.encode_training`.
        progress: called after every batch.
        announce: called once before the work begins, with its time, memory and disk. Without it, no probe is made.
        engine: its workers do the gradients; None for this process. They leave the same bytes.
        loader: returns, for each of the models, what loads it in another process of the engine.

    Raises:
        MismatchError: another model, or the index has a record with other content.
        LockHeldError: another run is changing the index.
        ValuationError: the weights of all examples would change, or the index does not fit into memory or on the disk.
    """
    with _revising(folder) as index:
        index.add_models(*checkpoints)
        change = _joining(index, model, records, unusable)
        if change is None:
            return index.manifest
        options = RunOptions(tokens_per_batch, exclude_non_finite, progress, announce, engine)
        return _revise(index, model, change, options, loader)


def withdraw_provider(
    folder: Path,
    model: Task,
    provider: str,
    records: Iterable[Tagged],
    *,
    checkpoints: Sequence[Task] = (),
    tokens_per_batch: int | None = None,
    progress: Progress | None = None,
    announce: Callable[[Needs], None] | None = None,
    engine: Engine | None = None,
    loader: Loader | None = None,
) -> IndexManifest:
    """Take a provider out of an index: its rows and examples leave, and the curvature is corrected.

    The result equals an index built without its data, except that fitted projections stay those of the first data.
    Shared records leave whole, see the module. Withdrawing a provider twice changes nothing the second time.

    Args:
        folder: a finished index.
        model: the index's model.
        provider: the provider's key.
        records: training data with at least all of the provider's; it is checked against the index.
        checkpoints: the models of the index's further checkpoints.
        tokens_per_batch: see `update_index`.
        progress: called after every batch.
        announce: see `update_index`.
        engine: see `update_index`.
        loader: see `update_index`.

    Raises:
        InputError: the provider is not in the index, shares all of it, or its data is not complete.
        MismatchError: another model, or other data than the indexed.
        LockHeldError: another run is changing the index.
        ValuationError: see `update_index`; or the provider's shares in rows of others cannot be taken out exactly.
    """
    with _revising(folder) as index:
        index.add_models(*checkpoints)
        change = _leaving(index, model, provider, records)
        if change is None:
            return index.manifest
        return _revise(index, model, change, RunOptions(tokens_per_batch, False, progress, announce, engine), loader)


def plan_revision(
    folder: Path,
    model: Task,
    records: Iterable[Tagged],
    *,
    withdraw: str | None = None,
    checkpoints: Sequence[Task] = (),
    tokens_per_batch: int | None = None,
    unusable: Unusable | None = None,
    engine: Engine | None = None,
) -> BuildPlan:
    """Return the requirements of `update_index`, or of `withdraw_provider` if `withdraw` is given; write nothing.

    Raises:
        InputError, MismatchError, ValuationError: see there, as far as it is known before the work.
    """
    _check_revisable(folder, read_manifest(folder))
    index = AttributionIndex.open(folder)
    index.add_models(*checkpoints)
    if withdraw is None:
        change = _joining(index, model, records, unusable)
    else:
        change = _leaving(index, model, withdraw, records)
    if change is None:
        manifest = index.manifest
        width = sum(gradient_widths(manifest.layers, index.projections).values())
        needs = Needs(width, _bytes_of(folder, manifest), seconds=0.0)
        groups = manifest.groups
        return BuildPlan(manifest.examples, manifest.tokens, len(groups), groups[-1].stop, needs, True, 0)
    writer = IndexWriter(model, folder, index.manifest, change, RunOptions(tokens_per_batch, engine=engine))
    needs = _probed_needs(index, writer)
    check_needs(needs, folder, device_of(model))
    layout = writer.plan.layout
    tokens = sum(member.tokens for member in change.members)
    examples = sum(1 for member in change.members if not member.is_excluded)
    return BuildPlan(
        examples, tokens, len(layout.groups), len(layout.counts), needs, False, changing=len(change.changing)
    )


def _joining(
    index: AttributionIndex, model: Task, records: Iterable[Tagged], unusable: Unusable | None
) -> Change | None:
    """Return the change that adds records to an index; None if the index has all of them."""
    index.check_model(model)
    manifest = index.manifest
    length = manifest.settings.example_length
    data = encode_training(records, manifest.encoder(model), length, unusable, folder=index.folder)
    members = list(_listed(index))
    known = {member.id: member for member in members}
    added: list[Member] = []
    for member in data.members:
        before = known.get(member.id)
        if before is None:
            added.append(member)
        elif (before.digest, before.shares) != (member.digest, member.shares):
            raise MismatchError(
                f"{member.id} of {member.shares[0].group} is in {index.folder} with another content, provider or "
                "share; withdraw its provider first, or give the record another id"
            )
    if not added:
        return None
    providers = tuple(sorted({share.group.provider for member in added for share in member.shares}))
    data_sha256 = changed_hash(manifest.data_sha256, hash_of(added))
    return Change([*members, *added], added, data_sha256, Revision("update", providers, len(added), data_sha256))


def _leaving(index: AttributionIndex, model: Task, provider: str, records: Iterable[Tagged]) -> Change | None:
    """Return the change that takes a provider out of an index; None if an earlier one did."""
    index.check_model(model)
    folder, members = index.folder, list(_listed(index))
    owners = {share.group for member in members for share in member.shares}
    groups = {group for group in owners if group.provider == provider}
    if not groups:
        if any(step.action == "withdraw" and provider in step.providers for step in index.manifest.history):
            return None
        raise InputError(f"{provider} has no data in {folder}")
    staying = [member for member in members if not any(share.group in groups for share in member.shares)]
    if not any(member.old_rows for member in staying):
        raise InputError(f"{folder} holds nothing but the data of {provider}; delete it instead")
    listed: dict[Group, dict[str, tuple[str, int]]] = {group: {} for group in groups}
    for member in members:
        for share in member.shares:
            if share.group in groups:
                listed[share.group][member.id] = member.digest, share.ppm
    manifest = index.manifest
    encoder = manifest.encoder(model)
    found = match_members(folder, encoder, records, listed, manifest.settings.example_length)
    known = {member.id: member for member in members}
    for member in found:
        if member.shares != known[member.id].shares:
            raise MismatchError(f"{member.id} is shared otherwise than in what {folder} was built from")
    leaving = [replace(member, old_rows=known[member.id].old_rows) for member in found if known[member.id].old_rows]
    data_sha256 = changed_hash(manifest.data_sha256, -hash_of(found))
    return Change(staying, leaving, data_sha256, Revision("withdraw", (provider,), len(leaving), data_sha256))


def _check_revisable(folder: Path, manifest: IndexManifest) -> None:
    """Refuse to change an index if the weights of its other examples would change too.

    Raises:
        ValuationError: with the reason.
    """
    settings = manifest.settings
    if settings.weighs_by_curvature:
        raise ValuationError(
            f"{folder} is weighted by relatif: a change of its data changes the curvature, and with it the weight of "
            "every example. Build it again from the data that stays, or from all data"
        )


@contextmanager
def _revising(folder: Path) -> Iterator[AttributionIndex]:
    """Context to change an index: it locks the folder and deletes files missing in the manifest."""
    manifest = read_manifest(folder)
    verify_files(folder, manifest)  # before the lock, which makes a file
    _check_revisable(folder, manifest)
    with only_one(folder / LOCK_FILE, f"another run is changing {folder}; wait for it"):
        index = AttributionIndex.open(folder)
        _clear(index)
        try:
            with room_on_disk(folder, 2 * _bytes_of(folder, manifest), "the index is as it was before"):
                yield index
        finally:
            _clear(AttributionIndex.open(folder))


def _bytes_of(folder: Path, manifest: IndexManifest) -> int:
    """Return the bytes of an index and its checkpoints on disk."""
    own = sum((folder / name).stat().st_size for name in manifest.files)
    checkpoints = ((folder / member.folder, member.manifest) for member in manifest.checkpoints)
    return own + sum(_bytes_of(inside, read_manifest(inside, name)) for inside, name in checkpoints)


def _clear(index: AttributionIndex, manifest: str = MANIFEST) -> None:
    """Delete an index's files that its manifest does not name, and those of its checkpoints. Other files stay."""
    members = index.manifest.checkpoints
    for member, (_, checkpoint) in zip(members, index.further, strict=True):
        _clear(checkpoint, member.manifest)
    kept = set(index.manifest.files) | {manifest, LOCK_FILE} | {member.folder for member in members}
    delete_work(index.folder)
    for path in index.folder.iterdir():
        written = is_index_file(path.name) or is_left_over(path.name) or path.name == MANIFEST
        if written and path.name not in kept and path.is_file():
            path.unlink()


def _probed_needs(index: AttributionIndex, writer: IndexWriter) -> Needs:
    """Return the requirements of a change, by a short probe: the time of all models, the disk of both indexes."""
    needs, models = writer.probed_needs(), 1 + len(index.further)
    there = _bytes_of(index.folder, index.manifest)
    return replace(needs, seconds=models * (needs.seconds or 0.0), disk_bytes=there + models * needs.disk_bytes)


def _revise(
    index: AttributionIndex, model: Task, change: Change, options: RunOptions, loader: Loader | None
) -> IndexManifest:
    """Change an index and those of its checkpoints. All of it counts once the manifest of the index is written.

    Raises:
        MismatchError: an example is finite in some models only, so the indexes would have different rows.
    """
    if options.announce:
        writer = IndexWriter(model, index.folder, index.manifest, change, options)
        needs = _probed_needs(index, writer)
        check_needs(needs, index.folder, device_of(model))
        options.announce(needs)
        options = writer.options  # where memory is short, with smaller batches
    written = []
    for member, (_, part, own) in zip(index.manifest.checkpoints, index.parts(model)[1:], strict=True):
        file = versioned(MANIFEST, len(part.manifest.history) + 1)
        writer = IndexWriter(own, part.folder, part.manifest, change, _loading(options, own, loader))
        writer.run()
        manifest = writer.finish(manifest_file=file)
        written.append((replace(member, manifest=file, fingerprint=manifest.fingerprint), manifest.groups))
    writer = IndexWriter(model, index.folder, index.manifest, change, _loading(options, model, loader))
    writer.run()
    groups = writer.final_layout().groups
    for member, others in written:
        if others != groups:
            raise MismatchError(
                f"{index.folder / member.folder} would have other rows than {index.folder}: an example is finite in "
                "one of the models only; leave it out of the data"
            )
    return writer.finish([member for member, _ in written])


def _loading(options: RunOptions, model: Task, loader: Loader | None) -> RunOptions:
    return replace(options, load=loader(model) if loader else None)


def _listed(index: AttributionIndex) -> Iterator[Member]:
    """Yield every example of an index once, with its shares and rows in the order of its groups."""
    owner = {row: layout.group for layout in index.manifest.groups for row in range(layout.start, layout.stop)}
    shared: dict[str, list[IndexedExample]] = {}
    for item in read_listing(index.path(EXAMPLES_FILE)):
        shared.setdefault(item.id, []).append(item)
    for name, items in shared.items():
        shares = tuple(Share(owner[item.row], item.ppm) for item in items)
        yield Member(name, shares, items[0].tokens, items[0].digest, tuple(item.row for item in items))
    for excluded in index.manifest.excluded:
        yield Member(excluded.id, excluded.shares, 0, excluded.digest)
