// SPDX-License-Identifier: Apache-2.0
// What lies at a path. Nothing here throws what std::filesystem throws, and nothing waits for a pipe's other end.
#pragma once

#include <string>
#include <vector>

#include "kernels/core/error.h"

namespace lockstep {

enum class PathKind { none, file, folder, other };  // other: a pipe, a socket, a device

// Links are followed. Errors: no_permission (77) where a folder on the way may not be entered, io (74).
PathKind path_kind(const std::string& path);
inline bool is_file(const std::string& path) { return path_kind(path) == PathKind::file; }
inline bool is_folder(const std::string& path) { return path_kind(path) == PathKind::folder; }
inline bool is_there(const std::string& path) { return path_kind(path) != PathKind::none; }

// The names in a folder, sorted, without "." and "..". Errors: no_input (66), no_permission (77), io (74).
std::vector<std::string> names_in(const std::string& folder);

// The path from the root, without "." and "..". Links stay as they are.
std::string absolute_path(const std::string& path);

// "~" and "~/x" as the shell has them: below HOME. Other paths stay as they are.
std::string at_home(const std::string& path);
const char* why_not_at_home(const std::string& path);  // null: at_home knows the folder

// Whether a folder can be made, or written to where it is there. Errors: cannot_create (73) with what hinders.
void expect_writable(const std::string& folder);

// errno, or one of the two below, as an Error: no_input (66), no_permission (77), io (74).
Error cannot_open(const std::string& path, int error_number);
inline constexpr int kIsFolder = -1, kIsNoFile = -2;  // a pipe, a socket, a device
const char* why_no_input(int error_number);           // null: the file is there
bool is_denied(int error_number);

// The descriptor of a regular file, for reading. Throws what `error` makes of errno.
using OpenError = Error (*)(const std::string& path, int error_number);
int open_file(const std::string& path, OpenError error = cannot_open);
// A whole file. Errors: those of open_file, and data (65) for one of more than `most` bytes.
std::string read_text_file(const std::string& path, size_t most, OpenError error = cannot_open);

}  // namespace lockstep
