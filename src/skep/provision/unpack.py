"""Downloaded engines opened into a folder: archives by their content, anything else as the program itself."""

import shutil
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from skep.errors.provision import UnsafeArchive

UNPACKED_BYTES_MAX = 20 << 30
MEMBERS_MAX = 100_000


def unpack(archive: Path, folder: Path, *, program: str) -> Path:
    """Open `archive` into `folder` and return the path of `program`, executable, at the folder's top.

    A file that is no archive is taken as the program. Raises: UnsafeArchive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _unpack(archive, folder, program)
    except (OSError, EOFError) as error:
        raise UnsafeArchive(f"{archive.name} cannot be unpacked: {error}", archive=str(archive)) from error


def _unpack(archive: Path, folder: Path, program: str) -> Path:
    if tarfile.is_tarfile(archive):
        _open_tar(archive, folder)
    elif zipfile.is_zipfile(archive):
        _open_zip(archive, folder)
    else:
        shutil.copyfile(archive, folder / program)
    return _lift(folder, program)


def _open_tar(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            _check_size(((member.name, member.size) for member in tar), archive)
            tar.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise UnsafeArchive(f"{archive.name}: {error}", archive=str(archive)) from error


def _open_zip(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = zipped.infolist()
            _check_size(((member.filename, member.file_size) for member in members), archive)
            for member in members:
                path = PurePosixPath(member.filename)
                if path.is_absolute() or ".." in path.parts:
                    raise UnsafeArchive(
                        f"{archive.name}: {member.filename} leaves its folder", archive=str(archive)
                    )
                target = Path(zipped.extract(member, folder))
                if mode := member.external_attr >> 16 & 0o777:
                    target.chmod(mode)
    except zipfile.BadZipFile as error:
        raise UnsafeArchive(f"{archive.name}: {error}", archive=str(archive)) from error


def _check_size(members: Iterable[tuple[str, int]], archive: Path) -> None:
    total = 0
    for count, (_, size) in enumerate(members, 1):
        total += size
        if count > MEMBERS_MAX or total > UNPACKED_BYTES_MAX:
            raise UnsafeArchive(
                f"{archive.name} unpacks to more than {UNPACKED_BYTES_MAX >> 30} GiB or {MEMBERS_MAX} files",
                archive=str(archive),
            )


def _lift(folder: Path, program: str) -> Path:
    """Make `folder/program` stand for the program, wherever in the archive it was."""
    top = folder / program
    if top.is_dir():  # The archive's own folder has the program's name: what is in it comes one level up.
        moved = folder / f".{program}.folder"
        top.rename(moved)
    if not top.is_file():
        found = sorted(
            (path for path in folder.rglob(program) if path.is_file()), key=lambda path: len(path.parts)
        )
        if not found:
            raise UnsafeArchive(f"the archive holds no file named {program}", program=program)
        # A link and not a move: the program may look for its libraries beside itself.
        found[0].chmod(found[0].stat().st_mode | 0o755)
        top.symlink_to(found[0].relative_to(folder))
    top.chmod(top.stat().st_mode | 0o755)
    return top
