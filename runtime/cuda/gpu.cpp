// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/gpu.h"

#include <nvtx3/nvToolsExt.h>

#include <thread>
#include <utility>

#include "runtime/cuda/capability.h"

namespace lockstep {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// An event is polled for this long without giving the core away, then at this interval.
constexpr std::chrono::microseconds kSpin = 200us, kPoll = 50us, kWatch = 5ms;

class CudaGraph final : public DeviceRuntime::Recording {
 public:
  CudaGraph(cudaGraphExec_t graph, cudaStream_t stream) : graph_(graph), stream_(stream) {}
  ~CudaGraph() override { cudaGraphExecDestroy(graph_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;
  void replay() override { LOCKSTEP_CUDA(cudaGraphLaunch(graph_, stream_)); }

 private:
  cudaGraphExec_t graph_;
  cudaStream_t stream_;
};

// As nvidia-smi has it; "" where the driver gives none.
std::string uuid_text(const cudaUUID_t& uuid) {
  std::string digits;
  bool known = false;
  for (size_t i = 0; i < sizeof uuid.bytes; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) digits += '-';
    digits += fmt::format("{:02x}", static_cast<unsigned char>(uuid.bytes[i]));
    known |= uuid.bytes[i] != 0;
  }
  return known ? "GPU-" + digits : "";
}

}  // namespace

CudaStream::CudaStream(int priority) {
  LOCKSTEP_CUDA(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, priority));
}

int CudaRuntime::select(int index) {
  LOCKSTEP_CUDA(cudaSetDevice(index));
  return index;
}

CudaRuntime::CudaRuntime(int index) : index_(select(index)) {
  cudaDeviceProp properties{};
  LOCKSTEP_CUDA(cudaGetDeviceProperties(&properties, index));
  name_ = properties.name;
  card_ = card_of_this_machine();
  card_.uuid = uuid_text(properties.uuid);
  card_.pci = fmt::format("{:04x}:{:02x}:{:02x}", properties.pciDomainID, properties.pciBusID,
                          properties.pciDeviceID);
  const int capability = properties.major * 10 + properties.minor;
  if (!runs_on(LOCKSTEP_CUDA_BUILT_FOR, capability))
    throw Error(Exit::config, "E_GPU_ARCHITECTURE",
                fmt::format("GPU {}, {}, has compute capability {}.{}; this build has kernels for {}", index,
                            name_, properties.major, properties.minor, LOCKSTEP_CUDA_BUILT_FOR))
        .hint(fmt::format("build with -DLOCKSTEP_CUDA_ARCHITECTURES={}, or AUTO", capability));
}

void* CudaRuntime::allocate(int64_t bytes) {
  void* memory = nullptr;
  const auto size = static_cast<size_t>(bytes < 1 ? 1 : bytes);
  LOCKSTEP_CUDA(cudaMalloc(&memory, size));
  LOCKSTEP_CUDA(cudaMemsetAsync(memory, 0, size, compute_));
  return memory;
}
// Waits for work that may still use it.
void CudaRuntime::release(void* memory) noexcept { cudaFree(memory); }

void* CudaRuntime::allocate_host(int64_t bytes) {
  void* memory = nullptr;
  LOCKSTEP_CUDA(cudaMallocHost(&memory, static_cast<size_t>(bytes < 1 ? 1 : bytes)));
  return memory;
}
void CudaRuntime::release_host(void* memory) noexcept { cudaFreeHost(memory); }

void CudaRuntime::copy_to_device(void* to, const void* from, int64_t bytes) {
  if (bytes > 0)
    LOCKSTEP_CUDA(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, compute_));
}
void CudaRuntime::copy_to_host(void* to, const void* from, int64_t bytes) {
  if (bytes > 0)
    LOCKSTEP_CUDA(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, compute_));
}

void CudaRuntime::copy_on_device(void* to, const void* from, int64_t bytes) {
  if (bytes > 0)
    LOCKSTEP_CUDA(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, compute_));
}

void CudaRuntime::synchronize() {
  done_.record(compute_);
  wait(done_);
}

void CudaRuntime::wait(cudaEvent_t event) {
  const auto start = Clock::now();
  auto watched = start;
  for (;;) {
    const cudaError_t status = cudaEventQuery(event);
    if (status == cudaSuccess) return;
    if (status != cudaErrorNotReady) cuda_call(status, "waiting for the GPU");
    const auto now = Clock::now();
    if (now - start > kSpin) std::this_thread::sleep_for(kPoll);
    if (watch_ && now - watched > kWatch) {
      watch_(now - start);
      watched = now;
    }
  }
}

double CudaRuntime::time(const std::function<void()>& start) {
  CudaEvent begins(cudaEventDefault), ends(cudaEventDefault);
  begins.record(compute_);
  start();
  ends.record(compute_);
  wait(ends);
  float milliseconds = 0;
  LOCKSTEP_CUDA(cudaEventElapsedTime(&milliseconds, begins, ends));
  return milliseconds * 1e-3;
}

// Some errors stay, whatever is called: an illegal access is one. Waiting for the device meets them again.
void CudaRuntime::recover() {
  if (std::exchange(recording_, false)) {
    cudaGraph_t half_recorded = nullptr;
    if (cudaStreamEndCapture(compute_, &half_recorded) == cudaSuccess) cudaGraphDestroy(half_recorded);
  }
  cudaGetLastError();
  synchronize();
}

void CudaRuntime::begin_range(const char* name) { nvtxRangePushA(name); }
void CudaRuntime::end_range() { nvtxRangePop(); }

void CudaRuntime::begin_recording() {
  LOCKSTEP_CUDA(cudaStreamBeginCapture(compute_, cudaStreamCaptureModeThreadLocal));
  recording_ = true;
}

std::unique_ptr<DeviceRuntime::Recording> CudaRuntime::end_recording() {
  cudaGraph_t recorded = nullptr;
  recording_ = false;  // whether or not it succeeds
  LOCKSTEP_CUDA(cudaStreamEndCapture(compute_, &recorded));
  cudaGraphExec_t graph = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&graph, recorded, 0);
  cudaGraphDestroy(recorded);
  cuda_call(status, "cudaGraphInstantiate");
  return std::make_unique<CudaGraph>(graph, compute_);
}

bool has_cuda() { return true; }

int gpu_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

int64_t gpu_memory() {
  cudaDeviceProp properties{};
  return cudaGetDeviceProperties(&properties, 0) == cudaSuccess
             ? static_cast<int64_t>(properties.totalGlobalMem)
             : 0;
}

std::unique_ptr<DeviceRuntime> make_cuda_runtime(int local_rank) {
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess || count == 0)
    throw Error(Exit::config, "E_NO_GPU",
                fmt::format("device cuda: no GPU to be had here ({})",
                            status == cudaSuccess ? "none is visible" : cudaGetErrorString(status)))
        .hint("device: cpu works here");
  return std::make_unique<CudaRuntime>(local_rank % count);
}

}  // namespace lockstep
