#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""README, docs/ and what else a user reads: links lead somewhere, commands run, tables hold what the program has.

LOCKSTEP=build/release/lockstep tests/docs/docs_test.py [Commands | Pages | Reference | Program]"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import commands  # noqa: E402
import errors  # noqa: E402
import pages  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOCKSTEP = pathlib.Path(os.environ.get("LOCKSTEP", ROOT / "build/release/lockstep")).resolve()
# Pages whose commands are run or listed; and all whose links are followed.
MANUAL = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [*MANUAL, *(ROOT / name for name in ("CHANGELOG.md", "SECURITY.md", "THIRD_PARTY.md"))]


def output(*words, **options):
    return subprocess.run(words, check=True, capture_output=True, text=True, **options).stdout


class Pages(unittest.TestCase):
    def test_links_lead_somewhere(self):
        for page in PAGES:
            self.assertEqual(pages.broken_links(ROOT, page), [], page)

    def test_readme_is_short(self):
        self.assertLessEqual((ROOT / "README.md").stat().st_size, 6144)

    def test_every_page_can_be_found_from_the_readme(self):
        reached, todo = set(), [ROOT / "README.md"]
        while todo:
            page = todo.pop()
            if page in reached or page.suffix != ".md":
                continue
            reached.add(page)
            for target in pages.links(page.read_text()):
                if not re.match(r"[a-z]+:|#", target):
                    todo.append((page.parent / target.partition("#")[0]).resolve())
        self.assertEqual(set(PAGES) - reached, set())

    def test_what_is_wrong_is_seen(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder).resolve()
            page = root / "page.md"
            page.write_text("# One `word`\n[a](page.md#one-word) [b](#one-word) ![c](none.png) [d](page.md#two) [e](../x)\n")
            self.assertEqual(pages.broken_links(root, page), ["none.png", "page.md#two", "../x"])
        self.assertEqual(pages.commands("```sh\na b   # c\n# d\ne \\\n  f\n```\n```console\n$ g\nh\n```\n"), ["a b", "e f", "g"])
        for bad in ("```\nls\n```\n", "```bash\nls\n```\n", "```sh\nls\n"):
            with self.assertRaises(ValueError):
                pages.commands(bad)


class Commands(unittest.TestCase):
    def test_every_command_is_run_or_listed(self):
        printed = set()
        for page in MANUAL:
            printed.update(pages.commands(page.read_text()))
        run = [command for command, _ in commands.RUN]
        self.assertEqual(len(run), len(set(run)))
        self.assertEqual(set(run) & set(commands.NOT_RUN), set())
        known = set(run) | set(commands.NOT_RUN)
        self.assertEqual(printed - known, set(), "neither run nor listed in tests/docs/commands.py")
        self.assertEqual(known - printed, set(), "no page prints it any more")

    def test_they_run(self):
        if os.environ.get("LOCKSTEP_SANITIZE"):
            self.skipTest("SKIP_SANITIZE: the commands run without sanitizers")
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            shutil.copytree(ROOT / "configs", root / "configs")
            shutil.copytree(ROOT / "tests/golden/digits", root / "tests/golden/digits")
            environment = {
                **os.environ,
                "PATH": f"{LOCKSTEP.parent}:{os.environ['PATH']}",
                "XDG_CACHE_HOME": str(root / "cache"),
                # For mpirun: root may start ranks, and more than there are cores; Open MPI 4 and 5.
                "OMPI_ALLOW_RUN_AS_ROOT": "1",
                "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                "PRTE_ALLOW_RUN_AS_ROOT": "1",
                "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                "OMPI_MCA_rmaps_base_oversubscribe": "1",
                "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
            }
            for printed, shortened in commands.RUN:
                command = printed
                if isinstance(shortened, str):
                    command = f"{command} {shortened}".strip()
                else:
                    for old, new in shortened:
                        self.assertIn(old, command)
                        command = command.replace(old, new)
                with self.subTest(command):
                    started = time.monotonic()
                    done = subprocess.run(
                        ["bash", "-euo", "pipefail", "-c", command],
                        cwd=root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
                    )
                    print(f"{time.monotonic() - started:6.2f} s  {command}", flush=True)
                    self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}{done.stderr}")
            for name in ("threes.png", "trace.json", "lockstep.1", "samples"):
                self.assertTrue((root / name).exists(), name)


class Reference(unittest.TestCase):
    """docs/reference.md against the sources."""

    def rows(self, title):
        text = (ROOT / "docs/reference.md").read_text()
        section = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", text, re.M | re.S)[1]
        return [[c.strip() for c in line.strip("|").split(" | ")] for line in section.splitlines() if re.match(r"\| (`|\d)", line)]

    def test_every_error_identifier_stands_with_its_code(self):
        found = {i: ", ".join(map(str, sorted(c))) or "of the rank" for i, c in errors.identifiers(ROOT).items()}
        self.assertGreater(len(found), 100)
        rows = self.rows("Errors")
        self.assertEqual({row[0].strip("`"): row[1] for row in rows}, found)
        self.assertEqual(len(rows), len(found))
        for row in rows:
            self.assertGreater(len(row[2]), 10, row)

    def test_exit_codes(self):
        rows = {row[1].strip("`"): int(row[0]) for row in self.rows("Exit codes")}
        self.assertEqual(rows, errors.exit_codes(ROOT))

    def test_exit_codes_of_the_program_say_the_same(self):
        shown = dict(re.findall(r"^  (\d+) +(.+)$", output(LOCKSTEP, "--help"), re.M))
        rows = {row[0]: row[2].replace("`", "") for row in self.rows("Exit codes")}
        self.assertEqual(shown, rows)

    def test_environment_variables(self):
        text = (ROOT / "docs/reference.md").read_text()
        used = set()
        for floor in errors.FLOORS:
            for path in [*(ROOT / floor).rglob("*.cpp"), *(ROOT / floor).rglob("*.h")]:
                used.update(re.findall(r'"(LOCKSTEP_[A-Z_]+)"', path.read_text()))
        documented = set(re.findall(r"`(LOCKSTEP_[A-Z_]+)`", text))
        self.assertEqual(documented, used)
        page = output(LOCKSTEP, "man")
        for row in self.rows("Environment variables"):
            self.assertIn(f".TP\n\\fB{row[0].strip('`')}\\fR\n", page)


class Program(unittest.TestCase):
    """--version, and manual page and completion beside --help."""

    @classmethod
    def setUpClass(cls):
        listed = output(LOCKSTEP, "--help").split("Commands:\n")[1].split("\n\n")[0]
        cls.options = {}
        for name in re.findall(r"^  (\w+)", listed, re.M):
            cls.options[name] = re.findall(r"^  (--[\w-]+)", output(LOCKSTEP, name, "--help"), re.M)

    def test_version(self):
        said = output(LOCKSTEP, "--version")
        self.assertRegex(said, r"^lockstep \d+\.\d+\.\d+( \([0-9a-f]{7,40}(, modified)?\))?\n$")
        release = re.search(r"project\(lockstep VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
        self.assertEqual(said.split()[1], release)
        newest = re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
        self.assertEqual(newest, release)

    def test_manual_page_has_every_command_option_and_key(self):
        page = output(LOCKSTEP, "man")
        plain = page.replace("\\-", "-")
        self.assertGreater(len(self.options), 8)
        for name, options in self.options.items():
            section = plain.split(f".SS lockstep {name} ")[1].split("\n.SS ")[0]
            for option in options:
                self.assertRegex(section, rf"\.TP\n\\fB{option}[ \\]")
        keys = re.findall(r"^  ([\w.]+)  \(", output(LOCKSTEP, "fit", "--help-keys"), re.M)
        self.assertGreater(len(keys), 150)
        for key in keys:
            self.assertIn(f"\\fB{key}\\fR", plain)

    def test_manual_page_is_roff(self):
        if not shutil.which("groff"):
            self.skipTest("SKIP_NO_GROFF: no groff here")
        done = subprocess.run(
            ["groff", "-man", "-ww", "-k", "-Tutf8", "-z"], input=output(LOCKSTEP, "man"), capture_output=True, text=True
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def offers(self, *words):
        """What bash would offer for the last word, its word breaks included."""
        script = output(LOCKSTEP, "completion", "bash")
        ask = (
            'compopt() { :; }; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _lockstep; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        return output("bash", "-euc", f"{script}\n{ask}", "bash", *words).split()

    def test_completion_offers_every_command_and_option(self):
        self.assertEqual(set(self.offers("lockstep", "")), {*self.options, "--help", "--version"})
        for name, options in self.options.items():
            self.assertEqual(set(self.offers("lockstep", name, "-")), {*options, "--help"}, name)
        self.assertEqual(self.offers("lockstep", "fit", "--ret"), ["--retune"])

    def test_completion_of_values(self):
        self.assertIn("hyperparameters.optimizer.lr=", self.offers("lockstep", "fit", "--set", "hyperparameters.opt"))
        self.assertEqual(self.offers("lockstep", "fit", "--set", "instance"), ["instance_count="])
        self.assertEqual(self.offers("lockstep", "fit", "--set", "inputs.training.lim"), ["inputs.training.limit="])
        # As bash cuts device=c, and device=
        self.assertEqual(self.offers("lockstep", "fit", "--set", "device", "=", "c"), ["cpu", "cuda"])
        self.assertEqual(self.offers("lockstep", "fit", "--set", "device", "="), ["auto", "cpu", "cuda", "simt"])
        self.assertEqual(self.offers("lockstep", "data", ""), ["get", "make"])
        self.assertEqual(self.offers("lockstep", "data", "make", ""), ["captioned_digits"])
        self.assertEqual(self.offers("lockstep", "data", "get", "f"), ["fashion_mnist"])
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "job.yaml").touch()
            self.assertEqual(self.offers("lockstep", "fit", f"{folder}/j"), [f"{folder}/job.yaml"])
            self.assertEqual(self.offers("lockstep", "fit", "--output", folder[:-1]), [folder])


class Version(unittest.TestCase):
    """cmake/version.cmake: a tarball has the release alone, a repository the commit too."""

    def made(self, source, header):
        output("cmake", f"-DSOURCE={source}", "-DVERSION=1.2.3", f"-DHEADER={header}", "-P", ROOT / "cmake/version.cmake")
        return re.search(r'"(.*)"', header.read_text())[1]

    def test_of_tarball_and_repository(self):
        if not shutil.which("git") or not shutil.which("cmake"):
            self.skipTest("SKIP_NO_GIT: no git or no cmake here")
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            inside, header = root / "tarball", root / "version.h"
            inside.mkdir()
            (root / "file").write_text("1")

            def git(*words):
                identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
                return output("git", "-C", root, *identity, *words).strip()

            git("init", "-q")
            git("add", "file")
            git("commit", "-qm", "one")
            self.assertEqual(self.made(inside, header), "1.2.3")
            commit = git("rev-parse", "--short=12", "HEAD")
            git("tag", "-a", "v9", "-m", "a tag is no part of it")
            self.assertEqual(self.made(root, header), f"1.2.3 ({commit})")
            before = header.stat().st_mtime_ns
            self.made(root, header)
            self.assertEqual(header.stat().st_mtime_ns, before, "what does not change is not compiled again")
            (root / "file").write_text("2")
            self.assertEqual(self.made(root, header), f"1.2.3 ({commit}, modified)")


if __name__ == "__main__":
    unittest.main()
