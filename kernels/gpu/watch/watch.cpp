// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/watch/watch.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <tuple>

#include "kernels/core/error.h"
#include "kernels/core/kernel.h"
#include "kernels/gpu/watch/accesses.h"
#include "kernels/gpu/watch/counters.h"
#include "kernels/gpu/watch/global_shadow.h"
#include "kernels/gpu/watch/shared_shadow.h"
#include "kernels/gpu/watch/symbols.h"

namespace lockstep {
namespace gpu_watch {
namespace {

using simt_executor::Launch;
using simt_executor::Position;
using simt_executor::position;
using Kind = SharedShadow::Kind;

class Watch final : public simt_executor::Observer {
 public:
  Watch() : dynamic_(simt_executor::kMaxDynamicShared) { simt_executor::set_observer(this); }

  GlobalShadow& global() { return global_; }

  void launch_begins(const Launch& l) override {
    kernel_ = l.kernel;
    launch_shared_ = l.shared_bytes;
    global_.launch_begins(int64_t{l.grid.x} * l.grid.y * l.grid.z);
    locals_ = thread_locals();
    if (!static_) {
      static_ = std::make_unique<SharedShadow>(locals_.bytes);
      variable_of_.assign(locals_.bytes, 0);
      variables_ = shared_variables();
      for (size_t i = 0; i < variables_.size(); ++i)
        std::fill_n(variable_of_.begin() + static_cast<std::ptrdiff_t>(variables_[i].offset),
                    variables_[i].bytes, static_cast<uint32_t>(i + 1));
    }
    touched_.assign(variables_.size(), false);
    if (counted_) {
      CountedKernel& k = counted_launch(l);
      counters_ = std::make_unique<Counters>(k.places);
    }
  }
  void launch_ends() override {
    if (counters_) {
      counters_->block_met();
      counters_.reset();
      KernelCount& k = counted_->at(kernel_index_).count;
      k.bytes_read += global_.bytes_read(), k.bytes_written += global_.bytes_written();
    }
    size_t bytes = 0;
    for (size_t i = 0; i < touched_.size(); ++i) bytes += touched_[i] ? variables_[i].bytes : 0;
    if (bytes > simt_executor::kMaxStaticShared)
      problem(
          Problem::launch_refused,
          fmt::format("{} bytes of static shared memory; at most {}", bytes, simt_executor::kMaxStaticShared),
          kernel_, nullptr);
    else if (bytes + launch_shared_ > simt_executor::kMaxDynamicShared)
      problem(Problem::launch_refused,
              fmt::format("{} bytes of shared memory, {} of them static; at most {}", bytes + launch_shared_,
                          bytes, simt_executor::kMaxDynamicShared),
              kernel_, nullptr);
  }
  void block_begins() override {
    if (counters_) counters_->block_met();
    order_.block_begins();
    global_.block_begins();
    copies_.clear();
  }
  void block_synced() override {
    order_.block_synced();
    if (counters_) counters_->block_met();
  }
  void warp_synced(unsigned warp, uint32_t lanes) override {
    order_.warp_synced(warp, lanes);
    if (counters_ && lanes == 0xFFFFFFFF) counters_->warp_met(warp);
  }
  void threads_synced(std::span<const uint16_t> threads) override {
    order_.threads_synced(threads);
    if (counters_)
      for (unsigned t : threads) counters_->warp_met(t / simt_executor::kWarp);
  }

  void problem(Problem p, std::string what, const void* place, const void* other) override {
    auto& seen = seen_[{p, kernel_, place, other}];
    if (++seen.second == 1)
      seen.first = p == Problem::launch_refused
                       ? std::move(what)
                       : fmt::format("{}; block ({}, {}, {}), thread ({}, {}, {})", what, position.block.x,
                                     position.block.y, position.block.z, position.thread.x, position.thread.y,
                                     position.thread.z);
  }

  void access(const void* address, size_t bytes, bool write, const void* place) override {
    judge(address, bytes, bytes, write ? Kind::write : Kind::read, place);
  }

  void atomic(const void* address, size_t bytes, const void* place) override {
    judge(address, bytes, bytes, Kind::atomic, place);
  }
  void fence() override { global_.fence(); }

  void async_copy(void* shared, const void* global, int valid, const void* place) override {
    if (valid < 0 || valid > 16) {
      problem(Problem::async_copy, fmt::format("{} valid bytes of 16", valid), place, nullptr);
      return;
    }
    if (reinterpret_cast<uintptr_t>(global) % 16 != 0)
      problem(Problem::misaligned, fmt::format("cp_async from {}", global), place, nullptr);
    bool good = valid == 0 || judge(global, static_cast<size_t>(valid), 1, Kind::read, place);
    good &= judge(shared, 16, 16, Kind::async_issue, place);
    Copies& c = copies_[position.linear];
    if (good) c.open.push_back({shared, global, valid});
  }
  void async_commit() override {
    Copies& c = copies_[position.linear];
    c.groups.push_back(std::exchange(c.open, {}));
  }
  void async_wait(int groups_left, const void*) override {
    Copies& c = copies_[position.linear];
    while (c.groups.size() > static_cast<size_t>(groups_left)) {
      for (const Copy& copy : c.groups.front()) {
        std::memcpy(copy.shared, copy.global, static_cast<size_t>(copy.valid));
        std::memset(static_cast<std::byte*>(copy.shared) + copy.valid, 0,
                    static_cast<size_t>(16 - copy.valid));
        const auto [shadow, offset] = shared_at(copy.shared, 16);
        shadow->arrived(order_, offset, 16, position.linear);
      }
      c.groups.erase(c.groups.begin());
    }
  }

  // False where the access must not be made.
  bool judge(const void* address, size_t bytes, size_t alignment, Kind kind, const void* place) {
    const auto a = reinterpret_cast<uintptr_t>(address);
    const auto* p = static_cast<const std::byte*>(address);
    if (p >= position.stack_begin && p < position.stack_end) return true;  // the thread's own variables
    if (a % alignment != 0)
      problem(Problem::misaligned, fmt::format("{} bytes at {}", bytes, address), place, nullptr);
    if (is_guard(p)) return true;
    const bool write = kind != Kind::read;
    if (const auto [shadow, offset] = shared_at(p, bytes); shadow) {
      if (counters_) counters_->access({place, Space::shared, write}, a, bytes, position.linear);
      const auto c = shadow->access(order_, offset, bytes, kind, position.linear);
      switch (c.verdict) {
        case SharedShadow::Verdict::fine:
          break;
        case SharedShadow::Verdict::unwritten:
          problem(Problem::shared_unwritten, fmt::format("{} bytes, {}", bytes, describe_shared(p)), place,
                  nullptr);
          break;
        case SharedShadow::Verdict::race:
          problem(Problem::shared_race,
                  fmt::format("{} of {} bytes, {}, with {}", write ? "write" : "read", bytes,
                              describe_shared(p), describe_thread(c.other)),
                  place, nullptr);
          break;
        case SharedShadow::Verdict::in_flight:
          problem(Problem::async_copy,
                  fmt::format("{} bytes, {}, into which {} copies", bytes, describe_shared(p),
                              describe_thread(c.other)),
                  place, nullptr);
          break;
      }
      return true;
    }
    if (near_shared(p)) {
      problem(Problem::shared_out_of_bounds,
              fmt::format("{} of {} bytes, {}", write ? "write" : "read", bytes, describe_shared(p)), place,
              nullptr);
      return false;
    }
    if (kind == Kind::atomic) {
      if (global_.inside(a, bytes)) {
        global_.atomic(a);
        return true;
      }
    } else if (const auto j = global_.access(a, bytes, write); j.inside) {
      if (counters_) counters_->access({place, Space::global, write}, a, bytes, position.linear);
      if (j.race)
        problem(Problem::global_race,
                fmt::format("{} of {} bytes, {}", write ? "write" : "read", bytes, global_.describe(a)),
                place, nullptr);
      return true;
    }
    if (!write && is_constant(address)) return true;
    problem(Problem::global_out_of_bounds,
            fmt::format("{} of {} bytes, {}", write ? "write" : "read", bytes, global_.describe(a)), place,
            nullptr);
    return false;
  }

  void allocated(const void* data, size_t bytes) override {
    global_.add(data, static_cast<int64_t>(bytes), "a kernel's table");
  }
  void freed(const void* data) override { global_.remove(data); }

  std::vector<Finding> take();

  void start_counting() { counted_.emplace(); }
  void stop_counting() { counted_.reset(); }
  std::vector<KernelCount> take_counts();

 private:
  struct CountedKernel {
    const void* kernel;
    KernelCount count;
    Counters::Places places;
  };
  CountedKernel& counted_launch(const Launch& l) {
    const auto known = std::find_if(counted_->begin(), counted_->end(),
                                    [&](const CountedKernel& k) { return k.kernel == l.kernel; });
    kernel_index_ = static_cast<size_t>(known - counted_->begin());
    if (known == counted_->end()) counted_->push_back({l.kernel, {}, {}});
    CountedKernel& k = (*counted_)[kernel_index_];
    ++k.count.launches;
    k.count.blocks += int64_t{l.grid.x} * l.grid.y * l.grid.z;
    k.count.threads = l.block.x * l.block.y * l.block.z;
    k.count.dynamic_shared = std::max(k.count.dynamic_shared, l.shared_bytes);
    return k;
  }
  struct Copy {
    void* shared;
    const void* global;
    int valid;
  };
  struct Copies {
    std::vector<Copy> open;
    std::vector<std::vector<Copy>> groups;
  };
  struct Where {
    SharedShadow* shadow = nullptr;
    size_t offset = 0;
  };

  // Null where [p, p + bytes) is not all in the launch's dynamic memory or in one static variable.
  Where shared_at(const void* address, size_t bytes) {
    const auto* p = static_cast<const std::byte*>(address);
    if (p >= position.shared && p + bytes <= position.shared + position.shared_bytes)
      return {&dynamic_, static_cast<size_t>(p - position.shared)};
    if (p >= locals_.begin && p + bytes <= locals_.begin + locals_.bytes) {
      const auto offset = static_cast<size_t>(p - locals_.begin);
      const uint32_t v = variable_of_[offset];
      if (v != 0 && variable_of_[offset + bytes - 1] == v) {
        touched_[v - 1] = true;
        return {static_.get(), offset};
      }
    }
    return {};
  }
  bool is_guard(const std::byte* p) const {
    if (p < locals_.begin || p >= locals_.begin + locals_.bytes) return false;
    const uint32_t v = variable_of_[static_cast<size_t>(p - locals_.begin)];
    return v != 0 && variables_[v - 1].guard;
  }
  bool near_shared(const std::byte* p) const {
    return (p >= locals_.begin && p < locals_.begin + locals_.bytes) ||
           (p >= position.shared - simt_executor::kSharedMargin &&
            p < position.shared + simt_executor::kMaxDynamicShared + simt_executor::kSharedMargin);
  }
  std::string describe_shared(const std::byte* p) const {
    if (p >= locals_.begin && p < locals_.begin + locals_.bytes) {
      const auto offset = static_cast<size_t>(p - locals_.begin);
      const uint32_t v = variable_of_[offset];
      return v ? fmt::format("byte {} of a static variable of {}", offset - variables_[v - 1].offset,
                             variables_[v - 1].bytes)
               : "beside the static variables";
    }
    return fmt::format("byte {} of dynamic shared memory's {}", p - position.shared, position.shared_bytes);
  }
  static std::string describe_thread(unsigned linear) {
    return linear < simt_executor::kMaxThreads ? fmt::format("thread {}", linear) : "other threads";
  }

  GlobalShadow global_;
  Order order_;
  SharedShadow dynamic_;
  std::unique_ptr<SharedShadow> static_;
  ThreadLocals locals_;
  std::vector<SharedVariable> variables_;
  std::vector<uint32_t> variable_of_;  // of each byte of the thread-local block: index + 1, or 0
  std::vector<bool> touched_;          // static variables of this launch
  std::map<unsigned, Copies> copies_;  // of each thread
  const void* kernel_ = nullptr;
  size_t launch_shared_ = 0;
  std::optional<std::deque<CountedKernel>> counted_;  // while something counts
  std::unique_ptr<Counters> counters_;                // of the launch
  size_t kernel_index_ = 0;                           // among the counted
  using Key = std::tuple<Problem, const void*, const void*, const void*>;
  std::map<Key, std::pair<std::string, int64_t>> seen_;
};

std::vector<Finding> Watch::take() {
  std::vector<CodeAddress> addresses;  // three for each: kernel, place, other
  for (const auto& [key, value] : seen_) {
    const auto& [problem, kernel, place, other] = key;
    addresses.push_back({kernel, false});
    addresses.push_back({place, problem != Problem::launch_refused});
    addresses.push_back({other ? other : kernel, other != nullptr});
  }
  const std::vector<Source> sources = look_up(addresses);
  std::vector<Finding> all;
  auto source = sources.begin();
  for (auto& [key, value] : std::exchange(seen_, {})) {
    Finding f{std::get<0>(key), source[0].function, source[1].place, std::get<3>(key) ? source[2].place : "",
              value.first,      value.second};
    source += 3;
    // One line that the compiler made two of.
    if (!f.other.empty() && f.other == f.place) continue;
    const auto same = std::find_if(all.begin(), all.end(), [&](const Finding& g) {
      return g.problem == f.problem && g.kernel == f.kernel && g.place == f.place && g.other == f.other;
    });
    if (same != all.end())
      same->times += f.times;
    else
      all.push_back(std::move(f));
  }
  return all;
}

std::vector<KernelCount> Watch::take_counts() {
  std::vector<CodeAddress> addresses;
  for (const CountedKernel& k : *counted_) {
    addresses.push_back({k.kernel, false});
    for (const auto& [key, count] : k.places) addresses.push_back({key.place, true});
  }
  const std::vector<Source> sources = look_up(addresses);
  auto source = sources.begin();
  std::vector<KernelCount> all;
  for (CountedKernel& k : *counted_) {
    k.count.kernel = (source++)->function;
    for (const auto& [key, count] : k.places) {
      const std::string& place = (source++)->place;
      auto& places = k.count.places;
      // Unrolled loops have several addresses for a line.
      const auto same =
          std::find_if(places.begin(), places.end(), [&, &at = key](const KernelCount::Place& p) {
            return p.place == place && p.space == at.space && p.write == at.write;
          });
      if (same != places.end())
        same->count += count;
      else
        places.push_back({place, key.space, key.write, count});
    }
    all.push_back(std::move(k.count));
  }
  counted_->clear();
  return all;
}

Watch& watch() {
  static Watch w;
  return w;
}
[[maybe_unused]] const bool at_start = (watch(), true);

}  // namespace

std::string Finding::text() const {
  return fmt::format("{}: {} in {}{}: {}{}", place, name(problem), kernel,
                     other.empty() ? "" : ", the other at " + other, what,
                     times > 1 ? fmt::format(" ({} times)", times) : "");
}

std::vector<Finding> take_findings() { return watch().take(); }

RequestCount KernelCount::total(Space space) const {
  RequestCount sum;
  for (const Place& p : places)
    if (p.space == space) sum += p.count;
  return sum;
}

Counting::Counting() { watch().start_counting(); }
Counting::~Counting() { watch().stop_counting(); }
std::vector<KernelCount> Counting::take() { return watch().take_counts(); }

Allocation::Allocation(const void* data, int64_t bytes, std::string name) : data_(data) {
  watch().global().add(data, bytes, std::move(name));
}
Allocation::~Allocation() { watch().global().remove(data_); }

void judge_access(const void* address, size_t bytes, size_t alignment, bool write, const void* place) {
  position.watched = false;
  watch().judge(address, bytes, alignment, write ? Kind::write : Kind::read, place);
  position.watched = true;
}

}  // namespace gpu_watch
}  // namespace lockstep
