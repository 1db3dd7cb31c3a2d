// SPDX-License-Identifier: Apache-2.0
// `lockstep kernels`: the registry.
#include <fmt/format.h>

#include "kernels/core/kernel.h"
#include "kernels/vendor/gpu_libraries.h"
#include "launch/commands/command.h"
#include "runtime/telemetry/say.h"

namespace lockstep {

extern const Command kernels_command;

namespace {

int run_kernels(const Arguments& arguments) {
  namespace po = boost::program_options;
  po::options_description visible("Options"), hidden;
  std::string op;
  visible.add_options()("op", po::value(&op)->value_name("NAME"), "only this op");
  if (!parse_arguments(kernels_command, {"", "lockstep kernels --op conv2d", visible, hidden, {}}, arguments))
    return 0;
  print_out("{:<24} {:<6} {:<6} {:<6} {:<12} {}\n", "op", "device", "dtype", "layout", "name",
            "bits do not depend on");
  bool any = false;
  for (const auto& k : Registry::builtin().all()) {
    if (!op.empty() && k.op != op) continue;
    any = true;
    print_out("{:<24} {:<6} {:<6} {:<6} {:<12} run{}{}\n", k.op, name(k.device), name(k.dtype),
              name(k.layout), k.name, k.bit_exact.threads ? ", threads" : "",
              k.bit_exact.shard ? ", shard" : "");
  }
  if (!any)
    throw Error(Exit::usage, "E_OP", fmt::format("no op '{}'", op)).hint("`lockstep kernels` lists all");
  for (const std::string& library : gpu_library_descriptions()) print_out("{}\n", library);
  return 0;
}

}  // namespace

const Command kernels_command{"kernels", "list the kernels: op, device, dtype, layout, name", run_kernels};

}  // namespace lockstep
