"""Drives the native build, which CMakeLists.txt describes; pyproject.toml has the rest.

Environment:
    KNET_EXT=auto|off      off: no native code; the ops run on PyTorch kernels, slower.
    KNET_CUDA=auto|on|off  auto: if torch has CUDA and nvcc's major version is the same.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
OPS = Path("knet_hvd", "ops")


def library_name() -> str:
    """Returns the library's name without .so, as native.py loads it: with a version of the ops."""
    found = re.search(r'"(libknet_ops_v\d+)\.so"', (ROOT / OPS / "native.py").read_text())
    if found is None:
        raise SystemExit("knet_hvd/ops/native.py names no libknet_ops_v*.so")
    return found[1]


def setting(name: str, *choices: str) -> str:
    """Returns environment variable `name`: one of `choices`, by default the first."""
    value = os.environ.get(name, choices[0]).lower()
    if value not in choices:
        raise SystemExit(f"{name} must be one of {', '.join(choices)}; got {value!r}")
    return value


def find_program(name: str) -> str | None:
    """Finds a program on PATH or beside this Python, where pip puts cmake and ninja."""
    return shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))


def loaded_openmp() -> str:
    """Returns the path of the OpenMP runtime that importing torch has loaded, or ''."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = (line.split(maxsplit=5)[-1] for line in lines)
    return next((p for p in paths if re.search(r"/lib[gi]?omp[^/]*\.so", p)), "")


def cmake_options() -> dict[str, str]:
    """Collects what CMakeLists.txt needs to know; see its first lines."""
    try:
        import torch
        from torch.utils.cpp_extension import include_paths, library_paths
    except ImportError as error:
        raise SystemExit(
            f"The native build needs torch in this Python ({error}). Install torch, "
            "then `pip install --no-build-isolation .`, or set KNET_EXT=off."
        ) from error
    # Not torch.cuda.get_arch_list(): it is empty where no GPU is visible (login nodes).
    archs = torch._C._cuda_getArchFlags() or "" if torch.version.cuda else ""
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "KNET_CUDA": setting("KNET_CUDA", "auto", "on", "off"),
        "KNET_TORCH_INCLUDE_DIRS": ";".join(include_paths()),
        "KNET_TORCH_LIBRARY_DIRS": ";".join(library_paths()),
        "KNET_TORCH_CXX11_ABI": str(int(torch._C._GLIBCXX_USE_CXX11_ABI)),
        "KNET_TORCH_CUDA_VERSION": torch.version.cuda or "",
        "KNET_TORCH_CUDA_ARCHS": ";".join(archs.split()),
        "KNET_OPENMP_LIBRARY": loaded_openmp(),
    }
    if ninja := find_program("ninja"):
        options["CMAKE_MAKE_PROGRAM"] = ninja
    return options


class CMakeBuild(build_ext):
    """Builds with CMake; setuptools copies the result into the tree if editable."""

    def get_ext_filename(self, fullname: str) -> str:
        """Names it without a Python version: torch loads the library, not Python."""
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Configures, compiles what has changed, and copies the library."""
        cmake = find_program("cmake")
        if cmake is None:
            raise SystemExit("The native build needs cmake: `pip install cmake ninja`.")
        # Not setuptools' temporary folder, where everything is compiled each time.
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        options = [f"-D{name}={value}" for name, value in cmake_options().items()]
        generator = ["-G", "Ninja"] if find_program("ninja") else []
        configure = [cmake, "-S", str(ROOT), "-B", str(build), *generator, *options]
        compile_ = [cmake, "--build", str(build), "--target", "knet_ops", "--parallel"]
        try:
            subprocess.run(configure, check=True)
            subprocess.run(compile_, check=True)
        except subprocess.CalledProcessError as error:
            raise SystemExit(
                "The native build failed: see the messages above. "
                "KNET_EXT=off installs without native code, slower."
            ) from error
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.copy_file(str(build / "libknet_ops.so"), str(target))


extensions = [Extension(f"knet_hvd.ops.{library_name()}", sources=[])]
if setting("KNET_EXT", "auto", "off") == "off":
    extensions = []
    if "editable_wheel" in sys.argv:
        # A library left from an earlier editable install would still be loaded.
        for library in (ROOT / OPS).glob("libknet_ops*.so"):
            library.unlink()

setup(ext_modules=extensions, cmdclass={"build_ext": CMakeBuild})
