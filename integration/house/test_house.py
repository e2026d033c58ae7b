"""Tests of the house rules: each finds what it forbids and accepts a valid counterpart."""

import tempfile
import unittest
from pathlib import Path

import links
import lines
import modules
import promises


def tree(files):
    folder = tempfile.TemporaryDirectory()
    for name, text in files.items():
        file = Path(folder.name) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def circles_of(files):
    with tree(files) as folder:
        found = modules.read(Path(folder) / "lib.rs")
        graph = modules.edges(found)
        return sorted(sorted("::".join(name) for name in circle) for circle in modules.circles(graph))


def problems_of(check, files):
    with tree(files) as folder:
        return list(check(Path(folder), sorted(files)))


class Circles(unittest.TestCase):
    def test_a_circle_of_three_is_found(self):
        files = {
            "lib.rs": "mod a; mod b; mod c; mod d;",
            "a.rs": "use crate::b::B;\n",
            "b.rs": "pub fn b() { crate::c::c() }\n",
            "c.rs": "use super::{a::{self, A}, d::D};\n",
            "d.rs": "",
        }
        self.assertEqual(circles_of(files), [["a", "b", "c"]])
        files["c.rs"] = "use super::d::D;\n"
        self.assertEqual(circles_of(files), [])

    def test_a_child_that_imports_from_the_parent_that_calls_it(self):
        files = {"lib.rs": "mod a;", "a.rs": "mod b; pub struct A; fn f() { b::g() }", "a/b.rs": "use super::A;"}
        self.assertEqual(circles_of(files), [["a", "a::b"]])
        files["a.rs"] = "mod b; pub struct A;"
        self.assertEqual(circles_of(files), [])

    def test_paths_by_an_imported_module_and_a_grandparent(self):
        files = {
            "lib.rs": "mod a; mod x;",
            "a.rs": "pub mod b;",
            "a/b.rs": "use crate::x as other;\nfn f() { other::y::z() }",
            "x.rs": "pub mod y;",
            "x/y.rs": "fn z() -> super::super::a::b::B {}",
        }
        self.assertEqual(circles_of(files), [["a::b", "x::y"]])

    def test_a_reexport_is_an_edge(self):
        files = {"lib.rs": "mod a; mod b;", "a.rs": "pub use crate::b::B;", "b.rs": "use crate::a::A;"}
        self.assertEqual(circles_of(files), [["a", "b"]])

    def test_what_is_no_import(self):
        b = """
//! See [`crate::a::A`], use crate::a::A;
const TEXT: &str = "use crate::a::A;\\""; const CHAR: char = '"'; /* use crate::a::A; */
const RAW: &str = r#"" use crate::a::A; "#;
pub(in crate::a) fn f<'a>(x: &'a str) { x.a::<u8>() }
#[cfg(test)]
use crate::a::A;
#[cfg(test)]
#[allow(unused)]
fn g() { if x { crate::a::A } }
#[cfg(test)]
mod tests;
#[cfg(test)]
mod inner { use crate::a::A; }
"""
        files = {"lib.rs": "mod a; mod b;", "a.rs": "use crate::b::f;", "b.rs": b, "b/tests.rs": "use crate::a::A;"}
        self.assertEqual(circles_of(files), [])
        files["b.rs"] = b + "fn h() { crate::a::A }"
        self.assertEqual(circles_of(files), [["a", "b"]])


class Lines(unittest.TestCase):
    def test_each_limit(self):
        allowed = {"cli/a.rs": "//! A.\n" + "//\n" * 498 + "/" * 120 + "\n", "a.md": "| " + "a b " * 60 + "|\n"}
        self.assertEqual(problems_of(lines.problems, allowed), [])
        self.assertEqual(len(problems_of(lines.problems, {"cli/a.rs": "//! A.\n" + "//\n" * 500})), 1)
        self.assertEqual(len(problems_of(lines.problems, {"cli/a.rs": "//! A.\n" + "ü " * 61})), 1)
        self.assertEqual(len(problems_of(lines.problems, {"cli/a.rs": "use a::A;\n"})), 1)
        self.assertEqual(len(problems_of(lines.problems, {"a.md": "a b " * 60})), 1)


class Links(unittest.TestCase):
    def test_links_and_anchors(self):
        readme = "# One `two`, three\n[a](docs/b.md#on-it) [b](#one-two-three) [c](docs) [d](https://x.y/z)\n"
        readme += "`[e](none)` `docs/b.md`\n"
        files = {"README.md": readme, "docs/b.md": "## On it\n[r]: ../README.md\n```\n[x](none)\n# no heading\n```\n"}
        self.assertEqual(problems_of(links.problems, files), [])
        wrongs = ("[a](docs/c.md)", "[a](docs/b.md#of-it)", "[a](docs/b.md#no-heading)", "`docs/c.md`", "[r]: none")
        for wrong in wrongs:
            found = problems_of(links.problems, {**files, "README.md": readme + "\n" + wrong})
            self.assertEqual(len(found), 1, wrong)

    def test_paths_in_comments_of_rust(self):
        files = {"cli/a.rs": '//! See `cli/a.rs`.\nlet x = "`cli/b.rs`";\n'}
        self.assertEqual(problems_of(links.problems, files), [])
        self.assertEqual(len(problems_of(links.problems, {"cli/a.rs": "//! See `cli/b.rs`.\n"})), 1)


class Promises(unittest.TestCase):
    def test_tests_that_are_named_exist(self):
        page = "x\n`a::b_c` `a::b` `c::b_c`\n"
        files = {promises.TESTS + "/a.rs": "#[test]\nfn b_c() {}\n", promises.PAGE: page}
        found = problems_of(promises.problems, files)
        self.assertEqual([line.split(": ")[1] for line in found], ["`a::b`", "`c::b_c`"])
        self.assertTrue(all(line.startswith(promises.PAGE + ":2:") for line in found))


if __name__ == "__main__":
    unittest.main()
