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


def compiled(sources: list[str], **directives: bool) -> list[Extension]:
    """Extensions of some modules."""
    flags = ["-O2", "-g0", "-Wno-unused-function", "-Wno-unused-variable"]
    optional = "USERFW_REQUIRE_COMPILED" not in os.environ
    extensions = [
        Extension(source[:-3].replace("/", "."), [source], extra_compile_args=flags, optional=optional) for source in sources
    ]
    common = {"language_level": 3, "boundscheck": True, "initializedcheck": False, "embedsignature": False, "binding": False}
    return cythonize(
        extensions, build_dir="build/cython", nthreads=os.cpu_count() or 1, compiler_directives=common | directives
    )


LANGUAGE = [source for source in SOURCES if source.startswith(("userfw/nft/", "userfw/ruleset/"))]
PACKETS = [source for source in SOURCES if source not in LANGUAGE]

# boundscheck: a hostile packet raises, it never touches foreign memory. The language rooms keep Python's own indices and division.
setup(
    ext_modules=[
        *compiled(PACKETS, wraparound=False, cdivision=True),
        *compiled(LANGUAGE, wraparound=True, cdivision=False),
    ]
)
