// The kernels of the SIMT executor as device cuda's: run() puts the work on the stream, as a launch does.
#include <vector>

#include "kernels/core/kernel.h"
#include "tests/standins/stream.h"

namespace lockstep {
namespace simt {
void register_rooms(Registry&, Device);
}

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

}  // namespace cuda
}  // namespace lockstep
