"""The checks of the source files in `make check`, which save a reviewer the work.

    python3 integration/house [--report] [circles] [lines] [links] [promises]

`circles`: no file of the core, the filter or the command line depends on itself through others. A child that imports
from its parent module while the parent calls the child is a circle too: what both need belongs in a separate file.
`lines`: no file of the filter or the command line has over 500 lines, no line has over 120 columns, and the first line
of each Rust file says what the file is for.
`links`: links between Markdown files, with their anchors, and paths in backticks have a target.
`promises`: the tests that the page of guarantees names exist.

Without a name, all checks run. `--report` prints the same and never fails.
"""

import subprocess
import sys
from pathlib import Path

import links
import lines
import modules
import promises

# The crates in these folders have their modules checked.
FOLDERS = ("filter/", "cli/")


def circles(base, tracked):
    roots = (name for name in tracked if name.startswith(FOLDERS) and name.endswith(("/src/lib.rs", "/src/main.rs")))
    for root in roots:
        production = modules.read(base / root)
        graph = modules.edges(production)
        for circle in modules.circles(graph):
            yield f"{root}: a circle of {len(circle)} files"
            yield from modules.describe(production, graph, circle, base)


def main(arguments):
    base = Path(__file__).resolve().parents[2]
    # New files that are not ignored count too; deleted files do not.
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=base, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    tracked = sorted({name for name in listed if (base / name).is_file()})
    checks = {"circles": circles, "lines": lines.problems, "links": links.problems, "promises": promises.problems}
    asked = [name for name in arguments if name != "--report"] or list(checks)
    if unknown := [name for name in asked if name not in checks]:
        sys.exit(f"unknown: {' '.join(unknown)}\n{__doc__}")
    found = [problem for name in asked for problem in checks[name](base, tracked)]
    print("\n".join(found) if found else f"house: {', '.join(asked)}: nothing wrong")
    return 1 if found and "--report" not in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
