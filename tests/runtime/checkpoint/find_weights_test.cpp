// SPDX-License-Identifier: Apache-2.0
// Weights as folders hold them: variants, several files under an index, hashes beside them.
#include "runtime/checkpoint/find_weights.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <filesystem>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/recorded_hash.h"
#include "runtime/data/hash.h"
#include "tests/support/files.h"
#include "tests/support/sample_checkpoint.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace {

class FindWeights : public ::testing::Test {
 protected:
  std::string put(const std::string& name, size_t first = 0, size_t count = 4) {
    const std::string path = folder_.file(name);
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    write_safetensors(path, std::span(sample_.contents().model).subspan(first, count), {});
    return path;
  }
  std::string found() const { return find_weights(folder_.path()); }
  // Two files of two tensors each, and their index.
  std::string put_parts(const std::string& map) {
    put("model-00001-of-00002.safetensors", 0, 2);
    put("model-00002-of-00002.safetensors", 2, 2);
    write_file(folder_.file("model.safetensors.index.json"), map);
    return folder_.file("model.safetensors.index.json");
  }
  static std::string map(const std::string& last = "\"mask\": \"model-00002-of-00002.safetensors\"") {
    return R"({"metadata": {"total_size": 35}, "weight_map": {
      "conv1.weight": "model-00001-of-00002.safetensors",
      "bn.num_batches_tracked": "model-00001-of-00002.safetensors",
      "empty": "model-00002-of-00002.safetensors", )" +
           last + "}}";
  }
  std::string sha256(const std::string& path) {
    const std::string text = read_file(path);
    return sha256_hex(std::as_bytes(std::span(text)));
  }
  SampleCheckpoint sample_{3};
  TestFolder folder_;
};

TEST_F(FindWeights, TakesTheWholeFileThenTheIndexThenTheVariant) {
  EXPECT_EQ(found(), "");
  const std::string at_root = put("diffusion_pytorch_model.fp16.safetensors");
  EXPECT_EQ(found(), at_root);
  put("diffusion_pytorch_model.fp16-00001-of-00002.safetensors");  // a part of a variant is none
  EXPECT_EQ(found(), at_root);
  const std::string variant = put("unet/diffusion_pytorch_model.fp16.safetensors");
  EXPECT_EQ(found(), variant);
  const std::string index = folder_.file("unet/diffusion_pytorch_model.safetensors.index.json");
  write_file(index, "{}");
  EXPECT_EQ(found(), index);
  const std::string whole = put("unet/diffusion_pytorch_model.safetensors");
  EXPECT_EQ(found(), whole);
  EXPECT_EQ(found(), open_model(folder_.path())->path());
  const std::string own = put("model.safetensors");
  EXPECT_EQ(found(), own);
}

TEST_F(FindWeights, DoesNotChooseBetweenVariants) {
  put("model.fp16.safetensors");
  put("model.non_ema.safetensors");
  expect_error(
      Exit::data, [&] { found(); }, "model.fp16.safetensors", "model.non_ema.safetensors", folder_.path());
}

TEST_F(FindWeights, ReadsSeveralFilesAsOne) {
  const std::string index = put_parts(map());
  for (const std::string& path : {index, folder_.path()}) {
    const auto file = open_model(path);
    EXPECT_EQ(file->path(), index);
    ASSERT_EQ(file->tensors().size(), 4u);
    for (const StoredTensor& t : sample_.contents().model) {
      const StoredTensor* stored = file->find(t.name);
      ASSERT_NE(stored, nullptr) << t.name;
      EXPECT_EQ(stored->shape, t.shape);
      EXPECT_TRUE(std::ranges::equal(stored->bytes, t.bytes)) << t.name;
    }
  }
}

TEST_F(FindWeights, HoldsAnIndexAgainstItsFiles) {
  const auto fails = [&](Exit exit, const std::string& text, const std::string& what,
                         const std::string& where) {
    const std::string index = put_parts(text);
    expect_error(
        exit, [&] { open_weights(index); }, what, where);
  };
  const std::string index = "model.safetensors.index.json";
  fails(Exit::data, "[]", "weight_map", index);
  fails(Exit::data, "{", "weight_map", index);
  fails(Exit::data, R"({"weight_map": {}})", "weight_map", index);
  fails(Exit::data, map(R"("mask": 7)"), "tensor=mask", index);
  fails(Exit::data, map(R"("mask": "../other.safetensors")"), "beside the index", "tensor=mask");
  fails(Exit::data, map(R"("mask": "model-00001-of-00002.safetensors")"), "has in model-00001",
        "tensor=mask");
  fails(Exit::data,
        map(R"("mask": "model-00002-of-00002.safetensors", "more": "model-00001-of-00002.safetensors")"),
        "does not hold", "tensor=more");
  fails(Exit::no_input, map(R"("mask": "model-00003-of-00003.safetensors")"), "no such file",
        "00003-of-00003");
  put_parts(map(R"("mask": "model-00002-of-00002.safetensors")"));
  put("model-00002-of-00002.safetensors", 1, 3);
  expect_error(
      Exit::data, [&] { open_model(folder_.path()); }, "model-00002", "tensor=bn.num_batches_tracked");
}

TEST_F(FindWeights, NamesAnotherFormatForWhatItIs) {
  write_file(folder_.file("pytorch_model.bin"), std::string("PK\x03\x04", 4) + std::string(60, 'x'));
  expect_error(
      Exit::data, [&] { open_model(folder_.path()); }, "pytorch_model.bin", "ZIP archive", "weights_only");
}

TEST_F(FindWeights, WaitsForNoPipe) {
  const std::string pipe = folder_.file("model.safetensors");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  expect_error(
      Exit::no_input, [&] { open_model(folder_.path()); }, pipe, "a pipe");
}

TEST_F(FindWeights, SumsBesideAFileAreChecked) {
  const std::string path = put("unet/diffusion_pytorch_model.safetensors");
  const std::string right = sha256(path), wrong(64, '0');
  for (const std::string& line :
       {right + "  diffusion_pytorch_model.safetensors", right + " *./diffusion_pytorch_model.safetensors",
        wrong + "  another.safetensors"}) {
    write_file(folder_.file("unet/SHA256SUMS"), line + "\n");
    EXPECT_NO_THROW(open_model(folder_.path())) << line;
  }
  std::filesystem::remove(folder_.file("unet/SHA256SUMS"));
  write_file(folder_.file("SHA256SUMS"),
             "# weights\r\n" + wrong + "  unet/diffusion_pytorch_model.safetensors\r\n");
  expect_error(
      Exit::data, [&] { open_model(folder_.path()); }, "expected SHA-256 " + wrong, "found " + right,
      "SHA256SUMS");
}

TEST_F(FindWeights, DownloadsOfTheHubAreChecked) {
  const std::string path = put("unet/diffusion_pytorch_model.safetensors"), right = sha256(path);
  const std::string notes =
      folder_.file(".cache/huggingface/download/unet/diffusion_pytorch_model.safetensors.metadata");
  std::filesystem::create_directories(std::filesystem::path(notes).parent_path());
  const auto note = [&](const std::string& tag, int64_t time) {
    write_file(notes, std::string(40, 'c') + "\n" + tag + "\n" + std::to_string(time) + ".25\n");
  };
  const int64_t now = std::time(nullptr);
  note(std::string(64, '0'), now + 5);
  expect_error(
      Exit::data, [&] { open_model(folder_.path()); }, "found " + right, "metadata");
  note(std::string(64, '0'), now - 100);  // the file was written after the download
  EXPECT_NO_THROW(open_model(folder_.path()));
  note(std::string(40, '0'), now + 5);  // the hash of a small file's blob in git
  EXPECT_NO_THROW(open_model(folder_.path()));
  note(right, now + 5);
  EXPECT_NO_THROW(open_model(folder_.path()));
}

TEST_F(FindWeights, ABlobOfTheHubsCacheHasItsHashForAName) {
  const std::string path = put("file"), right = sha256(path);
  std::filesystem::create_directories(folder_.file("blobs"));
  std::filesystem::create_directories(folder_.file("snapshots/1"));
  for (const std::string& name : {right, std::string(64, 'a')}) {
    std::filesystem::copy_file(path, folder_.file("blobs/" + name));
    const std::string link = folder_.file("snapshots/1/model.safetensors");
    std::filesystem::remove(link);
    std::filesystem::create_symlink("../../blobs/" + name, link);
    if (name == right)
      EXPECT_NO_THROW(open_model(folder_.file("snapshots/1")));
    else
      expect_error(
          Exit::data, [&] { open_model(folder_.file("snapshots/1")); }, "found " + right);
  }
}

// Of zeros, which take no room on the disk.
TEST_F(FindWeights, ALargeFileIsVerifiedInTheBackground) {
  constexpr uint64_t kBytes = uint64_t{256} << 20;
  const std::string path = folder_.file("model.safetensors");
  std::string header =
      fmt::format(R"({{"zeros": {{"dtype": "U8", "shape": [{0}], "data_offsets": [0, {0}]}}}})", kBytes);
  header.resize(120, ' ');
  write_file(path, std::string("\x78\0\0\0\0\0\0\0", 8) + header);
  std::filesystem::resize_file(path, 8 + header.size() + kBytes);
  const auto in_background = [&] { return open_model(folder_.path(), {}, Verification::in_background); };

  write_file(folder_.file("SHA256SUMS"), std::string(64, '0') + "  model.safetensors\n");
  const auto wrong = in_background();
  for (int again = 0; again < 2; ++again)
    expect_error(
        Exit::data, [&] { wrong->await_verified(); }, "expected SHA-256 000", "SHA256SUMS");
  const auto joined = SafetensorsFile::join("all", {{wrong}});
  expect_error(
      Exit::data, [&] { joined->await_verified(); }, "expected SHA-256 000");
  in_background();  // whoever leaves it alone waits, as the hash reads the file
  expect_error(
      Exit::data, [&] { open_model(folder_.path()); }, "expected SHA-256 000");

  write_file(folder_.file("SHA256SUMS"), sha256(path) + "  model.safetensors\n");
  EXPECT_NO_THROW(in_background()->await_verified());
  EXPECT_NO_THROW(open_model(folder_.path())->await_verified());
}

}  // namespace
}  // namespace lockstep::testing
