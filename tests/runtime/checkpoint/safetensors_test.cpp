// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/safetensors.h"
#include "runtime/data/hash.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace {

std::string framed(const std::string& header, const std::string& data) {
  std::string file;
  for (size_t i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i) & 0xff);
  return file + header + data;
}

class Safetensors : public ::testing::Test {
 protected:
  std::string path() const { return folder_.file("t.safetensors"); }
  std::shared_ptr<const SafetensorsFile> open(const std::string& header, const std::string& data) {
    write_file(path(), framed(header, data));
    return SafetensorsFile::open(path());
  }
  template <class... Words>
  void expect_bad(const std::string& header, const std::string& data, const Words&... words) {
    SCOPED_TRACE(header.substr(0, 200));
    expect_error(
        Exit::data, [&] { open(header, data); }, "E_SAFETENSORS", path(), words...);
  }
  TestFolder folder_;
};

// The bytes that the format prescribes, so that what others read is pinned, not only what we read back.
TEST_F(Safetensors, WritesTheFormatsBytes) {
  const uint8_t bytes[3] = {7, 8, 9};
  const uint32_t word = 0x01020304;
  const StoredTensor tensors[] = {{"b", "U8", {3}, std::as_bytes(std::span(bytes))},
                                  {"a", "I32", {}, std::as_bytes(std::span(&word, 1))}};
  write_safetensors(path(), tensors, {{"format", "pt"}});
  std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"I32","shape":[],"data_offsets":[0,4]},)"
      R"("b":{"dtype":"U8","shape":[3],"data_offsets":[4,7]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(read_file(path()), framed(header, std::string("\x04\x03\x02\x01\x07\x08\x09", 7)));
}

TEST_F(Safetensors, AlignsEveryTensorAndKeepsTheOrder) {
  const std::vector<std::byte> zeros(64);
  std::vector<StoredTensor> tensors;
  for (const auto& [name, dtype] :
       {std::pair("u", "U8"), {"h", "BF16"}, {"f1", "F32"}, {"l", "I64"}, {"f0", "F32"}})
    tensors.push_back(
        {name, dtype, {3}, std::span(zeros).first(static_cast<size_t>(3 * safetensors_dtype_size(dtype)))});
  write_safetensors(path(), tensors, {});
  std::string order;
  const auto file = SafetensorsFile::open(path());
  for (const StoredTensor& t : file->tensors()) {
    order += t.name + " ";
    EXPECT_EQ(
        reinterpret_cast<uintptr_t>(t.bytes.data()) % static_cast<size_t>(safetensors_dtype_size(t.dtype)),
        0u);
  }
  EXPECT_EQ(order, "l f1 f0 h u ");
  EXPECT_EQ(file->header().size() % 8, 0u);
}

TEST_F(Safetensors, ReadsWhatOthersMayWrite) {
  const auto file = open(
      R"( {"z":{"data_offsets":[4,4],"shape":[0,5],"dtype":"F16"},"b":{"shape":[2,2],"dtype":"U8","data_offsets":[0,4]},)"
      R"("s\u00e9":{"dtype":"BF16","shape":[],"data_offsets":[4,6]},"__metadata__":{"k":"v"}}   )",
      "abcdef");
  ASSERT_EQ(file->tensors().size(), 3u);
  EXPECT_EQ(file->tensors()[0].name, "b");
  EXPECT_EQ(std::memcmp(file->find("b")->bytes.data(), "abcd", 4), 0);
  EXPECT_EQ(std::memcmp(file->find("s\xc3\xa9")->bytes.data(), "ef", 2), 0);
  EXPECT_EQ(file->find("z")->shape, (std::vector<int64_t>{0, 5}));
  EXPECT_EQ(file->find("nothing"), nullptr);
  EXPECT_EQ(file->metadata().at("k"), "v");
  EXPECT_TRUE(open("{}", "")->tensors().empty());
}

TEST_F(Safetensors, BadLengths) {
  expect_error(
      Exit::no_input, [&] { SafetensorsFile::open(folder_.file("none")); }, folder_.file("none"));
  expect_error(
      Exit::no_input, [&] { SafetensorsFile::open(folder_.path()); }, folder_.path());
  write_file(path(), "1234567");
  expect_error(
      Exit::data, [&] { SafetensorsFile::open(path()); }, "offset=0", "found 7");
  write_file(path(), std::string("\x03\0\0\0\0\0\0\0{}", 10));
  expect_error(
      Exit::data, [&] { SafetensorsFile::open(path()); }, "header length: expected at most 2, found 3");
  write_file(path(), std::string(8, '\xff') + "{}");
  expect_error(
      Exit::data, [&] { SafetensorsFile::open(path()); }, "found 18446744073709551615");
}

// What people take for weights is named, with the way to come by them.
TEST_F(Safetensors, WhatAFileIsInstead) {
  using namespace std::string_literals;
  const auto refused = [&](const std::string& bytes, const std::string& what) {
    write_file(path(), bytes);
    expect_error(
        Exit::data, [&] { SafetensorsFile::open(path()); }, what, path(), "hint");
  };
  refused("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer");
  refused("PK\x03\x04\0\0\x08\x08\0\0\0\0archive/data.pkl"s, "torch.save");
  refused("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20j\xa8P\x19."s, "a pickle");
  refused("\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0"s, "HDF5");
  refused("\x08\x08\x12\x07pytorch\x1a\x05"s + "1.0.0" + std::string(20, 'x'), "ONNX");
  refused("\n<!DOCTYPE html><html><head></head></html>", "an HTML page");
  refused("{\"metadata\": {}, \"weight_map\": {}}", "a JSON file");
  refused("Entry not found", "a text, as servers answer");
  refused("model.safetensors"s + std::string(240, '\0') + "ustar\00000"s + std::string(300, '\0'),
          "a tar archive");
}

TEST_F(Safetensors, BadJson) {
  expect_bad("", "");
  expect_bad("{", "", "offset=");
  expect_bad("{}}", "", "offset=10");
  expect_bad("[]", "", "expected an object, found an array");
  expect_bad("7", "", "found 7");
  expect_bad("null", "", "found null");
  expect_bad(R"({"a":1})", "", "tensor=a", "found 1");
  expect_bad(R"({"a":[]})", "", "tensor=a");
  expect_bad(R"({"a":{}})", "", "tensor=a", "found 0 of them");
  expect_bad("{\"\xff\":{}}", "", "offset=");
  const std::string good = R"("a":{"dtype":"U8","shape":[],"data_offsets":[0,1]})";
  open("{" + good + "}", "x");
  expect_bad("{" + good + "," + good + "}", "x", "duplicate key \"a\"");
  expect_bad(R"({"a":{"dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1]}})", "x",
             "duplicate key \"dtype\"");
  expect_bad(R"({"a":{"dtype":"U8","shape":[],"data_offsets":[0,1],"more":1}})", "x", "found \"more\"");
  expect_bad(R"({"__metadata__":{"k":"v","k":"v"}})", "", "duplicate key \"k\"");
  expect_bad(R"({"__metadata__":{"k":1}})", "", "expected a string");
  expect_bad(R"({"__metadata__":{"k":{}}})", "", "expected a string");
  expect_bad(R"({"__metadata__":{},"__metadata__":{}})", "", "duplicate");
  // Deeper than any tree may be, without a deep stack.
  expect_bad(std::string(1'000'000, '['), "");
  expect_bad(R"({"a":{"shape":)" + std::string(1'000'000, '['), "", "shape: expected a number");
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += R"({"dtype":)";
  expect_bad(deep, "", "expected a string, found an object");
}

TEST_F(Safetensors, BadTensors) {
  const auto tensor = [](const char* dtype, const char* shape, const char* offsets) {
    return fmt::format(R"({{"a":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape, offsets);
  };
  EXPECT_EQ(open(tensor("\"F32\"", "[1]", "[0,4]"), "1234")->tensors().size(), 1u);
  expect_bad(tensor("\"F33\"", "[1]", "[0,4]"), "1234", "tensor=a", "F33");
  expect_bad(tensor("1", "[1]", "[0,4]"), "1234", "tensor=a", "dtype: expected a string, found 1");
  expect_bad(tensor("\"F32\"", "[-1]", "[0,4]"), "1234", "found -1");
  expect_bad(tensor("\"F32\"", "[1.0]", "[0,4]"), "1234", "found 1.0");
  expect_bad(tensor("\"F32\"", "[\"1\"]", "[0,4]"), "1234", "found \"1\"");
  expect_bad(tensor("\"F32\"", "[[1]]", "[0,4]"), "1234", "found an array");
  expect_bad(tensor("\"F32\"", "1", "[0,4]"), "1234", "expected an array");
  expect_bad(tensor("\"F32\"", "[9223372036854775808]", "[0,4]"), "1234", "found 9223372036854775808");
  expect_bad(tensor("\"F32\"", "[4611686018427387905]", "[0,4]"), "1234",
             "64 bits");  // times 4: 4 modulo 2^64
  expect_bad(tensor("\"U8\"", "[4294967296,4294967296]", "[0,0]"), "", "64 bits");
  expect_bad(tensor("\"F32\"", "[2]", "[0,4]"), "1234", "expected 8 bytes", "found [0, 4]");
  expect_bad(tensor("\"F32\"", "[1]", "[4,0]"), "1234", "found [4, 0]");
  expect_bad(tensor("\"F32\"", "[1]", "[0,4,4]"), "1234", "found 3");
  expect_bad(tensor("\"F32\"", "[1]", "[0]"), "1234", "found 1");
  expect_bad(tensor("\"F32\"", "[1]", "[4,8]"), "12345678", "a gap");
  expect_bad(tensor("\"F32\"", "[2]", "[0,8]"), "1234", "within the file's 4 data bytes, found 8");
  expect_bad(tensor("\"F32\"", "[1]", "[0,4]"), "12345", "trailing bytes: expected 4 data bytes, found 5",
             "offset=");
  const auto two = [](const char* first, const char* second) {
    return fmt::format(R"({{"a":{{"dtype":"U8","shape":[2],"data_offsets":{}}},)"
                       R"("b":{{"dtype":"U8","shape":[2],"data_offsets":{}}}}})",
                       first, second);
  };
  EXPECT_EQ(open(two("[2,4]", "[0,2]"), "1234")->tensors()[0].name, "b");
  expect_bad(two("[0,2]", "[1,3]"), "123", "tensor=b", "overlap");
  expect_bad(two("[0,2]", "[0,2]"), "12", "overlap");
  expect_bad(two("[0,2]", "[3,5]"), "12345", "tensor=b", "expected to begin at 2 (a gap before), found 3");
}

TEST(Sha256, MatchesPublishedVectors) {  // FIPS 180-2, appendix B
  const auto hash = [](std::string_view text) { return sha256_hex(std::as_bytes(std::span(text))); };
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

}  // namespace
}  // namespace lockstep::testing
