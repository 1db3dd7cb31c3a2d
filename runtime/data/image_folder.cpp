#include "runtime/data/image_folder.h"

#include <algorithm>
#include <filesystem>

#include "runtime/data/codec.h"
#include "runtime/data/input_file.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

bool is_folder(const fs::path& path) {
  std::error_code ignored;  // what cannot be looked at is no folder; opening it as a file says why
  return fs::is_directory(path, ignored);
}

bool hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

// What stands directly below, sorted, without hidden names.
std::vector<fs::path> entries(const fs::path& folder) {
  std::error_code failed;
  fs::directory_iterator it(folder, failed), end;
  if (failed) throw cannot_read(folder.string(), failed.value());
  std::vector<fs::path> paths;
  for (; it != end; it.increment(failed)) {
    if (failed) throw cannot_read(folder.string(), failed.value());
    if (!hidden(it->path())) paths.push_back(it->path());
  }
  std::sort(paths.begin(), paths.end(),
            [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); });
  return paths;
}

// Loops of symbolic links end at the depth that no real tree has.
void collect(const fs::path& folder, int depth, std::vector<std::string>& files) {
  if (depth > 32)
    throw Error(Exit::data, "E_IMAGE_FOLDER", "expected at most 32 levels of folders")
        .at("file", folder.string());
  for (const fs::path& path : entries(folder)) {
    if (is_folder(path))
      collect(path, depth + 1, files);
    else
      files.push_back(path.string());
  }
}

Error other_size(const std::string& path, int64_t height, int64_t width, const std::string& first,
                 const DatasetShape& expected) {
  return Error(Exit::data, "E_IMAGE_SIZE",
               fmt::format("expected height x width {}x{}, the size of {}, found {}x{}", expected.height,
                           expected.width, first, height, width))
      .at("file", path);
}

}  // namespace

ImageFolder find_image_folder(const std::string& path, bool test) {
  fs::path base = path;
  if (is_folder(base / "train") || is_folder(base / "test")) base /= test ? "test" : "train";
  ImageFolder folder;
  for (const fs::path& entry : entries(base)) {
    if (!is_folder(entry)) continue;
    const size_t before = folder.files.size();
    collect(entry, 0, folder.files);
    if (folder.files.size() == before)
      throw Error(Exit::data, "E_IMAGE_FOLDER", "expected images of this class, found none")
          .at("file", entry.string());
    folder.labels.resize(folder.files.size(), static_cast<int32_t>(folder.classes.size()));
    folder.classes.push_back(entry.filename().string());
  }
  if (folder.classes.empty())
    throw Error(Exit::no_input, "E_DATA_MISSING",
                "expected a folder per class with PNG or JPEG files, found none")
        .at("file", base.string());
  return folder;
}

DatasetShape probe_image_folder(const ImageFolder& folder) {
  const std::string& first = folder.files.front();
  const ImageShape size = read_image_shape(first);
  DatasetShape all{static_cast<int64_t>(folder.files.size()), size.channels, size.height, size.width,
                   static_cast<int64_t>(folder.classes.size())};
  for (const std::string& path : folder.files) {
    const ImageShape shape = read_image_shape(path);
    if (shape.height != all.height || shape.width != all.width)
      throw other_size(path, shape.height, shape.width, first, all);
    all.channels = std::max(all.channels, shape.channels);
  }
  return all;
}

ImageSet read_image_folder(const ImageFolder& folder) {
  const DatasetShape shape = probe_image_folder(folder);
  ImageSet set;
  set.channels = shape.channels;
  set.height = shape.height;
  set.width = shape.width;
  set.classes = shape.classes;
  set.class_names = folder.classes;
  set.labels = folder.labels;
  std::vector<uint8_t> pixels;
  for (const std::string& path : folder.files) {
    const Image image = read_image(path, shape.channels);
    if (image.height != shape.height || image.width != shape.width)
      throw other_size(path, image.height, image.width, folder.files.front(), shape);
    // Not before the first image has shown that headers tell the truth.
    if (pixels.empty()) pixels.reserve(folder.files.size() * image.pixels.size());
    pixels.insert(pixels.end(), image.pixels.begin(), image.pixels.end());
  }
  set.pixels = std::move(pixels);
  return set;
}

}  // namespace lockstep
