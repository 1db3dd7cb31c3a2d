#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the standard library and nlohmann throw reaches a user as a bug of ours (70). So the sources ask in ways that do not throw,
or that say what happened as an Error."""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Name, the call, and what is right instead. Calls of std::filesystem have one argument too few for an error_code.
RULES = [
    ("filesystem query",
     r"\b(?:fs|filesystem)::(?:exists|is_directory|is_regular_file|file_size|is_empty|is_symlink|last_write_time|read_symlink|"
     r"canonical|absolute|create_directory|create_directories|remove|remove_all|space|status)\(([^,()]|\([^()]*\))*\)",
     "runtime/files/path.h, or an error_code"),
    ("current_path, temp_directory_path", r"\b(?:current_path|temp_directory_path)\(\)", 'absolute_path(".")'),
    ("directory_iterator in a loop", r"for \([^;]*directory_iterator", "names_in()"),
    ("entry's query", r"\bentry(?:\.|->)(?:is_directory|is_regular_file|exists|file_size)\(\)", "path_kind()"),
    ("json::dump", r"(?:\.|->)dump\(", "json_text()"),
    ("stoi and its like", r"\bsto(?:i|l|ll|ul|ull|f|d|ld)\(", "std::from_chars"),
    ("json::parse that throws", r"json::parse\((?![^;]*nullptr, false\))[^;]*\)", "parse(text, nullptr, false)"),
    ("json::at, json::value", r"(?:\.|->)(?:at\(\"[^\"]*\"\)|value\(\")", "json_get() and json_member()"),
    # They throw, or let a file's name order the terminal about.
    ("words past say()",
     r"fmt::print\(|\b(?:puts|printf)\(|\bf(?:puts|write|printf)\((?:[^;]*\b)?std(?:out|err)\b|std::c(?:out|err)\b",
     "say(), report_error() or print_out()"),
]  # fmt: skip
CALLS = [(name, re.compile(call), instead) for name, call, instead in RULES]

# (file, rule): why it is right there.
ALLOWED = {
    ("runtime/files/json_text.h", "json::dump"): "the one place that says what becomes of bad UTF-8",
    ("runtime/telemetry/say.cpp", "words past say()"): "the one place that writes them",
    ("runtime/telemetry/log.cpp", "words past say()"): "say() logs what it cannot say",
    ("runtime/files/mapped_file.cpp", "words past say()"): "of a program without a log",
    ("kernels/vendor/onednn.cpp", "words past say()"): "a number alone; kernels know no say()",
    ("kernels/vendor/cudnn.cpp", "directory_iterator in a loop"): "a folder of the toolkit; kernels know no names_in()",
    ("runtime/checkpoint/manifest.cpp", "json::dump"): "replaces bad UTF-8, and escapes all that is not ASCII",
    ("runtime/comm/error_text.cpp", "json::parse that throws"): "what another rank of this program wrote",
    ("runtime/graph/kernel_table.cpp", "json::parse that throws"): "what another rank of this program wrote",
    ("runtime/comm/error_text.cpp", "json::at, json::value"): "what another rank of this program wrote",
    ("launch/job/availability.cpp", "json::at, json::value"): "a map of ours, asked before whether it has the key",
    ("runtime/training/trainer_resume.cpp", "json::parse that throws"): "what rank 0 of this program wrote",
    ("launch/serve/body.cpp", "json::parse that throws"): "it is told not to, behind a callback",
    ("runtime/text/clip_files.cpp", "json::parse that throws"): "caught there, for the parser's own words",
    ("models/diffusion/scheduler_config.cpp", "json::parse that throws"): "caught there, for the parser's own words",
}


def findings(text):
    """(rule, what to write instead) of each."""
    code = re.sub("//[^\n]*", "", text)
    return [(name, instead) for name, call, instead in CALLS for _ in call.finditer(code)]


class ThrowingCalls(unittest.TestCase):
    def test_they_are_seen(self):
        for line in [
            "fs::exists(path)",
            "std::filesystem::is_directory(folder.string())",
            'fs::create_directories(a + "/b");',
            "std::filesystem::current_path()",
            "for (const auto& e : fs::directory_iterator(dir, error)) f(e);",
            "entry.is_directory()",
            "j.dump()",
            "it->dump(2)",
            "std::stoi(text)",
            "std::stod(s)",
            "json::parse(text);",
            'fmt::print(stderr, "x")',
            'fmt::print("x")',
            "std::fputs(text.c_str(), stderr)",
            'std::printf("x")',
            "std::cout << x",
            'meta.at("step")',
            'it->at("a b").get<int>()',
            'meta.value("init_from", "")',
        ]:  # fmt: skip
            self.assertEqual(len(findings(line)), 1, line)

    def test_others_are_not(self):
        for line in [
            "fs::exists(path, error)",
            "fs::create_directories(folder, error)",
            "json_text(j, 2)",
            "json::parse(text, nullptr, false)",
            "current_path(none)",
            "// j.dump()",
            "custom(stoic)",
            'Error(x).at("file", path)',
            'json_get<bool>(meta, "a", file)',
            "graph.value(v)",
            'std::snprintf(text, 3, "x")',
            'print_out("x")',
            "inputs(x)",
            "std::fwrite(p, 1, n, file)",
        ]:  # fmt: skip
            self.assertEqual(findings(line), [], line)

    def test_they_are_not_made(self):
        unused, files, made = set(ALLOWED), 0, []
        for floor in ("launch", "models", "runtime", "kernels"):
            for path in sorted((ROOT / floor).rglob("*")):
                if path.suffix not in (".cpp", ".h", ".cu", ".cuh"):
                    continue
                files += 1
                name = path.relative_to(ROOT).as_posix()
                for rule, instead in findings(path.read_text()):
                    if (name, rule) in ALLOWED:
                        unused.discard((name, rule))
                    else:
                        made.append(f"{name}: {rule} may throw past every Error; write {instead}")
        self.assertEqual(made, [])
        self.assertGreater(files, 100)
        self.assertEqual(unused, set(), "allowed, and not there")


if __name__ == "__main__":
    unittest.main(verbosity=2)
