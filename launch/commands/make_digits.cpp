// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/make_digits.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "launch/fetch/catalog.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/data/captioned_digits.h"
#include "runtime/files/json_text.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

std::string notice_of_mnist() {
  for (const RemoteSet& set : remote_sets())
    if (set.name == "mnist") return set.notice;
  LOCKSTEP_ASSERT(false, "no MNIST");
}

std::string readme(const DigitsRequest& r) {
  return fmt::format(
      "# Captioned digits\n\n{} pictures of 32x32, made by `lockstep data make captioned_digits` of MNIST's "
      "{} images{}. "
      "Each\nhandwritten digit was cut out, scaled, coloured and put on a coloured paper. metadata.jsonl has "
      "their "
      "captions.\n\nThey are an adaptation of MNIST, and stand under its licence.\n\n#{}",
      r.count, r.split, r.split == "training" ? fmt::format(", with seed {}", r.seed) : "",
      notice_of_mnist());
}

nlohmann::ordered_json row_of(const std::string& file, const DigitScene& scene, const std::string& caption) {
  return {{"file_name", file},
          {"text", caption},
          {"digit", scene.digit},
          {"ink", kColourNames[static_cast<size_t>(scene.ink)]},
          {"paper", kColourNames[static_cast<size_t>(scene.paper)]},
          {"place", name_of(scene.place)},
          {"size", name_of(scene.size)},
          {"held_out", is_held_out(scene)}};
}

void write_text(const std::string& path, std::string_view text) {
  OutputFile file(path);
  file.write(text);
  file.sync_and_close();
}

// A picture by itself would take longer to sync than to make.
void sync_all(const std::string& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = descriptor >= 0 && ::syncfs(descriptor) == 0;
  const int error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (!synced) throw_io(IoStage::writing, "cannot sync the folder", folder, error);
}

void write_all(const DigitsRequest& r, const CaptionedDigits& digits, const std::string& folder) {
  for (const std::string& digit : digits.class_names) make_folders(folder + "/" + digit);
  std::string rows;
  Image picture{3, kSceneSide, kSceneSide, std::vector<uint8_t>(size_t{kSceneBytes})};
  for (int64_t n = 0; n < r.count; ++n) {
    const int64_t epoch = (r.split == "test" ? 0 : kPlainEpochs) + n / digits.count(), i = n % digits.count();
    const DigitScene scene = digits.scene(epoch, i);
    const std::string file = fmt::format("{}/{:06}.png", scene.digit, n);
    digits.copy_pixels(epoch, i, picture.pixels.data());
    OutputFile(folder + "/" + file).write(encode_png(picture));
    rows += json_text(row_of(file, scene, digits.captions_of(epoch, i)[0])) + "\n";
  }
  write_text(folder + "/metadata.jsonl", rows);
  write_text(folder + "/README.md", readme(r));
  sync_all(folder);
}

}  // namespace

void make_captioned_digits(const DigitsRequest& r) {
  const std::string folder = absolute_path(r.folder), parent = parent_folder(folder);
  const auto expect_none = [&] {
    if (is_there(folder))
      throw Error(Exit::cannot_create, "E_CANNOT_CREATE", "there is something already")
          .at("folder", r.folder);
  };
  expect_none();
  DatasetConfig config;
  config.dataset = "captioned_digits";
  config.path = r.mnist;
  config.split = r.split;
  config.seed = r.seed;
  const auto digits = std::dynamic_pointer_cast<const CaptionedDigits>(open_dataset(config));
  make_shared_folder(parent);
  const std::string temporary = temporary_path(folder);
  try {
    write_all(r, *digits, temporary);
    expect_none();  // rename() would replace an empty folder
    if (::rename(temporary.c_str(), folder.c_str()) != 0)
      throw_io(IoStage::creating, "cannot create the folder", r.folder, errno);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }
  sync_folder(parent);
}

}  // namespace lockstep
