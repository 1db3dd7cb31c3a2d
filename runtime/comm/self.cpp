#include <cstring>

#include "runtime/comm/communicator.h"

namespace lockstep {
namespace {

// One rank: every sum is what it was.
class SelfCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void allreduce(std::span<float>, Reduce) override {}
  void allreduce(std::span<double>, Reduce) override {}
  void allreduce(std::span<int64_t>, Reduce) override {}
  void all_gather(std::span<const std::byte> send, std::span<std::byte> recv) override {
    if (!send.empty()) std::memcpy(recv.data(), send.data(), send.size());
  }
  void broadcast(std::span<std::byte>, int) override {}
  void barrier() override {}
  std::unique_ptr<Communicator> duplicate(const std::string&) override {
    return std::make_unique<SelfCommunicator>();
  }
  AlignedBuffer allocate(int64_t bytes) override { return AlignedBuffer(bytes); }
  Ticket start_allreduce(std::span<float>) override { return next_++; }
  void wait(Ticket) override {}
  double take_exposed_seconds() override { return 0; }
  void set_trace(Trace*) override {}

 private:
  Ticket next_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> make_self_communicator() { return std::make_unique<SelfCommunicator>(); }

}  // namespace lockstep
