"""Storage in the file system: paths and file:// URIs. A file appears whole or not at all, and is on the disk then."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EMLINK, ENOSPC, ENOSYS, ENOTSUP, EPERM, EROFS
from pathlib import Path
from urllib.parse import unquote, urlsplit

from system.errors import DataError, StorageFault
from system.storage.errors import MissingError, UnsupportedError

# What file systems answer that have no hard links.
_NO_LINKS = {EMLINK, ENOSYS, ENOTSUP, EPERM}


def local_path(uri: str) -> Path:
    """Return the path of a local URI.

    Raises:
        DataError: for a scheme that is neither file nor s3, or a file on another machine.
    """
    if uri.startswith("file://"):
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise DataError(f"{uri}: a file's URI is file:///path, got {parts.netloc} as the machine it lies on")
        return Path(unquote(parts.path))
    if "://" in uri:
        raise DataError(f"storage is a local path, file:// or s3://, got {uri}")
    return Path(uri).expanduser()


@contextmanager
def told(uri: str) -> Iterator[None]:
    """Turn what the file system raises into our errors, in one sentence that names what was tried."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingError(f"{uri}: there is no such file or folder") from error
    except PermissionError as error:
        raise DataError(f"{uri}: permission denied") from error
    except IsADirectoryError as error:
        raise DataError(f"{uri}: a file is wanted, this is a folder") from error
    except (NotADirectoryError, FileExistsError) as error:
        raise DataError(f"{uri}: a part of this path is a file, not a folder") from error
    except OSError as error:
        if error.errno == EROFS:
            raise DataError(f"{uri}: the file system is read-only") from error
        advice = "; make room" if error.errno == ENOSPC else ""
        raise StorageFault(f"{uri}: {error.strerror or error}{advice}") from error


def files_under(root: Path, *, follow_links: bool = False) -> list[Path]:
    """Return every file under a folder but for hidden ones, sorted as text, as S3 does.

    Hidden is what begins with a dot or lies in such a folder, or in one named lost+found.

    Args:
        root: of the folder.
        follow_links: look into links to folders, but for those to what is walked anyway, or that they lie in.

    Raises:
        DataError: if a folder may not be read; one that goes while it is walked is none.
    """

    def raised(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            with told(str(error.filename or root)):
                raise error

    found: list[Path] = []
    for folder, inside, names in os.walk(root, onerror=raised, followlinks=follow_links):
        own = (name for name in inside if not _is_hidden(name))
        inside[:] = [name for name in own if not (follow_links and _is_walked(Path(folder, name), root))]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(found, key=str)


def _is_hidden(name: str) -> bool:
    # lost+found is a file system's: nobody's files, for root alone to read.
    return name.startswith(".") or name == "lost+found"


def _is_walked(folder: Path, root: Path) -> bool:
    """Say whether a folder is a link to one that is walked in its own place, or, by whatever way, to one above it."""
    if not folder.is_symlink():
        return False
    target, top = folder.resolve(), root.resolve()
    if target.is_relative_to(top) and not any(map(_is_hidden, target.relative_to(top).parts)):
        return True
    return any(above.resolve().is_relative_to(target) for above in folder.parents)


def get(uri: str, start: int, stop: int | None) -> bytes:
    """Return the bytes [start, stop) of a file, fewer if it ends before."""
    with told(uri), local_path(uri).open("rb") as file:
        file.seek(start)
        return file.read() if stop is None else file.read(stop - start)


def size(uri: str) -> int:
    """Return a file's size in bytes."""
    with told(uri):
        return local_path(uri).stat().st_size


def put(uri: str, data: bytes) -> None:
    """Write a file whole."""
    with told(uri), _beside(local_path(uri)) as beside:
        beside.write_bytes(data)


def upload(path: Path, uri: str) -> None:
    """Move a file to its place."""
    # Through a file beside that place: this one may lie on another file system, from which nothing can be renamed.
    with told(uri), _beside(local_path(uri)) as beside:
        shutil.move(path, beside)


def delete(uri: str) -> None:
    """Delete a file if it is there."""
    with told(uri):
        local_path(uri).unlink(missing_ok=True)


def create(uri: str, data: bytes) -> bool:
    """Write a file whole if none is there; say whether it was written.

    Raises:
        UnsupportedError: if the file system has no hard links.
    """
    path = local_path(uri)
    with told(uri), _written(path) as beside:
        beside.write_bytes(data)
        _sync(beside)
        try:
            os.link(beside, path)  # of a finished file, so that nobody sees a part of it
        except FileExistsError:
            # Over NFS the answer may be lost of a link that was made.
            return beside.stat().st_nlink == 2
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise UnsupportedError(f"{uri}: this file system has no hard links") from error
            raise
        return True


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it is renamed to `path` once its bytes are on the disk, and gone after an error."""
    with _written(path) as beside:
        yield beside
        _sync(beside)
        beside.replace(path)


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """Yield a new file beside a path; it is gone afterwards, if it still has this name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    beside = Path(name)
    try:
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.chmod(0o644)
