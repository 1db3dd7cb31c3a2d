// SPDX-License-Identifier: Apache-2.0
// POSIX.1-1988 ustar: 512-byte blocks, a header before each member, two zero blocks at the end.
#include <cstring>
#include <filesystem>
#include <numeric>

#include "kernels/core/error.h"
#include "launch/fetch/fetch.h"
#include "launch/fetch/part_file.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/data/input_file.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBlock = 512;
constexpr int64_t kMaxUnpackedBytes = int64_t{1} << 32;  // of everything unpacked

struct Header {
  char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[6],
      version[2], user[32], group[32], major[8], minor[8], prefix[155], padding[12];
};
static_assert(sizeof(Header) == kBlock);

template <size_t N>
std::string text(const char (&field)[N]) {
  return {field, ::strnlen(field, N)};
}

Error damaged(const InputFile& in, const std::string& message) {
  return Error(Exit::data, "E_TAR", message).at("file", in.path()).at("offset", in.offset() - kBlock);
}

template <size_t N>
int64_t octal(const InputFile& in, const char (&field)[N]) {
  int64_t value = 0;
  size_t i = 0;
  while (i < N && field[i] == ' ') ++i;
  const size_t start = i;
  for (; i < N && field[i] >= '0' && field[i] <= '7'; ++i) value = value * 8 + (field[i] - '0');
  if (i == start || (i < N && field[i] != '\0' && field[i] != ' '))
    throw damaged(in, "expected an octal number in the member's header");
  return value;
}

void check_sum(const InputFile& in, const Header& header) {
  Header blank = header;
  std::memset(blank.checksum, ' ', sizeof blank.checksum);
  const auto* bytes = reinterpret_cast<const unsigned char*>(&blank);
  const int64_t sum = std::accumulate(bytes, bytes + kBlock, int64_t{0});
  if (octal(in, header.checksum) != sum)
    throw damaged(
        in, fmt::format("expected a header with the checksum {}, found {}", octal(in, header.checksum), sum));
}

// The member's place below the folder.
fs::path place(const InputFile& in, const Header& header, const std::string& folder) {
  const bool ustar =
      std::memcmp(header.magic, "ustar", 5) == 0 && header.magic[5] == '\0';  // GNU's has no prefix
  const std::string prefix = ustar ? text(header.prefix) : "";
  const fs::path name = prefix.empty() ? text(header.name) : prefix + "/" + text(header.name);
  bool leads_out = name.empty() || name.is_absolute();
  for (const fs::path& part : name) leads_out = leads_out || part == "..";
  if (leads_out)
    throw damaged(in, fmt::format("expected a name below the folder, found \"{}\"", name.string()));
  return fs::path(folder) / name;
}

}  // namespace

void unpack_tar_gz(const std::string& archive, const std::string& folder) {
  InputFile in(archive);
  std::vector<char> buffer(1 << 18);
  int64_t total = 0;
  const Header end{};
  while (true) {
    Header header;
    in.read(&header, kBlock);
    if (std::memcmp(&header, &end, kBlock) == 0) break;
    check_sum(in, header);
    const int64_t size = octal(in, header.size);
    if (size > kMaxUnpackedBytes - total)
      throw damaged(in, fmt::format("expected at most {} bytes in all", kMaxUnpackedBytes));
    total += size;
    const bool regular = header.type == '0' || header.type == '\0';
    const bool attributes =
        header.type == 'x' || header.type == 'g';  // POSIX.1-2001: nothing in it that we need
    if (!regular && !attributes && header.type != '5')
      throw damaged(in, fmt::format("expected a file or a folder, found \"{}\" of type '{}'",
                                    text(header.name), header.type));
    if (attributes || header.type == '5') {
      if (header.type == '5') make_folders(place(in, header, folder).string());
      for (int64_t left = (size + kBlock - 1) / kBlock; left > 0; --left) in.read(buffer.data(), kBlock);
      continue;
    }
    const fs::path path = place(in, header, folder);
    make_folders(path.parent_path().string());
    PartFile out(path.string());
    out.truncate();
    for (int64_t left = size; left > 0;) {
      const int64_t n = std::min<int64_t>(left, static_cast<int64_t>(buffer.size()));
      in.read(buffer.data(), n);
      out.append(buffer.data(), n);
      left -= n;
    }
    in.read(buffer.data(), (kBlock - size % kBlock) % kBlock);
    out.commit();
  }
}

}  // namespace lockstep
