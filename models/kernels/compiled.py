"""What the compiled code was compiled from, and the folder that keeps it.

numba finds compiled code again by the file of the function that it was asked to keep, and does not
look at what that function calls: after an edit of `lanes.py`, `fold.py` would go on with the old
machine code, in warm-up, stream and audit alike. So each sum over all of this package's sources,
numba, llvmlite and the CPU has a folder of its own, which is named before anything is compiled.

`KERNELS_SHA256` also stands in the manifests of bundles and snapshots (`folded_by`): a memory is a
function of the log, the bundle and these kernels.
"""

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import llvmlite
import numba
from llvmlite import binding
from numba import config, njit

# Older folders than these are removed, unless a process began with them lately.
_FOLDERS_KEPT: Final = 4
_UNTOUCHED_SECONDS: Final = 7 * 24 * 3600
_FOLDER: Final = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}")


def sum_of_sources(folder: Path) -> str:
    """The sum over a folder's modules and over the versions of the compiler, in hexadecimal."""
    summed = hashlib.sha256(f"numba {numba.__version__} llvmlite {llvmlite.__version__}".encode())
    for path in sorted(folder.glob("*.py")):
        source = path.read_bytes()
        summed.update(f"\n{path.name} {len(source)}\n".encode() + source)
    return summed.hexdigest()


def _cpu() -> tuple[str, str]:
    """Name and features of the CPU that numba compiles for."""
    features = config.CPU_FEATURES
    if features is None:
        features = binding.get_host_cpu_features().flatten()
    return config.CPU_NAME or binding.get_host_cpu_name(), features


KERNELS_SHA256: Final = sum_of_sources(Path(__file__).parent)
CPU: Final = _cpu()[0]


def folded_by() -> dict[str, str]:
    """What a manifest says of the code that folded: `kernels` (hexadecimal) and `cpu` (a name).

    Memories of equal kernels are equal to the byte on CPUs of one name.
    """
    return {"kernels": KERNELS_SHA256[:16], "cpu": CPU}


def _bases() -> Iterator[Path]:
    """Folders that may hold compiled code, the preferred one first; all of them are the user's."""
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR)
    else:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - Path.expanduser raises without a home
        yield Path(home) / "uic" / "kernels"
    shared = Path(tempfile.gettempdir()) / f"uic-kernels-{os.getuid()}"
    shared.mkdir(mode=0o700, exist_ok=True)
    # numba unpickles what it finds there: another user's folder is not looked into.
    if not shared.is_symlink() and shared.stat().st_uid == os.getuid():
        yield shared
    yield Path(tempfile.mkdtemp(prefix="uic-kernels-"))


def _cache_folder() -> Path | None:
    """This code's folder, made and writable; None on a machine where nothing can be written."""
    name = f"{KERNELS_SHA256[:16]}-{hashlib.sha256('/'.join(_cpu()).encode()).hexdigest()[:8]}"
    try:
        for base in _bases():
            folder = base / name
            known = folder.is_dir()
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    os.utime(folder)
            except OSError:
                continue
            if not known:
                _remove_old_folders(base)
            return folder
    except OSError:
        return None
    return None


def _remove_old_folders(base: Path) -> None:
    """Remove the folders of kernels that no process began with lately."""
    touched = sorted(
        ((path.stat().st_mtime, path) for path in base.iterdir() if _FOLDER.fullmatch(path.name)),
        reverse=True,
    )
    for seconds, path in touched[_FOLDERS_KEPT:]:
        if seconds < time.time() - _UNTOUCHED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


CACHE_FOLDER: Final = _cache_folder()


def entry_point(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that Python calls: at its first call, or from `CACHE_FOLDER`.

    It runs without Python's lock. What it calls is compiled into it, with plain `njit`.
    """
    if CACHE_FOLDER is None:
        return njit(nogil=True, error_model="numpy")(function)
    before = config.CACHE_DIR
    config.CACHE_DIR = str(CACHE_FOLDER)  # read when the function is decorated, not when it runs
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = before
