// SPDX-License-Identifier: Apache-2.0
#include "kernels/vendor/cudnn.h"

#include <algorithm>
#include <filesystem>
#include <limits>

#include "kernels/vendor/shared_library.h"
#ifdef LOCKSTEP_HAS_CUBLASLT
#include "kernels/vendor/cublaslt.h"
#endif

namespace lockstep {
namespace {

constexpr int kMostInt = std::numeric_limits<int>::max();

struct Loaded {
  std::unique_ptr<Cudnn> cudnn;
  std::string description;
};

// cuDNN compiles some of its engines when they are first used, with libnvrtc, which it opens by its name: found
// where it is loaded already, else nowhere near pip's wheels, and its engines decline without a word then.
// libnvrtc opens its builtins likewise.
void load_compiler([[maybe_unused]] const std::string& beside) {
#ifdef LOCKSTEP_NVRTC_NAME
  namespace fs = std::filesystem;
  std::string problem;
  // The toolkit's or the wheels' of the build; beside cuDNN, as in CUDA 13's wheels; in CUDA 12's a folder on.
  for (const std::string& folder : {fs::path(LOCKSTEP_NVRTC_LIBRARY).parent_path().string(), beside,
                                    beside + "/../../cuda_nvrtc/lib", std::string()}) {
    std::error_code none;
    if (!folder.empty())
      for (const auto& file : fs::directory_iterator(folder, none))
        if (file.path().filename().string().starts_with("libnvrtc-builtins.so"))
          const SharedLibrary builtins({file.path().c_str()});
    const std::string file = folder.empty() ? LOCKSTEP_NVRTC_NAME : folder + "/" LOCKSTEP_NVRTC_NAME;
    const SharedLibrary nvrtc({file.c_str()});
    if (nvrtc.loaded()) return;
    problem = nvrtc.problem();
  }
  notice_once("cuDNN's run-time compiled engines decline: " + problem);
#endif
}

Loaded load() {
  Loaded l;
  if (!gpu_is_here()) {
    l.description = "no cuDNN: no GPU is here";
    return l;
  }
#ifdef LOCKSTEP_HAS_CUBLASLT
  CublasLt::get();  // which cuDNN needs, and finds when it is there
#endif
  const SharedLibrary library({LOCKSTEP_CUDNN_LIBRARY, LOCKSTEP_CUDNN_NAME});
  if (!library.loaded()) {
    l.description = "no cuDNN: " + library.problem();
    return l;
  }
  load_compiler(library.folder());
  auto cudnn = std::make_unique<Cudnn>();
#define LOCKSTEP_FIND(name)                                                     \
  cudnn->name = reinterpret_cast<decltype(cudnn->name)>(library.symbol(#name)); \
  if (!cudnn->name) {                                                           \
    l.description = "no cuDNN: " LOCKSTEP_CUDNN_NAME " lacks " #name;           \
    return l;                                                                   \
  }
  LOCKSTEP_CUDNN_FUNCTIONS(LOCKSTEP_FIND)
#undef LOCKSTEP_FIND
  cudnn->dlhandle = library.handle();
  const size_t version = cudnn->cudnnGetVersion();
  l.description = fmt::format("cuDNN {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
  l.cudnn = std::move(cudnn);
  return l;
}

const Loaded& loaded() {
  static const Loaded l = load();
  return l;
}

}  // namespace

Cudnn* Cudnn::get() { return loaded().cudnn.get(); }
const std::string& Cudnn::description() { return loaded().description; }

cudnnHandle_t Cudnn::on(void* stream) {
  if (!handle_) LOCKSTEP_CUDNN(*this, cudnnCreate, &handle_);
  if (stream_ != stream) {
    LOCKSTEP_CUDNN(*this, cudnnSetStream, handle_, static_cast<cudaStream_t>(stream));
    stream_ = stream;
  }
  return handle_;
}

void Cudnn::check(cudnnStatus_t status, const char* call) const {
  if (status == CUDNN_STATUS_SUCCESS) return;
  fail(fmt::format("{}: {} ({})", call, cudnnGetErrorString(status), static_cast<int>(status)));
}

void Cudnn::fail(const std::string& what) const {
  throw Error(Exit::internal, "E_CUDNN", what)
      .hint("CUDNN_LOGLEVEL_DBG=2 CUDNN_LOGDEST_DBG=stderr says more");
}

bool fits_cudnn(const TensorSpec& s) {
  return s.layout != Layout::lanes && s.shape.rank() <= 4 && s.shape.elements() <= kMostInt;
}

CudnnDescriptor<cudnnTensorDescriptor_t> cudnn_tensor(Cudnn& cudnn, const TensorSpec& s) {
  cudnnTensorDescriptor_t made = nullptr;
  LOCKSTEP_CUDNN(cudnn, cudnnCreateTensorDescriptor, &made);
  CudnnDescriptor<cudnnTensorDescriptor_t> tensor(made, cudnn.cudnnDestroyTensorDescriptor);
  const auto dim = [&](int i) { return i < s.shape.rank() ? static_cast<int>(s.shape[i]) : 1; };
  LOCKSTEP_CUDNN(cudnn, cudnnSetTensor4dDescriptor, made, cudnn_format(s.layout), cudnn_type(s.dtype),
                 std::max(dim(0), 1), dim(1), dim(2), dim(3));
  return tensor;
}

CudnnDescriptor<cudnnFilterDescriptor_t> cudnn_filter(Cudnn& cudnn, const TensorSpec& s) {
  cudnnFilterDescriptor_t made = nullptr;
  LOCKSTEP_CUDNN(cudnn, cudnnCreateFilterDescriptor, &made);
  CudnnDescriptor<cudnnFilterDescriptor_t> filter(made, cudnn.cudnnDestroyFilterDescriptor);
  const auto dim = [&](int i) { return static_cast<int>(s.shape[i]); };
  LOCKSTEP_CUDNN(cudnn, cudnnSetFilter4dDescriptor, made, cudnn_type(s.dtype), cudnn_format(s.layout), dim(0),
                 dim(1), dim(2), dim(3));
  return filter;
}

}  // namespace lockstep
