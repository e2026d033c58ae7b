"""The graph of imports between the production modules of one crate, and the circles in it.

One node per file. An edge is a path that names another file of the crate, in a `use` or in the code: `crate::a::B`,
`super::B`, `self::a::B`, and `a::B` where `a` is a child or an imported module. A re-export is an edge. `mod a;` is not
an edge, nor is a mention in a comment or a documentation link. Test code is left out: items under `#[cfg(test)]` and
the files they declare.

An edge leads to the innermost file that the path names, not to where a re-exported item is defined: a file that imports
from `policy` needs `policy`. Method calls on a value are not edges: two files with an `impl` of the same type meet in
the file of the type.
"""

import re
from pathlib import Path

IDENT = r"[A-Za-z_]\w*"
# Comments, strings and characters, but not lifetimes ('a).
NOT_CODE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|\bb?r(\#*)".*?"\1|\bb?"(?:\\.|[^"\\])*"|"(?:\\.|[^"\\])*"|'(?:\\[^'\n]+|\\'|[^\\'\n])'""", re.S
)
TEST_ITEM = re.compile(r"#!?\[cfg\((?:test|(?:any|all)\(test\b[^\]]*)\)\]")
MODULE = re.compile(rf"\bmod\s+({IDENT})\s*;")
USE = re.compile(r"\buse\s+([^;]+);")
PATH = re.compile(rf"(?<![\w:.]){IDENT}(?:\s*::\s*{IDENT})+")
VISIBILITY = re.compile(r"\bpub\s*\([^)]*\)")


class Module:
    """A file of the crate: `name` is its module path, `code` its production code, line for line."""

    def __init__(self, file, name, code):
        self.file, self.name, self.code = file, name, code


def blank(text):
    """Returns `text` with every character but its line ends replaced by a space."""
    return re.sub(r"[^\n]", " ", text)


def production(text):
    """Returns the code of `text` without comments, literals, visibilities and test-only items."""
    code = VISIBILITY.sub(lambda m: blank(m[0]), NOT_CODE.sub(lambda m: blank(m[0]), text))
    while found := TEST_ITEM.search(code):
        if found[0].startswith("#!"):
            return blank(code)
        end = item_end(code, found.end())
        code = code[: found.start()] + blank(code[found.start() : end]) + code[end:]
    return code


def item_end(code, at):
    """Returns where the item that starts at `at` ends: after its `;`, or after the bracket that closes its body."""
    attributes = re.compile(r"\s*#\[[^\]]*\]").match
    while more := attributes(code, at):
        at = more.end()
    ends_with_body = not re.match(r"\s*(?:pub\s*)?(?:use|const|static|type|let)\b(?!\s+fn)", code[at:])
    depth = 0
    for index in range(at, len(code)):
        char = code[index]
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth < 0:
                return index
            if depth == 0 and char == "}" and ends_with_body:
                return index + 1
        elif char == ";" and depth == 0:
            return index + 1
    return len(code)


def read(root):
    """Returns the production modules below the crate's root file (`lib.rs` or `main.rs`), by module path."""
    modules = {}

    def visit(file, name, folder):
        module = Module(file, name, production(file.read_text(encoding="utf-8")))
        modules[name] = module
        for child in MODULE.findall(module.code):
            for candidate in (folder / f"{child}.rs", folder / child / "mod.rs"):
                if candidate.exists():
                    visit(candidate, name + (child,), folder / child)
                    break
            else:
                raise FileNotFoundError(f"{file}: no file for `mod {child};`")

    visit(Path(root), (), Path(root).parent)
    return modules


def leaves(tree):
    """Yields the paths of one use tree, each with the name that it binds (None for `*`)."""
    tree = tree.strip()
    brace = tree.find("{")
    if brace >= 0:
        prefix = re.findall(IDENT, tree[:brace])
        depth, start = 0, brace + 1
        for index in range(brace, len(tree)):
            depth += {"{": 1, "}": -1}.get(tree[index], 0)
            if (tree[index] == "," and depth == 1) or (tree[index] == "}" and depth == 0):
                if part := tree[start:index].strip():
                    for path, bound in leaves(part):
                        yield prefix + path, prefix[-1] if bound == "self" and prefix else bound
                start = index + 1
        return
    path, _, alias = tree.partition(" as ")
    segments = re.findall(IDENT, path)
    bound = alias.strip() or (None if path.rstrip().endswith("*") else segments[-1])
    yield segments[:-1] if segments[-1] == "self" and len(segments) > 1 else segments, bound


def resolve(modules, module, path, aliases):
    """Returns the module path of the innermost file that `path` names, and the rest of it; None outside the crate."""
    first, rest = path[0], list(path[1:])
    if first == "crate":
        at = ()
    elif first == "self":
        at = module.name
    elif first == "super":
        at = module.name[:-1]
        while rest and rest[0] == "super":
            at, rest = at[:-1], rest[1:]
    elif first in aliases:
        at = aliases[first]
    elif module.name + (first,) in modules:
        at = module.name + (first,)
    else:
        return None
    while rest and rest[0] != "self" and at + (rest[0],) in modules:
        at, rest = at + (rest[0],), rest[1:]
    return at, [segment for segment in rest if segment != "self"]


def edges(modules):
    """Returns {module path: {module path it needs: [line, …]}}."""
    graph = {name: {} for name in modules}
    for name, module in modules.items():
        aliases, bound_at = {}, {}

        def add(target, offset):
            if target != name:
                graph[name].setdefault(target, []).append(module.code.count("\n", 0, offset) + 1)

        for found in USE.finditer(module.code):
            for path, bound in leaves(found[1]):
                # `self` as a leaf of braces: the path is the prefix alone.
                path = [segment for index, segment in enumerate(path) if segment != "self" or index == 0]
                if not (hit := path and resolve(modules, module, path, {})):
                    continue
                target, rest = hit
                reexport = module.code[: found.start()].rstrip().endswith("pub")
                if bound and not rest and target != () and not reexport:
                    aliases[bound], bound_at[bound] = target, found.start()
                else:
                    add(target, found.start())
        code = USE.sub(lambda m: blank(m[0]), module.code)
        used = set()
        for found in PATH.finditer(code):
            path = re.findall(IDENT, found[0])
            if hit := resolve(modules, module, path, aliases):
                add(hit[0], found.start())
                used.add(path[0])
        for bound, target in aliases.items():
            if bound not in used:
                add(target, bound_at[bound])
    return graph


def circles(graph):
    """Returns the strongly connected components of more than one node (Tarjan's algorithm)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component = set()
            while node not in component:
                component.add(stack.pop())
            if len(component) > 1:
                found.append(component)

    for node in graph:
        if node not in index:
            visit(node)
    return found


def without_parents(graph):
    """Returns the graph without what children import from their parent modules."""
    return {
        node: {target: lines for target, lines in targets.items() if node[: len(target)] != target}
        for node, targets in graph.items()
    }


def describe(modules, graph, component, base):
    """Yields one circle as lines of text: each of its files with what it imports from the others, and where."""
    file = lambda name: modules[name].file.relative_to(base)
    for node in sorted(component):
        yield f"  {file(node)}"
        for target, lines in sorted(graph[node].items()):
            if target in component:
                yield f"    needs {file(target)} (line {', '.join(map(str, sorted(set(lines))))})"
