// SPDX-License-Identifier: Apache-2.0
// Small files that claim to be large pictures are refused from their headers: at once, and before memory is taken.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <zlib.h>

#include <ctime>
#include <functional>

#include "runtime/data/dataset.h"
#include "tests/runtime/data/encode.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace {

// Rows of zeros, compressed as well as they can be.
std::string zeros_png(uint32_t side, char bits, char colours, size_t row_bytes) {
  std::string packed;
  z_stream z{};
  EXPECT_EQ(deflateInit(&z, 9), Z_OK);
  std::vector<Bytef> row(row_bytes + 1), out(1 << 16);
  for (uint32_t y = 0; y <= side; ++y) {
    z.next_in = row.data(), z.avail_in = y < side ? static_cast<uInt>(row.size()) : 0;
    do {
      z.next_out = out.data(), z.avail_out = static_cast<uInt>(out.size());
      deflate(&z, y < side ? Z_NO_FLUSH : Z_FINISH);
      packed.append(reinterpret_cast<char*>(out.data()), out.size() - z.avail_out);
    } while (z.avail_out == 0);
  }
  deflateEnd(&z);
  const auto be = [](uint32_t v) {
    return std::string{static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8),
                       static_cast<char>(v)};
  };
  return "\x89PNG\r\n\x1a\n" + png_chunk("IHDR", be(side) + be(side) + std::string{bits, colours, 0, 0, 0}) +
         png_chunk("IDAT", packed) + png_chunk("IEND", "");
}

int64_t most_resident_kilobytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

TEST(PictureBombTiming, IsRefusedAtOnceAndTakesNoMemory) {
  const TestFolder folder;
  const std::string good = folder.file("good.png");
  write_png(good, {3, 64, 64, std::vector<uint8_t>(3 * 64 * 64, 7)});
  read_image(good, 3);
  std::string jpeg("\xff\xd8\xff\xc2\x00\x11\x08\xff\xdc\xff\xdc\x03\x01\x11\x00\x02\x11\x01\x03\x11\x01",
                   21);
  const std::vector<std::pair<std::string, std::string>> bombs = {
      {"one-bit.png", zeros_png(20000, 1, 0, 2500)},  // 400 million pixels in 50 KB
      {"palette.png", zeros_png(20000, 1, 3, 2500)},  // without its palette, too
      {"colours.png", zeros_png(9000, 8, 2, 27000)},  // 81 million
      {"header.jpg", jpeg + std::string(64, '\0')}};  // 65500x65500, progressive
  for (const auto& [name, bytes] : bombs) {
    SCOPED_TRACE(name);
    const std::string path = folder.file(name);
    write_file(path, bytes);
    const int64_t before = most_resident_kilobytes();
    const std::clock_t start = std::clock();
    expect_error(
        Exit::data, [&] { read_image(path, 3); }, path);
    // Of processor time, which other programs do not lengthen.
    EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 0.05);
    EXPECT_LT(most_resident_kilobytes() - before, 64 << 10);
  }
}

}  // namespace
}  // namespace lockstep::testing
