"""The size of files and lines, and the first line that says what a file is for."""

MAX_LINES = 500
MAX_COLUMNS = 120

# Written by a program, or data whose lines are not ours to break.
GENERATED = ("envoy/rendered/", "cli/tests/fixtures/", "integration/estimate/corpora/", "fuzz/corpus/")
KINDS = (".rs", ".py", ".sh", ".yaml", ".lua", ".mjs", ".toml", "Makefile", ".md")
# Where a file has one job.
ROOMS = ("filter/", "cli/")


def problems(base, tracked):
    """What is wrong with the tracked files below `base`, one line of text each."""
    for name in tracked:
        if not name.endswith(KINDS) or name.startswith(GENERATED):
            continue
        text = (base / name).read_text(encoding="utf-8")
        lines = text.splitlines()
        if name.endswith(".rs"):
            if not text.startswith("//! "):
                yield f"{name}: the first line is to say what the file is for: `//! …`"
            if name.startswith(ROOMS) and len(lines) > MAX_LINES:
                yield f"{name}: {len(lines)} lines, more than {MAX_LINES}: it has two jobs"
        for number, line in enumerate(lines, 1):
            if len(line) > MAX_COLUMNS and not (name.endswith(".md") and unbreakable(line)):
                yield f"{name}:{number}: {len(line)} columns, more than {MAX_COLUMNS}"


def unbreakable(line):
    """Whether a line of Markdown may be long: a row of a table, or one long word (a link) that has a line to itself."""
    line = line.strip()
    return line.startswith("|") or max(map(len, line.split())) > MAX_COLUMNS - 20
