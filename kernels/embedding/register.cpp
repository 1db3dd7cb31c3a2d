// SPDX-License-Identifier: Apache-2.0
#include "kernels/embedding/kernels.h"

namespace lockstep {

void register_embedding(Registry& r) {
  embedding::register_rows(r);
  embedding::register_reference(r);
}

}  // namespace lockstep
