// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/image_folder.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string_view>
#include <thread>

#include "runtime/data/captions.h"
#include "runtime/data/codec.h"
#include "runtime/data/fit.h"
#include "runtime/data/input_file.h"
#include "runtime/files/json_text.h"
#include "runtime/files/path.h"
#include "runtime/text/unicode.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

// What systems and tools put beside people's files: some of it holds pictures.
bool hidden(const fs::path& path) {
  static constexpr std::array<std::string_view, 7> kOfSystems = {
      "__MACOSX",   "@eaDir",     "#recycle", "$RECYCLE.BIN", "System Volume Information",
      "lost+found", "__pycache__"};
  const std::string name = path.filename().string();
  return name.starts_with('.') || std::find(kOfSystems.begin(), kOfSystems.end(), name) != kOfSystems.end();
}

// What stands directly below, sorted, without hidden names.
std::vector<fs::path> entries(const fs::path& folder) {
  std::error_code failed;
  fs::directory_iterator it(folder, failed), end;
  if (failed && is_file(folder.string()))
    throw Error(Exit::no_input, "E_DATA_MISSING", "expected a folder, found a file")
        .at("file", folder.string());
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

// Calls f with every file at any depth, in the order of paths, until it returns false. Loops of symbolic links end at the
// depth that no real tree has.
template <class F>
bool each_file(const fs::path& folder, const F& f, int depth = 0) {
  if (depth > 32)
    throw Error(Exit::data, "E_IMAGE_FOLDER", "expected at most 32 levels of folders")
        .at("file", folder.string())
        .hint("a link may lead back to a folder that it lies in");
  for (const fs::path& path : entries(folder))
    if (!(is_folder(path.string()) ? each_file(path, f, depth + 1) : f(path.string()))) return false;
  return true;
}

bool has_pictures(const fs::path& folder) {
  return !each_file(folder, [](const std::string& file) { return !looks_like_picture(file); });
}

// Whether train/ and test/ below a folder are its halves. Where another folder with pictures stands beside them, they are
// classes of those names: as halves they would leave its pictures out.
bool has_halves(const fs::path& base) {
  if (!is_folder((base / "train").string()) && !is_folder((base / "test").string())) return false;
  for (const fs::path& path : entries(base)) {
    const std::string name = path.filename().string();
    const bool half =
        name == "train" || name == "test" || name == "val" || name == "valid" || name == "validation";
    if (!half && is_folder(path.string()) && has_pictures(path)) return false;
  }
  return true;
}

// Folders that are called as parts of a data set are, more than one of them and not the halves that we know: were they
// classes, what is learned would be which part a picture is in.
void refuse_parts_as_classes(const fs::path& base) {
  static constexpr std::array<std::string_view, 8> kParts = {"train", "training", "test",       "testing",
                                                             "val",   "valid",    "validation", "eval"};
  std::vector<std::string> parts;
  for (const fs::path& path : entries(base)) {
    std::string name = path.filename().string();
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    if (std::find(kParts.begin(), kParts.end(), name) != kParts.end() && is_folder(path.string()))
      parts.push_back(path.filename().string());
  }
  if (parts.size() < 2) return;
  throw Error(
      Exit::data, "E_IMAGE_FOLDER",
      fmt::format("folders called {} are parts of a data set or classes of pictures: which is not to be told",
                  fmt::join(parts, ", ")))
      .at("file", base.string())
      .hint(
          "the halves are train/ and test/, with nothing beside them but validation/; or name one part as "
          "the path");
}

Error other_size(const std::string& path, int64_t height, int64_t width, const std::string& first,
                 const DatasetShape& expected) {
  return Error(Exit::data, "E_IMAGE_SIZE",
               fmt::format("expected height x width {}x{}, the size of {}, found {}x{}", expected.height,
                           expected.width, first, height, width))
      .at("file", path)
      .hint("resize: [height, width], or one number and crop, makes one size of them");
}

// f(i) for i in [0, n) on a pool of threads. Returns what went wrong, by i. Where an error ends it all,
// nothing is begun after one; what comes before it is done all the same, so that the first error is always
// the same one.
template <class F>
std::map<size_t, Error> each(size_t n, const ImageFolderOptions& options, F f) {
  std::map<size_t, Error> errors;
  std::mutex mutex;
  std::atomic<size_t> next = 0;
  std::atomic<bool> ended = false;
  const auto work = [&] {
    for (size_t i; !ended && (i = next++) < n;) {
      std::optional<Error> error;
      try {
        f(i);
      } catch (const Error& e) {
        error = e;
      } catch (const std::exception& e) {
        error = Error(Exit::internal, "E_INTERNAL", e.what());
      }
      if (!error) continue;
      ended = ended || !options.skip_bad;
      const std::lock_guard lock(mutex);
      errors.emplace(i, std::move(*error));
    }
  };
  std::vector<std::jthread> pool;
  for (int t = 1; t < options.threads; ++t) pool.emplace_back(work);
  work();
  pool.clear();  // waits
  return errors;
}

// What the headers say, and which files are to be read.
struct Survey {
  Survey(const ImageFolder& f, const ImageFolderOptions& o) : folder(f), options(o) {
    std::vector<ImageShape> shapes(folder.files.size());
    const auto errors = each(shapes.size(), options, [&](size_t i) {
      shapes[i] = fitted(folder.files[i], read_image_shape(folder.files[i], options.max_pixels), options.fit);
    });
    for (const auto& [i, error] : errors) leave_out(i, error);
    expect_all_classes();
    for (size_t i = 0; i < shapes.size(); ++i)
      if (!errors.contains(i)) files.push_back(i);
    if (files.empty())
      throw Error(Exit::data, "E_IMAGE_FOLDER",
                  fmt::format("none of the images can be read; the first: {}", left_out.begin()->second))
          .at("file", folder.files[left_out.begin()->first]);
    const ImageShape& first = shapes[files[0]];
    shape = {static_cast<int64_t>(files.size()),
             1,
             first.height,
             first.width,
             static_cast<int64_t>(folder.classes.size()),
             {},
             {}};
    for (size_t i : files) {
      if (shapes[i].height != shape.height || shapes[i].width != shape.width)
        throw other_size(folder.files[i], shapes[i].height, shapes[i].width, folder.files[files[0]], shape);
      shape.channels = std::max(shape.channels, shapes[i].channels);
    }
  }

  // Or stops, where that is what was asked for, and always where the data isn't to blame.
  void leave_out(size_t file, const Error& error) {
    if (!options.skip_bad || error.exit() != Exit::data) throw error;
    left_out.emplace(file, error.message());
  }
  void expect_all_classes() const {
    if (folder.classes.empty()) return;
    std::vector<int64_t> left(folder.classes.size());
    for (size_t i = 0; i < folder.files.size(); ++i)
      left[static_cast<size_t>(folder.labels[i])] += !left_out.contains(i);
    for (const auto& [file, what] : left_out) {
      const auto c = static_cast<size_t>(folder.labels[file]);
      if (left[c] == 0)
        throw Error(
            Exit::data, "E_IMAGE_FOLDER",
            fmt::format("no image of class \"{}\" can be read; the first: {}", folder.classes[c], what))
            .at("file", folder.files[file]);
    }
  }

  std::vector<std::string> left_out_texts() const {
    std::vector<std::string> texts;
    for (const auto& [file, what] : left_out) texts.push_back(folder.files[file] + ": " + what);
    return texts;
  }

  const ImageFolder& folder;
  const ImageFolderOptions& options;
  DatasetShape shape;
  std::vector<size_t> files;  // by their place in the folder
  std::map<size_t, std::string> left_out;
};

}  // namespace

ImageFolder find_image_folder(const std::string& path, bool test) {
  fs::path base = path;
  if (has_halves(base))
    base /= test ? "test" : "train";
  else if (is_folder(path))
    refuse_parts_as_classes(base);
  ImageFolder folder;
  const auto add = [&](const std::string& file) {
    (looks_like_picture(file) ? folder.files : folder.passed_over).push_back(file);
    return true;
  };
  std::vector<std::string> loose;
  std::set<std::string> nested;
  for (const fs::path& entry : entries(base)) {
    if (!is_folder(entry.string())) {
      loose.push_back(entry.string());
      continue;
    }
    const size_t before = folder.files.size();
    each_file(entry, add);
    for (size_t i = before; i < folder.files.size(); ++i)
      if (fs::path inner = fs::path(folder.files[i]).parent_path(); inner != entry)
        nested.insert(inner.string());
    if (folder.files.size() == before)
      throw Error(Exit::data, "E_IMAGE_FOLDER", "expected images of this class, found none")
          .at("file", entry.string());
    folder.labels.resize(folder.files.size(), static_cast<int32_t>(folder.classes.size()));
    // Systems differ in how they write an accent.
    const std::string name = nfc_text(utf8_text(entry.filename().string()));
    if (std::find(folder.classes.begin(), folder.classes.end(), name) != folder.classes.end())
      throw Error(Exit::data, "E_IMAGE_FOLDER", "two classes have the same name, as far as it is UTF-8")
          .at("file", entry.string());
    folder.classes.push_back(name);
  }
  if (folder.classes.empty()) {
    for (const std::string& file : loose) add(file);
    folder.labels.resize(folder.files.size());
  } else {
    folder.passed_over.insert(folder.passed_over.end(), loose.begin(), loose.end());
  }
  if (!nested.empty())
    folder.remark = fmt::format(
        "{}: {} within those of the classes; the classes are the folders directly in {}", *nested.begin(),
        nested.size() == 1 ? "a folder" : fmt::format("one of {} folders", nested.size()), base.string());
  if (folder.files.empty())
    throw Error(Exit::no_input, "E_DATA_MISSING",
                "expected a folder per class with PNG or JPEG files, found none")
        .at("file", base.string());
  return folder;
}

ImageFolder find_captioned_folder(const std::string& path, bool test, const std::string& column) {
  fs::path base = path;
  if (!is_there((base / kMetadataName).string()) && has_halves(base)) base /= test ? "test" : "train";
  const fs::path metadata = base / kMetadataName;
  const bool has_metadata = is_there(metadata.string());
  if (!has_metadata && base == path && is_folder(path)) refuse_parts_as_classes(base);
  ImageFolder folder;
  if (has_metadata) {
    CaptionedFiles listed = read_metadata(base.string(), column);
    folder.files = std::move(listed.files), folder.captions = std::move(listed.captions);
    folder.caption_files.push_back(metadata.string());
  }
  std::set<std::string> known(folder.files.begin(), folder.files.end());
  std::vector<std::string> without;
  each_file(base, [&](const std::string& file) {
    const bool is_picture = looks_like_picture(file);
    if (is_picture && !has_metadata)
      (is_there(caption_file_of(file)) ? folder.files : without).push_back(file);
    else if (!is_picture || !known.contains(fs::path(file).lexically_normal().string()))
      folder.passed_over.push_back(file);
    return true;
  });
  if (folder.files.empty()) throw no_captions(base.string());
  if (!without.empty()) (void)read_caption_file(without[0]);  // says that it is missing
  if (!has_metadata)
    for (const std::string& file : folder.files) {
      folder.captions.push_back({read_caption_file(file)});
      folder.caption_files.push_back(caption_file_of(file));
    }
  known.insert(folder.caption_files.begin(), folder.caption_files.end());
  std::erase_if(folder.passed_over, [&](const std::string& file) { return known.contains(file); });
  folder.labels.resize(folder.files.size());
  return folder;
}

DatasetShape probe_image_folder(const ImageFolder& folder, const ImageFolderOptions& options,
                                std::vector<int32_t>& labels, std::vector<std::string>& skipped) {
  const Survey survey(folder, options);
  skipped = survey.left_out_texts();
  for (size_t i : survey.files) labels.push_back(folder.labels[i]);
  return survey.shape;
}

ImageSet read_image_folder(const ImageFolder& folder, const ImageFolderOptions& options) {
  Survey survey(folder, options);
  ImageSet set;
  set.channels = survey.shape.channels, set.height = survey.shape.height, set.width = survey.shape.width;
  set.classes = survey.shape.classes;
  set.class_names = folder.classes;
  const int64_t bytes = set.sample_bytes();
  const std::vector<size_t> files = survey.files;
  std::vector<uint8_t> pixels;
  std::vector<std::string> remarks(files.size());
  std::once_flag allocated;
  const auto errors = each(files.size(), options, [&](size_t i) {
    const Image image = read_image(folder.files[files[i]], set.channels, options.fit, options.max_pixels);
    if (image.height != set.height || image.width != set.width)
      throw other_size(folder.files[files[i]], image.height, image.width, folder.files[files[0]],
                       survey.shape);
    // Not before an image has shown that headers tell the truth.
    std::call_once(allocated, [&] { pixels.resize(files.size() * static_cast<size_t>(bytes)); });
    std::copy_n(image.pixels.data(), bytes, pixels.data() + static_cast<int64_t>(i) * bytes);
    remarks[i] = image.remark;
  });
  for (const auto& [i, error] : errors) survey.leave_out(files[i], error);
  survey.expect_all_classes();

  // What was left out leaves no gap.
  uint8_t* to = pixels.data();
  for (size_t i = 0; i < files.size(); ++i) {
    if (errors.contains(i)) continue;
    const uint8_t* from = pixels.data() + static_cast<int64_t>(i) * bytes;
    if (to != from) std::copy_n(from, bytes, to);
    to += bytes;
    set.labels.push_back(folder.labels[files[i]]);
    if (!folder.captions.empty()) set.captions.push_back(folder.captions[files[i]]);
    if (!remarks[i].empty()) set.remarks.push_back(folder.files[files[i]] + ": " + remarks[i]);
  }
  pixels.resize(static_cast<size_t>(to - pixels.data()));
  set.pixels = std::move(pixels);
  set.skipped = survey.left_out_texts();
  return set;
}

}  // namespace lockstep
