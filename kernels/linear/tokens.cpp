// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear/tokens.h"

#include <array>
#include <vector>

namespace lockstep {
namespace {

TensorSpec as_rows(TensorSpec s) {
  if (s.shape.rank() == 3) s.shape = {s.shape[0] * s.shape[1], s.shape[2]};
  return s;
}

class OfTokens final : public Kernel {
 public:
  explicit OfTokens(std::unique_ptr<Kernel> rows) : rows_(std::move(rows)) {}
  int64_t workspace_bytes() const override { return rows_->workspace_bytes(); }
  void run(const KernelArgs& args) override {
    std::array<View, 3> in, out;
    LOCKSTEP_ASSERT(args.in.size() <= in.size() && args.out.size() <= out.size());
    for (size_t i = 0; i < args.in.size(); ++i) in[i] = {as_rows(args.in[i].spec), args.in[i].data};
    for (size_t i = 0; i < args.out.size(); ++i) out[i] = {as_rows(args.out[i].spec), args.out[i].data};
    rows_->run({{in.data(), args.in.size()}, {out.data(), args.out.size()}, args.workspace, args.stream});
  }

 private:
  std::unique_ptr<Kernel> rows_;
};

}  // namespace

bool of_tokens(std::string_view op, const KernelRequest& r) {
  const TensorSpec& y = op == "linear" ? r.out[0] : r.in[op == "linear_input_grad" ? 0 : 1];
  return y.shape.rank() == 3;
}

MakeLinear for_tokens_too(std::string_view op, MakeLinear make) {
  return [op = std::string(op), make = std::move(make)](const KernelRequest& r) -> std::unique_ptr<Kernel> {
    if (!of_tokens(op, r)) return make(r);
    std::vector<TensorSpec> in, out;
    for (const TensorSpec& s : r.in) in.push_back(as_rows(s));
    for (const TensorSpec& s : r.out) out.push_back(as_rows(s));
    auto rows = make({r.params, in, out, r.threads});
    return rows ? std::make_unique<OfTokens>(std::move(rows)) : nullptr;
  };
}

}  // namespace lockstep
