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

namespace {

void log_digest(const View& parameters) {
  const std::string_view bytes(parameters.as<char>(), static_cast<size_t>(parameters.spec.bytes()));
  standins::log_call("parameters " + std::to_string(std::hash<std::string_view>{}(bytes)));
}

class OnStream final : public Kernel {
 public:
  OnStream(std::unique_ptr<Kernel> kernel, bool updates) : kernel_(std::move(kernel)), updates_(updates) {}
  int64_t workspace_bytes() const override { return kernel_->workspace_bytes(); }
  void run(const KernelArgs& args) override {
    standins::enqueue(args.stream,
                      [this, in = std::vector(args.in.begin(), args.in.end()),
                       out = std::vector(args.out.begin(), args.out.end()), workspace = args.workspace] {
                        kernel_->run({in, out, workspace, nullptr});
                        if (updates_) log_digest(out[0]);
                      });
  }

 private:
  std::unique_ptr<Kernel> kernel_;
  bool updates_;  // parameters
};

}  // namespace

namespace cuda {

void register_rooms(Registry& r, Device device) {
  Registry simt;
  lockstep::simt::register_rooms(simt, device);
  for (KernelInfo info : simt.all()) {
    const bool updates = info.op == "optimizer_step";
    info.make = [make = info.make, updates](const KernelRequest& request) -> std::unique_ptr<Kernel> {
      auto kernel = make(request);
      return kernel ? std::make_unique<OnStream>(std::move(kernel), updates) : nullptr;
    };
    r.add(std::move(info));
  }
}

// Our parts of library kernels.
void add_bias_and_activate(const View& y, const float* bias, Activation activation, void* stream) {
  standins::enqueue(stream, [=] { simt::add_bias_and_activate(y, bias, activation, nullptr); });
}
int64_t bias_grad_workspace_bytes(const TensorSpec& dy) { return simt::bias_grad_workspace_bytes(dy); }
void bias_grad(const View& dy, float* db, void* workspace, void* stream) {
  standins::enqueue(stream, [=] { simt::bias_grad(dy, db, workspace, nullptr); });
}
void unpack_weight_grad(const View& from, float* to, bool add, void* stream) {
  standins::enqueue(stream, [=] { simt::unpack_weight_grad(from, to, add, nullptr); });
}
void set_to_zero(const View& f32, void* stream) {
  standins::enqueue(stream, [=] { simt::set_to_zero(f32, nullptr); });
}

}  // namespace cuda
}  // namespace lockstep
