// The kernels of the SIMT executor as device cuda's: run() puts the work on the stream, as a launch does.
#include <vector>

#include "kernels/core/kernel.h"
#define LOCKSTEP_DEVICE cuda
#include "kernels/core/gpu/library_parts.h"
#include "tests/standins/stream.h"

namespace lockstep {
namespace simt {
void register_rooms(Registry&, Device);
void add_bias_and_activate(const View& y, const float* bias, Activation, void* stream);
int64_t bias_grad_workspace_bytes(const TensorSpec& dy);
void bias_grad(const View& dy, float* db, void* workspace, void* stream);
void unpack_weight_grad(const View& from, float* to, void* stream);
void set_to_zero(const View& f32, void* stream);
}  // namespace simt

namespace {

class OnStream final : public Kernel {
 public:
  explicit OnStream(std::unique_ptr<Kernel> kernel) : kernel_(std::move(kernel)) {}
  int64_t workspace_bytes() const override { return kernel_->workspace_bytes(); }
  void run(const KernelArgs& args) override {
    standins::enqueue(args.stream,
                      [this, in = std::vector(args.in.begin(), args.in.end()),
                       out = std::vector(args.out.begin(), args.out.end()), workspace = args.workspace] {
                        kernel_->run({in, out, workspace, nullptr});
                      });
  }

 private:
  std::unique_ptr<Kernel> kernel_;
};

}  // namespace

namespace cuda {

void register_rooms(Registry& r, Device device) {
  Registry simt;
  lockstep::simt::register_rooms(simt, device);
  for (KernelInfo info : simt.all()) {
    info.make = [make = info.make](const KernelRequest& request) -> std::unique_ptr<Kernel> {
      auto kernel = make(request);
      return kernel ? std::make_unique<OnStream>(std::move(kernel)) : nullptr;
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
void unpack_weight_grad(const View& from, float* to, void* stream) {
  standins::enqueue(stream, [=] { simt::unpack_weight_grad(from, to, nullptr); });
}
void set_to_zero(const View& f32, void* stream) {
  standins::enqueue(stream, [=] { simt::set_to_zero(f32, nullptr); });
}

}  // namespace cuda
}  // namespace lockstep
