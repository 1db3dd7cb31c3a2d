// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <chrono>

#include "runtime/checkpoint/file_io.h"
#include "runtime/files/host_name.h"
#include "runtime/files/path.h"
#include "runtime/telemetry/metrics.h"
#include "runtime/telemetry/tensorboard.pb.h"
#include "runtime/telemetry/tfrecord.h"

namespace lockstep {
namespace {

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

struct TensorBoardWriter::Impl {
  explicit Impl(const std::string& path) : file(path) {}
  OutputFile file;
  std::string pending;  // records for the next flush

  void write(tensorboard::Event& event, int64_t step) {
    event.set_wall_time(seconds_since_1970());
    event.set_step(step);
    pending += tfrecord(event.SerializeAsString());
  }
};

TensorBoardWriter::TensorBoardWriter(const std::string& folder, std::optional<int64_t> resume_step) {
  make_folders(folder);
  // TensorBoard reads the files of a folder in the order of their names. Two starts within a second: the
  // later time.
  std::string path;
  for (int64_t time = static_cast<int64_t>(seconds_since_1970()); path.empty() || is_there(path); ++time)
    path = fmt::format("{}/events.out.tfevents.{:010}.{}", folder, time, host_name());
  impl_ = std::make_unique<Impl>(path);
  tensorboard::Event version;
  version.set_file_version("brain.Event:2");
  impl_->write(version, 0);
  if (resume_step) {
    tensorboard::Event restart;
    restart.mutable_session_log()->set_status(tensorboard::SessionLog::START);
    impl_->write(restart, *resume_step + 1);
  }
  flush();
}

TensorBoardWriter::~TensorBoardWriter() {
  try {
    flush();
  } catch (const Error&) {
    // What matters was flushed before.
  }
}

void TensorBoardWriter::scalar(const std::string& tag, int64_t step, double value) {
  tensorboard::Event event;
  auto* entry = event.mutable_summary()->add_value();
  entry->set_tag(tag);
  entry->set_simple_value(static_cast<float>(value));
  impl_->write(event, step);
}

void TensorBoardWriter::image_png(const std::string& tag, int64_t step, int64_t height, int64_t width,
                                  int64_t channels, const std::string& png) {
  tensorboard::Event event;
  auto* entry = event.mutable_summary()->add_value();
  entry->set_tag(tag);
  auto* image = entry->mutable_image();
  image->set_height(static_cast<int32_t>(height));
  image->set_width(static_cast<int32_t>(width));
  image->set_colorspace(static_cast<int32_t>(channels));
  image->set_encoded_image_string(png);
  impl_->write(event, step);
  flush();
}

void TensorBoardWriter::write(const MetricsLine& line) {
  scalar("loss/" + line.split, line.step, line.loss);
  if (line.accuracy) scalar("accuracy/" + line.split, line.step, *line.accuracy);
  const auto add = [&](const char* tag, const std::optional<double>& value) {
    if (value) scalar(tag, line.step, *value);
  };
  add("lr", line.lr);
  add("speed/samples_per_second", line.samples_per_second);
  add("speed/data_wait_percent", line.data_wait_percent);
  add("speed/allreduce_exposed_percent", line.allreduce_exposed_percent);
  flush();
}

void TensorBoardWriter::flush() {
  impl_->file.write(impl_->pending);
  impl_->pending.clear();
}

}  // namespace lockstep
