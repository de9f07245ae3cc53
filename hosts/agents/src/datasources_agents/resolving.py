"""Fetch what a request refers to: all of it, or nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from datasources import (
    Access,
    CredentialError,
    DataSourceError,
    DataSourceNotFoundError,
    FetchReceipt,
    FetchRequest,
    ItemNotFoundError,
    LimitExceededError,
    OptionError,
    PluginError,
    PolicyError,
    StoreError,
    Workspace,
    WorkspaceSession,
    delete_below,
    open_below,
    run_in_thread,
)
from datasources_agents.fence import shorten
from datasources_agents.manifest import MANIFEST, FetchedFile, Manifest, describe
from datasources_agents.references import (
    MAX_REFERENCES,
    Failure,
    Reference,
    ReferencesError,
    invalid,
)

_UNKNOWN = "there is no such item, or it is not granted to you"
_MAX_DETAIL = 1000  # bytes of a failure's sentence, which may quote a server or a query
_Key = tuple[str, str, str | None]


@dataclass(frozen=True, slots=True)
class ResolveLimits:
    """Bounds of the references of one request.

    Raises:
        OptionError: A bound is not more than 0.
    """

    references: int = MAX_REFERENCES
    """References of one request."""
    concurrency: int = 4
    """Fetches at once."""
    timeout: float = 60.0
    """Seconds for all fetches together."""

    def __post_init__(self) -> None:
        if self.references < 1 or self.concurrency < 1 or not self.timeout > 0:
            raise OptionError("the limits of references must be more than 0")


async def resolve(
    references: Sequence[Reference],
    workspace: WorkspaceSession | str | os.PathLike[str],
    access: Access,
    *,
    limits: ResolveLimits | None = None,
    earlier: Sequence[FetchedFile] = (),
) -> Manifest:
    """Fetch references into a workspace at the same time, and describe the files.

    The grants for all of them are checked first, before anything is contacted. If one is malformed,
    not granted or cannot be fetched, the files that did arrive are deleted. Where two sources have
    items of one name, the file of the second one is in a folder with the id of its source. When the
    call ends, however it ends, no fetch is running.

    Args:
        references: The references, as `references_in` returns them.
        workspace: A session of `access`, or a directory.
        access: What the caller may do.
        limits: Bounds of the fetches.
        earlier: Files that earlier calls have fetched into the workspace, of a conversation. They
            are in the manifest, unless they were changed, or are not granted any more. One of a
            reference whose item still has the version of then is not fetched again.

    Returns:
        The manifest, which is in the workspace as `.datasources/manifest.json`.

    Raises:
        ReferencesError: With the failures of all references.
    """
    path = workspace.path if isinstance(workspace, WorkspaceSession) else workspace
    resolver = _Resolver(Workspace(path), access, limits or ResolveLimits())
    if len(references) > resolver.limits.references:
        raise ReferencesError([invalid("#", f"at most {resolver.limits.references} references")])
    await resolver.authorize(references)
    kept = await resolver.keep(earlier)
    files = await resolver.fetch_all(references, kept)
    manifest = Manifest([*(f for f in kept if f.key not in {g.key for g in files}), *files])
    try:
        if manifest.files:
            await run_in_thread(resolver.write, manifest)
    except DataSourceError as exc:  # the quota, or something stands in its way
        await resolver.delete(files)
        raise ReferencesError([failure_of(Reference("", "", pointer="#"), exc)]) from exc
    return manifest


class _Resolver:
    """The references of one call."""

    def __init__(self, workspace: Workspace, access: Access, limits: ResolveLimits) -> None:
        self.limits = limits
        self._workspace = workspace
        self._access = access
        self._turn = asyncio.Semaphore(limits.concurrency)
        self._files: dict[Reference, FetchedFile] = {}
        self._failures: dict[Reference, Failure] = {}

    async def authorize(self, references: Sequence[Reference]) -> None:
        """Raise ReferencesError if one of the references is not granted; nothing is contacted."""
        for reference in references:
            try:
                await self._access.authorize_fetch(reference.source, reference.item)
            except PolicyError:
                self._failures[reference] = invalid(reference.pointer, _UNKNOWN)
            except DataSourceError as exc:
                self._failures[reference] = failure_of(reference, exc)
        self._raise_failures(references)

    async def keep(self, earlier: Sequence[FetchedFile]) -> list[FetchedFile]:
        """Return the files of earlier calls that are unchanged and still granted."""
        kept = []
        for file in earlier:
            try:
                await self._access.authorize_fetch(file.source, file.item)
            except DataSourceError:
                await self.delete([file])
                continue
            if await run_in_thread(self._is_unchanged, file):
                kept.append(await run_in_thread(describe, file, self._workspace))
        return kept

    async def fetch_all(
        self, references: Sequence[Reference], kept: Sequence[FetchedFile]
    ) -> list[FetchedFile]:
        """Fetch the references, and return their files in order; raise ReferencesError."""
        by_key = {file.key: file for file in kept}
        folders = _folders(references, kept)
        with suppress(TimeoutError):  # those that are not done have no file
            async with asyncio.timeout(self.limits.timeout), asyncio.TaskGroup() as group:
                for reference, folder in zip(references, folders, strict=True):
                    group.create_task(self._fetch(reference, folder, by_key))
        self._check_paths(references)
        for reference in references:
            if reference not in self._files and reference not in self._failures:
                detail = f"was not fetched within {self.limits.timeout:g} seconds"
                self._failures[reference] = Failure(reference.pointer, 424, "timeout", detail)
        if self._failures:
            await self.delete(file for file in self._files.values() if file not in kept)
        self._raise_failures(references)
        return [self._files[reference] for reference in references]

    async def delete(self, files: Iterable[FetchedFile]) -> None:
        """Delete files from the workspace."""
        for file in files:
            with suppress(OSError, ValueError):  # gone, or a link is in its way
                await run_in_thread(delete_below, self._workspace, file.path)

    def write(self, manifest: Manifest) -> None:
        """Write the manifest into the workspace."""
        text = json.dumps(manifest.to_dict(), indent=1)
        with Workspace(str(self._workspace), quota=self._workspace.quota).create(MANIFEST) as file:
            file.write(text.encode())

    async def _fetch(
        self, reference: Reference, folder: str, by_key: dict[_Key, FetchedFile]
    ) -> None:
        key = reference.source, reference.item, reference.format
        async with self._turn:
            if key in by_key and await self._is_current(by_key[key]):
                self._files[reference] = by_key[key]
                return
            try:
                [result] = await self._access.fetch_many(
                    [FetchRequest(*key)], Workspace(self._workspace, folder=folder), concurrency=1
                )
                error = result.error
            except DataSourceError as exc:  # the grant was revoked meanwhile
                result, error = None, exc
            if result is None or result.receipt is None:
                self._failures[reference] = failure_of(reference, error)
                return
            file = self._file_of(reference, result.receipt)
            self._files[reference] = file
            self._files[reference] = await run_in_thread(describe, file, self._workspace)

    async def _is_current(self, file: FetchedFile) -> bool:
        """Return True if the source still has the item in the version that was fetched."""
        if file.version is None:
            return False
        try:
            items = await self._access.glob_items(file.source, file.item)
        except DataSourceError:
            return False  # fetching tells the reason
        return any(item.path == file.item and item.version == file.version for item in items)

    def _file_of(self, reference: Reference, receipt: FetchReceipt) -> FetchedFile:
        return FetchedFile(
            path=os.path.relpath(receipt.path, self._workspace),
            source=reference.source,
            item=reference.item,
            format=reference.format,
            rows=receipt.rows,
            truncated=receipt.truncated,
            bytes=receipt.size,
            sha256=receipt.sha256,
            version=receipt.version,
        )

    def _check_paths(self, references: Sequence[Reference]) -> None:
        """Add failures for references whose files have one path, as one has overwritten another."""
        paths = Counter(file.path for file in self._files.values())
        for reference in references:
            file = self._files.get(reference)
            if file is not None and paths[file.path] > 1:
                detail = "has the same file name as another reference; ask for them one by one"
                self._failures[reference] = Failure(reference.pointer, 424, "same-file", detail)

    def _is_unchanged(self, file: FetchedFile) -> bool:
        try:
            with os.fdopen(open_below(self._workspace, file.path), "rb") as opened:
                if os.fstat(opened.fileno()).st_size != file.bytes:
                    return False
                return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
        except (OSError, ValueError):
            return False

    def _raise_failures(self, references: Sequence[Reference]) -> None:
        if self._failures:
            raise ReferencesError(self._failures[r] for r in references if r in self._failures)


def failure_of(reference: Reference, error: Exception | None) -> Failure:
    """Return the failure of a reference that could not be fetched.

    Texts of errors about the store, keys and plugins are for administrators, and are left out, as
    is that of an unexpected error. The log of failed operations names all of them.
    """
    if isinstance(error, (DataSourceNotFoundError, ItemNotFoundError)):
        return invalid(reference.pointer, _UNKNOWN)
    if not isinstance(error, DataSourceError):
        detail = "could not be fetched, for a reason that nobody expected"
        return Failure(reference.pointer, 424, "unexpected-error", detail)
    detail = shorten(str(error), _MAX_DETAIL)
    if isinstance(error, (StoreError, CredentialError, PluginError)):
        detail = "the source cannot be used now; administrators can read why"
    status = 424
    if isinstance(error, LimitExceededError):
        status = 413
    elif isinstance(error, OptionError):  # such as a format that the source does not have
        status = 422
    return Failure(reference.pointer, status, error.slug, detail)


def _folders(references: Sequence[Reference], kept: Sequence[FetchedFile]) -> list[str]:
    """Return the folder of each reference: the id of its source where another has the name."""
    owners = {file.item: file.source for file in kept}
    first = [owners.setdefault(reference.item, reference.source) for reference in references]
    return [
        "" if source == reference.source else reference.source
        for source, reference in zip(first, references, strict=True)
    ]
