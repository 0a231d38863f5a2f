"""Find the files of a data set where people keep them."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from knet_hvd.errors import DataError

_MAX_SHOWN = 6


def find_file(
    data_dir: Path, folders: Sequence[str], names: Sequence[str], files: Sequence[str]
) -> Path:
    """Return the first file that is there.

    Args:
        data_dir: The folder that the user named.
        folders: Where the file may be, below ``data_dir``; ``""`` for ``data_dir`` itself.
        names: What the file may be called, the likeliest first.
        files: All files of the data set, for the message.

    Raises:
        DataError: If there is none; names what the folder holds instead.
    """
    try:
        for folder in folders:
            for name in names:
                path = data_dir / folder / name
                if path.is_file():
                    return path
        found = ", ".join(_shown(data_dir)) or "nothing"
    except OSError as error:
        raise DataError(f"{str(data_dir)[:200]} cannot be read: {error.strerror}") from error
    wanted = " or ".join(names)
    places = " or ".join(str(data_dir / folder) for folder in folders)
    raise DataError(
        f"{wanted} is missing in {places}: {data_dir} holds {found}. Name with --data-dir "
        f"the folder of {', '.join(files)}"
    )


def _shown(folder: Path) -> Iterator[str]:
    """Yield the first names in a folder, and dots if there are more."""
    names = sorted(path.name for path in islice(folder.iterdir(), 1000))
    yield from names[:_MAX_SHOWN]
    if names[_MAX_SHOWN:]:
        yield "..."
