// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "runtime/checkpoint/file_io.h"
#include "runtime/data/hash.h"
#include "runtime/files/json_text.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace {

constexpr char kMagic[] =
    "LSIMG04";  // 8 bytes with its zero; change it with the format or a decoder's output
constexpr size_t kMinBytes = 1 << 20;
// Two changes within one tick of a file system's clock look alike; a tick is 1 to 10 ms.
constexpr double kSettledSeconds = 0.1;
constexpr double kForgottenSeconds = 90.0 * 24 * 3600;
constexpr std::string_view kSetFiles = ".images";

// The file: header, class names, what was skipped, remarks (each text with its zero), captions as JSON, labels as
// int32, pixels.
struct Header {
  char magic[8];
  uint64_t checksum;  // of everything after this field
  char state[64], content_hash[64];
  uint64_t file_bytes, names_bytes, skipped_bytes, remarks_bytes, captions_bytes;
  int64_t count, channels, height, width, classes;

  uint64_t captions_at() const { return sizeof(Header) + names_bytes + skipped_bytes + remarks_bytes; }
  uint64_t labels_at() const { return (captions_at() + captions_bytes + 63) / 64 * 64; }
  uint64_t pixels_at() const { return (labels_at() + static_cast<uint64_t>(count) * 4 + 63) / 64 * 64; }
  uint64_t pixels_bytes() const { return static_cast<uint64_t>(count * channels * height * width); }
};

// Texts without zeros, each followed by one.
std::string joined_texts(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts) all.append(text.c_str()).push_back('\0');
  return all;
}
std::vector<std::string> split_texts(std::string_view all) {
  std::vector<std::string> texts;
  for (; !all.empty(); all.remove_prefix(texts.back().size() + 1)) texts.emplace_back(all.data());
  return texts;
}

double seconds(const timespec& t) {
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Of everything after the sum itself.
uint64_t sum_of(std::span<const std::byte> file) {
  const auto summed = file.subspan(offsetof(Header, checksum) + sizeof Header::checksum);
  return checksum(summed.data(), summed.size());
}

}  // namespace

std::string cache_folder() {
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg && *xdg == '/')
    return std::string(xdg) + "/lockstep";
  if (const char* home = std::getenv("HOME"); home && *home == '/')
    return std::string(home) + "/.cache/lockstep";
  return "";
}

void make_cache_folder(const std::string& folder) {
  make_shared_folder(folder);
  for (const std::string& name : names_in(folder)) {
    if (!name.ends_with(kSetFiles) && !name.starts_with(kLatentsFiles)) continue;
    const std::string path = folder + "/" + name;
    struct stat status {};
    if (::lstat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
        static_cast<double>(std::time(nullptr)) - seconds(status.st_mtim) > kForgottenSeconds)
      ::unlink(path.c_str());
  }
}

void note_use(const std::string& file) { ::utimensat(AT_FDCWD, file.c_str(), nullptr, 0); }

DatasetCache::DatasetCache(const std::string& dataset, const std::string& options,
                           const std::vector<std::string>& sources) {
  folder_ = cache_folder();
  if (folder_.empty()) return;
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  Digest name("sha256"), state("sha256");
  name.add(dataset + " " + options);
  for (const std::string& path : sources) {
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) {
      folder_.clear();  // whoever reads it says why
      return;
    }
    name.add(fmt::format("\n{}", absolute_path(path)));
    state.add(fmt::format("{} {} {} {}.{} {}.{}\n", st.st_dev, st.st_ino, st.st_size, st.st_mtim.tv_sec,
                          st.st_mtim.tv_nsec, st.st_ctim.tv_sec, st.st_ctim.tv_nsec));
    if (seconds(now) - std::max(seconds(st.st_mtim), seconds(st.st_ctim)) < kSettledSeconds) settled_ = false;
  }
  file_ = fmt::format("{}/{}-{}{}", folder_, dataset, name.hex().substr(0, 16), kSetFiles);
  state_ = state.hex();
}

std::optional<ImageSet> DatasetCache::load() const {
  if (folder_.empty()) return std::nullopt;
  std::shared_ptr<const MappedFile> file;
  try {
    file = std::make_shared<MappedFile>(file_);
  } catch (const Error&) {
    return std::nullopt;
  }
  const std::span<const std::byte> bytes = file->bytes();
  Header h;
  if (bytes.size() <= sizeof h) return std::nullopt;
  std::memcpy(&h, bytes.data(), sizeof h);
  if (std::memcmp(h.magic, kMagic, sizeof h.magic) != 0 || h.file_bytes != bytes.size() ||
      std::string_view(h.state, sizeof h.state) != state_ || h.checksum != sum_of(bytes))
    return std::nullopt;
  note_use(file_);

  ImageSet set;
  set.channels = h.channels;
  set.height = h.height;
  set.width = h.width;
  set.classes = h.classes;
  set.content_hash.assign(h.content_hash, sizeof h.content_hash);
  const char* text = file->text().data() + sizeof h;
  set.class_names = split_texts({text, h.names_bytes});
  set.skipped = split_texts({text + h.names_bytes, h.skipped_bytes});
  set.remarks = split_texts({text + h.names_bytes + h.skipped_bytes, h.remarks_bytes});
  const char* captions = file->text().data() + h.captions_at();
  if (h.captions_bytes > 0) {
    // Lists of strings, as store() wrote them; what is none is a cache to be made anew.
    const auto lists = nlohmann::json::parse(captions, captions + h.captions_bytes, nullptr, false);
    if (!lists.is_array()) return std::nullopt;
    for (const auto& list : lists) {
      if (!list.is_array()) return std::nullopt;
      auto& own = set.captions.emplace_back();
      for (const auto& caption : list) {
        if (!caption.is_string()) return std::nullopt;
        own.push_back(caption.get<std::string>());
      }
    }
  }
  set.labels.resize(static_cast<size_t>(h.count));
  std::memcpy(set.labels.data(), bytes.data() + h.labels_at(), set.labels.size() * sizeof(int32_t));
  const auto* pixels = reinterpret_cast<const uint8_t*>(bytes.data() + h.pixels_at());
  set.pixels = Pixels(std::shared_ptr<const uint8_t>(file, pixels), h.pixels_bytes());
  return set;
}

void DatasetCache::store(const ImageSet& set) const {
  if (folder_.empty() || !settled_ || set.pixels.size() < kMinBytes) return;
  const std::string names = joined_texts(set.class_names), skipped = joined_texts(set.skipped),
                    remarks = joined_texts(set.remarks),
                    captions = set.captions.empty() ? "" : json_text(nlohmann::json(set.captions));
  Header h{};
  std::memcpy(h.magic, kMagic, sizeof h.magic);
  std::memcpy(h.state, state_.data(), sizeof h.state);
  LOCKSTEP_ASSERT(set.content_hash.size() == sizeof h.content_hash);
  std::memcpy(h.content_hash, set.content_hash.data(), sizeof h.content_hash);
  h.names_bytes = names.size();
  h.skipped_bytes = skipped.size();
  h.remarks_bytes = remarks.size();
  h.captions_bytes = captions.size();
  h.count = set.count();
  h.channels = set.channels;
  h.height = set.height;
  h.width = set.width;
  h.classes = set.classes;
  h.file_bytes = h.pixels_at() + h.pixels_bytes();

  const std::string temporary = temporary_path(file_);
  try {
    make_cache_folder(folder_);
    OutputFile out(temporary);
    uint64_t written = 0;
    const auto put = [&](const void* data, size_t n) {
      out.write({static_cast<const std::byte*>(data), n});
      written += n;
    };
    const auto fill_to = [&](uint64_t at) { put(std::string(at - written, '\0').data(), at - written); };
    put(&h, sizeof h);
    for (const std::string* text : {&names, &skipped, &remarks, &captions}) put(text->data(), text->size());
    fill_to(h.labels_at());
    put(set.labels.data(), set.labels.size() * sizeof(int32_t));
    fill_to(h.pixels_at());
    put(set.pixels.data(), set.pixels.size());
    h.checksum = sum_of(MappedFile(temporary).bytes());
    out.write_at(offsetof(Header, checksum), std::as_bytes(std::span(&h.checksum, 1)));
    out.close();
    if (::rename(temporary.c_str(), file_.c_str()) != 0)
      throw_io(IoStage::creating, "cannot replace the file", file_, errno);
  } catch (const Error& e) {
    ::unlink(temporary.c_str());
    log_not_kept("the decoded data set", e);
  }
}

}  // namespace lockstep
