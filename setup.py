"""Build of the packet path: every module with a .pxd beside it is compiled by Cython, all others stay Python.

Without a C compiler the build still succeeds (each extension is optional) and userfw runs interpreted;
`userfw status` and the daemon's first log line say which.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).parent

# const.py and drop.py have a .pxd twin for C-level constants but hold nothing to compile (a test compares the twins).
SOURCES = sorted(
    str(pxd.with_suffix(".py").relative_to(ROOT))
    for pxd in (ROOT / "userfw").rglob("*.pxd")
    if pxd.stem not in ("const", "drop", "__init__")
)

setup(
    ext_modules=cythonize(
        [
            Extension(
                source[:-3].replace("/", "."),
                [source],
                extra_compile_args=["-O2", "-g0", "-Wno-unused-function", "-Wno-unused-variable",
                                    "-Werror=incompatible-pointer-types"],
                optional="USERFW_REQUIRE_COMPILED" not in os.environ,
            )
            for source in SOURCES
        ],
        build_dir="build/cython",
        nthreads=os.cpu_count() or 1,
        compiler_directives={
            "language_level": 3,
            "boundscheck": True,       # a hostile packet raises, it never touches foreign memory
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": False,
            "binding": False,
        },
    )
)
