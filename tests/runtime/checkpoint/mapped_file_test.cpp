// SPDX-License-Identifier: Apache-2.0
// A mapped file that another process cuts while it is read.
#include "runtime/files/mapped_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>

#include "runtime/checkpoint/safetensors.h"
#include "tests/support/files.h"
#include "tests/support/sample_checkpoint.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace fs = std::filesystem;
namespace {

constexpr size_t kPages = 3 * 4096;

unsigned sum_of_bytes(std::span<const std::byte> bytes) {
  unsigned sum = 0;
  for (const std::byte b : bytes) sum += std::to_integer<unsigned>(b);
  return sum;
}

TEST(LostMapping, EndsWith74AndTheFilesName) {
  const TestFolder dir;
  write_file(dir.file("data"), std::string(kPages, 'x'));
  const MappedFile file(dir.file("data"));
  EXPECT_EQ(sum_of_bytes(file.bytes()), kPages * 'x');
  fs::resize_file(dir.file("data"), 4096);
  EXPECT_EXIT(std::printf("%u", sum_of_bytes(file.bytes())), ::testing::ExitedWithCode(74),
              "error.E_IO. file=.*/data: the file was cut");
}

TEST(LostMapping, OfWeightsToo) {
  const TestFolder dir;
  const SampleCheckpoint sample(1, 100'000);
  write_safetensors(dir.file("w.safetensors"), sample.contents().state, {});
  const auto weights = SafetensorsFile::open(dir.file("w.safetensors"));
  fs::resize_file(dir.file("w.safetensors"), 4096);
  EXPECT_EXIT(std::printf("%u", sum_of_bytes(weights->bytes())), ::testing::ExitedWithCode(74),
              "w.safetensors");
}

TEST(LostMapping, IsToldToWhoAsked) {
  const TestFolder dir;
  write_file(dir.file("data"), std::string(kPages, 'x'));
  const MappedFile file(dir.file("data"));
  fs::resize_file(dir.file("data"), 0);
  on_lost_mapping([](const Error& e) {
    std::fprintf(stderr, "told of %s\n", e.places().at(0).second.c_str());
    ::_exit(7);
  });
  EXPECT_EXIT(std::printf("%u", sum_of_bytes(file.bytes())), ::testing::ExitedWithCode(7), "told of .*/data");
  on_lost_mapping({});
}

TEST(LostMapping, AFileThatIsReplacedStaysAsItWas) {
  const TestFolder dir;
  write_file(dir.file("data"), std::string(kPages, 'x'));
  const MappedFile file(dir.file("data"));
  replace_file(dir.file("data"), [](const std::string& temporary) { OutputFile(temporary).write("new"); });
  EXPECT_EQ(sum_of_bytes(file.bytes()), kPages * 'x');
}

#ifndef LOCKSTEP_SANITIZED  // which take the signal
TEST(LostMapping, OtherBusErrorsAreStillTheirOwn) {
  const TestFolder dir;
  write_file(dir.file("ours"), "x");
  write_file(dir.file("other"), std::string(kPages, 'x'));
  const MappedFile ours(dir.file("ours"));
  const int descriptor = ::open(dir.file("other").c_str(), O_RDONLY | O_CLOEXEC);
  void* other = ::mmap(nullptr, kPages, PROT_READ, MAP_PRIVATE, descriptor, 0);
  ::close(descriptor);
  ASSERT_NE(other, MAP_FAILED);
  fs::resize_file(dir.file("other"), 0);
  EXPECT_EXIT(std::printf("%u", sum_of_bytes({static_cast<const std::byte*>(other), kPages})),
              ::testing::KilledBySignal(SIGBUS), "");
  EXPECT_EXIT(::kill(::getpid(), SIGBUS), ::testing::KilledBySignal(SIGBUS), "");
  ::munmap(other, kPages);
}
#endif

}  // namespace
}  // namespace lockstep::testing
