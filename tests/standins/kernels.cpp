// SPDX-License-Identifier: Apache-2.0
// The kernels of the SIMT executor as device cuda's: run() puts the work on the stream, as a launch does.
// After each optimizer step the log has a digest of the parameters.
#include <string_view>
#include <vector>

#include "kernels/core/kernel.h"
#define LOCKSTEP_DEVICE cuda
#include "kernels/gpu/library_parts.h"
#include "tests/standins/injection.h"
#include "tests/standins/stream.h"

namespace lockstep {
namespace simt {
void register_rooms(Registry&, Device);
void add_bias_and_activate(const View& y, const float* bias, Activation, void* stream);
int64_t bias_grad_workspace_bytes(const TensorSpec& dy);
void bias_grad(const View& dy, float* db, void* workspace, void* stream);
void unpack_weight_grad(const View& from, float* to, bool add, void* stream);
void set_to_zero(const View& f32, void* stream);
}  // namespace simt

using standins::Access;
using standins::enqueue;
using standins::reads;
using standins::real;
using standins::writes;

namespace {

void log_digest(const View& parameters) {
  const std::string_view bytes(parameters.as<char>(), static_cast<size_t>(parameters.spec.bytes()));
  standins::log_call("parameters " + std::to_string(std::hash<std::string_view>{}(bytes)));
}

class OnStream final : public Kernel {
 public:
  OnStream(std::unique_ptr<Kernel> kernel, std::string op) : kernel_(std::move(kernel)), op_(std::move(op)) {}
  int64_t workspace_bytes() const override { return kernel_->workspace_bytes(); }
  void run(const KernelArgs& args) override {
    std::vector<Access> touched = {writes(args.workspace, static_cast<size_t>(workspace_bytes()))};
    std::vector<View> in, out;
    for (const View& v : args.in) touched.push_back(reads(v)), in.push_back(real(v));
    for (const View& v : args.out) touched.push_back(writes(v)), out.push_back(real(v));
    // As a launch does, it takes with it what it needs.
    enqueue(args.stream, op_, std::move(touched),
            [=, kernel = kernel_, updates = op_ == "optimizer_step", workspace = real(args.workspace)] {
              kernel->run({in, out, workspace, nullptr});
              if (updates) log_digest(out[0]);
            });
  }

 private:
  std::shared_ptr<Kernel> kernel_;
  std::string op_;
};

}  // namespace

namespace cuda {

void register_rooms(Registry& r, Device device) {
  Registry simt;
  lockstep::simt::register_rooms(simt, device);
  for (KernelInfo info : simt.all()) {
    info.make = [make = info.make, op = info.op](const KernelRequest& request) -> std::unique_ptr<Kernel> {
      auto kernel = make(request);
      return kernel ? std::make_unique<OnStream>(std::move(kernel), op) : nullptr;
    };
    r.add(std::move(info));
  }
}

// Our parts of library kernels.
void add_bias_and_activate(const View& y, const float* bias, Activation activation, void* stream) {
  const auto channels = static_cast<size_t>(y.spec.shape[1]);
  enqueue(stream, "add_bias_and_activate", {writes(y), reads(bias, bias ? channels * sizeof(float) : 0)},
          [=, v = real(y)] { simt::add_bias_and_activate(v, real(bias), activation, nullptr); });
}
int64_t bias_grad_workspace_bytes(const TensorSpec& dy) { return simt::bias_grad_workspace_bytes(dy); }
void bias_grad(const View& dy, float* db, void* workspace, void* stream) {
  enqueue(stream, "bias_grad",
          {reads(dy), writes(db, static_cast<size_t>(dy.spec.shape[1]) * sizeof(float)),
           writes(workspace, static_cast<size_t>(bias_grad_workspace_bytes(dy.spec)))},
          [=, v = real(dy)] { simt::bias_grad(v, real(db), real(workspace), nullptr); });
}
void unpack_weight_grad(const View& from, float* to, bool add, void* stream) {
  const auto bytes = static_cast<size_t>(from.spec.shape.elements()) * sizeof(float);
  enqueue(stream, "unpack_weight_grad", {reads(from), reads(to, add ? bytes : 0), writes(to, bytes)},
          [=, v = real(from)] { simt::unpack_weight_grad(v, real(to), add, nullptr); });
}
void set_to_zero(const View& f32, void* stream) {
  enqueue(stream, "set_to_zero", {writes(f32)}, [v = real(f32)] { simt::set_to_zero(v, nullptr); });
}

}  // namespace cuda
}  // namespace lockstep
