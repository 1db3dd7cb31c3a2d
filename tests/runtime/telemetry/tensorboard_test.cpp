// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "runtime/telemetry/metrics.h"
#include "runtime/telemetry/tensorboard.pb.h"
#include "runtime/telemetry/tfrecord.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace fs = std::filesystem;
namespace {

// Bit by bit, by the definition: the table must agree.
uint32_t plain_crc32c(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
  }
  return ~crc;
}

TEST(Crc32c, MatchesPublishedVectors) {
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);  // the catalogue's check value
  // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string up, down;
  for (int i = 0; i < 32; ++i) up += static_cast<char>(i), down += static_cast<char>(31 - i);
  EXPECT_EQ(crc32c(up), 0x46dd794eu);
  EXPECT_EQ(crc32c(down), 0x113fdb5cu);
  std::string all;
  for (int i = 0; i < 1000; ++i) {
    all += static_cast<char>(i * 37);
    ASSERT_EQ(crc32c(all), plain_crc32c(all)) << all.size() << " bytes";
  }
}

template <class Integer>
Integer little_endian(std::string_view bytes) {
  Integer value = 0;
  for (size_t i = sizeof value; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

uint32_t unmask(uint32_t masked) {
  const uint32_t rotated = masked - 0xa282ead8u;
  return rotated >> 17 | rotated << 15;
}

std::vector<tensorboard::Event> events_of(const std::string& path) {
  const std::string text = read_file(path);
  std::string_view rest = text;
  std::vector<tensorboard::Event> events;
  while (!rest.empty()) {
    if (rest.size() < 16) throw std::runtime_error("torn record");
    const auto length = little_endian<uint64_t>(rest);
    EXPECT_EQ(unmask(little_endian<uint32_t>(rest.substr(8))), plain_crc32c(rest.substr(0, 8)));
    if (rest.size() < 16 + length) throw std::runtime_error("torn record");
    const std::string data(rest.substr(12, length));
    EXPECT_EQ(unmask(little_endian<uint32_t>(rest.substr(12 + length))), plain_crc32c(data));
    EXPECT_TRUE(events.emplace_back().ParseFromString(data));
    rest.remove_prefix(16 + length);
  }
  return events;
}

std::vector<std::string> files_of(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

TEST(TensorBoard, WritesFramedEvents) {
  const double began = now();
  const TestFolder run;
  const std::string folder = run.file("tensorboard"), png = std::string("\x89PNG\0\n", 6);
  {
    TensorBoardWriter writer(folder);
    writer.scalar("loss", 7, 0.25);
    writer.image_png("samples", 8, 2, 3, 1, png);
    MetricsLine line;
    line.step = 9;
    line.split = "training";
    line.loss = 1.5;
    line.accuracy = 0.5;
    line.lr = 0.125;
    writer.write(line);
    EXPECT_EQ(events_of(files_of(folder).at(0)).size(), 6u);  // lines are on disk while the run goes on
  }
  const auto files = files_of(folder);
  ASSERT_EQ(files.size(), 1u);
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  const std::string name = fs::path(files[0]).filename();
  EXPECT_TRUE(name.starts_with("events.out.tfevents.") && name.ends_with("." + std::string(host))) << name;
  const auto events = events_of(files[0]);
  ASSERT_EQ(events.size(), 6u);
  EXPECT_EQ(events[0].file_version(), "brain.Event:2");
  EXPECT_EQ(events[1].step(), 7);
  EXPECT_EQ(events[1].summary().value(0).tag(), "loss");
  EXPECT_EQ(events[1].summary().value(0).simple_value(), 0.25f);
  EXPECT_LE(events[1].wall_time(), now());
  EXPECT_GE(events[1].wall_time(), began);
  const auto& image = events[2].summary().value(0).image();
  EXPECT_EQ(image.height(), 2);
  EXPECT_EQ(image.width(), 3);
  EXPECT_EQ(image.colorspace(), 1);
  EXPECT_EQ(image.encoded_image_string(), png);
  std::map<std::string, float> scalars;
  for (size_t i = 3; i < 6; ++i) {
    EXPECT_EQ(events[i].step(), 9);
    scalars[events[i].summary().value(0).tag()] = events[i].summary().value(0).simple_value();
  }
  EXPECT_EQ(scalars, (std::map<std::string, float>{
                         {"loss/training", 1.5f}, {"accuracy/training", 0.5f}, {"lr", 0.125f}}));
}

// The bytes of one event, by hand from the protobuf encoding and TensorFlow's field numbers.
TEST(TensorBoard, FieldNumbersAreTensorFlows) {
  tensorboard::Event event;
  event.set_step(5);
  auto* value = event.mutable_summary()->add_value();
  value->set_tag("a");
  value->set_simple_value(1);
  EXPECT_EQ(event.SerializeAsString(), std::string("\x10\x05\x2a\x0a\x0a\x08\x0a\x01"
                                                   "a\x15\x00\x00\x80\x3f",
                                                   14));
}

TEST(TensorBoard, AResumeWritesAnewFileThatForgetsLaterSteps) {
  const TestFolder run;
  { TensorBoardWriter writer(run.path()); }
  { TensorBoardWriter writer(run.path(), 41); }
  const auto files = files_of(run.path());
  ASSERT_EQ(files.size(), 2u);  // within one second
  const auto events = events_of(files[1]);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1].session_log().status(), tensorboard::SessionLog::START);
  EXPECT_EQ(events[1].step(), 42);
}

TEST(TensorBoard, WhatCannotBeCreatedIsAnError) {
  const TestFolder run;
  write_file(run.file("f"), "");
  expect_error(
      Exit::cannot_create, [&] { TensorBoardWriter writer(run.file("f/tensorboard")); }, "f/tensorboard");
}

}  // namespace
}  // namespace lockstep::testing
