// SPDX-License-Identifier: Apache-2.0
#include "runtime/graph/op.h"

#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

const std::map<std::string, OpDef, std::less<>>& table() {
  static const auto ops = [] {
    std::map<std::string, OpDef, std::less<>> all;
    for (const auto& family :
         {attention_ops(), batch_norm_ops(), concat_ops(), conv2d_ops(), diffusion_ops(), elementwise_ops(),
          embedding_ops(), geglu_ops(), group_norm_ops(), layer_norm_ops(), linear_ops(), loss_ops(),
          optimizer_ops(), pool2d_ops(), resample_ops(), scale_shift_ops(), tensor_ops()})
      for (const auto& op : family) all[op.name] = op;
    return all;
  }();
  return ops;
}

}  // namespace

const OpDef& op_def(std::string_view name) {
  const auto it = table().find(name);
  LOCKSTEP_ASSERT(it != table().end(), "no op '{}'", name);
  return it->second;
}

std::vector<std::string> op_names() {
  std::vector<std::string> names;
  for (const auto& [name, op] : table()) names.push_back(name);
  return names;
}

}  // namespace lockstep
