// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "runtime/comm/communicator.h"

namespace lockstep {
namespace {

// The only process of a job. `size` above 1: of ranks that do not exist and add nothing, so every sum stays what it was.
class SelfCommunicator final : public Communicator {
 public:
  explicit SelfCommunicator(int size) : size_(size) {}
  int rank() const override { return 0; }
  int size() const override { return size_; }
  void allreduce(std::span<float> d, Reduce op) override { reduce(d, op); }
  void allreduce(std::span<double> d, Reduce op) override { reduce(d, op); }
  void allreduce(std::span<int64_t> d, Reduce op) override { reduce(d, op); }
  void all_gather(std::span<const std::byte> send, std::span<std::byte> recv) override {
    if (send.empty()) return;
    for (int r = 0; r < size_; ++r)
      std::memcpy(recv.data() + static_cast<size_t>(r) * send.size(), send.data(), send.size());
  }
  void broadcast(std::span<std::byte>, int) override {}
  void barrier() override {}
  std::unique_ptr<Communicator> duplicate(const std::string&) override {
    return std::make_unique<SelfCommunicator>(size_);
  }
  AlignedBuffer allocate(int64_t bytes) override { return AlignedBuffer(bytes); }
  Ticket start_allreduce(std::span<float> data, const char*) override {
    reduce(data, Reduce::sum);
    return next_++;
  }
  void wait(Ticket) override {}
  double take_exposed_seconds() override { return 0; }
  void set_trace(Trace*) override {}
  void leave(const Error&) override {}

 private:
  template <class T>
  void reduce(std::span<T> data, Reduce op) const {
    if (size_ == 1 || op != Reduce::sum) return;
    for (T& x : data) x *= static_cast<T>(size_);
  }

  int size_;
  Ticket next_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> make_self_communicator() { return std::make_unique<SelfCommunicator>(1); }
std::unique_ptr<Communicator> make_mirror_communicator(int size) {
  return std::make_unique<SelfCommunicator>(size);
}

}  // namespace lockstep
