"""Checks links between the tracked files: Markdown links with anchors, and paths in backticks (`NAME` is any name).

Web addresses are not checked, so the check needs no network.
"""

import posixpath
import re

FENCE = re.compile(r"^(\s*)(```+|~~~+).*?^\s*\2[`~]*\s*$", re.S | re.M)
CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.S)
INLINE = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\s{0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*$", re.M)
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$", re.M)
EXPLICIT = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"")
OUTSIDE = re.compile(r"[a-z][a-z0-9+.-]*:", re.I)
QUOTED = re.compile(r"`([\w.-]+(?:/[\w.-]+)+/?)(?::\d+)?`")


def blank(match):
    return re.sub(r"[^\n]", " ", match[0])


def anchors(text):
    """Returns the anchors of a Markdown text, as GitHub and mdBook derive them from its headings."""
    seen, found = {}, set(EXPLICIT.findall(text))
    for heading in HEADING.findall(FENCE.sub(blank, text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found


def problems(base, tracked):
    """Yields the problems of the links in the tracked files below `base`, one line of text each."""
    files = set(tracked)
    folders = {folder for name in files for folder in parents(name)}
    tops = {name.split("/")[0] for name in files if "/" in name}
    texts = {name: (base / name).read_text(encoding="utf-8") for name in files if name.endswith((".md", ".rs"))}
    for name in sorted(texts):
        text = texts[name]
        if name.endswith(".md"):
            prose = CODE.sub(blank, FENCE.sub(blank, text))
            for found in [*INLINE.finditer(prose), *REFERENCE.finditer(prose)]:
                if not OUTSIDE.match(found[1]) and (wrong := wrong_link(name, found[1], files, folders, texts)):
                    yield f"{name}:{line(text, found.start(1))}: {found[1]}: {wrong}"
        else:
            text = re.sub(r"^(?!\s*//).*$", blank, text, flags=re.M)
        for found in QUOTED.finditer(FENCE.sub(blank, text)):
            path = found[1].rstrip("/")
            if path.split("/")[0] in tops and "NAME" not in path and path not in files and path not in folders:
                yield f"{name}:{line(text, found.start(1))}: `{found[1]}`: no such file"


def wrong_link(name, link, files, folders, texts):
    """Returns why `link`, written in the file `name`, has no target, or None if it has one."""
    path, _, anchor = link.partition("#")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
    if target not in files and target not in folders and target != ".":
        return "no such file"
    if anchor and target.endswith(".md") and anchor not in anchors(texts[target]):
        return "no such heading"
    return None


def parents(name):
    while name := posixpath.dirname(name):
        yield name


def line(text, offset):
    return text.count("\n", 0, offset) + 1
