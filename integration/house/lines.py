"""Checks the size of files and lines, and the first line, which says what a file is for."""

MAX_LINES = 500
MAX_COLUMNS = 120

LONG_WORD = 70
RAW = 'r#"'

# Generated files, and data whose lines must not be broken.
GENERATED = ("envoy/rendered/", "cli/tests/fixtures/", "integration/estimate/corpora/", "fuzz/corpus/")
KINDS = (".rs", ".py", ".sh", ".yaml", ".lua", ".mjs", ".toml", "Makefile", ".md")
# Folders in which a file has one job, and so a limit on its lines.
ROOMS = ("filter/", "cli/")


def problems(base, tracked):
    """Yields the problems of the tracked files below `base`, one line of text each."""
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
            if len(line) > MAX_COLUMNS and not unbreakable(name, line):
                yield f"{name}:{number}: {len(line)} columns, more than {MAX_COLUMNS}"


def unbreakable(name, line):
    """Returns whether a line may be long: a Markdown table row, a Rust raw string, or a word that cannot be broken."""
    if name.endswith(".md") and line.lstrip().startswith("|"):
        return True
    return (name.endswith(".rs") and RAW in line) or max(map(len, line.split())) > LONG_WORD
