"""Checks that the tests named in the page of guarantees exist."""

import re

PAGE = "docs/src/explanation/guarantees.md"
TESTS = "integration/tests/envoy"
NAMED = re.compile(r"`(\w+)::(\w+)`")


def problems(base, tracked):
    """Yields a line of text for each test that the page names and no file has."""
    if PAGE not in tracked:
        return
    text = (base / PAGE).read_text(encoding="utf-8")
    for found in NAMED.finditer(text):
        module, test = found.groups()
        file = base / TESTS / f"{module}.rs"
        if not file.is_file() or f"fn {test}(" not in file.read_text(encoding="utf-8"):
            yield f"{PAGE}:{text.count(chr(10), 0, found.start()) + 1}: {found[0]}: no such test in {TESTS}"
