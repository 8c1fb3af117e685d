"""Build of the packet path: every module with a .pxd beside it is compiled by Cython, all others stay Python.

Where nothing can be compiled (no C compiler, no Python.h) the build still succeeds and userfw runs interpreted; `userfw status` and
the daemon's first log line say which. USERFW_REQUIRE_COMPILED makes that an error. A module that does not compile where others
do always is one: half a packet path would not even import.
"""

import os
import sys
import sysconfig
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools._distutils.ccompiler import new_compiler
from setuptools._distutils.sysconfig import customize_compiler
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent

# const.py and drop.py have a .pxd twin for C-level constants but hold nothing to compile (a test compares the twins).
SOURCES = sorted(
    str(pxd.with_suffix(".py").relative_to(ROOT))
    for pxd in (ROOT / "userfw").rglob("*.pxd")
    if pxd.stem not in ("const", "drop", "__init__")
)
FLAGS = ["-O2", "-g0", "-Wno-unused-function", "-Wno-unused-variable"]
# boundscheck: a hostile packet raises, it never touches foreign memory. The language rooms keep Python's own indices and division.
COMMON = {"language_level": 3, "boundscheck": True, "initializedcheck": False, "embedsignature": False, "binding": False}
PACKETS, LANGUAGE = {"wraparound": False, "cdivision": True}, {"wraparound": True, "cdivision": False}


def compiles() -> bool:
    """Whether an empty extension can be compiled and linked here."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.c"
        source.write_text("#include <Python.h>\nPyObject *probe(void) { return NULL; }\n")
        compiler = new_compiler()
        customize_compiler(compiler)
        paths = sysconfig.get_paths()
        try:
            objects = compiler.compile([str(source)], output_dir="/", include_dirs=[paths["include"], paths["platinclude"]])
            compiler.link_shared_object(objects, str(Path(folder) / "probe.so"))
        except Exception as error:
            print(f"nothing can be compiled here, userfw will run interpreted, about fifty times slower: {error}", file=sys.stderr)
            return False
    return True


def of_language(extension: Extension) -> bool:
    """Whether a module is of the rooms that read and write rules."""
    return extension.name.startswith(("userfw.nft.", "userfw.ruleset."))


class BuildExt(build_ext):
    """Translates to C when modules are built, and not for every question about the package."""

    extensions: list[Extension]

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count() or 1

    def run(self) -> None:
        if "USERFW_REQUIRE_COMPILED" not in os.environ and not compiles():
            self.extensions = []
        for language, directives in ((False, PACKETS), (True, LANGUAGE)):
            chosen = [extension for extension in self.extensions if of_language(extension) == language]
            translated = cythonize(
                [Extension(extension.name, extension.sources, extra_compile_args=FLAGS) for extension in chosen],
                build_dir="build/cython",
                nthreads=os.cpu_count() or 1,
                compiler_directives=COMMON | directives,
            )
            sources = {extension.name: extension.sources for extension in translated}
            for extension in chosen:
                extension.sources = sources[extension.name]
        super().run()


setup(
    ext_modules=[Extension(source[:-3].replace("/", "."), [source], extra_compile_args=FLAGS) for source in SOURCES],
    cmdclass={"build_ext": BuildExt},
)
