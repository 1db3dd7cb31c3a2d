// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/contention.h"

#include <fcntl.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>

namespace lockstep {
namespace {

// The second number of a thread's schedstat; -1: it cannot be read.
int64_t waited(int file) {
  char text[64];
  const ssize_t size = ::pread(file, text, sizeof text - 1, 0);
  if (size <= 0) return -1;
  text[size] = 0;
  char* end = nullptr;
  std::strtoull(text, &end, 10);
  return *end == ' ' ? static_cast<int64_t>(std::strtoull(end, nullptr, 10)) : -1;
}

}  // namespace

Contention::Contention() {
  for (auto& file : files_) file = -1;
  waited_.fill(-1);
}

Contention::~Contention() {
  for (const auto& file : files_)
    if (file >= 0) ::close(file);
}

void Contention::watch_this_thread() {
  if (count_ < kMost) watch("/proc/self/task/" + std::to_string(::gettid()) + "/schedstat");
}

void Contention::watch(const std::string& schedstat) {
  const size_t i = count_++;
  if (i < kMost) files_[i] = ::open(schedstat.c_str(), O_RDONLY | O_CLOEXEC);
}

void Contention::look(Clock::time_point now) {
  const std::chrono::duration<double> passed = now - last_, memory = kMemory;
  lately_ *= std::exp(-passed / memory);
  for (size_t i = 0; i < kMost; ++i) {
    if (files_[i] < 0) continue;
    const int64_t before = waited_[i];
    waited_[i] = waited(files_[i]);
    if (before >= 0 && waited_[i] > before) lately_ += static_cast<double>(waited_[i] - before);
  }
  // What a long pause has added up says nothing of now.
  if (passed > kHolds) lately_ = 0;
  if (lately_ >= kShare * std::chrono::duration<double, std::nano>(kMemory).count()) until_ = now + kHolds;
  last_ = now;
  next_look_ = now + kBetween;
}

}  // namespace lockstep
