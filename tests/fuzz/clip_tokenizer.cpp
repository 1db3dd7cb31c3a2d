// SPDX-License-Identifier: Apache-2.0
// A tokenizer's folder, and a prompt: the bytes up to the first zero are vocab.json, those up to the second merges.txt, the
// rest is the prompt.
#include "runtime/text/clip_tokenizer.h"

#include <filesystem>
#include <fstream>

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lockstep;
  static const std::string folder = "/tmp/fuzz_clip_tokenizer." + std::to_string(::getpid());
  static const ClipTokenizer small("configs/data/clip_small");
  std::filesystem::create_directory(folder);
  std::string_view left(reinterpret_cast<const char*>(data), size);
  for (const char* name : {"vocab.json", "merges.txt"}) {
    const std::string_view text = left.substr(0, left.find('\0'));
    std::ofstream(folder + "/" + name, std::ios::binary) << text;
    left.remove_prefix(std::min(text.size() + 1, left.size()));
  }
  fuzz::reads([&] { (void)small.text(small.encode(left)); });
  const int result = fuzz::reads([&] {
    const ClipTokenizer tokenizer(folder);
    std::vector<int32_t> ids(8);
    (void)tokenizer.tokens(left, ids);
  });
  std::filesystem::remove_all(folder);
  return result;
}
