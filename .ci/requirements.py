"""Print the requirements of a pyproject.toml: its dependencies, its build system's, and those of the extras named."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())
lines = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
for extra in sys.argv[2:]:
    lines += project["project"]["optional-dependencies"][extra]
print("\n".join(dict.fromkeys(lines)))
