// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/foreign_file.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

namespace lockstep {
namespace {

using namespace std::string_view_literals;

constexpr const char* kFromPickle =
    "python3 -c \"import torch, safetensors.torch as s; s.save_file(torch.load('FILE', weights_only=True), "
    "'model.safetensors')\" converts it; load pickles from people you trust only";
constexpr const char* kConvert = "convert it to safetensors under PyTorch's names first";

struct Signature {
  std::string_view bytes;
  const char* what;
  const char* hint;
};

constexpr std::array kSignatures = {
    Signature{"version https://git-lfs.github.com/spec/"sv,
              "a Git LFS pointer, not the file that it stands for",
              "`git lfs pull` in its repository fetches the file"},
    Signature{"PK\x03\x04"sv, "a ZIP archive, as torch.save writes pickles", kFromPickle},
    Signature{"\x89HDF\r\n\x1a\n"sv, "an HDF5 file, as Keras writes weights", kConvert},
    Signature{"GGUF"sv, "a GGUF file", kConvert},
    Signature{"\x93NUMPY"sv, "a NumPy array", kConvert},
    Signature{"\x1f\x8b"sv, "a gzip file", "unpack it first"},
    Signature{"\xfd"
              "7zXZ\0"sv,
              "an xz file", "unpack it first"},
    Signature{"{"sv, "a JSON file", "the weights lie in files of their own beside it"},
    Signature{"<?xml"sv, "an XML page, as servers answer instead of a file", "download the file again"},
    Signature{"<!doctype html"sv, "an HTML page, as servers answer instead of a file",
              "download the file again"},
    Signature{"<html"sv, "an HTML page, as servers answer instead of a file", "download the file again"},
};

}  // namespace

std::optional<ForeignFile> foreign_file(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()),
                              std::min<size_t>(bytes.size(), 512));
  // Pickle, protocol 2 to 5: torch.save's before it wrote archives.
  if (text.size() >= 2 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5)
    return ForeignFile{"a pickle", kFromPickle};
  // An ONNX model is a protocol buffer that begins with ir_version (field 1) and producer_name (field 2).
  if (text.size() >= 3 && text[0] == 0x08 && text[1] >= 1 && text[1] <= 20 && text[2] == 0x12)
    return ForeignFile{"an ONNX model", kConvert};
  std::string lower(text.substr(std::min(text.find_first_not_of(" \t\r\n"), text.size())));
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const Signature& s : kSignatures)
    if (text.starts_with(s.bytes) || (s.bytes[0] == '<' && lower.starts_with(s.bytes)))
      return ForeignFile{s.what, s.hint};
  if (text.size() > 262 && text.substr(257, 5) == "ustar")
    return ForeignFile{"a tar archive", "unpack it first"};
  // The length that a safetensors file begins with has zeros in it.
  const auto begin = text.substr(0, 64);
  if (!begin.empty() && std::all_of(begin.begin(), begin.end(), [](unsigned char c) {
        return std::isprint(c) != 0 || std::isspace(c) != 0;
      }))
    return ForeignFile{"a text, as servers answer instead of a file", "download the file again"};
  return std::nullopt;
}

}  // namespace lockstep
