// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/watch/global_shadow.h"

#include "kernels/core/error.h"

namespace lockstep::gpu_watch {

void GlobalShadow::add(const void* data, int64_t bytes, std::string name) {
  memory_[reinterpret_cast<uintptr_t>(data)] = {bytes, std::move(name), {}};
  last_ = nullptr;
}

void GlobalShadow::remove(const void* data) {
  memory_.erase(reinterpret_cast<uintptr_t>(data));
  last_ = nullptr;
}

void GlobalShadow::launch_begins(int64_t blocks) {
  first_ = many_ + 1;
  many_ = first_ + static_cast<uint32_t>(blocks);
  block_ = first_ - 1;
  bytes_read_ = bytes_written_ = 0;
  met_.clear();
}

void GlobalShadow::block_begins() {
  ++block_;
  fenced_ = false;
  known_.clear();
}

GlobalShadow::Memory* GlobalShadow::find(uintptr_t address, size_t bytes) {
  if (!last_ || address < last_begin_ || address + bytes > last_begin_ + static_cast<size_t>(last_->bytes)) {
    auto next = memory_.upper_bound(address);
    if (next == memory_.begin()) return nullptr;
    --next;
    if (address + bytes > next->first + static_cast<size_t>(next->second.bytes)) return nullptr;
    last_begin_ = next->first;
    last_ = &next->second;
  }
  return last_;
}

GlobalShadow::Judgement GlobalShadow::access(uintptr_t address, size_t bytes, bool write) {
  Memory* m = find(address, bytes);
  if (!m) return {};
  if (m->cells.empty()) m->cells.resize(static_cast<size_t>(m->bytes));
  Judgement j{.inside = true};
  Cell* c = &m->cells[address - last_begin_];
  for (size_t i = 0; i < bytes; ++i, ++c) {
    if (!ordered(c->writer)) j.race = true;
    if (write) {
      if (!ordered(c->reader)) j.race = true;
      bytes_written_ += c->writer < first_;
      c->writer = block_;
    } else {
      bytes_read_ += c->reader < first_ && c->writer < first_;
      c->reader = ordered(c->reader) ? block_ : many_;
    }
  }
  return j;
}

void GlobalShadow::atomic(uintptr_t address) {
  auto& met = met_[address];
  known_.insert(met.begin(), met.end());
  if (!fenced_) return;
  met.insert(known_.begin(), known_.end());
  met.insert(block_);
}

std::string GlobalShadow::describe(uintptr_t address) const {
  auto next = memory_.upper_bound(address);
  std::string text;
  if (next != memory_.begin()) {
    const auto& [begin, m] = *std::prev(next);
    const auto past = static_cast<int64_t>(address - begin) - m.bytes;
    if (past < 0) return fmt::format("byte {} of {}", address - begin, m.name);
    text = fmt::format("{} bytes past the end of {} ({} bytes)", past, m.name, m.bytes);
  }
  if (next != memory_.end())
    text += fmt::format("{}{} bytes before {}", text.empty() ? "" : ", ", next->first - address,
                        next->second.name);
  return text.empty() ? "no memory is registered" : text;
}

}  // namespace lockstep::gpu_watch
