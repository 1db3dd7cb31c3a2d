// A case for kernels of one dtype. For bf16 inputs are rounded to it first: a bf16 output is then off by its
// own rounding, 2^-9 of its value, and by the f32 sums' other order.
#pragma once

#include <algorithm>

#include "kernels/core/bf16.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing {

inline bool contains(const std::vector<int>& list, size_t i) {
  return std::find(list.begin(), list.end(), static_cast<int>(i)) != list.end();
}

// Between f32 and bf16.
inline Buffer converted(const Buffer& b, DType to) {
  TensorSpec s = b.spec();
  if (s.dtype == to) return b;
  s.dtype = to;
  Buffer r(s);
  for (int64_t i = 0; i < s.stored_elements(); ++i)
    if (to == DType::bf16)
      r.as<bf16>()[i] = bf16(b.as<float>()[i]);
    else
      r.as<float>()[i] = float(b.as<bf16>()[i]);
  return r;
}

struct TypedCase {
  KernelCase c;
  DType dtype;
  std::vector<int> bf16_in, bf16_out;    // tensors that are bf16
  std::vector<Buffer> inputs, expected;  // plain, with the case's own dtypes; expected: the reference's
  // What output o may differ by.
  double tolerance(size_t o) const {
    return c.tolerance + (dtype == DType::bf16 ? c.bf16_tolerance : 0) + (contains(bf16_out, o) ? 0x1p-8 : 0);
  }
};

inline TypedCase typed_case(const KernelCase& c, DType dtype) {
  TypedCase t{c, dtype, {}, {}, {}, {}};
  const auto tensors = [](const std::optional<std::vector<int>>& named, const std::vector<int>& batch,
                          const std::vector<TensorSpec>& specs) {
    std::vector<int> all = named.value_or(batch);
    std::erase_if(all, [&](int i) { return specs[static_cast<size_t>(i)].dtype != DType::f32; });
    return all;
  };
  if (dtype == DType::bf16)
    t.bf16_in = tensors(c.bf16_in, c.batch_in, c.in), t.bf16_out = tensors(c.bf16_out, c.batch_out, c.out);
  const std::vector<Buffer> plain = make_inputs(c);
  for (size_t i = 0; i < plain.size(); ++i)
    t.inputs.push_back(contains(t.bf16_in, i) ? converted(converted(plain[i], DType::bf16), DType::f32)
                                              : plain[i]);
  t.expected = run_reference(c.op, c.params, t.inputs, c.out);
  return t;
}

}  // namespace lockstep::testing
