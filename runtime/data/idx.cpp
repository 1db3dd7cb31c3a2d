// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/idx.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "runtime/data/input_file.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kImagesMagic = 0x803, kLabelsMagic = 0x801;
constexpr int64_t kMaxSide = 16384;

uint32_t read_u32(InputFile& file) {
  std::array<uint8_t, 4> b{};
  file.read(b.data(), 4);
  return uint32_t{b[0]} << 24 | uint32_t{b[1]} << 16 | uint32_t{b[2]} << 8 | uint32_t{b[3]};
}

void expect_magic(InputFile& file, uint32_t expected, const char* meaning) {
  const uint32_t found = read_u32(file);
  if (found != expected)
    throw Error(Exit::data, "E_IDX_MAGIC",
                fmt::format("expected magic 0x{:08x} ({}), found 0x{:08x}", expected, meaning, found))
        .at("file", file.path())
        .at("offset", 0);
}

Error bad_size(const InputFile& file, int64_t offset, const std::string& message) {
  return Error(Exit::data, "E_IDX_SIZE", message).at("file", file.path()).at("offset", offset);
}

// Holds `bytes` of elements after the header against what the file can hold.
void expect_room(const InputFile& file, int64_t bytes, const std::string& claim) {
  if (bytes > file.at_most_left())
    throw Error(Exit::data, "E_DATA_TRUNCATED",
                fmt::format("expected {}, {} bytes, found {} at most", claim, bytes, file.at_most_left()))
        .at("file", file.path())
        .at("offset", file.offset());
}

struct ImagesHeader {
  int64_t count = 0, height = 0, width = 0;
};

ImagesHeader read_images_header(InputFile& file) {
  expect_magic(file, kImagesMagic, "unsigned bytes [count, height, width]");
  ImagesHeader h;
  h.count = read_u32(file);
  h.height = read_u32(file);
  h.width = read_u32(file);
  if (h.count == 0) throw bad_size(file, 4, "expected at least one image, found a count of 0");
  for (const auto& [side, offset] : {std::pair{h.height, 8}, {h.width, 12}})
    if (side < 1 || side > kMaxSide)
      throw bad_size(file, offset, fmt::format("expected a side of 1 to {}, found {}", kMaxSide, side));
  // At most 2^32 * 2^28: no overflow.
  expect_room(file, h.count * h.height * h.width,
              fmt::format("{} images of {}x{}", h.count, h.height, h.width));
  return h;
}

int64_t read_labels_header(InputFile& file) {
  expect_magic(file, kLabelsMagic, "unsigned bytes [count]");
  const int64_t count = read_u32(file);
  expect_room(file, count, fmt::format("{} labels", count));
  return count;
}

std::vector<int32_t> read_labels(const std::string& path, int64_t images, int64_t classes) {
  InputFile file(path);
  const int64_t count = read_labels_header(file);
  if (count != images)
    throw Error(Exit::data, "E_IDX_COUNT",
                fmt::format("expected {} labels, one an image, found {}", images, count))
        .at("file", path)
        .at("offset", 4);
  const int64_t start = file.offset();
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  file.read(bytes.data(), count);
  file.expect_end();
  if (classes > 0)
    for (size_t i = 0; i < bytes.size(); ++i)
      if (bytes[i] >= classes)
        throw Error(Exit::data, "E_LABEL_RANGE",
                    fmt::format("expected a label of 0 to {}, found {}", classes - 1, bytes[i]))
            .at("file", path)
            .at("offset", start + static_cast<int64_t>(i));
  return {bytes.begin(), bytes.end()};
}

int64_t classes_of(const std::vector<int32_t>& labels) {
  return 1 + *std::max_element(labels.begin(), labels.end());
}

// The first of the candidates that exists, or "".
std::string first_existing(const std::vector<std::string>& candidates) {
  for (const std::string& path : candidates)
    if (is_file(path)) return path;
  return "";
}

}  // namespace

void check_idx_size(const IdxPaths& paths) {
  InputFile images(paths.images);
  const ImagesHeader h = read_images_header(images);
  images.expect_left(h.count * h.height * h.width);
}

IdxPaths find_idx(const std::string& folder, const std::string& prefix, const std::string& dataset) {
  const auto find = [&](const std::string& what, const std::string& idx) {
    const std::string stem = (fs::path(folder) / (prefix + "-" + what)).string();
    std::vector<std::string> candidates;
    for (const char* separator : {"-", "."})
      for (const char* gz : {"", ".gz"}) candidates.push_back(stem + separator + idx + "-ubyte" + gz);
    const std::string found = first_existing(candidates);
    if (found.empty())
      throw Error(Exit::no_input, "E_DATA_MISSING", "there is no such file, with or without .gz")
          .at("file", candidates[0])
          .hint(fmt::format("lockstep data get {} --to {}", dataset, folder));
    return found;
  };
  return {find("images", "idx3"), find("labels", "idx1")};
}

IdxPaths find_idx_labels(const std::string& images) {
  std::string name = fs::path(images).filename().string();
  const auto replace_last = [&name](const std::string& from, const std::string& to) {
    const size_t at = name.rfind(from);
    if (at == std::string::npos) return false;
    name.replace(at, from.size(), to);
    return true;
  };
  if (!replace_last("images", "labels"))
    throw Error(Exit::config, "E_IDX_NAME",
                "expected a file name with `images` in it, for `labels` to stand beside it")
        .at("file", images);
  replace_last("idx3", "idx1");
  if (name.ends_with(".gz")) name.resize(name.size() - 3);
  const std::string labels = (fs::path(images).parent_path() / name).string();
  const std::string found = first_existing({labels, labels + ".gz"});
  if (found.empty() && !first_existing({images}).empty())
    throw Error(Exit::no_input, "E_DATA_MISSING", "there are no labels for the images, with or without .gz")
        .at("file", labels);
  return {images, found.empty() ? labels : found};
}

ImageSet read_idx(const IdxPaths& paths, int64_t classes) {
  InputFile file(paths.images);
  const ImagesHeader h = read_images_header(file);
  ImageSet set;
  // The labels first: cheap, and what is wrong with them is said before the work.
  set.labels = read_labels(paths.labels, h.count, classes);
  set.channels = 1;
  set.height = h.height;
  set.width = h.width;
  set.classes = classes > 0 ? classes : classes_of(set.labels);
  const int64_t bytes = h.count * set.sample_bytes();
  set.pixels.resize(static_cast<size_t>(bytes));
  file.read(set.pixels.data(), bytes);
  file.expect_end();
  return set;
}

DatasetShape probe_idx(const IdxPaths& paths, int64_t classes, std::vector<int32_t>& labels) {
  InputFile images(paths.images);
  const ImagesHeader h = read_images_header(images);
  labels = read_labels(paths.labels, h.count, classes);
  return {h.count, 1, h.height, h.width, classes > 0 ? classes : classes_of(labels), {}, {}};
}

}  // namespace lockstep
