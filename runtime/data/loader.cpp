// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/loader.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "kernels/core/error.h"

namespace lockstep {

// A ring of depth + 1 slots: `depth` in flight and the one that next() has handed out. Batches are numbered
// in request order; batch i lives in slot i % slots. taken <= filled <= requested <= taken + depth.
struct Loader::Impl {
  struct Slot {
    int64_t epoch = 0, begin = 0, count = 0;
    std::vector<uint8_t> images;
    std::vector<int32_t> labels, tokens;
    std::exception_ptr error;
  };

  std::shared_ptr<const SampleSource> set;
  std::vector<int64_t> subset;
  SampleOrder order;
  int64_t max_batch, depth;
  CaptionTokens tokens;
  std::vector<Slot> slots;
  Batch current;
  double wait_seconds = 0;

  std::mutex mutex;
  std::condition_variable to_fill, to_take, to_request;
  int64_t requested = 0, filled = 0, taken = 0;
  bool stopping = false;
  std::thread worker;

  Impl(std::shared_ptr<const SampleSource> set_, std::vector<int64_t> subset_, SampleOrder order_,
       int64_t max_batch_, int64_t depth_, CaptionTokens tokens_)
      : set(std::move(set_)),
        subset(std::move(subset_)),
        order(order_),
        max_batch(max_batch_),
        depth(depth_),
        tokens(std::move(tokens_)) {
    LOCKSTEP_ASSERT(max_batch >= 0 && depth >= 1, "max_batch {}, depth {}", max_batch, depth);
    const int64_t available = subset.empty() ? set->count() : static_cast<int64_t>(subset.size());
    LOCKSTEP_ASSERT(order.count() == available, "the order counts {} samples, the split has {}",
                    order.count(), available);
    for (int64_t i : subset) LOCKSTEP_ASSERT(i >= 0 && i < set->count(), "index {} of {}", i, set->count());
    slots.resize(static_cast<size_t>(depth + 1));
    for (Slot& slot : slots) {
      slot.images.resize(static_cast<size_t>(max_batch * set->sample_bytes()));
      slot.labels.resize(static_cast<size_t>(max_batch));
      slot.tokens.resize(static_cast<size_t>(max_batch * tokens.length));
    }
    worker = std::thread([this] { work(); });
  }

  Slot& slot_of(int64_t batch) { return slots[static_cast<size_t>(batch) % slots.size()]; }

  void fill(Slot& slot) {
    const int64_t bytes = set->sample_bytes();
    for (int64_t i = 0; i < slot.count; ++i) {
      int64_t index = order.sample(slot.epoch, slot.begin + i);
      if (!subset.empty()) index = subset[static_cast<size_t>(index)];
      set->copy_pixels(slot.epoch, index, slot.images.data() + i * bytes);
      slot.labels[static_cast<size_t>(i)] = set->label(index);
      if (tokens.length > 0)
        tokens.write(slot.epoch, index,
                     {slot.tokens.data() + i * tokens.length, static_cast<size_t>(tokens.length)});
    }
  }

  void work() {
    std::unique_lock lock(mutex);
    while (true) {
      to_fill.wait(lock, [&] { return stopping || filled < requested; });
      if (stopping) return;
      Slot& slot = slot_of(filled);
      lock.unlock();
      try {
        fill(slot);
      } catch (...) {
        slot.error = std::current_exception();
      }
      lock.lock();
      ++filled;
      to_take.notify_one();
    }
  }
};

Loader::Loader(std::shared_ptr<const SampleSource> set, std::vector<int64_t> subset, SampleOrder order,
               int64_t max_batch, int depth, CaptionTokens tokens)
    : impl_(std::make_unique<Impl>(std::move(set), std::move(subset), order, max_batch, depth,
                                   std::move(tokens))) {}

Loader::~Loader() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->to_fill.notify_one();
  impl_->worker.join();
}

void Loader::request(int64_t epoch, int64_t begin, int64_t count) {
  LOCKSTEP_ASSERT(count >= 0 && count <= impl_->max_batch, "count {}, max_batch {}", count, impl_->max_batch);
  std::unique_lock lock(impl_->mutex);
  impl_->to_request.wait(lock, [&] { return impl_->requested < impl_->taken + impl_->depth; });
  Impl::Slot& slot = impl_->slot_of(impl_->requested);
  slot.epoch = epoch;
  slot.begin = begin;
  slot.count = count;
  ++impl_->requested;
  lock.unlock();
  impl_->to_fill.notify_one();
}

const Batch& Loader::next() {
  std::unique_lock lock(impl_->mutex);
  LOCKSTEP_ASSERT(impl_->taken < impl_->requested, "no batch was requested");
  if (impl_->filled <= impl_->taken) {
    const auto start = std::chrono::steady_clock::now();
    impl_->to_take.wait(lock, [&] { return impl_->filled > impl_->taken; });
    impl_->wait_seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  Impl::Slot& slot = impl_->slot_of(impl_->taken);
  ++impl_->taken;
  lock.unlock();
  impl_->to_request.notify_one();
  if (slot.error) std::rethrow_exception(std::exchange(slot.error, nullptr));
  const auto count = static_cast<size_t>(slot.count);
  impl_->current.images = {slot.images.data(), count * static_cast<size_t>(impl_->set->sample_bytes())};
  impl_->current.labels = {slot.labels.data(), count};
  impl_->current.tokens = {slot.tokens.data(), count * static_cast<size_t>(impl_->tokens.length)};
  impl_->current.count = slot.count;
  return impl_->current;
}

double Loader::take_wait_seconds() { return std::exchange(impl_->wait_seconds, 0.0); }

}  // namespace lockstep
