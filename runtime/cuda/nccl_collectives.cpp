// SPDX-License-Identifier: Apache-2.0
// Collectives by NCCL, on a stream of their own beside the compute stream.
//
// The communicator doesn't block: a call may answer that it is still at work (ncclInProgress), and until
// ncclCommGetAsyncError says that it is done, another call on the communicator but ncclCommAbort is an invalid
// argument, which besides leaves its thread's group open: what that thread calls next is queued for good. So
// settle() follows each.
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <map>
#include <numeric>
#include <thread>
#include <vector>

#include "kernels/core/bf16.h"
#include "kernels/core/kernel.h"
#include "runtime/comm/device_collectives.h"
#include "runtime/comm/together.h"
#include "runtime/cuda/gpu.h"
#include "runtime/cuda/nccl.h"

namespace lockstep {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// An abort may spin until recorded graphs are destroyed, and a call be at work until its peers come: at an end
// nobody waits longer for either.
constexpr auto kEnd = 2s;
// Between looks at whether a call is done.
constexpr auto kLook = 100us;

int highest_priority() {
  int least = 0, greatest = 0;
  LOCKSTEP_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  return greatest;
}

// Which collective began last on the GPU, recorded steps included, which pass the host by: a word of host
// memory, into which the stream of collectives copies each one's number before it.
class Progress {
 public:
  explicit Progress(CudaRuntime& device)
      : word_(device, sizeof(int32_t)), numbers_(device, kMost * sizeof(int32_t)) {
    std::memset(word_.data(), 0, sizeof(int32_t));
    std::vector<int32_t> numbers(kMost);
    std::iota(numbers.begin(), numbers.end(), 1);  // 0: none
    device.copy_to_device(numbers_.data(), numbers.data(), numbers_.bytes());
    device.synchronize();
  }
  void begin(const std::string& name, cudaStream_t stream) {
    const auto found = std::find(names_.begin(), names_.end(), name);
    const auto number = found - names_.begin();
    if (found == names_.end()) {
      LOCKSTEP_ASSERT(names_.size() < kMost, "more than {} collectives in a step", kMost);
      names_.push_back(name);
    }
    LOCKSTEP_CUDA(cudaMemcpyAsync(word_.data(), numbers_.as<int32_t>() + number, sizeof(int32_t),
                                  cudaMemcpyDeviceToHost, stream));
  }
  std::string text() const {
    const int32_t number = *reinterpret_cast<const volatile int32_t*>(word_.data());
    if (number == 0) return "no collective had begun";
    return fmt::format("the last collective that began: {}", names_[static_cast<size_t>(number - 1)]);
  }

 private:
  static constexpr int64_t kMost = 4096;
  HostMemory word_;
  DeviceMemory numbers_;
  std::vector<std::string> names_;
};

// So many floats to bf16 and back.
class Rounding {
 public:
  explicit Rounding(int64_t count)
      : wide_{DType::f32, {count}, Layout::plain},
        narrow_{DType::bf16, {count}, Layout::plain},
        round_(make_cast(wide_, narrow_)),
        widen_(make_cast(narrow_, wide_)) {}
  void round(float* from, bf16* to, cudaStream_t stream) {
    run(*round_, {wide_, from}, {narrow_, to}, stream);
  }
  void widen(bf16* from, float* to, cudaStream_t stream) {
    run(*widen_, {narrow_, from}, {wide_, to}, stream);
  }

 private:
  static std::unique_ptr<Kernel> make_cast(const TensorSpec& from, const TensorSpec& to) {
    const KernelInfo* info = Registry::builtin().find("cast", "eights", Device::cuda, DType::bf16);
    LOCKSTEP_ASSERT(info != nullptr);
    const NoParams none;
    const Params params(none);
    auto kernel = info->make({params, {&from, 1}, {&to, 1}});
    LOCKSTEP_ASSERT(kernel != nullptr && kernel->workspace_bytes() == 0);
    return kernel;
  }
  static void run(Kernel& kernel, const View& from, const View& to, cudaStream_t stream) {
    kernel.run({{&from, 1}, {&to, 1}, nullptr, stream});
  }

  TensorSpec wide_, narrow_;
  std::unique_ptr<Kernel> round_, widen_;
};

class NcclCollectives final : public DeviceCollectives {
 public:
  NcclCollectives(const Nccl& nccl, CudaRuntime& device, Communicator& control, NcclOptions options)
      : nccl_(nccl),
        rank_(control.rank()),
        device_(device),
        options_(std::move(options)),
        stream_(highest_priority()),
        progress_(device) {
    ncclUniqueId id{};
    if (control.rank() == 0) check(nccl_.ncclGetUniqueId(&id), "ncclGetUniqueId");
    control.broadcast(std::as_writable_bytes(std::span(&id, 1)), 0);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    check(nccl_.ncclCommInitRankConfig(&comm_, control.size(), id, control.rank(), &config),
          "ncclCommInitRankConfig");
    settle("starting NCCL");
    device_.set_watch([this](std::chrono::duration<double> waited) { watch(waited); });
  }
  // Nothing is recorded that has its collectives: NCCL would wait for the graph's end.
  ~NcclCollectives() override {
    device_.set_watch({});
    rounded_ = DeviceMemory();  // registered with the communicator
    // Finalises first, and unlike ncclCommFinalize is done when it returns.
    if (const ncclResult_t r = nccl_.ncclCommDestroy(comm_); r != ncclSuccess)
      spdlog::warn("ncclCommDestroy: {}", nccl_.ncclGetErrorString(r));
  }
  NcclCollectives(const NcclCollectives&) = delete;
  NcclCollectives& operator=(const NcclCollectives&) = delete;

  DeviceMemory allocate(int64_t bytes) override {
    DeviceMemory gradients = registered(bytes);
    if (rounds()) rounded_ = registered(staging_bytes(bytes));
    return gradients;
  }

  // One bucket may be all the gradients.
  int64_t staging_bytes(int64_t bytes) const override {
    return rounds() ? bytes / size_of(DType::f32) * size_of(DType::bf16) : 0;
  }

  void start_allreduce(float* data, int64_t count, const std::string& name) override {
    fork(name);
    sum(data, count, ncclFloat);
  }

  void start_gradient_allreduce(float* data, int64_t count, int64_t metrics,
                                const std::string& name) override {
    const int64_t exact = rounds() ? metrics : count;
    fork(name);
    if (exact > 0) sum(data, exact, ncclFloat);
    if (exact < count) sum_rounded(data + exact, count - exact);
  }

  void join() override {
    if (!forked_) return;
    done_.record(stream_);
    done_.delay(device_.compute());
    forked_ = false;
  }

  void all_gather(const void* send, void* recv, int64_t bytes, const std::string& name) override {
    fork(name);
    check(nccl_.ncclAllGather(send, recv, static_cast<size_t>(bytes), ncclInt8, comm_, stream_),
          "ncclAllGather");
    settle("all-gather");
    join();
  }

 private:
  bool rounds() const { return options_.gradients == DType::bf16; }

  DeviceMemory registered(int64_t bytes) {
    const auto size = static_cast<size_t>(bytes);
    void* memory = nullptr;
    if (const ncclResult_t r = nccl_.ncclMemAlloc(&memory, size); r != ncclSuccess) {
      spdlog::info("gradients are not in NCCL's memory: {}", nccl_.ncclGetErrorString(r));
      return DeviceMemory(device_, bytes);
    }
    void* handle = nullptr;
    if (const ncclResult_t r = nccl_.ncclCommRegister(comm_, memory, size, &handle);
        r != ncclSuccess && r != ncclInProgress)
      spdlog::info("gradients are not registered with NCCL: {}", nccl_.ncclGetErrorString(r));
    settle("registering the gradients");
    DeviceMemory owned(bytes, memory, [this, handle](void* p) {
      // Unlike cudaFree it waits for no work that may still use it.
      cudaStreamSynchronize(stream_);
      cudaStreamSynchronize(device_.compute());
      if (handle) deregister(handle);
      nccl_.ncclMemFree(p);
    });
    LOCKSTEP_CUDA(cudaMemsetAsync(memory, 0, size, device_.compute()));
    return owned;
  }

  // What follows on the stream of collectives, the one of this name, comes after the compute stream's work so
  // far.
  void fork(const std::string& name) {
    ready_.record(device_.compute());
    ready_.delay(stream_);
    forked_ = true;
    progress_.begin(name, stream_);
  }

  void sum(void* data, int64_t count, ncclDataType_t type) {
    check(nccl_.ncclAllReduce(data, data, static_cast<size_t>(count), type, ncclSum, comm_, stream_),
          "ncclAllReduce");
    settle("allreduce");
  }

  // Buckets follow each other on one stream, so all of them are rounded into the same memory.
  void sum_rounded(float* data, int64_t count) {
    auto* const rounded = rounded_.as<bf16>();
    LOCKSTEP_ASSERT(count * size_of(DType::bf16) <= rounded_.bytes());
    Rounding& rounding = roundings_.try_emplace(count, count).first->second;  // new in the first step only
    rounding.round(data, rounded, stream_);
    sum(rounded, count, ncclBfloat16);
    rounding.widen(rounded, data, stream_);
  }

  void check(ncclResult_t result, const char* call) {
    if (result == ncclSuccess || result == ncclInProgress) return;
    const char* last = comm_ ? nccl_.ncclGetLastError(comm_) : nullptr;
    const std::string what = fmt::format("{}: {}{}{}", call, nccl_.ncclGetErrorString(result),
                                         last && *last ? ": " : "", last ? last : "");
    if (!comm_ || !started_) throw Error(Exit::unavailable, "E_NCCL", what).hint("NCCL_DEBUG=WARN says more");
    lost(what);
  }

  // As memory goes: nothing may be thrown.
  void deregister(void* handle) noexcept {
    ncclResult_t state = nccl_.ncclCommDeregister(comm_, handle);
    for (const auto limit = Clock::now() + kEnd; state == ncclInProgress && Clock::now() < limit;) {
      std::this_thread::sleep_for(kLook);
      if (nccl_.ncclCommGetAsyncError(comm_, &state) != ncclSuccess) break;
    }
    if (state != ncclSuccess) spdlog::warn("ncclCommDeregister: {}", nccl_.ncclGetErrorString(state));
  }

  // Until the communicator is done with the call before.
  void settle(const char* what) {
    const auto start = Clock::now();
    for (ncclResult_t state = ncclInProgress;;) {
      check(nccl_.ncclCommGetAsyncError(comm_, &state), what);
      if (state == ncclSuccess) break;
      check(state, what);
      if (std::chrono::duration<double>(Clock::now() - start).count() > options_.deadline_seconds)
        lost(fmt::format("{}: no answer within {} s", what, options_.deadline_seconds));
      std::this_thread::sleep_for(kLook);
    }
    started_ = true;
  }

  void watch(std::chrono::duration<double> waited) {
    ncclResult_t state = ncclSuccess;
    check(nccl_.ncclCommGetAsyncError(comm_, &state), "waiting for the GPU");
    check(state, "NCCL");
    if (waited.count() > options_.deadline_seconds)
      lost(fmt::format("the GPU's work is not done within {} s: a peer is lost or hangs",
                       options_.deadline_seconds));
  }

  // What the other ranks hold is unknown: nothing more can be done here but say so. Who is to blame NCCL does not tell: the
  // error has the rank that found it out.
  [[noreturn]] void lost(const std::string& what) {
    if (options_.on_peer_lost)
      options_.on_peer_lost(
          {Error(Exit::try_again, "E_PEER_LOST", fmt::format("{}; {}", what, progress_.text()))
               .at("rank", rank_)});
    static std::atomic<bool> aborted{false};
    std::thread([this, comm = comm_] {
      nccl_.ncclCommAbort(comm);
      aborted = true;
    }).detach();
    for (const auto limit = Clock::now() + kEnd; !aborted && Clock::now() < limit;)
      std::this_thread::sleep_for(1ms);
    ::_exit(static_cast<int>(Exit::try_again));
  }

  const Nccl& nccl_;
  int rank_;
  CudaRuntime& device_;
  NcclOptions options_;
  ncclComm_t comm_ = nullptr;
  DeviceMemory rounded_;                   // gradients as they travel
  std::map<int64_t, Rounding> roundings_;  // by count; outlive the stream that runs them
  CudaStream stream_;
  CudaEvent ready_, done_;
  Progress progress_;
  bool forked_ = false, started_ = false;
};

}  // namespace

std::unique_ptr<DeviceCollectives> make_nccl_collectives(DeviceRuntime& device, Communicator& control,
                                                         NcclOptions options) {
  together(control, [] {
    if (!has_nccl())
      throw Error(Exit::config, "E_NO_NCCL", "backend nccl: " + nccl_description())
          .hint("backend: mpi works here");
  });
  auto& gpu = dynamic_cast<CudaRuntime&>(device);
  require_own_cards(control, gpu.card());
  return std::make_unique<NcclCollectives>(*Nccl::get(), gpu, control, std::move(options));
}

}  // namespace lockstep
